package store

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// ballastSize is what the ballast takes: enough for badger to write its table
// of recent entries to disk.
const ballastSize = 16 << 20

// ballast is a file that only takes up room beside badger, to be given up when
// the disk is full and badger must open, or close in good order.
func (ix *index) ballast() string { return filepath.Join(ix.dir(), "BALLAST") }

// dropBallast gives the room up.
func (ix *index) dropBallast() {
	if err := os.Remove(ix.ballast()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		ix.store.log.WithError(err).Warn("cannot remove the ballast")
	}
}

// restoreBallast takes the room again, if there is plenty.
func (ix *index) restoreBallast() {
	if _, err := os.Lstat(ix.ballast()); err == nil {
		return
	}
	r := ix.store.free.room(ix.store, 0)
	if !r.known || r.avail < r.minFree+indexRoom+ballastSize {
		return
	}
	// Short of room it is not kept, and tried again later.
	if err := reserveFile(ix.ballast(), ballastSize); err != nil {
		ix.dropBallast()
	}
}

// reserveFile makes a file of size bytes that really has its blocks.
func reserveFile(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	return allocate(f, size)
}

// reserveLogs gives badger's logs the blocks that their length promises. Badger
// makes them sparse and writes through a memory map: on a full disk that ends
// the process.
func reserveLogs(dir string) error {
	for _, pattern := range []string{"*.mem", "*.vlog"} {
		files, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			return err
		}
		for _, file := range files {
			info, err := os.Stat(file)
			if errors.Is(err, fs.ErrNotExist) || err == nil && blocks(info) >= info.Size() {
				continue // flushed meanwhile, or done before
			}
			if err != nil {
				return err
			}
			if err := reserveExisting(file, info.Size()); err != nil {
				return err
			}
		}
	}
	return nil
}

// reserveExisting gives a file of size bytes its blocks. A file system that
// cannot reserve leaves the guard before each write as the only protection.
func reserveExisting(file string, size int64) error {
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if err := allocate(f, size); err != nil && !errors.Is(err, errNotReserved) {
		return err
	}
	return nil
}
