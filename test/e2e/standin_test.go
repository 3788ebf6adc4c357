package e2e

import (
	"net"
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/larder-registry/larder/test/registry"
)

// standIn answers at an address of its own in place of a mirror that is ill.
type standIn struct {
	addr  string
	asked chan struct{} // closed at the first request
	count atomic.Int64
	srv   *http.Server
}

func newStandIn(t *testing.T, answer http.HandlerFunc) *standIn {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &standIn{addr: l.Addr().String(), asked: make(chan struct{})}
	s.srv = &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.count.Add(1) == 1 {
			close(s.asked)
		}
		answer(w, r)
	})}
	served := make(chan struct{})
	// Ends when the server is closed.
	go func() {
		defer close(served)
		_ = s.srv.Serve(l) // says only that it was closed
	}()
	t.Cleanup(func() {
		s.srv.Close()
		<-served
	})
	return s
}

// failing: the mirror answers 500 to everything. The client goes to the
// upstream for each object.
func failing(t *testing.T, c client) {
	up, img := newUpstream(t)
	ill := newStandIn(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) })
	pulled(t, c, target{mirror: ill.addr, upstream: up.Host(), repo: repo, tag: tag}, img)
	if ill.count.Load() == 0 {
		t.Error("the client did not ask the mirror")
	}
}

// silence accepts requests and never answers them.
func silence(t *testing.T) *standIn {
	return newStandIn(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
}

// small makes an image with as few objects as possible, since some clients wait
// for each.
func small(t *testing.T) (*registry.Server, image) {
	t.Helper()
	up := registry.Start(t, registry.Options{})
	return up, imageOf(up.AddImage(repo, tag, registry.NewLayer(1, 100<<10)))
}

// silentUntilGivenUp: the mirror accepts requests and never answers. The client
// gives each up after a while of its own, and asks the upstream.
func silentUntilGivenUp(t *testing.T, c client) {
	up, img := small(t)
	ill := silence(t)
	pulled(t, c, target{mirror: ill.addr, upstream: up.Host(), repo: repo, tag: tag}, img)
	if ill.count.Load() == 0 {
		t.Error("the client did not ask the mirror")
	}
}

// silentUntilClosed: the same with a client that waits without end. Nothing
// reaches the upstream until the mirror's connections are closed; then the pull
// goes on there.
func silentUntilClosed(t *testing.T, c client) {
	up, img := small(t)
	ill := silence(t)
	n := c.fresh(t, target{mirror: ill.addr, upstream: up.Host(), repo: repo, tag: tag})
	done := begin(t, n)
	select {
	case <-ill.asked:
	case err := <-done:
		t.Fatalf("the pull ended without the mirror: %v", err)
	}
	if all := up.Requests(); len(all) > 0 {
		t.Errorf("the client did not wait for the mirror:\n%s", describe(all))
	}
	ill.srv.Close()
	if err := <-done; err != nil {
		t.Fatalf("pull: %v", err)
	}
	n.check(t, img)
}
