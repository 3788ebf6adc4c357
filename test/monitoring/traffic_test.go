package monitoring

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/larder-registry/larder/test/process"
	"github.com/larder-registry/larder/test/registry"
)

// ask sends one request for content to a mirror, as containerd names it.
func (w *world) ask(t *testing.T, l *larder, host, path string, login ...string) (status int, body string) {
	t.Helper()
	header := http.Header{}
	if len(login) == 2 {
		req := http.Request{Header: header}
		req.SetBasicAuth(login[0], login[1])
	}
	status, _, body = do(t, http.MethodGet, "http://"+l.addr+"/v2/"+path+"?ns="+url.QueryEscape(host), header, nil)
	return status, body
}

// pull asks for an image as a client does: by tag, then its blobs.
func (w *world) pull(t *testing.T, l *larder, host, repo, tag string, img registry.Image, login ...string) {
	t.Helper()
	if status, _ := w.ask(t, l, host, repo+"/manifests/"+tag, login...); status != http.StatusOK {
		t.Errorf("%s/%s:%s: status %d", host, repo, tag, status)
	}
	for _, b := range img.Blobs() {
		if status, _ := w.ask(t, l, host, repo+"/blobs/"+b.Digest.String(), login...); status != http.StatusOK {
			t.Errorf("%s/%s: blob: status %d", host, repo, status)
		}
	}
}

// round has everything happen once. n tells rounds apart.
func (w *world) round(t *testing.T, n uint64) {
	t.Helper()
	name := fmt.Sprintf("round%d", n)
	// fill and hit, from a registry with a rate limit, too.
	img := w.open.AddImage("app", name, registry.NewLayer(10*n, 100<<10))
	w.pull(t, w.mirror, w.open.Host(), "app", name, img)
	w.pull(t, w.mirror, w.open.Host(), "app", name, img)
	w.pull(t, w.mirror, w.metered, "app", name, img)
	w.pull(t, w.full, w.open.Host(), "app", name, img) // passes through
	// What is denied, and what is not there.
	w.open.AddImage("denied", name)
	w.ask(t, w.mirror, w.open.Host(), "denied/manifests/"+name)
	w.ask(t, w.mirror, w.open.Host(), "app/manifests/nothing")
	do(t, http.MethodGet, "http://"+w.mirror.addr+"/v2/", nil, nil)
	// An image of which only the manifest is taken.
	w.open.AddImage("bypassed", name, registry.NewLayer(10*n+1, 1<<10))
	w.ask(t, w.mirror, w.open.Host(), "bypassed/manifests/"+name)
	// Wrong bytes.
	bad := w.open.AddBlob("app", "application/octet-stream", registry.Random(10*n+2, 50<<10))
	w.open.Set(registry.Fault{On: registry.Blobs, Match: func(r registry.Request) bool { return strings.Contains(r.Path, bad.Digest.String()) }, Flip: true, At: 100})
	w.ask(t, w.mirror, w.open.Host(), "app/blobs/"+bad.Digest.String())
	w.open.Set()
	// More than there is room for.
	for i := range uint64(25) {
		b := w.open.AddBlob("large", "application/octet-stream", registry.Random(1000*n+i, 200<<10))
		w.ask(t, w.mirror, w.open.Host(), "large/blobs/"+b.Digest.String())
	}
	w.privately(t, name, n)
	w.join(t, n)
	w.stale(t, name, n)
	w.push(t, name)
	w.review(t)
}

// privately asks for a private image without and with credentials, right ones
// and wrong ones.
func (w *world) privately(t *testing.T, name string, n uint64) {
	t.Helper()
	img := w.private.AddImage("vault", name, registry.NewLayer(10*n+3, 10<<10))
	host, path := w.private.Host(), "vault/manifests/"+name
	w.ask(t, w.mirror, host, path)
	w.pull(t, w.mirror, host, "vault", name, img, puller, secret)
	// More than one in ten seconds of the ten minutes that the alert looks at.
	for range 150 {
		w.ask(t, w.mirror, host, path, puller, "wrong")
	}
}

// stale pulls a tag, and again while its registry is down.
func (w *world) stale(t *testing.T, name string, n uint64) {
	t.Helper()
	w.broken.Set()
	img := w.broken.AddImage("app", name, registry.NewLayer(10*n+4, 10<<10))
	process.Await(t, "the breaker to let something through", func(context.Context) error {
		if status, _ := w.ask(t, w.mirror, w.broken.Host(), "app/manifests/"+name); status != http.StatusOK {
			return fmt.Errorf("status %d", status)
		}
		return nil
	})
	w.pull(t, w.mirror, w.broken.Host(), "app", name, img)
	w.broken.Set(registry.Fault{Status: http.StatusInternalServerError})
	for range 5 {
		if status, _ := w.ask(t, w.mirror, w.broken.Host(), "app/manifests/"+name); status != http.StatusOK {
			t.Errorf("stale: status %d", status)
		}
		w.ask(t, w.mirror, w.broken.Host(), "app/manifests/never-seen")
	}
}

