package e2e

import (
	"context"
	"net/http"
	"runtime"
	"testing"

	"github.com/larder-registry/larder/test/registry"
)

// TestPlainRegistryDies is the control for the fault "killed": in the mirror's
// place there is a plain registry, which holds the image and dies in the middle
// of a layer. A client that loses its pull here loses it to any mirror; one
// that stops doing so has learnt to go on, and its row in docs/clients.md has to
// be written anew.
func TestPlainRegistryDies(t *testing.T) {
	for _, c := range clients() {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			up, img := newUpstream(t)
			plain := plainMirror(t)
			n := c.fresh(t, target{mirror: plain.Host(), upstream: up.Host(), repo: repo, tag: tag})
			plain.Set(registry.Fault{
				On: registry.Blobs, Method: http.MethodGet, Stall: true, At: stallAt,
				Match: func(r registry.Request) bool { return r.Target == img.layers[0] },
			})
			done := begin(t, n)
			await(t, "the client to be in the middle of a layer", func(context.Context) error { return written(n.dir(), halfway) })
			plain.Stop()
			survives := c.tries == 1
			switch err := <-done; {
			case survives && err != nil:
				t.Errorf("the client did not go on at the upstream: %v", err)
			case !survives && err == nil:
				t.Error("the client goes on when a registry dies in the middle of a layer")
			}
		})
	}
}

// plainMirror holds the image of newUpstream under the names by which clients
// ask a mirror for it.
func plainMirror(t *testing.T) *registry.Server {
	t.Helper()
	srv := registry.Start(t, registry.Options{})
	for _, name := range []string{repo, "f/" + pathName + "/" + repo} {
		own := srv.AddPlatform(name, "", runtime.GOARCH,
			registry.NewLayer(1, bigLayer), registry.NewLayer(2, 100<<10), registry.NewLayer(3, 4<<10))
		other := srv.AddPlatform(name, "", "riscv64", registry.NewLayer(4, 50<<10))
		srv.AddIndex(name, tag, own, other)
	}
	return srv
}
