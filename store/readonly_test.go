package store_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/larder-registry/larder/internal/oci"
	"github.com/larder-registry/larder/store"
	"github.com/larder-registry/larder/store/storetest"
)

// TestReadOnly is a disk that cannot be written to when the store starts.
func TestReadOnly(t *testing.T) {
	if !inNamespaces(t) {
		return
	}
	d := newSmallDisk(t, diskSize)
	s, err := store.Open(t.Context(), d.config())
	if err != nil {
		t.Fatal(err)
	}
	acked := work(t, s, 0)
	s.Close()
	if err := unix.Mount("", d.dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	readOnly(t, d.config(), acked, true)
	if err := unix.Mount("", d.dir, "", unix.MS_REMOUNT, ""); err != nil {
		t.Fatal(err)
	}
	checkRelieved(t, d, acked)
}

// readOnly opens a store that cannot write and fails t unless it serves acked,
// and knows the tags where it can read the index.
func readOnly(t *testing.T, cfg store.Config, acked map[digest.Digest][]byte, tags bool) {
	t.Helper()
	s, err := store.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Degraded(); !errors.Is(err, store.ErrNoSpace) {
		t.Errorf("degraded says %v", err)
	}
	for dgst, content := range acked {
		storetest.Holds(t, s, dgst, content)
	}
	name := oci.Name{Registry: "r.test", Repository: "a"}
	if _, err := s.Tag(oci.Reference{Name: name, Tag: "0"}); tags && err != nil {
		t.Errorf("a tag of before: %v", err)
	}
	if more := work(t, s, 1); len(more) != 0 {
		t.Errorf("%d blobs were kept where nothing can be written", len(more))
	}
	if _, err := s.Ingest(t.Context(), digest.FromString("x"), 1); !errors.Is(err, store.ErrNoSpace) {
		t.Errorf("ingest: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// TestNoPermission is a directory that may be read but not written to: it
// belongs to root and the store runs as nobody, or, where the tests do not run
// as root, its owner has taken the right from itself.
func TestNoPermission(t *testing.T) {
	root := os.Geteuid() == 0
	if root && os.Getenv(insideEnv) == "" {
		runAgain(t, &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL})
		return
	}
	// Removed by whoever made the temporary directory: nobody could not.
	dir, err := os.MkdirTemp("", "larder") //nolint:usetesting // see above
	if err != nil {
		t.Fatal(err)
	}
	cfg := store.Config{Dir: filepath.Join(dir, "data"), MaxSize: store.Bytes(1 << 30), MinFree: store.Bytes(0)}
	s, err := store.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	acked := work(t, s, 0)
	s.Close()
	if root {
		becomeNobody(t, dir)
	} else {
		t.Cleanup(func() { os.RemoveAll(dir) })
		chmodDirs(t, cfg.Dir, 0o555)
		t.Cleanup(func() { chmodDirs(t, cfg.Dir, 0o755) })
	}
	readOnly(t, cfg, acked, !root)
	storetest.Check(t, cfg.Dir)
}

// TestCommitCutShort is a partial ingest whose process was killed within the
// commit, when the data was read-only already. Root would not notice.
func TestCommitCutShort(t *testing.T) {
	root := os.Geteuid() == 0
	if root && os.Getenv(insideEnv) == "" {
		runAgain(t, &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL})
		return
	}
	dir, err := os.MkdirTemp("", "larder") //nolint:usetesting // as above
	if err != nil {
		t.Fatal(err)
	}
	if root {
		if err := os.Chown(dir, nobody, nobody); err != nil {
			t.Fatal(err)
		}
		becomeNobody(t, dir)
	} else {
		t.Cleanup(func() { os.RemoveAll(dir) })
	}
	cfg := roomy(dir)
	s, err := store.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	content := storetest.Content(100_000, 1)
	dgst := digest.FromBytes(content)
	i, err := s.Ingest(t.Context(), dgst, int64(len(content)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := i.WriteAt(content, 0); err != nil {
		t.Fatal(err)
	}
	held := []oci.Span{{Start: 0, End: int64(len(content))}}
	if err := errors.Join(i.SaveHeld(held), i.File().Chmod(0o444), i.Close(), s.Close()); err != nil {
		t.Fatal(err)
	}
	s, err = store.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	i, err = s.Ingest(t.Context(), dgst, int64(len(content)))
	if err != nil {
		t.Fatal(err)
	}
	defer i.Close()
	if got := i.Held(); !slices.Equal(got, held) {
		t.Errorf("held is %v", got)
	}
	if _, err := i.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	storetest.Holds(t, s, dgst, content)
}

// nobody is a user who owns nothing.
const nobody = 65534

// becomeNobody gives up root, for good, and keeps the way to dir open.
func becomeNobody(t *testing.T, dir string) {
	t.Helper()
	for _, d := range []string{dir, os.TempDir(), filepath.Dir(os.TempDir())} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(syscall.Setgroups(nil), syscall.Setgid(nobody), syscall.Setuid(nobody)); err != nil {
		t.Fatal(err)
	}
}

// chmodDirs changes the mode of every directory below dir.
func chmodDirs(t *testing.T, dir string, mode fs.FileMode) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.IsDir() {
			return err
		}
		return os.Chmod(path, mode)
	})
	if err != nil {
		t.Error(err)
	}
}
