package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/internal/oci"
)

// Ingest is content on its way into the store. It becomes visible at Commit,
// whole and verified, or never. Its owner ends it with Commit and Close, with
// Abort, or with Close alone, which leaves a partial file that a later Ingest
// of the same digest and size resumes.
//
// WriteAt, ReadAt, HashNext, HashClone, Acquire and Open may be called from any goroutine;
// the other methods from one at a time.
type Ingest struct {
	store *Store
	id    string
	dgst  digest.Digest
	size  int64
	file  *os.File
	held  []oci.Span

	// written counts bytes. They still had to find their blocks where the file
	// system could not reserve them; reserved is set where it could.
	written  atomic.Int64
	reserved atomic.Bool
	kept     bool // state says that bytes are held: worth resuming

	hinting atomic.Bool // the kernel is being told to write what is dirty

	sealed atomic.Int64 // bytes below are hashed, or are about to be: no more writes

	published bool // the blob is in Store.blobs, and counted there; Store.mu guards it

	// mu is held for reading across a WriteAt, and for writing by whoever
	// changes the fields below.
	mu     sync.RWMutex
	path   string // of the data file: in ingest/, after Commit in blobs/
	ended  bool   // committed, aborted or closed: the ingest owns nothing on disk
	closed bool
	refs   int // descriptors' users: the owner, and who called Acquire

	sum hashing
}

// Ingest starts or resumes bringing content in: dgst is validated here, size is
// its exact length in bytes. Room for it is made by eviction, and reserved on
// disk, before Ingest returns. It fails with [ErrNoSpace] when the content
// cannot be kept, with [ErrBusy] when an ingest of dgst is open, and with
// oci.ErrDigestInvalid or oci.ErrSizeInvalid. ctx governs this call only.
//
// Content that the store holds may be ingested again; Commit then keeps the old.
func (s *Store) Ingest(ctx context.Context, dgst digest.Digest, size int64) (*Ingest, error) {
	if err := checkDigest(dgst); err != nil {
		return nil, err
	}
	return s.ingest(ctx, ingestID(dgst), dgst, size)
}

// ingest is Ingest under a directory name of the caller's choice.
func (s *Store) ingest(ctx context.Context, id string, dgst digest.Digest, size int64) (*Ingest, error) {
	if size < 0 {
		return nil, oci.Errorf(oci.ErrSizeInvalid, "cannot ingest content of unknown size")
	}
	i := &Ingest{store: s, id: id, dgst: dgst, size: size, refs: 1, sum: newHashing(dgst)}
	i.path = filepath.Join(s.ingestDir(id), "data")
	// Held until the blocks are reserved: meanwhile they would count twice, as
	// promised here and as gone from the file system.
	s.admit.Lock()
	defer s.admit.Unlock()
	if err := s.claim(ctx, i); err != nil {
		return nil, err
	}
	err := i.open()
	if err != nil {
		i.drop()
		err = noSpace(fmt.Errorf("start ingest: %w", err))
	}
	s.noteTrouble(err)
	if err != nil {
		return nil, err
	}
	s.at("ingest")
	return i, nil
}

// claim makes room for i and enters it among the running ingests. admit is held.
func (s *Store) claim(ctx context.Context, i *Ingest) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("start ingest: %w", err)
	}
	s.mu.Lock()
	switch {
	case s.closed:
		s.mu.Unlock()
		return ErrClosed
	case s.ingests[i.id] != nil:
		s.mu.Unlock()
		return ErrBusy
	}
	old := s.partials[i.id]
	delete(s.partials, i.id)
	s.ingests[i.id] = i
	s.mu.Unlock()

	if old != nil && old.size == i.size {
		i.held, i.kept = old.held, true
		i.reserved.Store(old.reserved)
	} else if old != nil {
		s.removeIngest(i.id)
	}
	if err := s.makeRoom(); err != nil {
		s.unclaim(i)
		return err
	}
	return nil
}

