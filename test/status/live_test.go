package status

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/internal/status"
	"github.com/larder-registry/larder/test/process"
	"github.com/larder-registry/larder/test/registry"
)

var binary = flag.String("larder", "", "larder's `FILE`; without one it is built")

// larderFile is the binary that is looked at.
func larderFile(t *testing.T) string {
	t.Helper()
	if *binary != "" {
		return *binary
	}
	file, err := process.Build(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// node is a running mirror before an upstream.
type node struct {
	larder, addr, admin string
	up                  *registry.Server
}

func startNode(t *testing.T) *node {
	t.Helper()
	n := &node{larder: larderFile(t), addr: process.Addr(t), admin: process.Addr(t), up: registry.Start(t, registry.Options{})}
	dir := t.TempDir()
	config := filepath.Join(dir, "larder.yaml")
	text := fmt.Sprintf("registry_proxies: {max_size: 1GiB, min_free: '0', prefetch_wait: 0s, pin: ['%s/library/*:*'], registries: [{host: %q, insecure: true}]}\n", n.up.Host(), n.up.Host())
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	p := process.Spawn(t, dir, nil, n.larder, "mirror", "--config", config, "--data-dir", filepath.Join(dir, "data"), "--listen", n.addr, "--admin-listen", n.admin)
	p.Await(t, "the mirror", process.Answers("http://"+n.admin+"/readyz"))
	return n
}

// get asks the mirror as containerd does, and returns the status and the body.
func (n *node) get(ctx context.Context, repository, what string) (int, []byte, error) {
	u := url.URL{Scheme: "http", Host: n.addr, Path: "/v2/" + repository + "/" + what, RawQuery: url.Values{"ns": {n.up.Host()}}.Encode()}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return 0, nil, err
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, body, err
}

// run runs larder and returns its output.
func (n *node) run(t *testing.T, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, n.larder, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("larder %v: %v\n%s", args, err, out)
	}
	return string(out)
}

// TestAPageThatIsWatched follows a pull on the page of a real mirror, without
// loading it anew: nothing, a blob on its way, the image, and an upstream that is
// gone.
func TestAPageThatIsWatched(t *testing.T) {
	n := startNode(t)
	const repository = "library/app"
	layer := registry.NewLayer(7, 24<<20)
	image := n.up.AddImage(repository, "v1", layer)
	midway := registry.NewGate()
	t.Cleanup(midway.Open)
	n.up.Set(registry.Fault{On: registry.Blobs, Match: func(r registry.Request) bool { return strings.HasSuffix(r.Path, image.Layers[0].Digest.String()) }, Gate: midway, At: 1 << 20})

	tb := open(t, browser(t), "http://"+n.admin+"/status", screens()[0])
	const text = `document.getElementById("%s").innerText`
	says := func(part, what string) {
		t.Helper()
		tb.until(t, fmt.Sprintf(text+`.includes(%q)`, part, what))
	}
	says("images", "None yet")
	says("fills", "Nothing")
	eval[bool](t, tb, `window.loadedOnce = true`)

	type answer struct {
		status int
		dgst   digest.Digest
		err    error
	}
	pulled := make(chan answer, 1)
	// Ends with the pull, which the gate holds up.
	go func() {
		var a answer
		for _, what := range []string{"manifests/v1", "blobs/" + image.Config.Digest.String(), "blobs/" + image.Layers[0].Digest.String()} {
			var body []byte
			if a.status, body, a.err = n.get(t.Context(), repository, what); a.err != nil || a.status != http.StatusOK {
				break
			}
			a.dgst = digest.FromBytes(body)
		}
		pulled <- a
	}()
	<-midway.Reached()
	says("fills", repository)
	says("fills", "of 24.0 MiB")
	tb.until(t, `[...document.querySelectorAll("#fills progress")].some(p => p.value > 0 && p.value < p.max)`)
	says("images", "in part")
	tb.shoot(t, "live-fetching", 0)
	if out := n.run(t, "status", "--admin", n.admin); !strings.Contains(out, "FETCHING") || !strings.Contains(out, repository+" "+status.ShortDigest(image.Layers[0].Digest.String())) {
		t.Errorf("larder status says\n%s", out)
	}
	midway.Open()
	if a := <-pulled; a.err != nil || a.status != http.StatusOK || a.dgst != image.Layers[0].Digest {
		t.Fatalf("the pull came to %+v", a)
	}
	says("fills", "Nothing")
	says("images", repository+":v1")
	says("images", "pinned")
	tb.until(t, `!document.getElementById("images").innerText.includes("in part")`)

	n.up.Stop()
	for range 4 {
		if status, _, err := n.get(t.Context(), repository, "manifests/v2"); err != nil || status == http.StatusOK {
			t.Fatalf("%d, %v", status, err)
		}
	}
	// The pause is over in seconds, perhaps before anybody looks.
	tb.until(t, `/left alone|to be tried again/.test(document.getElementById("upstreams").innerText)`)
	says("errors", "leaving it alone")
	tb.shoot(t, "live-broken", 0)
	if !eval[bool](t, tb, `window.loadedOnce === true`) {
		t.Error("the page was loaded anew")
	}
	if bad := tb.complaints(); len(bad) > 0 {
		t.Errorf("the browser complains:\n%s", lines(bad))
	}

	// The same for terminals.
	var doc status.Document
	if err := json.Unmarshal([]byte(n.run(t, "status", "--admin", n.admin, "--output", "json")), &doc); err != nil {
		t.Fatal(err)
	}
	if doc.Images.Total != 1 || doc.Images.Items[0].Tag != "v1" || !doc.Images.Items[0].Pinned || doc.Images.Items[0].Partial || doc.Images.Items[0].Size < 24<<20 ||
		len(doc.Images.Items[0].Platforms) != 1 || doc.Upstreams.Items[0].Breaker == "closed" || doc.Upstreams.Items[0].Reason == "" || doc.Errors.Total == 0 {
		t.Errorf("%+v %+v %+v", doc.Images, doc.Upstreams, doc.Errors)
	}
	if out := n.run(t, "status", "--admin", n.admin); !strings.Contains(out, repository+":v1") || !strings.Contains(out, "left alone for") && !strings.Contains(out, "to be tried again") || !strings.Contains(out, "LAST ERRORS") {
		t.Errorf("larder status says\n%s", out)
	}
}

// TestTheFormFindsImages uses the page's form, with and without JavaScript.
func TestTheFormFindsImages(t *testing.T) {
	images := many()
	at := serve(t, func(v status.View) *status.Document {
		d := busy()
		d.Images = status.Select(images, v)
		return d
	})
	in := browser(t)
	for _, s := range []screen{screens()[0], screens()[4]} {
		tb := open(t, in, at+"/status?find=service-123&sort=size&limit=25", s)
		if html := outer(t, tb); strings.Count(html, "service-123:") != 20 || !strings.Contains(html, `value="service-123"`) || strings.Contains(html, "service-124") {
			t.Errorf("%s: %d images are found", s.name, strings.Count(html, "service-123:"))
		}
	}
	tb := open(t, in, at+"/status", screens()[2])
	tb.until(t, `document.getElementById("live").textContent === "live"`)
	eval[bool](t, tb, `(() => { document.querySelector("[name=find]").value = "service-077"; document.querySelector("form button").click(); return true; })()`)
	tb.until(t, `location.search.includes("find=service-077") && document.getElementById("images").innerText.includes("service-077") && !document.getElementById("images").innerText.includes("service-078")`)
	if bad := tb.complaints(); len(bad) > 0 {
		t.Errorf("the browser complains:\n%s", lines(bad))
	}
}
