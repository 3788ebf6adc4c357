package nodeconfig

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
)

// ErrDataInUse is returned, wrapped, for a directory that a mirror works with.
var ErrDataInUse = errors.New("a mirror uses it")

// RemoveData removes the mirror's directory dir, an absolute path on the node,
// with all that is in it; where something is mounted there, what is in it. Links
// are not followed, other file systems not entered. It reports how many entries
// were removed or, when dry, would be; none when there is no such directory.
//
// Like PrepareData it refuses whatever does not look like a mirror's, and needs
// CAP_CHOWN only. It also refuses what a running mirror has locked.
func (n *Node) RemoveData(dir string, dry bool) (removed int, err error) {
	real, err := n.resolve(dir)
	if err != nil {
		return 0, err
	}
	host := filepath.Join(n.Root, real)
	top, err := os.Lstat(host)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return 0, nil
	case err != nil:
		return 0, n.explain("read", dir, err)
	case !top.IsDir():
		return 0, fmt.Errorf("remove %s: it is no directory", dir)
	}
	lock, taken, err := openDir(host, dry)
	if lock != nil {
		defer lock.Close()
	}
	var names []string
	if err == nil {
		names, err = n.list(real)
	}
	if err == nil {
		err = foreign(names)
	}
	// A mirror locks the directory itself (store.LockDir).
	if err == nil && syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil {
		err = fmt.Errorf("%w: stop it first", ErrDataInUse)
	}
	if err != nil {
		if stat, ok := top.Sys().(*syscall.Stat_t); ok && taken {
			err = errors.Join(err, os.Lchown(host, int(stat.Uid), int(stat.Gid)))
		}
		return 0, n.explain("remove", dir, err)
	}
	r := remover{node: n, device: device(top), dry: dry}
	if err := r.empty(real); err != nil || dry {
		return r.removed, err
	}
	err = os.Remove(host)
	if errors.Is(err, syscall.EBUSY) || errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) {
		return r.removed, nil // a mount: it cannot be removed from here
	}
	return r.removed, n.explainIf("remove", dir, err)
}

// openDir opens a directory. One that is closed to this process becomes its own
// first, which CAP_CHOWN allows: taken.
func openDir(host string, dry bool) (dir *os.File, taken bool, err error) {
	dir, err = os.Open(host)
	if errors.Is(err, fs.ErrPermission) && !dry && os.Lchown(host, os.Geteuid(), os.Getegid()) == nil {
		taken = true
		dir, err = os.Open(host)
	}
	if err != nil {
		return nil, taken, err
	}
	return dir, taken, nil
}

// foreign returns ErrForeignData, wrapped, for a directory that holds something
// and nothing of a mirror's.
func foreign(names []string) error {
	for _, name := range names {
		switch name {
		case "blobs", "index", "ingest", "uploads", "LOCK", "lost+found":
			return nil
		}
	}
	if len(names) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %s", ErrForeignData, strings.Join(names[:min(3, len(names))], ", "))
}

// remover empties a directory, and counts.
type remover struct {
	node    *Node
	device  uint64
	dry     bool
	removed int
}

// empty removes what is in name, a directory with links resolved.
func (r *remover) empty(name string) error {
	host := filepath.Join(r.node.Root, name)
	if !r.dry {
		// Without root's powers only an owner removes what is in a directory.
		if err := os.Lchown(host, os.Geteuid(), os.Getegid()); err != nil {
			return r.node.explain("take over", name, err)
		}
		if err := os.Chmod(host, 0o700); err != nil { //nolint:gosec // a directory is entered
			return r.node.explain("open up", name, err)
		}
	}
	names, err := r.node.list(name)
	if err != nil {
		return err
	}
	for _, child := range names {
		if err := r.remove(path.Join(name, child)); err != nil {
			return err
		}
	}
	return nil
}

// remove removes name and what is in it.
func (r *remover) remove(name string) error {
	host := filepath.Join(r.node.Root, name)
	info, err := os.Lstat(host)
	if err != nil {
		return r.node.explain("read", name, err)
	}
	if device(info) != r.device {
		return fmt.Errorf("remove %s: another file system is mounted there", name)
	}
	if info.IsDir() {
		if err := r.empty(name); err != nil {
			return err
		}
	}
	r.removed++
	if r.dry {
		return nil
	}
	return r.node.explainIf("remove", name, os.Remove(host))
}
