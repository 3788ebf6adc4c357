package nodeconfig

import (
	"cmp"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// maxDepth bounds how deep below a directory records are looked for.
const maxDepth = 8

// found is what larder left below some directories.
type found struct {
	records   []*record
	leftovers []string // names of ours that a killed run left behind
	unread    []string // why a record could not be read
}

// find looks below each of dirs, links followed, for records and leftovers, and
// for the records of files, which links may have led out of dirs. Directories
// that do not exist are passed over.
func (n *Node) find(files, dirs []string) (found, error) {
	var f found
	for _, file := range files {
		real, err := n.resolve(file)
		if err != nil {
			return f, err
		}
		for _, name := range []string{recordName(real), newName(real)} {
			info, err := os.Lstat(filepath.Join(n.Root, name))
			if err != nil {
				continue // most have none
			}
			if err := f.look(n, path.Dir(real), name, fs.FileInfoToDirEntry(info)); err != nil {
				return f, err
			}
		}
	}
	seen := map[string]bool{}
	for _, dir := range dirs {
		real, err := n.resolve(dir)
		if err != nil {
			return f, err
		}
		root := filepath.Join(n.Root, real)
		if seen[root] || !n.isDir(real) {
			continue
		}
		seen[root] = true
		err = filepath.WalkDir(root, func(host string, entry fs.DirEntry, err error) error {
			name := path.Join(real, strings.TrimPrefix(host, root))
			if err != nil {
				if os.IsNotExist(err) {
					return nil
				}
				return n.explain("list", name, err)
			}
			return f.look(n, real, name, entry)
		})
		if err != nil {
			return f, err
		}
	}
	// Directories we made go last, the innermost first.
	slices.SortStableFunc(f.records, func(a, b *record) int {
		if a.MadeDir == "" || b.MadeDir == "" {
			return cmp.Compare(len(a.MadeDir), len(b.MadeDir))
		}
		return cmp.Compare(len(b.MadeDir), len(a.MadeDir))
	})
	return f, nil
}

// look takes one entry into account.
func (f *found) look(n *Node, top, name string, entry fs.DirEntry) error {
	base := path.Base(name)
	if strings.HasPrefix(base, ".") && (strings.HasSuffix(base, newSuffix) || strings.HasSuffix(base, oldSuffix)) {
		if !slices.Contains(f.leftovers, name) {
			f.leftovers = append(f.leftovers, name)
		}
		if entry.IsDir() {
			return fs.SkipDir
		}
		return nil
	}
	if entry.IsDir() {
		if strings.Count(strings.TrimPrefix(name, top), "/") > maxDepth {
			return fs.SkipDir
		}
		return nil
	}
	file, ok := recorded(path.Dir(name), base)
	if !ok || slices.ContainsFunc(f.records, func(r *record) bool { return r.Path == file }) {
		return nil
	}
	r, err := n.record(file)
	if err != nil {
		f.unread = append(f.unread, err.Error())
		return nil
	}
	r.Path = file // where it stands is what counts, if the tree was moved
	f.records = append(f.records, r)
	return nil
}

// planUndo plans to restore every file below dirs that has a record.
func (n *Node) planUndo(dirs ...string) ([]Change, error) { return n.planUndoOf(nil, dirs) }

// planUndoOf is planUndo, for files elsewhere as well.
func (n *Node) planUndoOf(files, dirs []string) ([]Change, error) {
	f, err := n.find(files, dirs)
	if err != nil {
		return nil, err
	}
	var changes []Change
	for _, r := range f.records {
		now, err := n.read(r.Path)
		if err != nil {
			return nil, err
		}
		changes = append(changes, undo(r, now))
	}
	changes = append(changes, sweep(f.leftovers)...)
	for _, why := range f.unread {
		changes = append(changes, warning("", "cannot be undone: "+why))
	}
	return changes, nil
}

// undo is the change that takes one file, which is now as given, back.
func undo(r *record, now []byte) Change {
	c := Change{Kind: File, Path: r.Path, Before: now, After: r.Before, undo: r, Why: "as it was before larder"}
	if !r.Existed {
		c.After = nil
		c.Why = "larder made it"
	} else if c.After == nil {
		c.After = []byte{}
	}
	switch {
	case r.untouched(now):
		c.Why = "it is as it was; only the record goes"
		return c
	case r.ours(now):
		return c
	}
	if now != nil {
		if rest, ok := r.without(now); ok {
			c.After = rest
			c.Why = "larder's lines go; what others have changed since stays"
			return c
		}
		return warning(r.Path, "others have changed it since larder did, so it stays; what it was is in "+recordName(r.Path))
	}
	return warning(r.Path, "others have removed it since larder wrote it, so it stays away; what it was is in "+recordName(r.Path))
}

// sweep are the changes that remove what killed runs left behind.
func sweep(leftovers []string) []Change {
	var changes []Change
	for _, name := range leftovers {
		changes = append(changes, Change{
			Kind: File, Path: name, Before: []byte{}, leftover: true,
			Why: "left behind by a run of larder that was killed",
		})
	}
	return changes
}
