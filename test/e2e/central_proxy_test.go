package e2e

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/larder-registry/larder/test/process"
)

// TestCentralAsSecondTier puts two node mirrors before a central registry that
// pulls through: the upstream sends each blob once, whoever asks, and when it is
// down a node that never saw the image has it from central.
func TestCentralAsSecondTier(t *testing.T) {
	up, img := newUpstream(t)
	c := startCentral(t, fmt.Sprintf(`  pull_through: true
registry_proxies:
  max_size: 1GiB
  min_free: 1%%
  registries:
    - {host: %q, insecure: true}
`, up.Host()))
	mirrors := make([]*mirror, 3)
	for i := range mirrors {
		mirrors[i] = startSecondTier(t, up.Host(), c)
	}
	for _, m := range mirrors[:2] {
		pullThroughAll(t, m, up.Host(), img)
	}
	sent, parts := map[string]int64{}, map[string]bool{}
	for _, r := range up.Requests() {
		if !byMirror(r) {
			t.Errorf("%s asked the upstream for %s", r.Header.Get("User-Agent"), r.Path)
		}
		if r.Method == http.MethodGet && strings.Contains(r.Path, "/blobs/") {
			sent[r.Path] += r.Sent
			if part := r.Path + " " + r.Range(); parts[part] {
				t.Errorf("the upstream was asked twice for %s", part)
			} else {
				parts[part] = true
			}
		}
	}
	if n := sent["/v2/"+repo+"/blobs/"+img.layers[0]]; n != bigLayer {
		t.Errorf("the upstream sent %d bytes of a layer of %d", n, bigLayer)
	}
	if len(sent) < len(img.blobs()) { // ctr also fetches other platforms' configs
		t.Errorf("the upstream was asked for %d blobs, want %d and more", len(sent), len(img.blobs()))
	}
	up.Close()
	pullThroughAll(t, mirrors[2], up.Host(), img)

	// Pushed and proxied content do not mix: the same name in central itself
	// is another repository, and what is proxied is in no list.
	if status, _, body := c.do(t, "GET", "/v2/_catalog", nil); status != 200 || strings.Contains(string(body), repo) {
		t.Errorf("the catalog is %d %s", status, body)
	}
	if status, _, _ := c.do(t, "GET", "/v2/team-a/app/blobs/"+img.config, nil); status != 404 {
		t.Errorf("a blob that was pulled through is served as pushed: %d", status)
	}
	if status, _, _ := c.do(t, "POST", "/v2/team-a/app/blobs/uploads/?mount="+img.config+"&from=f/"+up.Host()+"/"+repo, nil); status != 202 {
		t.Errorf("mount of a blob that was pulled through: %d", status)
	}
	if status, _, _ := c.do(t, "POST", "/v2/f/"+up.Host()+"/"+repo+"/blobs/uploads/", nil); status < 400 {
		t.Errorf("a push under another registry's name: %d", status)
	}
	if status, _, _ := c.do(t, "POST", "/v2/"+repo+"/blobs/uploads/?ns="+up.Host(), nil); status < 400 {
		t.Errorf("a push beside another registry's name: %d", status)
	}
	// alice may not pull what bob may, and nobody may without a password.
	if status, _, body := c.do(t, "GET", "/v2/"+repo+"/manifests/"+tag+"?ns="+up.Host(), nil); status != 403 {
		t.Errorf("without the right: %d %s", status, body)
	}
	res, err := c.http.Get("https://" + c.addr + "/v2/" + repo + "/manifests/" + tag + "?ns=" + up.Host())
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != 401 {
		t.Errorf("without a password: %d", res.StatusCode)
	}
}

// startSecondTier starts a node mirror that asks central first, as bob.
func startSecondTier(t *testing.T, upstream string, c *central) *mirror {
	t.Helper()
	m := &mirror{addr: process.Addr(t), admin: process.Addr(t), dir: scratch(t)}
	password := write(t, m.dir, "password", bobPassword+"\n")
	write(t, m.dir, "larder.yaml", fmt.Sprintf(`registry_proxies:
  max_size: 1GiB
  min_free: 1%%
  registries:
    - host: %q
      insecure: true
      endpoints: ["https://%s"]
      ca_file: %s
    - host: %[2]q
      username: %[4]s
      password_file: %[5]s
`, upstream, c.addr, c.ca, bob, password))
	m.start(t)
	return m
}

// pullThroughAll asks a mirror for all of an image as containerd does, and
// checks every byte by its digest.
func pullThroughAll(t *testing.T, m *mirror, upstream string, img image) {
	t.Helper()
	n := containerd{name: "second tier"}.fresh(t, target{mirror: m.addr, upstream: upstream, repo: repo, tag: tag})
	ctx, cancel := context.WithTimeout(t.Context(), pullPatience)
	defer cancel()
	if err := n.pull(ctx); err != nil {
		t.Fatalf("%v\nthe mirror said last:\n%s", err, m.Tail())
	}
	n.check(t, img)
}
