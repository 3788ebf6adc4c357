package mirror

import (
	"context"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/larder-registry/larder/internal/oci"
	"github.com/larder-registry/larder/test/registry"
)

// taking is the context of a client that takes what it asks for.
func taking(t *testing.T) context.Context {
	return oci.WithAccess(t.Context(), &oci.Access{Taken: true})
}

// startAheadOf starts a mirror that prefetches, before an upstream with an
// index of this platform's image and another's.
func startAheadOf(t *testing.T, wait time.Duration, layers ...registry.Layer) (*fixture, registry.Image) {
	t.Helper()
	up := registry.Start(t, registry.Options{})
	other := "s390x"
	if runtime.GOARCH == other {
		other = "amd64"
	}
	foreign := up.AddPlatform(repo, "", other, registry.NewLayer(99, mib))
	index := up.AddIndex(repo, "v1", foreign, up.AddPlatform(repo, "", runtime.GOARCH, layers...))
	fx := start(t, up, t.TempDir(), func(c *configs) { c.mirror.PrefetchWait = wait })
	return fx, index
}

// take asks for an image manifest by digest as a client that wants it.
func (fx *fixture) take(t *testing.T, b registry.Blob) {
	t.Helper()
	m, err := fx.Manifest(taking(t), oci.Reference{Name: fx.name, Digest: b.Digest})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(m.Bytes, b.Bytes()) {
		t.Fatalf("image manifest %s came otherwise", b.Digest)
	}
}

// asked waits until the upstream was asked for b.
func (fx *fixture) asked(t *testing.T, b registry.Blob) {
	t.Helper()
	err := fx.up.WaitFor(t.Context(), func(requests []registry.Request) bool {
		return slices.ContainsFunc(requests, func(r registry.Request) bool { return r.Target == b.Digest.String() })
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestClientIsRunAheadOf(t *testing.T) {
	var layers []registry.Layer
	for i := range uint64(8) {
		layers = append(layers, registry.NewLayer(i, 3*mib))
	}
	fx, index := startAheadOf(t, time.Minute, layers...)
	foreign, image := index.Children[0], index.Children[1]

	fx.take(t, index.Blob)
	fx.asked(t, image.Blob)
	fx.take(t, image.Blob)
	for i, b := range image.Blobs() {
		// The config and three layers are on their way, and another for each
		// one taken.
		for _, next := range image.Blobs()[i:min(i+aheadWindow, len(image.Blobs()))] {
			fx.asked(t, next)
		}
		blob := fx.open(t, t.Context(), b.Digest)
		readAll(t, blob, section(b, 0, b.Size()))
		blob.Close()
		fx.settled(t, b.Digest)
	}
	for _, b := range image.Blobs() {
		if sent := fx.up.Sent(b.Digest); sent != b.Size() {
			t.Errorf("upstream sent %d bytes of a blob of %d", sent, b.Size())
		}
		if !fx.onDisk(t, b) {
			t.Errorf("blob %s is not on disk", b.Digest)
		}
	}
	// Two for each layer: what is asked for ahead of the client, and the rest.
	if want := 2 + 1 + 2*len(layers); fx.up.Count() != want {
		t.Errorf("%d requests upstream, want %d", fx.up.Count(), want)
	}
	for _, r := range fx.up.Requests() {
		if r.Target == foreign.Digest.String() {
			t.Error("another platform's image was asked for")
		}
	}
}

// What a client of another platform takes is not run ahead of, nor is one that
// only looks.
func TestNobodyIsRunAheadOf(t *testing.T) {
	fx, index := startAheadOf(t, time.Minute, registry.NewLayer(1, mib))
	fx.take(t, index.Blob)
	fx.asked(t, index.Children[1].Blob)
	fx.take(t, index.Children[0].Blob)
	looking := oci.Reference{Name: fx.name, Digest: index.Children[1].Digest}
	if _, err := fx.Manifest(t.Context(), looking); err != nil {
		t.Fatal(err)
	}
	// Closing waits for whatever is under way.
	fx.stop()
	for _, b := range index.Blobs() {
		if n := fx.up.Sent(b.Digest); n > 0 {
			t.Errorf("upstream sent %d bytes of %s, for which nobody asked", n, b.Digest)
		}
	}
}

// A client that takes an image manifest and nothing else costs little, and
// leaves nothing behind.
func TestRunAheadInVain(t *testing.T) {
	fx, index := startAheadOf(t, 20*time.Millisecond, registry.NewLayer(1, 64*mib), registry.NewLayer(2, 64*mib))
	image := index.Children[1]
	fx.take(t, image.Blob)
	if err := fx.up.WaitIdle(t.Context()); err != nil {
		t.Fatal(err)
	}
	fx.settled(t, image.Config.Digest)
	for _, b := range image.Layers {
		fx.asked(t, b)
		fx.settled(t, b.Digest)
		if _, there := fx.store.Partial(b.Digest); there || fx.onDisk(t, b) {
			t.Errorf("%s takes room although nobody asked for it", b.Digest)
		}
		if sent := fx.up.Sent(b.Digest); sent != aheadHold {
			t.Errorf("upstream sent %d bytes of a blob that nobody asked for, want %d", sent, aheadHold)
		}
	}
	fx.ahead.mu.Lock()
	waiting := fx.ahead.waiting
	fx.ahead.mu.Unlock()
	if waiting != 0 {
		t.Errorf("%d fills are still counted as waiting", waiting)
	}
	blob := fx.open(t, t.Context(), image.Layers[0].Digest)
	readAll(t, blob, section(image.Layers[0], 0, image.Layers[0].Size()))
}

// What came for a client that is late, and was dropped, is not fetched again.
func TestClientThatComesLate(t *testing.T) {
	fx, index := startAheadOf(t, 20*time.Millisecond, registry.NewLayer(1, mib), registry.NewLayer(2, 3*mib), registry.NewLayer(3, 36*mib))
	image := index.Children[1]
	fx.take(t, image.Blob)
	for _, b := range image.Blobs() {
		fx.asked(t, b)
		fx.settled(t, b.Digest)
	}
	for _, b := range image.Blobs() {
		blob := fx.open(t, t.Context(), b.Digest)
		readAll(t, blob, section(b, 0, b.Size()))
		blob.Close()
	}
	if err := fx.up.WaitIdle(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, b := range image.Blobs() {
		if sent := fx.up.Sent(b.Digest); sent != b.Size() {
			t.Errorf("upstream sent %d bytes of a blob of %d", sent, b.Size())
		}
	}
}

// What an upstream refuses ahead of a client, the client is told when it asks.
func TestRefusedAheadOfAClient(t *testing.T) {
	fx, index := startAheadOf(t, time.Minute, registry.NewLayer(1, mib))
	image := index.Children[1]
	layer := image.Layers[0]
	fx.up.Set(registry.Fault{On: registry.Blobs, Match: func(r registry.Request) bool { return r.Target == layer.Digest.String() }, Status: 404, Times: 1})
	fx.take(t, image.Blob)
	fx.asked(t, layer)
	fx.settled(t, layer.Digest)
	blob := fx.open(t, t.Context(), layer.Digest)
	readAll(t, blob, section(layer, 0, layer.Size()))
}
