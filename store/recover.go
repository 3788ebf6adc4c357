package store

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/sirupsen/logrus"

	"github.com/larder-registry/larder/internal/oci"
)

// tick is how often limits are checked and what is still in memory is written.
const tick = 30 * time.Second

// Open opens the store in cfg.Dir, alone: it fails with [ErrLocked], naming the
// holder, when another process still has the directory after cfg.LockWait. It
// cleans up what a crash left: files below blobs/ that are no content,
// ingests that cannot be resumed, index entries without a file; an index that
// cannot be read is rebuilt. A disk that is full or read-only is no failure: see
// [Store.Degraded]. ctx governs this call only; Close ends what Open starts.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	log := cfg.Log
	if log == nil {
		log = discarding()
	}
	for _, glob := range cfg.Pin {
		if _, err := path.Match(glob, ""); err != nil {
			return nil, fmt.Errorf("open store: pin %q: %w", glob, err)
		}
	}
	s := &Store{
		dir: cfg.Dir, log: log, pins: cfg.Pin,
		maxSize: cfg.MaxSize, minFree: cfg.MinFree, syncWrites: cfg.SyncWrites,
		hook: cfg.hook, files: cfg.files.orReal(), hugeFrom: cmp.Or(cfg.hugeFrom, huge),
		newDirs:  make(map[string]struct{}),
		blobs:    make(map[digest.Digest]*record),
		parents:  make(map[digest.Digest][]digest.Digest),
		repos:    make(map[oci.Name]*repository),
		ingests:  make(map[string]*Ingest),
		partials: make(map[string]*partial),
		evicted:  make(map[string]uint64),
	}
	s.buffers.New = func() any { b := make([]byte, hashChunk); return &b }
	s.index = &index{store: s, kick: make(chan struct{}, 1), changed: make(map[key]struct{})}

	if err := s.makeDirs(); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	lock, err := lockDir(ctx, s.dir, cfg.LockWait)
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	s.lock = lock
	if err := s.recover(ctx); err != nil {
		return nil, fmt.Errorf("open store: %w", errors.Join(err, lock.release()))
	}
	background, stop := context.WithCancel(context.Background())
	s.stop = stop
	every := cfg.checkEvery
	if every == 0 {
		every = tick
	}
	s.running.Go(func() { s.run(background, every) }) // ended by Close
	return s, nil
}

// discarding is the log of who gave none.
func discarding() *logrus.Entry {
	silent := logrus.New()
	silent.SetOutput(io.Discard)
	return logrus.NewEntry(silent)
}

// makeDirs makes the directories that are missing; one that cannot be made now
// is made when it is needed.
func (s *Store) makeDirs() error {
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return err
	}
	for _, dir := range []string{"blobs", "ingest"} {
		if err := os.MkdirAll(filepath.Join(s.dir, dir), 0o755); err != nil {
			if err = noSpace(err); !errors.Is(err, ErrNoSpace) {
				return err
			}
			s.trouble = err
		}
	}
	return nil
}

// recover builds memory from the disk.
func (s *Store) recover(ctx context.Context) error {
	if err := s.readBlobs(ctx); err != nil {
		return err
	}
	if err := s.readIngests(); err != nil {
		return err
	}
	if err := s.openIndex(); err != nil {
		return err
	}
	s.readManifests()
	s.index.wake()
	return nil
}

// run writes the index when asked and looks after the limits until ctx ends.
func (s *Store) run(ctx context.Context, every time.Duration) {
	s.relieve()
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.index.kick:
		case <-t.C:
			s.noteTrouble(nil) // whoever comes next tries again
			s.index.retry()
			s.noteUses()
			s.relieve()
		}
		// A failure is remembered in the index and tried again.
		_ = s.index.flush()
	}
}

// noteUses has the last uses written that only memory knows.
func (s *Store) noteUses() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for dgst, rec := range s.blobs {
		if rec.dirty {
			rec.dirty = false
			s.dirty(useKey(dgst))
		}
	}
}