// push pushes an image to the registry and pulls it, tries wrong passwords, and
// has garbage collected: the tag of the round before.
func (w *world) push(t *testing.T, name string) {
	t.Helper()
	right, wrong := http.Header{}, http.Header{}
	(&http.Request{Header: right}).SetBasicAuth(user, password)
	(&http.Request{Header: wrong}).SetBasicAuth(user, "wrong")
	base := "http://" + w.central.addr + "/v2/team/app/"
	blob := func(content string) string {
		sum := sha256.Sum256([]byte(content))
		dgst := "sha256:" + hex.EncodeToString(sum[:])
		if status, _, body := do(t, http.MethodPost, base+"blobs/uploads/?digest="+dgst, right, strings.NewReader(content)); status != http.StatusCreated {
			t.Errorf("push blob: %d %s", status, body)
		}
		return fmt.Sprintf(`{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"%s","size":%d}`, dgst, len(content))
	}
	manifest := `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":` + blob(`{"round":"`+name+`"}`) + `,"layers":[]}`
	typed := right.Clone()
	typed.Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
	if status, _, body := do(t, http.MethodPut, base+"manifests/"+name, typed, strings.NewReader(manifest)); status != http.StatusCreated {
		t.Errorf("push image manifest: %d %s", status, body)
	}
	if status, _, body := do(t, http.MethodGet, base+"manifests/"+name, right, nil); status != http.StatusOK || body != manifest {
		t.Errorf("pull: %d %s", status, body)
	}
	// More than one in ten seconds of the ten minutes that the alert looks at.
	for range 150 {
		do(t, http.MethodGet, base+"tags/list", wrong, nil)
	}
	gc := exec.CommandContext(t.Context(), *larderFlag, "central", "gc", "--data-dir", filepath.Join(w.central.dir, "data"))
	if out, err := gc.CombinedOutput(); err != nil {
		t.Errorf("collect garbage: %v\n%s", err, out)
	}
}

// review asks both webhooks, and sends one what is no review.
func (w *world) review(t *testing.T) {
	t.Helper()
	const pod = `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u-1",
		"kind":{"group":"","version":"v1","kind":"Pod"},"resource":{"group":"","version":"v1","resource":"pods"},"namespace":"team","operation":"CREATE",
		"object":{"spec":{"containers":[{"name":"c","image":"quay.io/x/y"}]}}}}`
	for _, l := range w.webhooks {
		for body, want := range map[string]int{pod: http.StatusOK, "{}": http.StatusBadRequest} {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+l.addr+"/validate-image", strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Content-Type", "application/json")
			if status, _, answer := send(t, w.reviewer, req); status != want {
				t.Errorf("review: %d %s", status, answer)
			}
		}
	}
}

// spoil breaks what the first webhook reads.
func (w *world) spoil(t *testing.T, dir string) {
	t.Helper()
	write(t, w.webhooks[0].dir, "larder.yaml", "image_validation: {default: Perhaps}\n")
	write(t, dir, "tls.crt", "this is none")
}

// join has three readers of one download.
func (w *world) join(t *testing.T, n uint64) {
	t.Helper()
	gate := registry.NewGate()
	readers := w.readers(t, t.Context(), 10*n+5, registry.Fault{Gate: gate, At: 200 << 10})
	gate.Open()
	readers.Wait()
	w.open.Set()
}

// hold has a download with three readers go on, slowly, until the test ends.
func (w *world) hold(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	readers := w.readers(t, ctx, 7, registry.Fault{Rate: 300})
	t.Cleanup(func() {
		cancel()
		readers.Wait()
	})
}

// readers has three clients read a blob that the upstream does not send at once.
// They end with the blob, or with ctx.
func (w *world) readers(t *testing.T, ctx context.Context, seed uint64, slow registry.Fault) *sync.WaitGroup {
	t.Helper()
	readers := &sync.WaitGroup{}
	b := w.open.AddBlob("slow", "application/octet-stream", registry.Random(seed, 300<<10))
	slow.On, slow.Match = registry.Blobs, func(r registry.Request) bool { return strings.Contains(r.Path, b.Digest.String()) }
	w.open.Set(slow)
	target := "http://" + w.mirror.addr + "/v2/slow/blobs/" + b.Digest.String() + "?ns=" + url.QueryEscape(w.open.Host())
	for range 3 {
		readers.Go(func() {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
			if err != nil {
				return
			}
			if resp, err := http.DefaultClient.Do(req); err == nil {
				_, _ = io.Copy(io.Discard, resp.Body) // it ends with ctx, too
				resp.Body.Close()
			}
		})
	}
	process.Await(t, "three readers of a download", func(context.Context) error {
		if page := w.mirror.metrics(t); !strings.Contains(page, "larder_followers 3\n") || !strings.Contains(page, "larder_fills_in_flight 1\n") {
			return errors.New("there are none")
		}
		return nil
	})
	return readers
}
