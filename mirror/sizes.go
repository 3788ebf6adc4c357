package mirror

import (
	"context"
	"errors"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/internal/oci"
)

// sizes remembers how large the blobs are that image manifests listed, so that
// a place can be made for a blob before an upstream is asked for it, and for
// upstreams that do not say.
type sizes struct {
	mu sync.Mutex
	of map[string]int64
}

// maxSizes bounds the memory: about 200 bytes each.
const maxSizes = 8192

func newSizes() *sizes { return &sizes{of: make(map[string]int64)} }

// note remembers the size of dgst as name lists it.
func (s *sizes) note(name oci.Name, dgst digest.Digest, size int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.of) >= maxSizes {
		clear(s.of)
	}
	s.of[name.String()+"@"+dgst.String()] = size
}

// recall returns the size of dgst in name, or -1.
func (s *sizes) recall(name oci.Name, dgst digest.Digest) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if size, ok := s.of[name.String()+"@"+dgst.String()]; ok {
		return size
	}
	return -1
}

// sizeOf finds out how large a blob is whose body has been opened: from the
// body, from the image manifest that listed it, or by asking once more. A blob
// of unknown size cannot be answered with an exact length, so it is not.
func (m *Mirror) sizeOf(ctx context.Context, name oci.Name, dgst digest.Digest, body oci.Body) (int64, error) {
	if body.Size >= 0 {
		return body.Size, nil
	}
	if size := m.sizes.recall(name, dgst); size >= 0 {
		return size, nil
	}
	desc, err := m.upstream.StatBlob(ctx, name, dgst)
	if err == nil && desc.Size < 0 {
		err = errors.New("it says no length")
	}
	if err != nil {
		e := oci.Errorf(oci.ErrUnavailable, "upstream did not say how large %s is: %v", dgst, err)
		e.Reason = "length"
		return 0, e
	}
	return desc.Size, nil
}
