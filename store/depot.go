package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/internal/oci"
)

// DepotConfig says where a depot keeps its files.
type DepotConfig struct {
	// Dir is the data directory; it is made when it does not exist, and has to
	// be locked by the caller, see [LockDir].
	Dir string
	// MinFree is what drafts leave free of the file system.
	MinFree Limit
}

// depotRoom is what drafts leave free in any case: a ledger on the same disk has
// to be opened, and written to, also when there is room for nothing else.
const depotRoom = 3 * indexRoom

// Depot keeps the content of a registry as files: drafts under names of the
// caller's, committed content under its digest. What it does not do is decide:
// nothing goes away unless Remove or Discard is called. Its methods may be
// called from any goroutine.
//
//	data/
//	  blobs/sha256/ab/abcd…   committed content, read-only files
//	  uploads/<id>            drafts
type Depot struct {
	dir     string
	minFree Limit
	files   files

	mu   sync.Mutex // guards free and at
	free int64
	at   time.Time
}

// OpenDepot opens the depot in cfg.Dir.
func OpenDepot(cfg DepotConfig) (*Depot, error) {
	d := &Depot{dir: cfg.Dir, minFree: cfg.MinFree, files: files{}.orReal()}
	for _, dir := range []string{"blobs", "uploads"} {
		if err := os.MkdirAll(filepath.Join(d.dir, dir), 0o755); err != nil {
			return nil, fmt.Errorf("open depot: %w", err)
		}
	}
	if err := d.syncDir(d.dir); err != nil {
		return nil, fmt.Errorf("open depot: %w", err)
	}
	return d, nil
}

// DepotBlob is committed content, open for reading. It embeds the file so that a
// server can use sendfile.
type DepotBlob struct {
	*os.File
	desc oci.Descriptor
}

// Descriptor says what the blob is, but for its media type.
func (b *DepotBlob) Descriptor() oci.Descriptor { return b.desc }

// Close closes the file. It may be called more than once.
func (b *DepotBlob) Close() error {
	if err := b.File.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return fmt.Errorf("close blob: %w", err)
	}
	return nil
}

// Open opens committed content; oci.ErrBlobUnknown when there is none. The
// caller closes it.
func (d *Depot) Open(dgst digest.Digest) (oci.Blob, error) {
	f, err := os.Open(d.path(dgst))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, oci.ErrBlobUnknown
	}
	if err != nil {
		return nil, fmt.Errorf("open blob: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("open blob: %w", err)
	}
	return &DepotBlob{File: f, desc: oci.Descriptor{Digest: dgst, Size: info.Size()}}, nil
}

// Stat describes committed content; oci.ErrBlobUnknown when there is none.
func (d *Depot) Stat(dgst digest.Digest) (oci.Kept, error) {
	info, err := os.Lstat(d.path(dgst))
	if errors.Is(err, fs.ErrNotExist) {
		return oci.Kept{}, oci.ErrBlobUnknown
	}
	if err != nil {
		return oci.Kept{}, fmt.Errorf("stat blob: %w", err)
	}
	return oci.Kept{Digest: dgst, Size: info.Size(), At: info.ModTime().Unix()}, nil
}

// Each calls f with everything that is committed, in no particular order. What
// comes or goes meanwhile may be missing or not.
func (d *Depot) Each(ctx context.Context, f func(oci.Kept) error) error {
	root := filepath.Join(d.dir, "blobs")
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
		dgst, ok := digestOf(rel)
		if !ok {
			return nil // not ours
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read blobs: %w", err)
		}
		return f(oci.Kept{Digest: dgst, Size: info.Size(), At: info.ModTime().Unix()})
	})
}

// Remove removes committed content; whoever has it open reads on. Content that
// is not there is fine.
func (d *Depot) Remove(dgst digest.Digest) error {
	if err := os.Remove(d.path(dgst)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove blob: %w", err)
	}
	return nil
}

// Commit makes a draft, which must be closed and synced, the content of dgst: by
// a rename, and a sync of the directory. The caller has checked the digest. A
// file that is there already is replaced: nobody has looked at that since it came.
func (d *Depot) Commit(id string, dgst digest.Digest) error {
	from, to := d.draftPath(id), d.path(dgst)
	// It counts as committed now, however long ago its last byte came.
	now := time.Now()
	if err := errors.Join(os.Chtimes(from, now, now), os.Chmod(from, 0o444)); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	dir := filepath.Dir(to)
	if err := d.makeDir(dir); err != nil {
		return fmt.Errorf("commit: %w", noSpace(err))
	}
	if err := d.files.rename(from, to); err != nil {
		return fmt.Errorf("commit: %w", noSpace(err))
	}
	if err := d.syncDir(dir); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}

// makeDir makes a directory below blobs/, durably.
func (d *Depot) makeDir(dir string) error {
	err := os.Mkdir(dir, 0o755)
	if errors.Is(err, fs.ErrNotExist) {
		if err := d.makeDir(filepath.Dir(dir)); err != nil {
			return err
		}
		err = os.Mkdir(dir, 0o755)
	}
	// Another may have made it and not have synced it yet.
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return d.syncDir(filepath.Dir(dir))
}

// syncDir makes renames in dir durable.
func (d *Depot) syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return d.files.sync(f)
}

// path is where a digest's file lies. dgst has been validated by whoever made
// it.
func (d *Depot) path(dgst digest.Digest) string {
	hex := dgst.Encoded()
	return filepath.Join(d.dir, "blobs", string(dgst.Algorithm()), hex[:2], hex)
}

// draftPath is where a draft lies.
func (d *Depot) draftPath(id string) string { return filepath.Join(d.dir, "uploads", id) }

// checkID refuses what must not become a file name.
func checkID(id string) error {
	if id == "" || len(id) > 64 || strings.Trim(id, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") != "" {
		return fmt.Errorf("%q cannot name a draft", id)
	}
	return nil
}

// Free is how many bytes drafts may still take; it is 0 on a disk that is full.
func (d *Depot) Free() (int64, error) { return d.room(0) }

// room is Free, not older than maxAge.
func (d *Depot) room(maxAge time.Duration) (int64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if maxAge > 0 && time.Since(d.at) < maxAge {
		return d.free, nil
	}
	free, total, err := freeBytes(d.files, d.dir)
	if err != nil {
		return 0, fmt.Errorf("look for room: %w", err)
	}
	d.free, d.at = max(free-max(d.minFree.of(total), depotRoom), 0), time.Now()
	return d.free, nil
}

// freeBytes is how much of the file system under dir we may still use, and how
// large it is.
func freeBytes(f files, dir string) (free, total int64, err error) {
	st, err := f.statfs(dir)
	if err != nil {
		return 0, 0, err
	}
	unit := int64(st.Frsize) //nolint:unconvert // 32 bits on some machines
	if unit == 0 {
		unit = int64(st.Bsize) //nolint:unconvert // as above
	}
	return int64(min(st.Bavail, math.MaxInt64/uint64(unit))) * unit, int64(min(st.Blocks, math.MaxInt64/uint64(unit))) * unit, nil
}
