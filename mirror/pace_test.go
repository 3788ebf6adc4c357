package mirror

import (
	"testing"
	"time"

	"github.com/larder-registry/larder/test/registry"
)

// A bound on what upstreams send is kept over all blobs together: it can only
// take longer than reckoned, never less.
func TestFillsKeepToTheirRate(t *testing.T) {
	const perSecond = 4 * mib
	up := registry.Start(t, registry.Options{})
	fx := start(t, up, t.TempDir(), func(c *configs) { c.mirror.FillRate = perSecond })
	began := time.Now()
	for seed := range uint64(2) {
		b := up.AddBlob(repo, "", registry.Random(seed, 2*mib))
		blob := fx.open(t, t.Context(), b.Digest)
		readAll(t, blob, section(b, 0, b.Size()))
	}
	// 4 MiB, of which a fifth of a second's worth goes at once.
	if took := time.Since(began); took < 700*time.Millisecond {
		t.Errorf("4 MiB came in %s at 4 MiB a second", took)
	}
}
