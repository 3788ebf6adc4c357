package mirror

import (
	"runtime"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/internal/oci"
	"github.com/larder-registry/larder/internal/status"
	"github.com/larder-registry/larder/test/registry"
)

func TestImages(t *testing.T) {
	up := registry.Start(t, registry.Options{})
	own := up.AddPlatform(repo, "", runtime.GOARCH, registry.NewLayer(1, mib))
	up.AddIndex(repo, "v1", own, up.AddPlatform(repo, "", "riscv64", registry.NewLayer(2, mib)))
	fx := start(t, up, t.TempDir(), func(c *configs) { c.store.Pin = []string{up.Host() + "/team/*:v*"} })
	if err := fx.Warm(t.Context(), oci.Reference{Name: fx.name, Tag: "v1"}, "linux/"+runtime.GOARCH); err != nil {
		t.Fatal(err)
	}
	images, total := fx.Images()
	if len(images) != 1 || total != 1 {
		t.Fatalf("%d of %d: %+v", len(images), total, images)
	}
	i := &images[0]
	if i.Name() != up.Host()+"/"+repo || i.Tag != "v1" || i.Kind != "index" || i.Size < mib || i.Size > mib+64<<10 || i.Used.IsZero() || i.Confirmed.IsZero() || !i.Pinned || i.Partial || i.Private {
		t.Errorf("%+v", i)
	}
	held, listed := fx.Platforms(i)
	if len(held) != 1 || held[0] != "linux/"+runtime.GOARCH || listed != 2 {
		t.Errorf("held for %v of %d", held, listed)
	}
	if held, listed := fx.Platforms(&status.Image{Digest: own.Digest.String(), Kind: "image"}); len(held) != 1 || listed != 1 {
		t.Errorf("the image: %v of %d", held, listed)
	}
	if held, listed := fx.Platforms(&status.Image{Digest: "nonsense"}); held != nil || listed != 0 {
		t.Errorf("nonsense: %v of %d", held, listed)
	}
}

// TestFills looks at a fill before its upstream has answered, while it runs, and
// when it is over.
func TestFills(t *testing.T) {
	up := registry.Start(t, registry.Options{})
	b := up.AddBlob(repo, "", registry.Random(1, 4*mib))
	asked, midway := registry.NewGate(), registry.NewGate()
	up.Set(registry.Fault{On: registry.Blobs, Hold: asked, Gate: midway, At: mib})
	fx := start(t, up, t.TempDir(), nil)
	if l := fx.Fills(5); l.Total != 0 || l.Items == nil {
		t.Errorf("%+v", l)
	}
	read := make(chan error, 1)
	// Ends with the fill.
	go func() {
		blob, err := fx.Blob(t.Context(), fx.name, b.Digest)
		if err == nil {
			defer blob.Close()
			err = sameBytes(blob, section(b, 0, b.Size()))
		}
		read <- err
	}()
	<-asked.Reached()
	one := func() status.Fill {
		t.Helper()
		l := fx.Fills(5)
		if l.Total != 1 || len(l.Items) != 1 {
			t.Fatalf("%+v", l)
		}
		return l.Items[0]
	}
	if f := one(); f.Repository != repo || f.Digest != b.Digest.String() || f.Size != -1 || f.Bytes != 0 || f.Followers != 1 || !f.Private || f.Began.IsZero() {
		t.Errorf("asking: %+v", f)
	}
	asked.Open()
	<-midway.Reached()
	// What the upstream has sent arrives in a moment.
	f := fx.running(b.Digest)
	f.mu.Lock()
	for f.held.run(0) < mib {
		f.changed.Wait()
	}
	f.mu.Unlock()
	if f := one(); f.Size != 4*mib || f.Bytes != mib || f.Streams != 1 || f.Rate <= 0 || f.Private || f.Ahead {
		t.Errorf("midway: %+v", f)
	}
	if l := fx.Fills(0); l.Total != 1 || l.More() != 1 {
		t.Errorf("of one, none is shown: %+v", l)
	}
	midway.Open()
	if err := <-read; err != nil {
		t.Fatal(err)
	}
	fx.settled(t, b.Digest)
	if l := fx.Fills(5); l.Total != 0 {
		t.Errorf("%+v", l)
	}
}

// running is the fill of a blob.
func (fx *fixture) running(dgst digest.Digest) *fill {
	fx.fills.mu.Lock()
	defer fx.fills.mu.Unlock()
	return fx.fills.of[dgst]
}
