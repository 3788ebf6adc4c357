package mirror

import (
	"fmt"
	"maps"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/larder-registry/larder/internal/oci"
	"github.com/larder-registry/larder/test/registry"
)

// handClock is a clock that is moved by hand.
type handClock struct {
	mu sync.Mutex
	at time.Time
}

func (c *handClock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *handClock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// TestBypassedImagesAreCounted: images whose manifest is taken and whose layers
// are not, for a while; those that are only looked at, and those of which one
// layer is asked for, are not.
func TestBypassedImagesAreCounted(t *testing.T) {
	up := registry.Start(t, registry.Options{})
	taken := up.AddImage(repo, "taken", registry.NewLayer(1, 1<<10), registry.NewLayer(2, 1<<10))
	pulled := up.AddImage(repo, "pulled", registry.NewLayer(3, 1<<10), registry.NewLayer(4, 1<<10))
	shared := up.AddImage(repo, "shared", registry.NewLayer(3, 1<<10), registry.NewLayer(5, 1<<10))
	looked := up.AddImage(repo, "looked", registry.NewLayer(6, 1<<10))
	index := up.AddIndex(repo, "index", taken)
	clock := &handClock{at: time.Unix(1_700_000_000, 0)}
	gatherer := prometheus.NewRegistry()
	fx := start(t, up, t.TempDir(), func(c *configs) {
		c.mirror.Now, c.mirror.Registerer = clock.now, gatherer
		c.mirror.Label = func(string) string { return "label" }
	})
	bypassed := func(want float64) {
		t.Helper()
		families, err := gatherer.Gather()
		if err != nil {
			t.Fatal(err)
		}
		got := 0.0
		for _, f := range families {
			if f.GetName() == "larder_bypassed" {
				for _, m := range f.GetMetric() {
					if m.GetLabel()[0].GetName() != "registry" || m.GetLabel()[0].GetValue() != "label" {
						t.Errorf("labels are %v", m.GetLabel())
					}
					got += m.GetGauge().GetValue()
				}
			}
		}
		if got != want {
			t.Errorf("%v images are bypassed, want %v", got, want)
		}
	}
	read := func(b registry.Blob) {
		t.Helper()
		blob := fx.open(t, t.Context(), b.Digest)
		readAll(t, blob, section(b, 0, b.Size()))
	}

	fx.take(t, index.Blob)
	fx.take(t, taken.Blob)
	read(taken.Config) // snapshotters that fetch layers leave the config to containerd
	fx.take(t, pulled.Blob)
	read(pulled.Layers[0])
	fx.take(t, shared.Blob)
	if _, err := fx.Manifest(t.Context(), oci.Reference{Name: fx.name, Digest: looked.Digest}); err != nil {
		t.Fatal(err)
	}
	bypassed(0) // it is too early to say
	clock.advance(bypassedAfter)
	bypassed(1)
	fx.take(t, taken.Blob)
	bypassed(1)
	read(taken.Layers[1])
	bypassed(0)

	fx.take(t, looked.Blob)
	clock.advance(bypassedFor)
	bypassed(1)
	clock.advance(time.Second)
	bypassed(0)
}

// TestBypassedStaysSmall: what is remembered is bounded, whatever clients ask
// for, and what is forgotten leaves nothing behind.
func TestBypassedStaysSmall(t *testing.T) {
	var b bypassed
	now := time.Unix(1_700_000_000, 0)
	manifest := func(i int) oci.Manifest {
		text := fmt.Sprintf(`{"layers": [{"digest": "sha256:%064x"}, {"digest": "sha256:%064x"}]}`, 2*i, 2*i+1)
		return oci.Manifest{
			Descriptor: oci.Descriptor{MediaType: "application/vnd.oci.image.manifest.v1+json", Digest: digest.FromString(text)},
			Bytes:      []byte(text),
		}
	}
	for i := range maxBypassed + 100 {
		b.taken(oci.Name{Registry: "docker.io", Repository: "a"}, manifest(i), now)
	}
	if len(b.images) != maxBypassed || len(b.layers) != 2*maxBypassed {
		t.Errorf("%d images and %d layers are remembered", len(b.images), len(b.layers))
	}
	now = now.Add(bypassedFor + 1)
	if counts := b.count(now); len(counts) != 0 {
		t.Errorf("long after, %v are bypassed", counts)
	}
	b.taken(oci.Name{Registry: "quay.io", Repository: "a"}, manifest(1<<20), now)
	if len(b.images) != 1 || len(b.layers) != 2 {
		t.Errorf("%d images and %d layers are left", len(b.images), len(b.layers))
	}
	for i := range maxAskedFor + 100 {
		b.wanted(digest.NewDigestFromEncoded("sha256", fmt.Sprintf("%064x", i)))
	}
	if len(b.asked) > maxAskedFor {
		t.Errorf("%d blobs are remembered", len(b.asked))
	}
	for _, garbage := range []string{"", "null", "[]", `{"layers": 5}`, `{"layers": [{}]}`, `{"layers": [{"digest": "x", "urls": ["https://elsewhere.test"]}]}`} {
		b.taken(oci.Name{Registry: "x"}, oci.Manifest{Bytes: []byte(garbage)}, now)
	}
	if counts := b.count(now.Add(bypassedAfter)); !maps.Equal(counts, map[string]int{"quay.io": 1}) {
		t.Errorf("bypassed are %v", counts)
	}
}
