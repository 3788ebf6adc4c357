package nodeconfig

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"
)

// ErrChanged is returned, wrapped, when a file is no longer what the plan was
// made for. Nothing of it was written; plan again.
var ErrChanged = errors.New("it was changed by somebody else meanwhile")

// edit is the change that gives the file name, which is before now, the content
// after; before is nil when there is no such file.
func edit(name string, before, after []byte, why string) Change {
	return Change{Kind: File, Path: name, Before: before, After: after, Why: why}
}

// apply makes the changes of files and restarts what has to be, in order. It is
// all of Apply for a target without settings of its own.
func (n *Node) apply(ctx context.Context, changes []Change) error {
	for _, c := range changes {
		if err := ctx.Err(); err != nil {
			return err
		}
		if !c.Changes() {
			continue
		}
		switch c.Kind {
		case File:
			if err := n.applyFile(c); err != nil {
				return err
			}
		case Restart:
			verb := "restart"
			if c.Reload {
				verb = "reload"
			}
			n.at(verb + " " + c.Path)
			if _, err := n.run(ctx, "systemctl", verb, c.Path); err != nil {
				return fmt.Errorf("%s %s: %w", verb, c.Path, err)
			}
		default:
			return fmt.Errorf("apply %s: not a change of a file", c.Path)
		}
	}
	return nil
}

// applyFile brings one file from Before to After, or does nothing.
func (n *Node) applyFile(c Change) error {
	real, err := n.resolve(c.Path)
	if err != nil {
		return err
	}
	if c.leftover {
		n.at("sweep " + real)
		return n.explainIf("remove", real, os.RemoveAll(filepath.Join(n.Root, real)))
	}
	now, err := n.read(real)
	if err != nil {
		return err
	}
	if (now == nil) != (c.Before == nil) || !bytes.Equal(now, c.Before) {
		return fmt.Errorf("write %s: %w", c.Path, ErrChanged)
	}
	switch {
	case c.undo != nil:
		err = n.restore(real, c)
	case c.After == nil:
		return fmt.Errorf("remove %s: only what was written here is removed, by its record", c.Path)
	default:
		err = n.write(real, c)
	}
	if err != nil {
		return err
	}
	now, err = n.read(real)
	if err != nil {
		return err
	}
	if (now == nil) != (c.After == nil) || !bytes.Equal(now, c.After) {
		return fmt.Errorf("read back %s: it is not what was written", c.Path)
	}
	if c.check == nil {
		return nil
	}
	if err := c.check(); err != nil {
		return errors.Join(err, n.back(real, c))
	}
	return nil
}

// back makes the file real what it was before c was applied.
func (n *Node) back(real string, c Change) error {
	if c.Before != nil {
		return n.write(real, Change{Kind: File, Path: c.Path, Before: c.After, After: c.Before})
	}
	r, err := n.record(real)
	if err != nil || r == nil {
		return err
	}
	return n.restore(real, undo(r, c.After))
}

// write records what the file real is, then makes it c.After.
func (n *Node) write(real string, c Change) error {
	mode := c.Mode
	if mode == 0 {
		mode = 0o644
	}
	a := attributes{mode: mode, uid: -1}
	host := filepath.Join(n.Root, real)
	if c.Before != nil {
		var err error
		if a, err = attributesOf(host); err != nil {
			return n.explain("read", real, err)
		}
	}
	missing := n.missing(path.Dir(real))
	if missing != "" {
		return n.writeTree(real, missing, c.After, a)
	}
	r, err := n.record(real)
	switch {
	case err != nil:
		return err
	case r == nil:
		r = newRecord(real, c.Before, c.After, a, "")
	case r.ours(c.Before):
		r.became(c.After)
	default: // what it is now is somebody's work, and what an undo goes back to
		r = newRecord(real, c.Before, c.After, a, r.MadeDir)
	}
	n.at("record " + real)
	if err := n.writeRecord(r); err != nil {
		return err
	}
	n.at("write " + real)
	a.modified = time.Time{} // now
	return n.explainIf("write", real, replace(host, c.After, a))
}

// missing is the topmost directory that does not exist on the way to dir; empty
// when all do.
func (n *Node) missing(dir string) string {
	top := ""
	for at := dir; !n.exists(at); at = path.Dir(at) {
		top = at
	}
	return top
}

