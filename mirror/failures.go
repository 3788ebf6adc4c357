package mirror

import (
	"errors"
	"sync"
	"time"

	"github.com/larder-registry/larder/internal/oci"
)

// rememberFor is how long a refusal is believed, so that fifty pods do not ask
// fifty times; maxFailures bounds how many are remembered.
const (
	rememberFor = 10 * time.Second
	maxFailures = 4096
)

// failures remembers for a moment what an upstream refused. Failures to reach
// it are not remembered here: the upstream client's circuit breaker knows.
type failures struct {
	now func() time.Time
	mu  sync.Mutex
	of  map[string]failure
}

type failure struct {
	err   error
	until time.Time
}

func newFailures(now func() time.Time) *failures {
	return &failures{now: now, of: make(map[string]failure)}
}

// remember notes err if it is a refusal that asking again would not change.
func (r *failures) remember(name oci.Name, target string, err error) {
	switch {
	case errors.Is(err, oci.ErrBlobUnknown), errors.Is(err, oci.ErrManifestUnknown), errors.Is(err, oci.ErrNameUnknown),
		errors.Is(err, oci.ErrUnauthorized), errors.Is(err, oci.ErrDenied),
		errors.Is(err, oci.ErrDigestInvalid), errors.Is(err, oci.ErrSizeInvalid), errors.Is(err, oci.ErrManifestInvalid):
	default:
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	if len(r.of) >= maxFailures {
		for key, f := range r.of {
			if now.After(f.until) {
				delete(r.of, key)
			}
		}
	}
	if len(r.of) < maxFailures {
		r.of[name.String()+"@"+target] = failure{err: err, until: now.Add(rememberFor)}
	}
}

// recall returns the refusal remembered for target in name, or nil.
func (r *failures) recall(name oci.Name, target string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	f, ok := r.of[name.String()+"@"+target]
	if !ok || r.now().After(f.until) {
		return nil
	}
	return f.err
}
