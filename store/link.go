package store

import (
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/internal/oci"
)

// Link notes that a repository vouches for content, under this media type: a
// digest alone is no proof that a caller may have it. It fails with
// oci.ErrBlobUnknown when the store does not hold the content.
func (s *Store) Link(name oci.Name, desc oci.Descriptor) error {
	if err := checkEntry(linkKey(name, desc.Digest), desc.MediaType); err != nil {
		return err
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return fmt.Errorf("link content: %w", ErrClosed)
	}
	if s.blobs[desc.Digest] == nil {
		s.mu.Unlock()
		return oci.ErrBlobUnknown
	}
	links := s.repository(name).links
	old, known := links[desc.Digest]
	if known && old == desc.MediaType {
		s.mu.Unlock()
		return nil
	}
	if !known {
		s.shed()
		links = s.repository(name).links // as in SetTag
	}
	links[desc.Digest] = desc.MediaType
	s.dirty(linkKey(name, desc.Digest))
	s.mu.Unlock()
	return s.persist()
}

// Linked describes content a repository vouches for and the store holds. It
// fails with oci.ErrBlobUnknown.
func (s *Store) Linked(name oci.Name, dgst digest.Digest) (oci.Descriptor, error) {
	return s.Use(name, dgst, time.Time{})
}

// Use is Linked, and counts as a use of the content at that time, for callers that
// serve it from elsewhere than its file. The zero time is no use.
func (s *Store) Use(name oci.Name, dgst digest.Digest, at time.Time) (oci.Descriptor, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	repo, rec := s.repos[name], s.blobs[dgst]
	if repo == nil || rec == nil {
		return oci.Descriptor{}, oci.ErrBlobUnknown
	}
	mediaType, ok := repo.links[dgst]
	if !ok {
		return oci.Descriptor{}, oci.ErrBlobUnknown
	}
	if at.After(rec.used) {
		rec.touch(at)
	}
	return oci.Descriptor{MediaType: mediaType, Digest: dgst, Size: rec.size}, nil
}

// Vouchers returns the repositories that vouch for content the store holds, in
// no order.
func (s *Store) Vouchers(dgst digest.Digest) (names []oci.Name) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.blobs[dgst] == nil {
		return nil
	}
	for name, repo := range s.repos {
		if _, ok := repo.links[dgst]; ok {
			names = append(names, name)
		}
	}
	return names
}