// writeTree makes the directories from top down to the file real, with the file
// and its record in them. They appear by one rename: an empty directory below
// certs.d already means something to containerd.
func (n *Node) writeTree(real, top string, content []byte, a attributes) error {
	beside := newName(top)
	inside := path.Join(beside, strings.TrimPrefix(real, top))
	host := func(name string) string { return filepath.Join(n.Root, name) }
	n.at("tree " + beside)
	if err := os.RemoveAll(host(beside)); err != nil {
		return n.explain("remove", beside, err)
	}
	if err := makeDirs(host(path.Dir(top)), strings.TrimPrefix(path.Dir(inside), path.Dir(top))); err != nil {
		return n.explain("make", path.Dir(real), err)
	}
	raw, err := newRecord(real, nil, content, a, top).encode()
	if err != nil {
		return err
	}
	if err := create(host(recordName(inside)), raw, attributes{mode: 0o600, uid: -1}); err != nil {
		return n.explain("write", recordName(real), err)
	}
	if err := create(host(inside), content, a); err != nil {
		return n.explain("write", real, err)
	}
	for at := path.Dir(inside); at != path.Dir(top); at = path.Dir(at) {
		if err := syncDir(host(at)); err != nil {
			return err
		}
	}
	n.at("rename " + beside)
	if err := os.Rename(host(beside), host(top)); err != nil {
		return n.explain("make", top, err)
	}
	return syncDir(host(path.Dir(top)))
}

// makeDirs makes the directories of below, one in the other, in dir. Everybody
// may read them, whatever the umask is.
func makeDirs(dir, below string) error {
	for part := range strings.SplitSeq(strings.Trim(below, "/"), "/") {
		dir = filepath.Join(dir, part)
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
		if err := os.Chmod(dir, 0o755); err != nil {
			return err
		}
	}
	return nil
}

// explainIf is explain for an error that may be nil.
func (n *Node) explainIf(verb, name string, err error) error {
	if err == nil {
		return nil
	}
	return n.explain(verb, name, err)
}

// restore takes the file real back to what its record says, and forgets it.
func (n *Node) restore(real string, c Change) error {
	host := filepath.Join(n.Root, real)
	switch {
	case c.After != nil && !bytes.Equal(c.Before, c.After):
		a := c.undo.attributes()
		if !bytes.Equal(c.After, c.undo.Before) { // others' changes stay, as they made them
			var err error
			if a, err = attributesOf(host); err != nil {
				return n.explain("read", real, err)
			}
		}
		n.at("restore " + real)
		if err := replace(host, c.After, a); err != nil {
			return n.explain("write", real, err)
		}
	case c.After == nil && c.undo.MadeDir != "":
		if n.onlyOurs(c.undo.MadeDir, real) {
			return n.removeTree(c.undo.MadeDir)
		}
		fallthrough
	case c.After == nil:
		n.at("remove " + real)
		if err := os.Remove(host); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return n.explain("remove", real, err)
		}
	}
	n.at("forget " + real)
	if err := n.dropRecord(real); err != nil {
		return err
	}
	return syncDir(filepath.Dir(host))
}

// onlyOurs reports whether below top there is nothing but the file real, its
// record, and the directories that lead there.
func (n *Node) onlyOurs(top, real string) bool {
	alone := true
	root := filepath.Join(n.Root, top)
	err := filepath.WalkDir(root, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel := path.Join(top, strings.TrimPrefix(name, root))
		if entry.IsDir() {
			alone = alone && (rel == top || strings.HasPrefix(real, rel+"/"))
		} else {
			alone = alone && (rel == real || rel == recordName(real))
		}
		return nil
	})
	return err == nil && alone
}

// removeTree takes away a directory we made, by one rename.
func (n *Node) removeTree(top string) error {
	old := filepath.Join(n.Root, oldName(top))
	if err := os.RemoveAll(old); err != nil {
		return n.explain("remove", oldName(top), err)
	}
	n.at("away " + top)
	if err := os.Rename(filepath.Join(n.Root, top), old); err != nil {
		return n.explain("remove", top, err)
	}
	n.at("sweep " + oldName(top))
	if err := os.RemoveAll(old); err != nil {
		return n.explain("remove", oldName(top), err)
	}
	return syncDir(filepath.Join(n.Root, path.Dir(top)))
}
