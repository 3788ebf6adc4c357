package e2e

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/larder-registry/larder/test/process"
)

// TestPrivateImages is the leak test: containerd pulls through CRI as a kubelet
// has it pull, with a pod's pull secret and without one, and what the mirror
// holds never reaches who may not have it (KEP-2535 is the kubelet's half of
// that).
func TestPrivateImages(t *testing.T) {
	rows := []struct {
		kind   containerd
		tokens bool
		quick  bool
	}{
		{containerd{name: "containerd-1.6", old: true, byCRI: true}, false, true},
		{containerd{name: "containerd-1.6", old: true, byCRI: true}, true, false},
		{containerd{name: "containerd-2", byCRI: true}, false, false},
		{containerd{name: "containerd-2", byCRI: true}, true, true},
		{containerd{name: "containerd-2-local", byCRI: true, local: true}, false, false},
		{containerd{name: "containerd-2-local", byCRI: true, local: true}, true, false},
	}
	for _, row := range rows {
		if !row.quick && !*fullFlag {
			continue
		}
		how := "htpasswd"
		if row.tokens {
			how = "tokens"
		}
		t.Run(row.kind.name+"/"+how, func(t *testing.T) {
			t.Parallel()
			l := &leakTest{kind: row.kind}
			l.upstream, l.img = startPrivateRegistry(t, process.Addr(t), row.tokens)
			l.mirror = startMirror(t, l.upstream.addr, shortProofs)
			l.run(t)
		})
	}
}

// leakTest is one kind of node in front of one kind of registry.
type leakTest struct {
	kind     containerd
	upstream *privateRegistry
	mirror   *mirror
	img      image
	said     strings.Builder // every error body the mirror sent
}

// secret is a pull secret as the kubelet hands it on: for whichever host wants
// it.
func secret(password string) *cri.AuthConfig {
	return &cri.AuthConfig{Username: holder, Password: password}
}

func (l *leakTest) run(t *testing.T) {
	outsider := l.node(t)
	l.mustNotPull(t, outsider, "cold, without a secret", nil)
	l.mustPull(t, "cold", secret(holderSecret))
	l.mustPull(t, "warm", secret(holderSecret))
	l.checkServed(t)
	l.mustNotPull(t, outsider, "cached, without a secret", nil)
	l.mustNotPull(t, outsider, "cached, with a wrong secret", secret(wrongSecret))
	l.waysAround(t, "cached")

	l.upstream.Kill()
	l.mustPull(t, "outage", secret(holderSecret))
	l.mustNotPull(t, outsider, "outage, without a secret", nil)
	l.mustNotPull(t, outsider, "outage, with a wrong secret", secret(wrongSecret))
	l.waysAround(t, "outage")

	l.mirror.Stop(t)
	l.mirror.start(t)
	// Nobody has proved anything to this process, and nobody can.
	l.mustNotPull(t, outsider, "restarted in the outage, with the secret", secret(holderSecret))
	l.mustNotPull(t, outsider, "restarted in the outage, without a secret", nil)
	l.waysAround(t, "restarted in the outage")

	l.upstream.start(t)
	l.mirror.Kill()
	l.mirror.start(t)
	l.mustNotPull(t, outsider, "killed and restarted, without a secret", nil)
	l.waysAround(t, "killed and restarted")
	l.mustPull(t, "killed and restarted", secret(holderSecret))
	if _, others := l.upstream.served(); len(others) > 0 {
		t.Errorf("the registry sent content to nodes:\n%s", strings.Join(others, "\n"))
	}

	l.upstream.change(t)
	changed := time.Now()
	process.Await(t, "the old secret to be refused", func(context.Context) error {
		status := l.ask(t, "/v2/"+repo+"/blobs/"+l.img.layers[0]+"?ns="+l.upstream.addr, secret(holderSecret))
		if status == http.StatusUnauthorized {
			return nil
		}
		return fmt.Errorf("after %v the answer is %d", time.Since(changed), status)
	})
	l.mustNotPull(t, outsider, "with the old secret", secret(holderSecret))
	l.mustPull(t, "with the new secret", secret(changedSecret))
	l.checkSecrets(t)
}

// checkServed makes sure that what the nodes pulled came by way of the mirror.
func (l *leakTest) checkServed(t *testing.T) {
	t.Helper()
	mirror, others := l.upstream.served()
	if len(mirror) == 0 || len(others) > 0 {
		t.Errorf("the registry sent content to the mirror %d times, and to others:\n%s", len(mirror), strings.Join(others, "\n"))
	}
}

// node starts a containerd that holds nothing.
func (l *leakTest) node(t *testing.T) *containerdNode {
	t.Helper()
	n, ok := l.kind.fresh(t, target{mirror: l.mirror.addr, upstream: l.upstream.addr, repo: repo, tag: tag}).(*containerdNode)
	if !ok {
		t.Fatal("containerd's rows start a containerd")
	}
	return n
}

