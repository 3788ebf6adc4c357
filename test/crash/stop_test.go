package crash

import (
	"fmt"
	"sync"
	"syscall"
	"testing"

	"github.com/larder-registry/larder/test/registry"
)

// TestStopLosesNothing ends the mirror in order while the image manifests that
// its clients have just got may not be on disk yet: the next one has every one of
// them, and its tag, when there is no upstream any more.
func TestStopLosesNothing(t *testing.T) {
	up := registry.Start(t, registry.Options{})
	var pool []registry.Image
	for n := range uint64(8) {
		pool = append(pool, up.AddImage(repo, fmt.Sprint("v", n), registry.NewLayer(100+n, 1000)))
	}
	m := newMirror(t, up)
	all := func(when string) {
		t.Helper()
		f := &figures{}
		var wg sync.WaitGroup
		for _, image := range pool {
			wg.Go(func() { m.get(t.Context(), f, ask{kind: "manifests", blob: image.Blob, tag: image.Tag}) })
		}
		wg.Wait()
		if n := f.whole.Load(); n != int64(len(pool)) {
			t.Errorf("%s %d of %d image manifests could be had", when, n, len(pool))
		}
	}
	m.start()
	all("cold")
	m.proc.End(syscall.SIGTERM)
	m.checkBlobs()
	up.Stop()
	m.start()
	all("without an upstream")
}
