package faults

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/larder-registry/larder/test/registry"
)

// TestHead asks for heads only, of what is held and of what is not.
func TestHead(t *testing.T) {
	t.Parallel()
	up := newUpstream(t, registry.Options{})
	l := startLarder(t, settings{servers: []*registry.Server{up.Server}})
	for _, held := range []bool{false, true} {
		up.Forget()
		for _, a := range []ask{blobAsk(up), digestAsk(up), tagAsk(up)} {
			a.method = http.MethodHead
			if s := l.get(t, a); s.word != right {
				t.Errorf("HEAD %s (held: %v): %v", a.path(), held, s)
			}
			a.method = http.MethodGet
			l.mustGet(t, right, a)
			l.awaitFile(t, a.blob.Digest)
		}
		if n := up.Count(registry.Blobs); held && n > 0 {
			t.Errorf("a blob that is held was asked for %d times", n)
		}
	}
}

// TestPrivateRepository pulls without credentials what wants some: the client
// is asked for them at once, or told to go elsewhere.
func TestPrivateRepository(t *testing.T) {
	for name, opts := range map[string]registry.Options{
		"tokens": {Users: map[string]string{user: password}, Tokens: true},
		"basic":  {Users: map[string]string{user: password}, Basic: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			up := newUpstream(t, opts)
			l := startLarder(t, settings{servers: []*registry.Server{up.Server}})
			for _, a := range []ask{tagAsk(up), digestAsk(up), blobAsk(up)} {
				s := l.mustGet(t, "401", a)
				if got, want := s.header.Get("WWW-Authenticate"), fmt.Sprintf("Basic realm=%q", up.Host()); got != want {
					t.Errorf("%s: WWW-Authenticate is %q, want %q", a.path(), got, want)
				}
			}
			if n := up.Count(); n > 9 {
				t.Errorf("%d upstream requests:%s", n, list(up.Requests()))
			}
		})
	}
}

// TestNextEndpoint has an endpoint in front of the registry that fails in the
// middle of a blob, then altogether: the registry itself does the rest.
func TestNextEndpoint(t *testing.T) {
	t.Parallel()
	up := newUpstream(t, registry.Options{})
	front := newUpstream(t, registry.Options{})
	l := startLarder(t, settings{
		servers: []*registry.Server{up.Server},
		entry:   []string{fmt.Sprintf("endpoints: [%q]", front.URL()+"/v2")},
	})
	const cut = layerSize / 3
	front.Set(registry.Fault{On: registry.Blobs, Cut: true, At: cut, Times: 1})
	l.mustGet(t, right, tagAsk(up))
	l.mustGet(t, right, blobAsk(up))
	layer := blobAsk(up).blob.Digest
	if n := front.Sent(layer); n != cut {
		t.Errorf("the endpoint in front sent %d bytes, want %d", n, cut)
	}
	if n := up.Sent(layer); n != layerSize-cut {
		t.Errorf("the registry sent %d bytes, want %d", n, layerSize-cut)
	}
	front.Stop()
	other := up.AddImage("other", tag, registry.NewLayer(2, layerSize))
	l.mustGet(t, right, ask{server: up.Server, repo: "other", kind: registry.Manifests, tag: tag, blob: other.Blob})
	l.mustGet(t, right, ask{server: up.Server, repo: "other", kind: registry.Blobs, blob: other.Layers[0]})
}
