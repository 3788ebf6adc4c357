package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/larder-registry/larder/internal/oci"
)

// draft is a file below uploads/, open.
type draft struct {
	depot *Depot
	file  *os.File
	// started is how far the kernel was told to write.
	started int64
	// fresh: the draft may have been made, and its directory not synced since.
	fresh bool
}

// Draft opens a draft, or makes it when create is set; fs.ErrNotExist when there
// is none. An id is capital letters and the digits 2 to 7, 64 at most.
func (d *Depot) Draft(id string, create bool) (oci.Draft, error) {
	if err := checkID(id); err != nil {
		return nil, fmt.Errorf("open draft: %w", err)
	}
	flags := os.O_RDWR
	if create {
		flags |= os.O_CREATE
	}
	f, err := os.OpenFile(d.draftPath(id), flags, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open draft: %w", noSpace(err))
	}
	return &draft{depot: d, file: f, fresh: create}, nil
}

// Drafts lists the drafts there are, with the time of the last change of each.
func (d *Depot) Drafts() (map[string]time.Time, error) {
	list, err := os.ReadDir(filepath.Join(d.dir, "uploads"))
	if err != nil {
		return nil, fmt.Errorf("list drafts: %w", err)
	}
	drafts := make(map[string]time.Time, len(list))
	for _, e := range list {
		if info, err := e.Info(); err == nil { // else it has just gone
			drafts[e.Name()] = info.ModTime()
		}
	}
	return drafts, nil
}

// Discard removes a draft; one that is not there is fine.
func (d *Depot) Discard(id string) error {
	if err := checkID(id); err != nil {
		return fmt.Errorf("discard draft: %w", err)
	}
	if err := os.Remove(d.draftPath(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("discard draft: %w", err)
	}
	return nil
}

// WriteAt writes; ErrNoSpace when the disk is full, or would be.
func (d *draft) WriteAt(p []byte, off int64) (int, error) {
	if room, err := d.depot.room(100 * time.Millisecond); err != nil || room < int64(len(p)) {
		return 0, errors.Join(fmt.Errorf("write draft: %w: %d bytes may be used", ErrNoSpace, room), err)
	}
	n, err := d.depot.files.writeAt(d.file, p, off)
	if err != nil {
		return n, fmt.Errorf("write draft: %w", noSpace(err))
	}
	if end := off + int64(n); end-d.started >= writebackStep {
		d.depot.files.writeback(d.file, d.started, end)
		d.started = end
	}
	return n, nil
}

// ReadAt reads what was written.
func (d *draft) ReadAt(p []byte, off int64) (int, error) { return d.depot.files.readAt(d.file, p, off) }

// Resize cuts the draft off, or extends it.
func (d *draft) Resize(size int64) error {
	if err := d.file.Truncate(size); err != nil {
		return fmt.Errorf("resize draft: %w", noSpace(err))
	}
	return nil
}

// Size is the length of the file.
func (d *draft) Size() (int64, error) {
	info, err := d.file.Stat()
	if err != nil {
		return 0, fmt.Errorf("stat draft: %w", err)
	}
	return info.Size(), nil
}

// Sync returns once everything written is on disk, and with settle also the
// draft's entry in its directory. A commit renames it into another.
func (d *draft) Sync(settle bool) error {
	if err := d.depot.files.sync(d.file); err != nil {
		return fmt.Errorf("sync draft: %w", noSpace(err))
	}
	if !settle || !d.fresh {
		return nil
	}
	if err := d.depot.syncDir(filepath.Join(d.depot.dir, "uploads")); err != nil {
		return fmt.Errorf("sync draft: %w", noSpace(err))
	}
	d.fresh = false
	return nil
}

// Close closes the file.
func (d *draft) Close() error {
	if err := d.file.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return fmt.Errorf("close draft: %w", err)
	}
	return nil
}
