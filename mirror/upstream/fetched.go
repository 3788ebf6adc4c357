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
	by *lru[string, waiting] // by who asked, and the reference
}

type waiting struct {
	manifest oci.Manifest
	until    time.Time
	by       oci.Way // what it was fetched by
}

func newFetched(now func() time.Time) *fetched {
	return &fetched{now: now, by: newLRU[string, waiting](maxFetched)}
}

// put keeps m for the same comer's next question. by is how it was let in.
func (f *fetched) put(ap oci.Approach, ref oci.Reference, m oci.Manifest, by oci.Way) {
	if len(m.Bytes) > maxFetchedSize {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	w := waiting{manifest: m, until: f.now().Add(fetchedFor), by: by}
	f.by.put(waitingKey(ap, ref), w)
	if ref.Digest == "" {
		f.by.put(waitingKey(ap, oci.Reference{Name: ref.Name, Digest: m.Digest}), w)
	}
}

// take gives what put kept, and tells the approach what it was let in by.
func (f *fetched) take(ap oci.Approach, ref oci.Reference) (oci.Manifest, bool) {
	f.mu.Lock()
	key := waitingKey(ap, ref)
	w, ok := f.by.get(key)
	f.by.remove(key)
	if ok {
		f.by.remove(waitingKey(ap, oci.Reference{Name: ref.Name, Digest: w.manifest.Digest}))
	}
	ok = ok && f.now().Before(w.until)
	f.mu.Unlock()
	if ok && ap.Heard != nil && w.by != 0 {
		ap.Heard(w.by)
	}
	return w.manifest, ok
}

// waitingKey keeps what different comers may have apart.
func waitingKey(ap oci.Approach, ref oci.Reference) string {
	who := ap.Key
	if ap.Alone {
		who += "!"
	}
	return ref.String() + " " + who
}
