package store

import (
	"fmt"
	"time"

	"github.com/larder-registry/larder/internal/oci"
)

// Exposure is to whom a repository's content may be shown, and when that was
// last found out. Kind is a word of whoever writes it: the store reads nothing
// into it, and keeps it for as long as it holds something of the repository.
// What is lost, with the index for one, is the empty Kind: nobody knows.
type Exposure struct {
	Kind string
	At   time.Time // to the second
}

// Exposure returns what was noted for a repository; the zero Exposure when that
// is nothing.
func (s *Store) Exposure(name oci.Name) Exposure {
	s.mu.Lock()
	defer s.mu.Unlock()
	if repo := s.repos[name]; repo != nil {
		return repo.exposure
	}
	return Exposure{}
}

// SetExposure notes e for a repository the store holds something of; for any
// other it does nothing. A Kind that is new is in the index when SetExposure
// returns, before any link that is made afterwards: so a crash never leaves
// content behind that came when a repository was private with a note that it
// was public.
func (s *Store) SetExposure(name oci.Name, e Exposure) error {
	if err := checkEntry(exposureKey(name), e.Kind); err != nil {
		return err
	}
	e.At = e.At.UTC().Truncate(time.Second)
	s.mu.Lock()
	repo := s.repos[name]
	if repo == nil || s.closed || repo.exposure == e {
		s.mu.Unlock()
		return nil
	}
	news := repo.exposure.Kind != e.Kind
	repo.exposure = e
	s.dirty(exposureKey(name))
	s.mu.Unlock()
	if !news {
		return s.persist()
	}
	if err := s.index.flush(); err != nil {
		return fmt.Errorf("set exposure: %w", err)
	}
	return nil
}
