package upstream

import (
	"sync"
	"time"

	"github.com/larder-registry/larder/internal/oci"
)

const (
	// fetchedFor is how long a manifest that Resolve had to GET waits for the
	// Manifest call that usually follows.
	fetchedFor = 2 * time.Second
	// maxFetched manifests of at most maxFetchedSize bytes wait.
	maxFetched     = 8
	maxFetchedSize = 256 << 10
)

// fetched holds manifests that Resolve had to GET, each for one taker, so that
// registries whose HEAD says too little (ECR) are not asked twice.
type fetched struct {
	now func() time.Time

	mu sync.Mutex
	by *lru[string, waiting] // by the digest reference
}

type waiting struct {
	manifest oci.Manifest
	until    time.Time
}

func newFetched(now func() time.Time) *fetched {
	return &fetched{now: now, by: newLRU[string, waiting](maxFetched)}
}

func (f *fetched) put(ref oci.Reference, m oci.Manifest) {
	if len(m.Bytes) > maxFetchedSize {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	w := waiting{manifest: m, until: f.now().Add(fetchedFor)}
	f.by.put(ref.String(), w)
	if ref.Digest == "" {
		f.by.put(oci.Reference{Name: ref.Name, Digest: m.Digest}.String(), w)
	}
}

func (f *fetched) take(ref oci.Reference) (oci.Manifest, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	w, ok := f.by.get(ref.String())
	if !ok {
		return oci.Manifest{}, false
	}
	f.by.remove(ref.String())
	f.by.remove(oci.Reference{Name: ref.Name, Digest: w.manifest.Digest}.String())
	return w.manifest, f.now().Before(w.until)
}
