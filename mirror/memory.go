package mirror

import (
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/internal/oci"
)

const (
	// maxKept bounds the image manifests kept in memory, in bytes together and
	// one by one: those that are asked for again and again are small.
	maxKept    = 4 << 20
	maxKeptOne = 64 << 10
	// maxSizes bounds the sizes remembered: about 300 bytes each.
	maxSizes = 8192
)

// content names something a repository holds.
type content struct {
	oci.Name
	dgst digest.Digest
}

// manifests keeps image manifests that were read from disk in memory. It says
// nothing about whether the store still holds them; that is asked first.
type manifests struct {
	mu    sync.Mutex
	of    map[content]oci.Manifest
	bytes int
}

func (ms *manifests) get(name oci.Name, dgst digest.Digest) (oci.Manifest, bool) {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	m, ok := ms.of[content{name, dgst}]
	return m, ok
}

// put keeps m. When there is no room all others go: what is in use comes back
// with the next request for it.
func (ms *manifests) put(name oci.Name, m oci.Manifest) {
	if len(m.Bytes) > maxKeptOne {
		return
	}
	ms.mu.Lock()
	defer ms.mu.Unlock()
	if ms.of == nil || ms.bytes+len(m.Bytes) > maxKept {
		ms.of, ms.bytes = make(map[content]oci.Manifest), 0
	}
	ms.of[content{name, m.Digest}] = m
	ms.bytes += len(m.Bytes)
}

// sizes remembers how large the blobs are that image manifests listed, so that
// a place can be made for a blob before an upstream is asked for it, and for
// upstreams that do not say.
type sizes struct {
	mu sync.Mutex
	of map[content]int64
}

// note remembers the size of dgst as name lists it.
func (s *sizes) note(name oci.Name, dgst digest.Digest, size int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.of == nil || len(s.of) >= maxSizes {
		s.of = make(map[content]int64)
	}
	s.of[content{name, dgst}] = size
}

// recall returns the size of dgst in name, or -1.
func (s *sizes) recall(name oci.Name, dgst digest.Digest) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if size, ok := s.of[content{name, dgst}]; ok {
		return size
	}
	return -1
}
