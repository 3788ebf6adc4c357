package allocations

import (
	"bytes"
	"testing"

	"github.com/larder-registry/larder/internal/oci"
)

// What a request's goroutine and a fill's goroutines come through.
const (
	answers = "net/http.(*conn).serve"
	fills   = "mirror.(*fill).run"
	fetches = "mirror.(*fill).fetch"
)

// TestHotBlob: what an answer with a blob that is held allocates does not grow
// with the blob, but for the few words with which the standard library's
// sendfile begins anew for each MiB.
func TestHotBlob(t *testing.T) {
	exact(t)
	const small, large = 1 * mib, 17 * mib
	o := newOrigin(t)
	mirror := startMirror(t, o)
	registry, own := startCentral(t)
	sizes := []int64{small, large}
	var targets, ownTargets []string
	for _, size := range sizes {
		dgst := o.add(t, size)
		targets = append(targets, o.target(dgst))
		ownTargets = append(ownTargets, "/v2/"+repo+"/blobs/"+dgst.String())
		var content bytes.Buffer
		if err := o.write(&content, 0, size); err != nil {
			t.Fatal(err)
		}
		if _, err := registry.Push(t.Context(), oci.Name{Repository: repo}, &content, dgst); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		name, from, addr string
		targets          []string
		bound
	}{
		{"mirror, remote client", "127.0.0.2", mirror, targets, bound{6, 32 << 10}},
		{"mirror, client on this host", "127.0.0.1", mirror, targets, bound{6, 32 << 10}},
		{"registry, remote client", "127.0.0.2", own, ownTargets, bound{6, 32 << 10}},
		{"registry, client on this host", "127.0.0.1", own, ownTargets, bound{1, 3 * mib / 4}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := dial(t, tt.from, tt.addr)
			var cost []spent
			for i, size := range sizes {
				for range 2 { // brings it, fills the pools
					c.pull(t, o, tt.targets[i], size)
				}
				cost = append(cost, allocated(func() { c.pull(t, o, tt.targets[i], size) }, answers))
			}
			tt.hold(t, cost[0], cost[1], (large-small)/mib)
		})
	}
}

// TestColdBlob: a blob that is still arriving costs some allocations for each MiB:
// about ten each time that its follower has sent what there is and waits for more,
// and some for asking the upstream and noting what is held. How often it waits is
// for the machine to say, so the bound leaves room. What the transport to the
// upstream allocates is not counted.
func TestColdBlob(t *testing.T) {
	exact(t)
	const small, large = 4 * mib, 20 * mib
	o := newOrigin(t)
	c := dial(t, "127.0.0.2", startMirror(t, o))
	var cost []spent
	for _, size := range []int64{small, large} {
		for n := range int64(2) { // the first fills the pools
			target := o.target(o.add(t, size+n))
			got := allocated(func() { c.pull(t, o, target, size+n) }, answers, fills, fetches)
			if n > 0 {
				cost = append(cost, got)
			}
		}
	}
	bound{256, mib / 2}.hold(t, cost[0], cost[1], (large-small)/mib)
}
