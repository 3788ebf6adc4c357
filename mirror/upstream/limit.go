package upstream

import (
	"sync"
	"time"
)

const (
	// maxLimits bounds the rate limits remembered.
	maxLimits = 512
	// defaultPause is how long an endpoint is left alone that answers 429
	// without saying how long.
	defaultPause = 10 * time.Second
	// maxPause bounds what an endpoint may ask for.
	maxPause = time.Hour
)

// kind is what a request is about; registries limit the two apart.
type kind string

const (
	kindManifest kind = "manifest" // referrers too
	kindBlob     kind = "blob"
)

// limits remembers which endpoints asked to be left alone (RFC 6585 section 4),
// and until when.
type limits struct {
	now func() time.Time

	mu    sync.Mutex
	until *lru[limitKey, time.Time]
}

type limitKey struct {
	endpoint string // endpoint.key: limits go by account
	kind     kind
}

func newLimits(now func() time.Time) *limits {
	return &limits{now: now, until: newLRU[limitKey, time.Time](maxLimits)}
}

// left is how long ep is still to be left alone; zero or less if it is not.
func (l *limits) left(ep *endpoint, k kind) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	until, ok := l.until.get(limitKey{ep.key, k})
	if !ok {
		return 0
	}
	return until.Sub(l.now())
}

// set notes that ep wants to be left alone for d.
func (l *limits) set(ep *endpoint, k kind, d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.until.put(limitKey{ep.key, k}, l.now().Add(d))
}
