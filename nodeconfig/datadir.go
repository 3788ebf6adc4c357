package nodeconfig

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path"
	"path/filepath"
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
//
// Of root's powers it needs CAP_CHOWN only. What belongs to UID and GID already
// and is closed to everybody else is taken to be in order, inside as well: a
// directory is given away after what is in it.
func (n *Node) PrepareData(d DataDir, dry bool) (changed int, err error) {
	real, err := n.resolve(d.Path)
	if err != nil {
		return 0, err
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
	g := giver{node: n, to: d, device: device(top), dry: dry, changed: changed}
	names, err := n.list(real)
	closed := errors.Is(err, fs.ErrPermission)
	switch {
	case closed && !g.right(top):
		// What is in it cannot be seen, so it is not taken either.
		return changed, fmt.Errorf("prepare %s: %w: %s: if it is the mirror's, run on the node: chown -R %d:%d %s", d.Path, fs.ErrPermission, n.owner(real), d.UID, d.GID, d.Path)
	case err != nil && !closed:
		return changed, err
	}
	if err := foreign(names); err != nil {
		return changed, fmt.Errorf("prepare %s: %w", d.Path, err)
	}
	if top.Mode().Perm()&0o700 != 0o700 {
		g.changed++
		if !dry {
			if err := os.Chmod(host, top.Mode().Perm()|0o700); err != nil {
				return g.changed, n.explain("open up", d.Path, err)
			}
		}
	}
	return g.changed, g.give(real)
}

// giver gives a directory away, and counts.
type giver struct {
	node    *Node
	to      DataDir
	device  uint64
	dry     bool
	changed int
}

// right reports whether an entry belongs to whom it is to belong.
func (g *giver) right(info fs.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(stat.Uid) == g.to.UID && int(stat.Gid) == g.to.GID
}

// open lists the directory name. Of one that belongs to whom it should and is
// closed to this process it lists nothing; one that is closed and belongs to
// somebody else becomes this process's first, which CAP_CHOWN allows.
func (g *giver) open(name string, info fs.FileInfo) ([]string, error) {
	names, err := g.node.list(name)
	switch {
	case err == nil || !errors.Is(err, fs.ErrPermission):
		return names, err
	case g.right(info):
		return nil, nil
	case g.dry:
		return nil, err
	}
	if os.Lchown(filepath.Join(g.node.Root, name), os.Geteuid(), os.Getegid()) != nil {
		return nil, err
	}
	return g.node.list(name)
}

// give gives away what is in name, a directory with links resolved, or a file;
// then name itself.
func (g *giver) give(name string) error {
	host := filepath.Join(g.node.Root, name)
	info, err := os.Lstat(host)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil // a running mirror removes files
	case err != nil:
		return g.node.explain("read", name, err)
	case device(info) != g.device:
		return nil
	}
	if info.IsDir() {
		names, err := g.open(name, info)
		if err != nil {
			return err
		}
		for _, child := range names {
			if err := g.give(path.Join(name, child)); err != nil {
				return err
			}
		}
	}
	if g.right(info) {
		return nil
	}
	g.changed++
	if g.dry {
		return nil
	}
	if err := os.Lchown(host, g.to.UID, g.to.GID); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return g.node.explain("give away", name, err)
	}
	return nil
}

// device is the file system an entry is on.
func device(info fs.FileInfo) uint64 {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return uint64(stat.Dev) //nolint:unconvert // it is not uint64 everywhere
	}
	return 0
}