// readBlobs enters every file below blobs/ whose place says what it is, and
// removes the others.
func (s *Store) readBlobs(ctx context.Context) error {
	root := filepath.Join(s.dir, "blobs")
	return filepath.WalkDir(root, func(file string, e fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return fmt.Errorf("read blobs: %w", err)
		case ctx.Err() != nil:
			return ctx.Err()
		case e.IsDir():
			return nil
		}
		rel, err := filepath.Rel(root, file)
		if err != nil {
			return fmt.Errorf("read blobs: %w", err)
		}
		info, err := e.Info()
		if err != nil {
			return fmt.Errorf("read blobs: %w", err)
		}
		dgst, ok := digestOf(rel)
		if !ok || !info.Mode().IsRegular() || info.Size() == 0 && dgst != dgst.Algorithm().FromBytes(nil) {
			s.log.WithField("file", rel).Warn("removing a file that is no blob")
			if err := os.Remove(file); err != nil {
				s.log.WithError(err).Warn("cannot remove a file that is no blob")
			}
			return nil
		}
		s.blobs[dgst] = &record{size: info.Size(), used: info.ModTime()}
		s.bytes += info.Size()
		return nil
	})
}

// digestOf reads a path below blobs/: <algorithm>/<two digits>/<hex>.
func digestOf(rel string) (digest.Digest, bool) {
	parts := strings.Split(filepath.ToSlash(rel), "/")
	if len(parts) != 3 {
		return "", false
	}
	dgst := digest.NewDigestFromEncoded(digest.Algorithm(parts[0]), parts[2])
	if checkDigest(dgst) != nil || parts[1] != parts[2][:2] {
		return "", false
	}
	return dgst, true
}

// readIngests enters the partial ingests that can be resumed, and removes the
// rest.
func (s *Store) readIngests() error {
	root := filepath.Join(s.dir, "ingest")
	list, err := os.ReadDir(root)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read ingests: %w", err)
	}
	for _, e := range list {
		p, err := s.readIngest(e.Name())
		if err != nil {
			s.log.WithField("ingest", e.Name()).WithField("reason", err).Info("removing an ingest that cannot be resumed")
			s.removeIngest(e.Name())
			continue
		}
		s.partials[e.Name()] = p
	}
	s.expirePartials(time.Now())
	return nil
}

// readIngest reads what there is of one partial ingest.
func (s *Store) readIngest(id string) (*partial, error) {
	alg, hex, _ := strings.Cut(id, "-")
	dgst := digest.NewDigestFromEncoded(digest.Algorithm(alg), hex)
	if err := checkDigest(dgst); err != nil {
		return nil, err
	}
	if s.blobs[dgst] != nil {
		return nil, errors.New("the content is committed")
	}
	dir := s.ingestDir(id)
	text, err := os.ReadFile(filepath.Join(dir, "state"))
	if err != nil {
		return nil, err
	}
	size, held, err := parseState(text)
	if err != nil {
		return nil, err
	}
	info, err := os.Lstat(filepath.Join(dir, "data"))
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() != size {
		return nil, fmt.Errorf("data has %d bytes, not %d", info.Size(), size)
	}
	return &partial{size: size, held: held, used: info.ModTime(), reserved: blocks(info) >= size}, nil
}

// readManifests looks into the small files the index does not know, to find the
// image manifests among them.
func (s *Store) readManifests() {
	for dgst, rec := range s.blobs {
		if rec.known && !rec.reread {
			continue
		}
		s.dirty(useKey(dgst))
		if rec.size > oci.MaxManifestSize {
			continue
		}
		if m := readManifest(s.blobPath(dgst)); m != nil {
			s.learn(dgst, rec, m)
			s.dirty(manifestKey(dgst))
		}
	}
}

// readManifest reads a file when it may be an image manifest: nil when not.
func readManifest(file string) *manifest {
	f, err := os.Open(file)
	if err != nil {
		return nil
	}
	defer f.Close()
	var first [1]byte
	if _, err := f.ReadAt(first[:], 0); err != nil || first[0] != '{' && first[0] > ' ' {
		return nil
	}
	content, err := io.ReadAll(io.LimitReader(f, oci.MaxManifestSize+1))
	if err != nil {
		return nil
	}
	return parseManifest(content)
}

// ingestID names the ingest of a digest.
func ingestID(dgst digest.Digest) string { return string(dgst.Algorithm()) + "-" + dgst.Encoded() }

// uniqueID names an ingest that is never resumed.
func (s *Store) uniqueID() string { return "put-" + rand.Text() }
