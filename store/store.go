// Package store keeps content on disk: blobs as read-only files named by their
// digest, and an index over them (tags, which repository vouches for what, last
// use). It is the only code that knows the data directory, and the only user of
// badger.
//
//	data/
//	  blobs/sha256/ab/abcd…      committed content: layers, configs, image manifests
//	  ingest/<id>/{data,state}   content on its way; survives a restart and is resumed
//	  index/                     badger; only an optimisation, rebuilt when lost
//	  LOCK                       who uses the directory
//
// The files are the truth. Everything the store answers from is held in memory,
// built at [Open] from the names and sizes below blobs/ and then completed from
// the index; an index entry whose file is gone is dropped, and an index that
// cannot be read is deleted and built anew. The index is written behind the
// caller's back by one goroutine, and not at all while the disk is nearly full.
//
// Content becomes visible at [Ingest.Commit], whole and verified: fsync of the
// file, rename into blobs/, fsync of the directory, then the index. What is put
// as a whole by [Store.Put] can be read at once, and takes the same steps a
// moment later. A process killed at any moment leaves nothing that the next Open
// does not clean up or resume. No failure path deletes by key: what is removed is only ever what the
// failing caller made, or a file that has just been looked at and found wrong.
//
// The package refuses content of algorithms other than sha256 and sha512,
// content whose bytes were not verified, and anything that would break the
// limits of [Config]; then it fails with [ErrNoSpace], which asks the caller to
// go on without keeping. It knows no HTTP, no upstream and no mode. For what
// is kept and when, see package mirror; for the nouns, internal/oci.
//
// Where to look: limit.go (sizes in the configuration), recover.go (what Open
// does), blob.go (reading), ingest.go and hash.go (writing), commit.go and pending.go
// (keeping), state.go (resuming),
// tag.go, link.go, exposure.go, manifest.go and shed.go (names), evict.go and space.go (room), index.go,
// attach.go, preflight.go and badger.go (persistence), lock.go and ballast.go
// (the rest of the directory).
package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/sirupsen/logrus"

	"github.com/larder-registry/larder/internal/oci"
)

var (
	// ErrNoSpace means that content cannot be kept just now: a limit is
	// reached and nothing more can be evicted, or the disk is full, over
	// quota, read-only or not writable for us. The cause is wrapped. The
	// caller streams through without keeping.
	ErrNoSpace = errors.New("content cannot be kept now")
	// ErrBusy means that an ingest of the same digest is open already.
	ErrBusy = errors.New("an ingest of this content is open already")
	// ErrLocked means that another process uses the data directory.
	ErrLocked = errors.New("data directory is in use")
	// ErrClosed is returned by writes to a store or an ingest after Close.
	ErrClosed = errors.New("store is closed")
)

// Config says where content is kept and how much of it.
type Config struct {
	// Dir is the data directory; it is made when it does not exist.
	Dir string
	// MaxSize bounds what the store keeps, partial ingests included. The
	// zero Limit means the default: 20 % of the file system, at most 50 GiB.
	MaxSize Limit
	// MinFree is what must stay free on the file system, whoever fills it.
	// The zero Limit means the default of 25 %; Bytes(0) means none.
	MinFree Limit
	// SyncWrites makes writes to the index return only when they are on disk.
	// Off, the index trails by milliseconds and a power cut may lose it.
	SyncWrites bool
	// LockWait bounds how long Open waits for another process to let go of
	// the directory; zero means not at all.
	LockWait time.Duration
	// Pin lists globs of references that are evicted last, in the form
	// <registry>/<repository>:<tag> with the syntax of path.Match, where *
	// stops at a slash: "registry.k8s.io/pause:*", "docker.io/*/*:stable".
	Pin []string
	// Log receives what the store does on its own; nil discards it.
	Log *logrus.Entry

	// hook is called at the named points of crash tests; nil otherwise.
	hook func(point string)
	// files stands between the store and the file system in tests of faults
	// that a real file system cannot be asked for; zero means the real thing.
	files files
	// hugeFrom overrides the size from which content is written out as it comes;
	// zero means the default.
	hugeFrom int64
	// checkEvery overrides how often free space is looked at; zero means
	// the default.
	checkEvery time.Duration
}

