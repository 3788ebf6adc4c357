package ociserver

import (
	"net/http"
	"sync"

	"github.com/larder-registry/larder/internal/oci"
)

// What is remembered of requests taken apart: so many of those that are not
// longer than this, which clients' are not.
const (
	maxKnown    = 512
	maxKnownURI = 512
)

// known are requests that were taken apart lately: image manifests are asked for
// over and over, and taking one of their requests apart costs more than finding
// its answer.
type known struct {
	mu sync.RWMutex
	of map[string]understood // by request target
}

// understood is what a request means, and the namespace as it was spelled.
type understood struct {
	req oci.Request
	ns  string
}

func (k *known) recall(r *http.Request) (understood, bool) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	u, ok := k.of[r.RequestURI]
	return u, ok && reads(r)
}

// note remembers what a good request means. When there is no room all others
// are forgotten: what is in use comes back with its next request.
func (k *known) note(r *http.Request, u understood) {
	if !reads(r) || r.RequestURI == "" || len(r.RequestURI) > maxKnownURI {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.of == nil || len(k.of) >= maxKnown {
		k.of = make(map[string]understood)
	}
	k.of[r.RequestURI] = u
}

// reads reports whether a request is one that its target alone tells all about.
func reads(r *http.Request) bool {
	return r.Method == http.MethodGet || r.Method == http.MethodHead
}
