package store

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// files are the calls into the file system whose failures cannot be had from a
// real one on demand (an I/O error above all). Tests replace single fields.
type files struct {
	writeAt   func(f *os.File, p []byte, off int64) (int, error)
	readAt    func(f *os.File, p []byte, off int64) (int, error)
	sync      func(f *os.File) error
	writeback func(f *os.File, from, to int64)
	rename    func(from, to string) error
	allocate  func(f *os.File, size int64) error
	statfs    func(dir string) (unix.Statfs_t, error)
}

// orReal fills the fields that are nil with the real calls.
func (f files) orReal() files {
	if f.writeAt == nil {
		f.writeAt = (*os.File).WriteAt
	}
	if f.readAt == nil {
		f.readAt = (*os.File).ReadAt
	}
	if f.sync == nil {
		f.sync = (*os.File).Sync
	}
	if f.writeback == nil {
		f.writeback = writeback
	}
	if f.rename == nil {
		f.rename = os.Rename
	}
	if f.allocate == nil {
		f.allocate = allocate
	}
	if f.statfs == nil {
		f.statfs = statfs
	}
	return f
}

// writebackStep is how much is written before the kernel is told to begin.
const writebackStep = 8 << 20

// huge is the size, in bytes, from which content on its way is written out as it
// comes. What is smaller the kernel may gather: telling it costs a pull some
// hundredths of its time.
const huge = 256 << 20

// writeback starts the kernel writing a part of a file, so that a sync at its end
// has little left to wait for. The file may be closed at any time.
func writeback(f *os.File, from, to int64) {
	conn, err := f.SyscallConn()
	if err != nil {
		return // only ever a help, here and below
	}
	_ = conn.Control(func(fd uintptr) {
		_ = unix.SyncFileRange(int(fd), from, to-from, unix.SYNC_FILE_RANGE_WRITE)
	})
}

// allocate gives f its full size on disk, so that a full disk shows now and not
// in the middle of a transfer. Where the file system cannot reserve, the file
// only gets its length: errNotReserved says so.
func allocate(f *os.File, size int64) error {
	if size == 0 {
		return nil
	}
	for {
		err := unix.Fallocate(int(f.Fd()), 0, 0, size)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EINVAL):
			if err := f.Truncate(size); err != nil {
				return fmt.Errorf("set length: %w", err)
			}
			return errNotReserved
		}
		return fmt.Errorf("reserve %d bytes: %w", size, err)
	}
}

// errNotReserved means that the file has its length but not its blocks.
var errNotReserved = errors.New("file system cannot reserve space")

// statfs asks the file system how full it is.
func statfs(dir string) (unix.Statfs_t, error) {
	var st unix.Statfs_t
	for {
		err := unix.Statfs(dir, &st)
		if !errors.Is(err, unix.EINTR) {
			return st, err
		}
	}
}

// syncDir makes renames and removals in dir durable.
func (s *Store) syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("open directory: %w", err)
	}
	defer d.Close()
	if err := s.files.sync(d); err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	return nil
}

// noSpace wraps err in ErrNoSpace when it means that nothing can be written
// here just now, rather than that something is broken.
func noSpace(err error) error {
	for _, cause := range []error{unix.ENOSPC, unix.EDQUOT, unix.EROFS, unix.EACCES, unix.EPERM, unix.EFBIG} {
		if errors.Is(err, cause) {
			return fmt.Errorf("%w: %w", ErrNoSpace, err)
		}
	}
	return err
}

// blocks is how many bytes of a file have a place on disk.
func blocks(info os.FileInfo) int64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Blocks * 512
	}
	return 0
}
