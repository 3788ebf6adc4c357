package store

import "github.com/opencontainers/go-digest"

// Partial says whether a partial file of dgst waits to be resumed, and how many
// bytes the whole content will have. Ingest of the same digest and size resumes
// it.
func (s *Store) Partial(dgst digest.Digest) (size int64, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := s.partials[ingestID(dgst)]
	if !ok {
		return 0, false
	}
	return p.size, true
}