// pullImage asks containerd for an image the way the kubelet does.
func (n *containerdNode) pullImage(ctx context.Context, ref string, auth *cri.AuthConfig) error {
	_, err := cri.NewImageServiceClient(n.conn).PullImage(ctx, &cri.PullImageRequest{Image: &cri.ImageSpec{Image: ref}, Auth: auth})
	return err
}

// mustPull pulls on a node that holds nothing, and checks every byte.
func (l *leakTest) mustPull(t *testing.T, when string, auth *cri.AuthConfig) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), pullPatience)
	defer cancel()
	n := l.node(t)
	if err := n.pullImage(ctx, n.ref, auth); err != nil {
		t.Fatalf("%s: %v\nthe mirror said last:\n%s", when, err, l.mirror.Tail())
	}
	n.check(t, l.img)
}

// mustNotPull tries by tag and by digest, and makes sure that nothing of the
// image reached the node.
func (l *leakTest) mustNotPull(t *testing.T, n *containerdNode, when string, auth *cri.AuthConfig) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), pullPatience)
	defer cancel()
	name := l.upstream.addr + "/" + repo
	other := l.upstream.addr + "/other/name"
	for _, ref := range []string{n.ref, name + "@" + l.img.index, name + "@" + l.img.manifest, other + "@" + l.img.manifest, other + ":" + tag} {
		if err := n.pullImage(ctx, ref, auth); err == nil {
			t.Errorf("%s: %s was pulled", when, ref)
		}
	}
	for _, dgst := range l.img.all() {
		path := filepath.Join(n.home, "root/io.containerd.content.v1.content/blobs/sha256", strings.TrimPrefix(dgst, "sha256:"))
		if _, err := os.Stat(path); err == nil {
			t.Errorf("%s: the node holds %s", when, dgst)
		}
	}
}

// ask asks the mirror for something and gives the status; error bodies are kept.
func (l *leakTest) ask(t *testing.T, path string, auth *cri.AuthConfig) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+l.mirror.addr+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if auth != nil {
		req.SetBasicAuth(auth.Username, auth.Password)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode > 299 {
		if _, err := io.Copy(&l.said, resp.Body); err != nil {
			t.Error(err)
		}
		fmt.Fprintln(&l.said, resp.Header)
	}
	return resp.StatusCode
}

// waysAround asks for every object by every path that might lead to it.
func (l *leakTest) waysAround(t *testing.T, when string) {
	t.Helper()
	for _, auth := range []*cri.AuthConfig{nil, secret(wrongSecret)} {
		for _, name := range []string{repo, "other/name"} {
			for _, dgst := range l.img.all() {
				for _, path := range []string{
					"/v2/" + name + "/blobs/" + dgst + "?ns=" + l.upstream.addr,
					"/v2/" + name + "/manifests/" + dgst + "?ns=" + l.upstream.addr,
					"/v2/f/" + l.upstream.addr + "/" + name + "/blobs/" + dgst,
					"/v2/f/" + l.upstream.addr + "/" + name + "/manifests/" + dgst,
					"/v2/f/" + pathName + "/" + name + "/blobs/" + dgst,
					"/v2/" + name + "/blobs/" + dgst + "?ns=" + pathName,
				} {
					if status := l.ask(t, path, auth); status < 400 {
						t.Errorf("%s: GET %s: status %d", when, path, status)
					}
				}
			}
		}
		for _, path := range []string{"/manifests/" + tag, "/tags/list", "/referrers/" + l.img.manifest} {
			if status := l.ask(t, "/v2/f/"+l.upstream.addr+"/"+repo+path, auth); status < 400 {
				t.Errorf("%s: GET %s: status %d", when, path, status)
			}
		}
	}
}

// checkSecrets looks for every secret of the run in everything the mirror wrote
// and said.
func (l *leakTest) checkSecrets(t *testing.T) {
	t.Helper()
	metrics := l.metrics(t)
	if !strings.Contains(metrics, "larder_private_denied_total{") {
		t.Error("larder_private_denied_total is not there")
	}
	l.mirror.Stop(t)
	secrets := append([]string{"MARKER", "Authorization"}, l.upstream.handedOut()...)
	for _, password := range []string{holderSecret, changedSecret, wrongSecret} {
		secrets = append(secrets, base64.StdEncoding.EncodeToString([]byte(holder+":"+password)))
	}
	places := map[string]string{"metrics": metrics, "error bodies": l.said.String()}
	// Logs of all its lives, and the data directory.
	err := filepath.WalkDir(l.mirror.dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		content, err := os.ReadFile(path)
		places[path] = string(content)
		return err
	})
	if err != nil {
		t.Error(err)
	}
	for where, text := range places {
		for _, s := range secrets {
			if strings.Contains(text, s) {
				t.Errorf("%s holds a secret", where)
			}
		}
	}
}

func (l *leakTest) metrics(t *testing.T) string {
	t.Helper()
	resp, err := http.Get("http://" + l.mirror.admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}
