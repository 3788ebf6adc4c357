package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// openIndex reads the index into memory; one that cannot be read is deleted and
// begun anew. Only a newer one is an error: on a disk that is full or read-only
// the store goes on in memory, and attaches the index once it can.
func (s *Store) openIndex() error {
	s.index.mu.Lock()
	defer s.index.mu.Unlock()
	err := s.index.attach()
	if errors.Is(err, errNewer) {
		return err
	}
	if err == nil {
		return nil
	}
	s.log.WithError(err).Warn("index cannot be written; going on in memory")
	if err := s.index.peek(); errors.Is(err, errNewer) {
		return err
	} else if err != nil {
		s.log.WithError(err).Warn("index cannot be read either; tags are not known")
	}
	return nil
}

// attach opens the database for writing and reads what memory does not know
// better. A damaged one is replaced. mu is held.
func (ix *index) attach() error {
	err := ix.tryAttach()
	s := ix.store
	switch {
	case errors.Is(err, errPanicked):
		s.log.WithError(err).Error("index cannot be opened; going on in memory until the next start")
		ix.closed = true
		return ix.note(err)
	case err == nil, errors.Is(err, errNewer), errors.Is(err, ErrNoSpace):
		return ix.note(err)
	}
	s.log.WithError(err).Warn("index cannot be read; rebuilding it from the files, tags are lost")
	if err := os.RemoveAll(ix.dir()); err != nil {
		return ix.note(noSpace(fmt.Errorf("remove index: %w", err)))
	}
	s.mu.Lock()
	s.dirtyAll()
	s.mu.Unlock()
	return ix.note(ix.tryAttach())
}

// tryAttach is one attempt of attach.
func (ix *index) tryAttach() error {
	dir := ix.dir()
	if err := ix.prepare(dir); err != nil {
		return err
	}
	opening := filepath.Join(dir, "OPENING")
	if _, err := os.Lstat(opening); err == nil {
		return fmt.Errorf("%w: the process ended while opening it", errGarbled)
	}
	if err := preflight(dir); err != nil {
		return err
	}
	// Should badger take the process down after all, it does so once: the mark
	// has the next start rebuild the index.
	if err := os.WriteFile(opening, nil, 0o644); err != nil {
		return noSpace(fmt.Errorf("open index: %w", err))
	}
	ix.store.at("opening")
	db, err := openDatabase(tuned(dir, ix.store.syncWrites, ix.store.log))
	if err == nil {
		err = errors.Join(reserveLogs(dir), ix.read(db))
		if err != nil {
			err = errors.Join(err, db.close())
		}
	}
	if full := ix.guard(0); err != nil && full != nil {
		// Not the index is at fault but the disk, which somebody filled
		// meanwhile.
		err = errors.Join(full, err)
	}
	if !errors.Is(err, errPanicked) || errors.Is(err, ErrNoSpace) {
		if err := os.Remove(opening); err != nil {
			ix.store.log.WithError(err).Warn("cannot remove a mark in the index")
		}
	}
	if err != nil {
		return noSpace(err)
	}
	ix.db = db
	ix.restoreBallast()
	return nil
}

// prepare makes sure that there is a directory that can be written to and room
// enough for badger to open: it maps sparse files, and a full disk would end the
// process by SIGBUS. The ballast is given up for that.
func (ix *index) prepare(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return noSpace(fmt.Errorf("make index: %w", err))
	}
	if err := unix.Access(dir, unix.W_OK|unix.X_OK); err != nil {
		return noSpace(fmt.Errorf("write to index: %w", err))
	}
	if ix.guard(0) != nil {
		ix.dropBallast()
	}
	return ix.guard(0)
}

// peek reads the index without writing to it, as far as that goes: a log that a
// crash left cannot be read so. mu is held.
func (ix *index) peek() error {
	if _, err := os.Lstat(filepath.Join(ix.dir(), "MANIFEST")); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	if err := checkFiles(ix.dir()); err != nil {
		return err
	}
	db, err := openDatabase(tuned(ix.dir(), false, ix.store.log).WithReadOnly(true))
	if err != nil {
		ix.closed = errors.Is(err, errPanicked)
		return err
	}
	return errors.Join(ix.read(db), db.close())
}

// read restores into memory every entry that memory has not changed since, and
// notes for removal those that say nothing. Where memory lost count of what it
// changed, it restores nothing and has every entry written as memory has it.
func (ix *index) read(db *database) error {
	text, err := db.get(versionKey)
	if err != nil {
		return err
	}
	version, err := strconv.Atoi(string(text))
	switch {
	case err == nil && version > indexVersion:
		return fmt.Errorf("%w: its format is %d, this one knows %d", errNewer, version, indexVersion)
	case err != nil && text != nil, err == nil && version < indexVersion:
		return fmt.Errorf("%w: format version %q", errGarbled, text)
	}
	s := ix.store
	s.mu.Lock()
	defer s.mu.Unlock()
	lost := ix.lost
	if ix.lost = false; lost {
		s.dirtyAll()
	}
	return db.each(func(text, value []byte) error {
		k, ok := parseKey(text)
		if !ok {
			return nil
		}
		if _, newer := ix.changed[k]; lost || !newer && !s.restore(k, value) {
			s.dirty(k)
		}
		return nil
	})
}

// dirtyAll has everything written. mu of the store is held.
func (s *Store) dirtyAll() {
	for dgst, rec := range s.blobs {
		s.dirty(useKey(dgst))
		if rec.mediaType != "" {
			s.dirty(manifestKey(dgst))
		}
	}
	for name, repo := range s.repos {
		s.dirty(exposureKey(name))
		for tag := range repo.tags {
			s.dirty(key{kindTag, name, tag})
		}
		for dgst := range repo.links {
			s.dirty(linkKey(name, dgst))
		}
	}
}

// retry attaches an index that could not be attached before. It is called now
// and then; once it worked, everything noted meanwhile is written.
func (ix *index) retry() {
	ix.mu.Lock()
	defer ix.mu.Unlock()
	if ix.db != nil {
		ix.restoreBallast()
		return
	}
	if ix.closed {
		return
	}
	// What the disk lacked when the store was opened was reported then.
	if ix.attach() == nil {
		ix.store.log.Info("index can be written again")
	}
}

func (ix *index) dir() string { return filepath.Join(ix.store.dir, "index") }

// guard refuses to write while the disk is nearly full.
func (ix *index) guard(maxAge time.Duration) error {
	r := ix.store.free.room(ix.store, maxAge)
	if r.known && r.avail < indexRoom {
		return fmt.Errorf("write index: %w: %d bytes are free, it takes %d", ErrNoSpace, r.avail, int64(indexRoom))
	}
	return nil
}
