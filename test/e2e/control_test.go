package e2e

import (
	"context"
	"net/http"
	"runtime"
	"testing"

	"github.com/larder-registry/larder/test/process"
	"github.com/larder-registry/larder/test/registry"
)

// lossTries bounds how often a client that may lose a pull is watched until it
// does. Which chunk of a layer is being asked for when the registry dies is a
// matter of moments, so such a client gets away with it now and then.
const lossTries = 20

// TestPlainRegistryDies is the control for the fault "killed": in the mirror's
// place there is a plain registry, which holds the image and dies in the middle
// of a layer. A client that loses its pull here loses it to any mirror; one
// that stops doing so has learnt to go on, and its row in docs/clients.md has to
// be written anew.
func TestPlainRegistryDies(t *testing.T) {
	for _, c := range clients() {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if c.tries == 1 {
				if err := pullFromDying(t, c); err != nil {
					t.Errorf("the client did not go on at the upstream: %v", err)
				}
				return
			}
			for range lossTries {
				if pullFromDying(t, c) != nil {
					return
				}
			}
			t.Errorf("the client went on %d times when a registry died in the middle of a layer", lossTries)
		})
	}
}

// pullFromDying pulls on a fresh node from a plain registry that dies in the
// middle of the big layer, and returns what became of the pull.
func pullFromDying(t *testing.T, c client) error {
	t.Helper()
	up, img := newUpstream(t)
	plain := plainMirror(t)
	n := c.fresh(t, target{mirror: plain.Host(), upstream: up.Host(), repo: repo, tag: tag})
	plain.Set(registry.Fault{
		On: registry.Blobs, Method: http.MethodGet, Stall: true, At: stallAt,
		Match: func(r registry.Request) bool { return r.Target == img.layers[0] },
	})
	done := begin(t, n)
	process.Await(t, "the client to be in the middle of a layer", func(context.Context) error { return written(n.dir(), halfway) })
	plain.Stop()
	return <-done
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
