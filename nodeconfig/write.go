package nodeconfig

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// What is not yet, or no longer, in force stands beside its place under a name
// of ours, so that a run that was killed leaves nothing a later run does not
// recognise.
const (
	newSuffix = ".larder-new"
	oldSuffix = ".larder-old"
)

// newName and oldName are hidden names beside name.
func newName(name string) string { return path.Join(path.Dir(name), "."+path.Base(name)+newSuffix) }
func oldName(name string) string { return path.Join(path.Dir(name), "."+path.Base(name)+oldSuffix) }

// attributes are what a file is besides its content.
type attributes struct {
	mode     fs.FileMode
	uid, gid int
	modified time.Time // zero for now
	labels   map[string][]byte
}

// attributesOf reads the attributes of the file at host.
func attributesOf(host string) (attributes, error) {
	info, err := os.Stat(host)
	if err != nil {
		return attributes{}, err
	}
	a := attributes{mode: info.Mode().Perm(), uid: -1, gid: -1, modified: info.ModTime(), labels: map[string][]byte{}}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		a.uid, a.gid = int(stat.Uid), int(stat.Gid)
	}
	// SELinux's label and access lists are extended attributes. A file system
	// without any has nothing to keep.
	names := make([]byte, 64<<10) // XATTR_LIST_MAX
	size, _ := unix.Listxattr(host, names)
	for name := range bytes.FieldsFuncSeq(names[:max(0, size)], func(r rune) bool { return r == 0 }) {
		value := make([]byte, 64<<10)
		if size, err := unix.Getxattr(host, string(name), value); err == nil {
			a.labels[string(name)] = value[:size]
		}
	}
	return a, nil
}

// replace gives the file at host the content and the attributes, atomically: it
// is written beside, synced, and renamed. The directory exists.
func replace(host string, content []byte, a attributes) (err error) {
	beside := newName(host)
	if err := os.RemoveAll(beside); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(beside) // what failed is told already
		}
	}()
	if err := create(beside, content, a); err != nil {
		return err
	}
	if err := os.Rename(beside, host); err != nil {
		return err
	}
	return syncDir(filepath.Dir(host))
}

// create writes a new file and syncs it.
func create(host string, content []byte, a attributes) error {
	file, err := os.OpenFile(host, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer file.Close()
	if _, err := file.Write(content); err != nil {
		return err
	}
	if a.uid >= 0 && (a.uid != os.Geteuid() || a.gid != os.Getegid()) {
		if err := file.Chown(a.uid, a.gid); err != nil {
			return err
		}
	}
	if err := file.Chmod(a.mode); err != nil {
		return err
	}
	for name, value := range a.labels {
		// A label the kernel gave the new file by itself may not be set
		// again; where it matters the write above was refused.
		_ = unix.Fsetxattr(int(file.Fd()), name, value, 0)
	}
	if !a.modified.IsZero() {
		if err := os.Chtimes(host, time.Time{}, a.modified); err != nil {
			return err
		}
	}
	if err := file.Sync(); err != nil {
		return err
	}
	return file.Close()
}

// syncDir makes the names in a directory last.
func syncDir(host string) error {
	dir, err := os.Open(host)
	if err != nil {
		return err
	}
	defer dir.Close()
	// Some file systems cannot sync a directory, and say so by EINVAL.
	if err := dir.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) {
		return fmt.Errorf("sync %s: %w", host, err)
	}
	return nil
}