// Store is the content of one data directory. Its methods may be called from
// any goroutine.
type Store struct {
	dir        string
	log        *logrus.Entry
	pins       []string
	maxSize    Limit
	minFree    Limit
	syncWrites bool
	hook       func(string)
	files      files
	hugeFrom   int64
	lock       *dirLock
	index      *index

	// admit serialises whoever decides about room: admission and eviction.
	// It is held across statfs, fallocate and unlink, never while content is
	// written.
	admit sync.Mutex
	// tree serialises changes below blobs/, so that an eviction never removes
	// the file that a commit of the same digest has just put there. Taken
	// after admit and before mu. It guards newDirs: directories that were made
	// there and whose names may not be on disk.
	tree    sync.Mutex
	newDirs map[string]struct{}
	// mu guards everything below. It is held for map lookups only.
	mu       sync.Mutex
	blobs    map[digest.Digest]*record
	bytes    int64                             // sum of the sizes in blobs
	parents  map[digest.Digest][]digest.Digest // image manifests that list a digest
	repos    map[oci.Name]*repository
	names    int                // tags and links made, see shed
	ingests  map[string]*Ingest // by id
	partials map[string]*partial
	evicted  map[string]uint64
	pending  pending
	trouble  error // why the last ingest could not be started; nil after one could
	closed   bool

	free    statfsCache
	buffers sync.Pool // of *[]byte, hashChunk long

	stop    context.CancelFunc
	running sync.WaitGroup
}

// record is what memory holds about one committed blob. Store.mu guards it.
type record struct {
	size    int64
	used    time.Time
	dirty   bool // used is newer than what the index has
	readers int
	known   bool // the index knew it
	reread  bool // it is a manifest too long for the index: its file is read
	// pending is who brings the content to disk, of which the index says
	// nothing until then; nil when it is there.
	pending *Ingest
	// mediaType and children are set for image manifests and indexes.
	mediaType string
	children  []digest.Digest
}

// Stats is a snapshot for metrics and the status page.
type Stats struct {
	// CacheBytes is the size of all committed blobs, IngestBytes what running
	// and partial ingests reserve; LimitBytes bounds their sum.
	CacheBytes, IngestBytes, LimitBytes int64
	// FreeRatio is the free part of the file system, 0 to 1; -1 when the file
	// system does not say.
	FreeRatio float64
	// Blobs is the number of committed blobs.
	Blobs int
	// Evictions counts evicted blobs since Open by reason: "size", "free",
	// "manifest" (an image manifest that went because its layer did).
	Evictions map[string]uint64
}

// Stats returns a snapshot.
func (s *Store) Stats() Stats {
	room := s.free.room(s, time.Second)
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Stats{
		CacheBytes:  s.bytes,
		IngestBytes: s.ingestBytes(),
		LimitBytes:  room.max,
		FreeRatio:   room.ratio(),
		Blobs:       len(s.blobs),
		Evictions:   maps.Clone(s.evicted),
	}
	return st
}

// Close waits for what runs in the background, what was put and is not on disk
// yet above all, writes what the index does not
// have yet, and lets go of the directory. Open blobs and ingests stay readable;
// open ingests stay resumable. It may be called more than once.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.mu.Unlock()

	s.stop()
	s.running.Wait()
	s.noteUses()
	err := s.index.close()
	if unlockErr := s.lock.release(); err == nil {
		err = unlockErr
	}
	if err != nil {
		return fmt.Errorf("close store: %w", err)
	}
	return nil
}

// at calls the crash tests' hook.
func (s *Store) at(point string) {
	if s.hook != nil {
		s.hook(point)
	}
}
