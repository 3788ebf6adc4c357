package nodeconfig

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestParseDataDir(t *testing.T) {
	for text, want := range map[string]DataDir{
		"/var/lib/larder:65532:65532": {"/var/lib/larder", 65532, 65532},
		"/a/../b/:0:1":                {"/b", 0, 1},
		"/with:colon:1:2":             {"/with:colon", 1, 2},
	} {
		if got, err := ParseDataDir(text); err != nil || got != want {
			t.Errorf("%q is %v (%v)", text, got, err)
		}
	}
	for _, text := range []string{"", "/x", "/x:1", "x:1:1", "/x:-1:1", "/x:1:4294967295", "/x:a:b", "/:1:1", "/..:1:1", ":1:1"} {
		if got, err := ParseDataDir(text); err == nil {
			t.Errorf("%q is %v", text, got)
		}
	}
}

// TestPrepareData gives directories to this process's own user, since tests may
// not be root: what changes is what belonged to nobody yet. As root it gives
// them away.
func TestPrepareData(t *testing.T) {
	me := DataDir{Path: "/var/lib/larder", UID: os.Geteuid(), GID: os.Getegid()}
	if os.Geteuid() == 0 {
		me.UID, me.GID = 65532, 65533
	}
	root := t.TempDir()
	n := nodeAt(root)
	if changed, err := n.PrepareData(me, true); err != nil || changed == 0 || n.exists(me.Path) {
		t.Fatalf("dry: %d, %v", changed, err)
	}
	if changed, err := n.PrepareData(me, false); err != nil || changed == 0 {
		t.Fatalf("first: %d, %v", changed, err)
	}
	put(t, root, map[string]string{me.Path + "/blobs/sha256/ab/x": "x", me.Path + "/LOCK": ""})
	if err := os.Symlink("/etc", filepath.Join(root, me.Path, "blobs", "link")); err != nil {
		t.Fatal(err)
	}
	if _, err := n.PrepareData(me, false); err != nil {
		t.Fatal(err)
	}
	if changed, err := n.PrepareData(me, false); err != nil || changed != 0 {
		t.Errorf("again: %d, %v", changed, err)
	}
	for _, name := range []string{"", "/LOCK", "/blobs/sha256/ab/x", "/blobs/link"} {
		info, err := os.Lstat(filepath.Join(root, me.Path, name))
		if err != nil {
			t.Fatal(err)
		}
		if stat, ok := info.Sys().(*syscall.Stat_t); !ok || int(stat.Uid) != me.UID || int(stat.Gid) != me.GID {
			t.Errorf("%s does not belong to %d:%d", name, me.UID, me.GID)
		}
	}
	put(t, root, map[string]string{"etc/passwd": "x", "file": "x"})
	if _, err := n.PrepareData(DataDir{Path: "/etc", UID: me.UID, GID: me.GID}, false); !errors.Is(err, ErrForeignData) || !strings.Contains(err.Error(), "passwd") {
		t.Errorf("/etc: %v", err)
	}
	if _, err := n.PrepareData(DataDir{Path: "/file", UID: me.UID, GID: me.GID}, false); err == nil {
		t.Error("a file was taken for a directory")
	}
}

// TestRemoveData refuses what is not a mirror's, and what a mirror works with.
func TestRemoveData(t *testing.T) {
	const dir = "/var/lib/larder"
	root := t.TempDir()
	n := nodeAt(root)
	if removed, err := n.RemoveData(dir, false); err != nil || removed != 0 {
		t.Errorf("nothing there: %d, %v", removed, err)
	}
	put(t, root, map[string]string{dir + "/blobs/sha256/ab/x": "x", dir + "/LOCK": "", "etc/passwd": "x", "file": "x"})
	if err := os.Symlink("/etc", filepath.Join(root, dir, "blobs", "link")); err != nil {
		t.Fatal(err)
	}
	lock, err := os.Open(filepath.Join(root, dir))
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if _, err := n.RemoveData(dir, false); !errors.Is(err, ErrDataInUse) || !n.exists(dir+"/blobs/sha256/ab/x") {
		t.Errorf("in use: %v", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_UN); err != nil {
		t.Fatal(err)
	}
	if removed, err := n.RemoveData(dir, true); err != nil || removed != 6 || !n.exists(dir+"/blobs/sha256/ab/x") {
		t.Errorf("dry: %d, %v", removed, err)
	}
	if removed, err := n.RemoveData(dir, false); err != nil || removed != 6 || n.exists(dir) {
		t.Errorf("removed %d, %v", removed, err)
	}
	if _, err := n.RemoveData("/etc", false); !errors.Is(err, ErrForeignData) || !n.exists("/etc/passwd") {
		t.Errorf("/etc: %v", err)
	}
	if _, err := n.RemoveData("/file", false); err == nil || !n.exists("/file") {
		t.Errorf("a file: %v", err)
	}
}