// unclaim takes i out of the running ingests; what it has on disk becomes a
// partial when it is worth resuming, and goes otherwise.
func (s *Store) unclaim(i *Ingest) {
	if !i.kept {
		s.removeIngest(i.id)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ingests[i.id] != i {
		return
	}
	delete(s.ingests, i.id)
	if i.kept {
		s.partials[i.id] = &partial{size: i.size, held: i.held, used: time.Now(), reserved: i.reserved.Load()}
	}
}

// open makes or opens the files of i and reserves the blocks.
func (i *Ingest) open() error {
	if err := os.MkdirAll(filepath.Dir(i.path), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(i.path, os.O_RDWR|os.O_CREATE, 0o644)
	if errors.Is(err, fs.ErrPermission) && os.Chmod(i.path, 0o644) == nil {
		// Its last life ended within a commit, when it was read-only already.
		f, err = os.OpenFile(i.path, os.O_RDWR, 0)
	}
	if err != nil {
		return err
	}
	i.file = f
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if i.kept && info.Size() == i.size && i.reserved.Load() {
		return nil
	}
	if info.Size() != i.size {
		// Not what the state speaks of; or new.
		i.held, i.kept = nil, false
	}
	switch err := i.store.files.allocate(f, i.size); {
	case err == nil:
		i.reserved.Store(true)
	case errors.Is(err, errNotReserved):
		i.reserved.Store(false)
	default:
		return err
	}
	if i.kept {
		return nil
	}
	return i.writeState(nil)
}

// drop closes i and removes what it has on disk.
func (i *Ingest) drop() {
	i.kept = false
	i.store.unclaim(i)
	i.ended, i.closed = true, true
	if i.file != nil {
		i.file.Close()
	}
}

// Held returns what a resumed partial claims to hold, sorted and disjoint. It
// is a claim: only Hash tells.
func (i *Ingest) Held() []oci.Span { return slices.Clone(i.held) }

// Descriptor says what the content will be.
func (i *Ingest) Descriptor() oci.Descriptor { return oci.Descriptor{Digest: i.dgst, Size: i.size} }

// WriteAt writes content at its place. It fails with oci.ErrSizeInvalid beyond
// the end, with ErrNoSpace when the disk cannot take it, and refuses bytes that
// have been hashed.
func (i *Ingest) WriteAt(p []byte, off int64) (int, error) {
	if off < 0 || off > i.size || int64(len(p)) > i.size-off {
		return 0, oci.Errorf(oci.ErrSizeInvalid, "write of %d bytes at %d beyond the size of %d", len(p), off, i.size)
	}
	i.mu.RLock()
	defer i.mu.RUnlock()
	switch {
	case i.ended || i.closed:
		return 0, fmt.Errorf("write content: %w", ErrClosed)
	case off < i.sealed.Load() && len(p) > 0:
		return 0, fmt.Errorf("write content: bytes at %d are hashed already", off)
	}
	n, err := i.store.files.writeAt(i.file, p, off)
	written := i.written.Add(int64(n))
	if err != nil {
		return n, noSpace(fmt.Errorf("write content: %w", err))
	}
	if i.size >= i.store.hugeFrom && written/writebackStep > (written-int64(n))/writebackStep {
		i.startWriteback()
	}
	i.store.at("write")
	return n, nil
}

// startWriteback has the kernel begin to write what is dirty. Left to itself it
// gathers a tenth of the machine's memory, then has everybody who writes wait,
// and so does the sync of a commit with everybody who syncs. To begin may take
// until the disk has room in its queue, which the caller does not wait for; what
// is written meanwhile is for the next time.
func (i *Ingest) startWriteback() {
	if i.hinting.Swap(true) {
		return
	}
	// Ends when the kernel has taken its orders; the ingest may be closed then.
	go func() {
		defer i.hinting.Store(false)
		i.store.files.writeback(i.file, 0, i.size)
	}()
}

// ReadAt reads what was written; bytes that were not are zeros or older ones.
// It works until Close, also after Commit.
func (i *Ingest) ReadAt(p []byte, off int64) (int, error) {
	return i.store.files.readAt(i.file, p, off)
}

// File is the data file itself. Its offset is shared by all who use it, so it
// is for ReadAt and the like; who wants to read in sequence, or sendfile, uses
// Open. It is valid until Close or Abort, and while an Acquire is not released.
func (i *Ingest) File() *os.File { return i.file }

// Acquire keeps the descriptor behind File and ReadAt open, past Close, until
// release is called. ok is false when it is closed already.
func (i *Ingest) Acquire() (release func(), ok bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.refs == 0 {
		return nil, false
	}
	i.refs++
	return sync.OnceFunc(func() {
		if err := i.unref(); err != nil {
			i.store.log.WithError(err).Warn("cannot close an ingest")
		}
	}), true
}

// Open opens the data file once more, read-only and with an offset of its own.
// The caller closes it; it outlives the ingest. It works before and after
// Commit, and fails with ErrClosed after Abort, or Close without Commit.
func (i *Ingest) Open() (*os.File, error) {
	i.mu.RLock()
	defer i.mu.RUnlock()
	if i.path == "" {
		return nil, fmt.Errorf("open content: %w", ErrClosed)
	}
	f, err := os.Open(i.path)
	if err != nil {
		return nil, fmt.Errorf("open content: %w", err)
	}
	return f, nil
}

// Abort drops the ingest's own bytes and nothing else; after Commit it only
// closes. It may be called more than once.
func (i *Ingest) Abort() error {
	i.mu.Lock()
	if !i.ended {
		i.kept = false
	}
	i.mu.Unlock()
	return i.Close()
}

// Close ends the ingest. Without Commit or Abort before, bytes that SaveHeld
// spoke of stay on disk to be resumed. It may be called more than once.
func (i *Ingest) Close() error {
	i.mu.Lock()
	if i.closed {
		i.mu.Unlock()
		return nil
	}
	i.closed = true
	ended := i.ended
	if !ended {
		i.path = ""
	}
	i.ended = true
	i.mu.Unlock()
	if !ended {
		i.store.unclaim(i)
	}
	return i.unref()
}

// unref gives up one use of the descriptor.
func (i *Ingest) unref() error {
	i.mu.Lock()
	i.refs--
	last := i.refs == 0
	i.mu.Unlock()
	if !last {
		return nil
	}
	if err := i.file.Close(); err != nil {
		return fmt.Errorf("close ingest: %w", err)
	}
	return nil
}

func (s *Store) ingestDir(id string) string { return filepath.Join(s.dir, "ingest", id) }

// removeIngest removes the directory of an ingest that nobody has open.
func (s *Store) removeIngest(id string) {
	if err := os.RemoveAll(s.ingestDir(id)); err != nil {
		s.log.WithError(err).Warn("cannot remove an ingest")
	}
}

// noteTrouble remembers for Degraded why content could not be kept.
func (s *Store) noteTrouble(err error) {
	s.mu.Lock()
	s.trouble = err
	s.mu.Unlock()
}
