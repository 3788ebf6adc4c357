package store

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/larder-registry/larder/internal/oci"
)

func newDepot(t testing.TB) *Depot {
	t.Helper()
	d, err := OpenDepot(DepotConfig{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// keep commits content.
func keep(t *testing.T, d *Depot, id string, content []byte) digest.Digest {
	t.Helper()
	draft, err := d.Draft(id, true)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := draft.WriteAt(content, 0); err != nil {
		t.Fatal(err)
	}
	dgst := digest.FromBytes(content)
	if err := errors.Join(draft.Sync(false), draft.Close(), d.Commit(id, dgst)); err != nil {
		t.Fatal(err)
	}
	return dgst
}

func TestDepotKeepsContent(t *testing.T) {
	d := newDepot(t)
	content := []byte("content")
	dgst := keep(t, d, "A", content)
	blob, err := d.Open(dgst)
	if err != nil {
		t.Fatal(err)
	}
	defer blob.Close()
	got, err := io.ReadAll(blob)
	if err != nil || !bytes.Equal(got, content) || blob.Descriptor() != (oci.Descriptor{Digest: dgst, Size: 7}) {
		t.Errorf("%q %+v %v", got, blob.Descriptor(), err)
	}
	if _, ok := blob.(syscall.Conn); !ok {
		t.Error("the blob shows no file: it cannot be sent by sendfile")
	}
	if drafts, err := d.Drafts(); err != nil || len(drafts) != 0 {
		t.Errorf("drafts %v, %v", drafts, err)
	}
	info, err := os.Stat(d.path(dgst))
	if err != nil || info.Mode().Perm() != 0o444 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	// Committed again, it is young again.
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(d.path(dgst), old, old); err != nil {
		t.Fatal(err)
	}
	keep(t, d, "B", content)
	if kept, err := d.Stat(dgst); err != nil || time.Since(time.Unix(kept.At, 0)) > time.Minute || kept.Size != 7 {
		t.Errorf("%+v, %v", kept, err)
	}
	// A file that was cut off is mended.
	if err := os.Chmod(d.path(dgst), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(d.path(dgst), 3); err != nil {
		t.Fatal(err)
	}
	keep(t, d, "C", content)
	if got, err := os.ReadFile(d.path(dgst)); err != nil || !bytes.Equal(got, content) {
		t.Errorf("%q, %v", got, err)
	}
	var all []oci.Kept
	if err := d.Each(t.Context(), func(k oci.Kept) error { all = append(all, k); return nil }); err != nil || len(all) != 1 || all[0].Digest != dgst {
		t.Errorf("%+v, %v", all, err)
	}
	for range 2 {
		if err := d.Remove(dgst); err != nil {
			t.Error(err)
		}
	}
	if _, err := d.Open(dgst); !errors.Is(err, oci.ErrBlobUnknown) {
		t.Error(err)
	}
	if _, err := d.Stat(dgst); !errors.Is(err, oci.ErrBlobUnknown) {
		t.Error(err)
	}
}

func TestDrafts(t *testing.T) {
	d := newDepot(t)
	if _, err := d.Draft("A", false); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a draft nobody made: %v", err)
	}
	for _, bad := range []string{"", "a", "../X", "A/B", ".", string(bytes.Repeat([]byte("A"), 65))} {
		if draft, err := d.Draft(bad, true); err == nil {
			draft.Close()
			t.Errorf("a draft %q", bad)
		}
		if err := d.Discard(bad); err == nil {
			t.Errorf("discard %q", bad)
		}
	}
	draft, err := d.Draft("A", true)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := draft.WriteAt([]byte("0123456789"), 0); err != nil {
		t.Fatal(err)
	}
	if err := draft.Resize(4); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(draft.Close(), draft.Close()); err != nil {
		t.Error(err)
	}
	if draft, err = d.Draft("A", false); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 8)
	n, err := draft.ReadAt(buf, 0)
	if size, sizeErr := draft.Size(); n != 4 || !errors.Is(err, io.EOF) || size != 4 || sizeErr != nil || string(buf[:n]) != "0123" {
		t.Errorf("%d %q %v, size %d %v", n, buf[:n], err, size, sizeErr)
	}
	draft.Close()
	for range 2 {
		if err := d.Discard("A"); err != nil {
			t.Error(err)
		}
	}
}

func TestDepotOnAFullDisk(t *testing.T) {
	d := newDepot(t)
	dgst := keep(t, d, "A", []byte("kept"))
	d.minFree = Bytes(1 << 62)
	draft, err := d.Draft("B", true)
	if err != nil {
		t.Fatal(err)
	}
	defer draft.Close()
	if free, err := d.Free(); err != nil || free != 0 {
		t.Errorf("%d bytes free, %v", free, err)
	}
	if _, err := draft.WriteAt([]byte("x"), 0); !errors.Is(err, ErrNoSpace) {
		t.Errorf("beyond the reserve: %v", err)
	}
	d.minFree = Bytes(0)
	d.at = time.Time{}
	d.files.writeAt = func(*os.File, []byte, int64) (int, error) { return 0, unix.ENOSPC }
	if _, err := draft.WriteAt([]byte("x"), 0); !errors.Is(err, ErrNoSpace) {
		t.Errorf("full: %v", err)
	}
	d.files.sync = func(*os.File) error { return unix.EDQUOT }
	if err := draft.Sync(false); !errors.Is(err, ErrNoSpace) {
		t.Errorf("over quota: %v", err)
	}
	if blob, err := d.Open(dgst); err != nil {
		t.Errorf("reading: %v", err)
	} else {
		blob.Close()
	}
}

// TestACommitThatFailsLeavesTheDraft is that nothing is visible, and nothing
// lost.
func TestACommitThatFailsLeavesTheDraft(t *testing.T) {
	for _, call := range []string{"rename", "sync"} {
		d := newDepot(t)
		draft, err := d.Draft("A", true)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := draft.WriteAt([]byte("x"), 0); err != nil {
			t.Fatal(err)
		}
		draft.Close()
		dgst := digest.FromString("x")
		broken := errors.New("broken")
		switch call {
		case "rename":
			d.files.rename = func(string, string) error { return broken }
		case "sync":
			d.files.sync = func(*os.File) error { return broken }
		}
		if err := d.Commit("A", dgst); !errors.Is(err, broken) {
			t.Errorf("%s: %v", call, err)
		}
		if _, err := d.Stat(dgst); !errors.Is(err, oci.ErrBlobUnknown) {
			t.Errorf("%s: %v", call, err)
		}
		if _, err := os.Stat(filepath.Join(d.dir, "uploads", "A")); err != nil {
			t.Errorf("%s: %v", call, err)
		}
	}
}
