package e2e

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/larder-registry/larder/test/process"
	"github.com/larder-registry/larder/test/registry"
)

// fault lets a client pull while something befalls the mirror, and checks what
// became of it.
type fault func(t *testing.T, c client)

// pulled pulls on a fresh node, and checks what it then holds.
func pulled(t *testing.T, c client, to target, img image) {
	t.Helper()
	n := c.fresh(t, to)
	if err := <-begin(t, n); err != nil {
		t.Fatalf("pull: %v", err)
	}
	n.check(t, img)
}

// begin starts a pull. Its result comes on the channel.
func begin(t *testing.T, n node) <-chan error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), pullPatience)
	t.Cleanup(cancel)
	result := make(chan error, 1)
	// Ends with the pull, at the latest when ctx does.
	go func() {
		began := time.Now()
		err := n.pull(ctx)
		if err == nil {
			t.Logf("pulled in %.1f s", time.Since(began).Seconds())
		}
		result <- err
	}()
	return result
}

// healthy: two nodes pull one after the other. The first has the mirror fetch
// every blob once; for the second nothing is fetched. Neither goes to the
// upstream by itself.
func healthy(t *testing.T, c client) {
	up, img := newUpstream(t)
	m := startMirror(t, up.Host())
	to := target{mirror: m.addr, upstream: up.Host(), repo: repo, tag: tag}

	pulled(t, c, to, img)
	// The upstream counts what it sent after it sent it.
	if err := up.WaitIdle(t.Context()); err != nil {
		t.Fatal(err)
	}
	sent := map[string]int64{}
	for _, r := range up.Requests() {
		sent[r.Target] += r.Sent
	}
	for i, size := range []int64{bigLayer, 100 << 10, 4 << 10} {
		if got := sent[img.layers[i]]; got != size {
			t.Errorf("the upstream sent %d bytes of the layer of %d", got, size)
		}
	}
	own := direct(up.Requests())
	if up.Forget(); len(own) > 0 {
		t.Errorf("the client went past a healthy mirror:\n%s", describe(own))
	}

	pulled(t, c, to, img)
	if all := up.Requests(); registry.Count(all, registry.Blobs) > 0 || len(direct(all)) > 0 {
		t.Errorf("the upstream was asked for what the mirror has:\n%s", describe(all))
	}
}

// stopped: the mirror was shut down. The client finds its port closed, and
// pulls from the upstream.
func stopped(t *testing.T, c client) {
	up, img := newUpstream(t)
	m := startMirror(t, up.Host())
	m.Stop(t)
	pulled(t, c, target{mirror: m.addr, upstream: up.Host(), repo: repo, tag: tag}, img)
	if n := registry.Count(direct(up.Requests()), registry.Blobs); n == 0 {
		t.Error("nobody asked the upstream for blobs")
	}
}

// inMidLayer starts a pull, and returns when the client has written down a part
// of the big layer. The upstream stalls what the mirror asks of that layer, and
// nothing else, until up.Set is called. The pull's result comes on the channel.
func inMidLayer(t *testing.T, up *registry.Server, img image, n node) <-chan error {
	t.Helper()
	up.Set(registry.Fault{
		On: registry.Blobs, Method: http.MethodGet, Stall: true, At: stallAt,
		Match: func(r registry.Request) bool { return r.Target == img.layers[0] && byMirror(r) },
	})
	result := begin(t, n)
	process.Await(t, "the client to be in the middle of a layer", func(context.Context) error {
		select {
		case err := <-result:
			t.Fatalf("the pull ended before the layer did: %v\n%s", err, describe(up.Requests()))
		default:
		}
		return written(n.dir(), halfway)
	})
	return result
}

// checkResumed demands that the client asked the upstream for the rest of the
// big layer, and not for all of it again.
func checkResumed(t *testing.T, up *registry.Server, img image) {
	t.Helper()
	own := direct(up.Requests())
	if !slices.ContainsFunc(own, func(r registry.Request) bool {
		return r.Target == img.layers[0] && r.Range() != "" && !strings.HasPrefix(r.Range(), "bytes=0-")
	}) {
		t.Errorf("the client did not resume the layer at the upstream:\n%s", describe(own))
	}
}

// finish waits for a pull that was begun on n. A client that may lose one gets
// a second try.
func finish(t *testing.T, up *registry.Server, n node, done <-chan error, tries int) {
	t.Helper()
	err := <-done
	for try := 1; err != nil && try < tries; try++ {
		t.Logf("pull %d failed: %v", try, err)
		err = <-begin(t, n)
	}
	if err != nil {
		t.Fatalf("pull: %v\n%s", err, describe(up.Requests()))
	}
}

// killed: the mirror is killed in the middle of a layer. The client gets the
// rest of it, and everything else, from the upstream; some only when they pull
// again, see client.tries.
func killed(t *testing.T, c client) {
	up, img := newUpstream(t)
	m := startMirror(t, up.Host())
	n := c.fresh(t, target{mirror: m.addr, upstream: up.Host(), repo: repo, tag: tag})
	done := inMidLayer(t, up, img, n)
	m.Kill()
	finish(t, up, n, done, c.tries)
	n.check(t, img)
	if c.resumes {
		checkResumed(t, up, img)
	}
}

// cut: the upstream fails the mirror in the middle of a layer, and for good,
// while it goes on serving clients. The mirror gives the layer up in a way that
// sends them there.
func cut(t *testing.T, c client) {
	up, img := newUpstream(t)
	m := startMirror(t, up.Host())
	n := c.fresh(t, target{mirror: m.addr, upstream: up.Host(), repo: repo, tag: tag})
	done := inMidLayer(t, up, img, n)
	up.Set(registry.Fault{Status: http.StatusServiceUnavailable, Match: byMirror})
	finish(t, up, n, done, c.tries)
	n.check(t, img)
	if c.resumes {
		checkResumed(t, up, img)
	}
}

// killedThenRestarted: a client that knows only the mirror loses its pull when
// the mirror is killed in the middle of a layer. Its next pull, from the mirror
// started anew on what it had on disk, succeeds.
func killedThenRestarted(t *testing.T, c client) {
	up, img := newUpstream(t)
	m := startMirror(t, up.Host())
	n := c.fresh(t, target{mirror: m.addr, upstream: up.Host(), repo: repo, tag: tag})
	done := inMidLayer(t, up, img, n)
	m.Kill()
	if err := <-done; err == nil {
		t.Error("the pull ended well without half of a layer")
	}
	up.Set()
	m.start(t)
	if err := <-begin(t, n); err != nil {
		t.Fatalf("pull from the mirror that was started again: %v", err)
	}
	n.check(t, img)
}

// cutThenHealed: the same as cut with a client that gets nothing from the
// upstream by itself once the mirror has given it the image manifest. It loses
// its pull, and the next too, until the upstream serves the mirror again and the
// mirror asks it again.
func cutThenHealed(t *testing.T, c client) {
	up, img := newUpstream(t)
	m := startMirror(t, up.Host())
	n := c.fresh(t, target{mirror: m.addr, upstream: up.Host(), repo: repo, tag: tag})
	done := inMidLayer(t, up, img, n)
	up.Set(registry.Fault{Status: http.StatusServiceUnavailable, Match: byMirror})
	if err := <-done; err == nil {
		t.Error("the pull ended well without half of a layer")
	}
	up.Set()
	process.Await(t, "a pull to succeed", n.pull)
	n.check(t, img)
	if own := direct(up.Requests()); len(own) > 0 {
		t.Errorf("the client went to the upstream by itself:\n%s", describe(own))
	}
}
