package e2e

import (
	"context"
	"maps"
	"slices"
	"testing"
)

// target says what a node pulls, and through what.
type target struct {
	mirror, upstream string // host:port
	repo, tag        string
}

// node is a fresh machine with one client on it.
type node interface {
	// pull pulls the target.
	pull(ctx context.Context) error
	// check reads back what the client holds, and reports what of the image
	// is missing or wrong.
	check(t *testing.T, img image)
	// dir is what all files of the client are below.
	dir() string
}

// client is one way people pull.
type client struct {
	name  string
	fresh func(t *testing.T, to target) node
	// tries is how many pulls it takes to get past a mirror that fails in the
	// middle of a layer. Where it is 2, kubelet makes the second by itself, and
	// people do it by hand.
	tries int
	// resumes: the client goes on in the middle of a layer at the upstream.
	resumes bool
	// kubelets: the client pulls the way it does for a kubelet by default.
	kubelets bool
	// quick is the fault the quick suite tries.
	quick string
	// faults are the faults that mean something to this client, by name.
	faults map[string]fault
}

// clients are the rows of the matrix.
func clients() []client {
	return append(append(containerds(), containersImage()...), crane())
}

// TestClients is the matrix of docs/clients.md: each client pulls through a
// healthy mirror, and through one that fails.
func TestClients(t *testing.T) {
	for _, c := range clients() {
		t.Run(c.name+"/healthy", func(t *testing.T) {
			t.Parallel()
			healthy(t, c)
		})
		for _, name := range slices.Sorted(maps.Keys(c.faults)) {
			if name == c.quick || *fullFlag {
				t.Run(c.name+"/"+name, func(t *testing.T) {
					t.Parallel()
					c.faults[name](t, c)
				})
			}
		}
	}
}
