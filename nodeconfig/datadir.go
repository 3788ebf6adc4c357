package nodeconfig

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// DataDir is the mirror's directory on the node, and whom it is to belong to.
type DataDir struct {
	// Path is absolute, as the node sees it.
	Path     string
	UID, GID int
}

// ParseDataDir reads "DIR:UID:GID".
func ParseDataDir(text string) (DataDir, error) {
	parts := strings.Split(text, ":")
	bad := fmt.Errorf("%q: write DIR:UID:GID, as in /var/lib/larder:65532:65532", text)
	if len(parts) < 3 {
		return DataDir{}, bad
	}
	d := DataDir{Path: strings.Join(parts[:len(parts)-2], ":")}
	for i, to := range []*int{&d.UID, &d.GID} {
		id, err := strconv.ParseUint(parts[len(parts)-2+i], 10, 31)
		if err != nil || id == math.MaxInt32 {
			return DataDir{}, bad
		}
		*to = int(id)
	}
	if !path.IsAbs(d.Path) {
		return DataDir{}, fmt.Errorf("%q: the directory must be an absolute path", text)
	}
	if d.Path = path.Clean(d.Path); d.Path == "/" {
		return DataDir{}, fmt.Errorf("%q: that is everything", text)
	}
	return d, nil
}

// ErrForeignData is returned, wrapped, for a directory that holds something and
// does not look like a mirror's.
var ErrForeignData = errors.New("it holds files, and none of a mirror's")

// PrepareData makes d usable by a mirror that does not run as root: the
// directory is made when it is missing, and it and everything in it is given to
// UID and GID. Links are not followed, other file systems not entered. It
// reports how many entries changed, or, when dry, would; a second call changes
// none. Whatever does not look like a mirror's directory is refused.
func (n *Node) PrepareData(d DataDir, dry bool) (changed int, err error) {
	real, err := n.resolve(d.Path)
	if err != nil {
		return 0, err
	}
	names, err := n.list(real)
	if err != nil {
		return 0, err
	}
	ours := func(name string) bool {
		return slices.Contains([]string{"blobs", "index", "ingest", "uploads", "LOCK", "lost+found"}, name)
	}
	if len(names) > 0 && !slices.ContainsFunc(names, ours) {
		return 0, fmt.Errorf("prepare %s: %w: %s", d.Path, ErrForeignData, strings.Join(names[:min(3, len(names))], ", "))
	}
	host := filepath.Join(n.Root, real)
	if !n.exists(real) {
		changed++
		if dry {
			return changed, nil
		}
		if err := os.MkdirAll(host, 0o750); err != nil {
			return 0, n.explain("make", d.Path, err)
		}
	}
	top, err := os.Stat(host)
	if err != nil {
		return changed, n.explain("read", d.Path, err)
	}
	if !top.IsDir() {
		return changed, fmt.Errorf("prepare %s: it is no directory", d.Path)
	}
	err = filepath.WalkDir(host, func(name string, entry fs.DirEntry, err error) error {
		shown := path.Join(real, strings.TrimPrefix(name, host))
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return nil // a running mirror removes files
			}
			return n.explain("read", shown, err)
		}
		info, err := entry.Info()
		if err != nil {
			return nil //nolint:nilerr // it is gone by now
		}
		if device(info) != device(top) {
			return fs.SkipDir
		}
		stat, ok := info.Sys().(*syscall.Stat_t)
		if ok && int(stat.Uid) == d.UID && int(stat.Gid) == d.GID {
			return nil
		}
		changed++
		if dry {
			return nil
		}
		if err := os.Lchown(name, d.UID, d.GID); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return n.explain("give away", shown, err)
		}
		return nil
	})
	if err != nil || top.Mode().Perm()&0o700 == 0o700 {
		return changed, err
	}
	changed++
	if dry {
		return changed, nil
	}
	return changed, n.explainIf("open up", d.Path, os.Chmod(host, top.Mode().Perm()|0o700))
}

// device is the file system an entry is on.
func device(info fs.FileInfo) uint64 {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return uint64(stat.Dev) //nolint:unconvert // it is not uint64 everywhere
	}
	return 0
}
