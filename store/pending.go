package store

import (
	"errors"
	"os"
	"path/filepath"
	"slices"

	"github.com/opencontainers/go-digest"
)

// A client that is to have an image manifest does not wait for a disk. So what
// is put as a whole enters the table as soon as it is written to its file below
// ingest/, and is pending from then on: it can be read and named like any other,
// its file being opened where it lies. One goroutine does the rest, in the order
// of any commit: fsync, rename into blobs/, fsync of the directory, and only
// then may the index speak of it (see early). A process that is killed before
// has lost the content and what was said of it since, and nothing else.

// The bounds on what is pending: beyond them Put goes the whole way itself.
const (
	maxPending      = 256
	maxPendingBytes = 16 << 20
)

// pending is what is on its way to disk behind its callers' backs. Store.mu
// guards it.
type pending struct {
	next    []*Ingest // in the order in which they came
	count   int       // those being worked at included
	bytes   int64
	working bool // there is a goroutine
}

// errElsewhere means that content needs nothing more: it has been committed by
// another path, or is not held any more.
var errElsewhere = errors.New("content came to disk by another path, or went")

// enterEarly enters the blob into the table and leaves bringing it to disk, and
// the ingest with it, to a goroutine. It reports false, and has done nothing,
// when that is not possible. The bytes have been verified, and written.
func (i *Ingest) enterEarly(m *manifest) bool {
	s := i.store
	s.tree.Lock()
	defer s.tree.Unlock()
	// Made now, while a full disk can still be told of.
	if s.makeBlobDir(filepath.Dir(s.blobPath(i.dgst))) != nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p := &s.pending
	if s.closed || p.count >= maxPending || p.bytes+i.size > maxPendingBytes {
		return false
	}
	s.note(i, m)
	p.next = append(p.next, i)
	p.count++
	p.bytes += i.size
	if !p.working {
		p.working = true
		s.running.Go(s.bringPending) // ends when nothing is pending
	}
	return true
}

// bringPending brings to disk what is pending, until nothing is.
func (s *Store) bringPending() {
	for {
		s.mu.Lock()
		batch := s.pending.next
		s.pending.next = nil
		s.pending.working = len(batch) > 0
		s.mu.Unlock()
		if len(batch) == 0 {
			return
		}
		s.bring(batch)
	}
}

// bring brings some to disk. They take each step together: what waits for a
// file system's journal then waits for it once.
func (s *Store) bring(batch []*Ingest) {
	batch = s.step(batch, (*Ingest).settle)
	batch = s.step(batch, func(i *Ingest) error {
		s.tree.Lock()
		defer s.tree.Unlock()
		if !s.awaited(i) {
			return errElsewhere
		}
		return i.move(s.blobPath(i.dgst), true)
	})
	synced := make(map[string]error)
	batch = s.step(batch, func(i *Ingest) error {
		dir := filepath.Dir(s.blobPath(i.dgst))
		if _, done := synced[dir]; !done {
			synced[dir] = s.syncDir(dir)
		}
		return synced[dir]
	})
	s.at("before index")
	for _, i := range batch {
		s.mu.Lock()
		if rec := s.blobs[i.dgst]; rec != nil && rec.pending == i {
			rec.pending = nil
		}
		s.mu.Unlock()
		s.endPending(i)
	}
	s.index.wake()
}

// step has each take a step, unless it is not needed any more, and returns those
// that did.
func (s *Store) step(batch []*Ingest, step func(*Ingest) error) []*Ingest {
	return slices.DeleteFunc(batch, func(i *Ingest) bool {
		err := errElsewhere
		if s.awaited(i) {
			err = step(i)
		}
		if err != nil {
			s.giveUp(i, err)
		}
		return err != nil
	})
}

// awaited reports whether the store holds content that only i brings to disk.
func (s *Store) awaited(i *Ingest) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	rec := s.blobs[i.dgst]
	return rec != nil && rec.pending == i
}

// giveUp ends an ingest that did not come to disk: the store forgets the content
// and its names, unless it has it by another path. Whoever put it was told that
// it is kept, so this is where it is said that it is not.
func (s *Store) giveUp(i *Ingest, err error) {
	s.tree.Lock()
	if s.awaited(i) {
		s.log.WithError(err).WithField("digest", i.dgst).Warn("content was served but could not be brought to disk; forgetting it")
		s.mu.Lock()
		s.dropNames(s.forget(i.dgst))
		s.mu.Unlock()
		s.index.wake()
		if path := s.blobPath(i.dgst); i.path == path {
			if err := os.Remove(path); err != nil {
				s.log.WithError(err).Warn("cannot remove a blob whose directory could not be synced")
			}
		}
	}
	s.tree.Unlock()
	s.endPending(i)
}

// endPending ends an ingest that was pending.
func (s *Store) endPending(i *Ingest) {
	i.leave()
	if err := i.Abort(); err != nil {
		s.log.WithError(err).Warn("cannot close an ingest")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pending.count--
	s.pending.bytes -= i.size
}

// early reports whether what memory holds under k speaks of content that is not
// on disk yet. Were it written now, a crash could leave a tag that means nothing
// where there was one that did. Store.mu is held.
func (s *Store) early(k key) bool {
	dgst := digest.Digest(k.item)
	if repo := s.repos[k.name]; k.kind == kindTag && repo != nil {
		dgst = repo.tags[k.item].Digest
	}
	rec := s.blobs[dgst]
	return rec != nil && rec.pending != nil
}
