package store

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/sirupsen/logrus"
	"github.com/sirupsen/logrus/hooks/test"
	"golang.org/x/sys/unix"

	"github.com/larder-registry/larder/internal/oci"
)

// slowDisk has a store of its own. There the first sync of a file that was put
// does not return before let is called; everything else does. It holds the store
// to renaming nothing into blobs/ that has not been synced.
type slowDisk struct {
	*Store
	cfg     Config
	reached chan struct{} // closed when that sync has begun
	let     func()
	log     *test.Hook

	mu    sync.Mutex
	steps []string
}

// newSlowDisk opens one; fail, when it is not nil, may have a call fail, by its
// name in failing's sense, once let was called.
func newSlowDisk(t *testing.T, fail func(call string) error) *slowDisk {
	t.Helper()
	logger, hook := test.NewNullLogger()
	d := &slowDisk{cfg: roomy(t.TempDir()), reached: make(chan struct{}), log: hook}
	gate := make(chan struct{})
	d.let = sync.OnceFunc(func() { close(gate) })
	var begun atomic.Bool
	if fail == nil {
		fail = func(string) error { return nil }
	}
	synced := make(map[uint64]bool) // by inode
	inode := func(info os.FileInfo) uint64 { return info.Sys().(*syscall.Stat_t).Ino }
	d.cfg.Log = logrus.NewEntry(logger)
	d.cfg.files = files{
		sync: func(f *os.File) error {
			kind := "sync file"
			switch {
			case strings.Contains(f.Name(), "/blobs"):
				kind = "sync directory"
			case strings.Contains(f.Name(), "/ingest/put-") && begun.CompareAndSwap(false, true):
				close(d.reached)
				<-gate
			}
			d.took(kind)
			info, err := f.Stat()
			if err = errors.Join(fail(kind), err, f.Sync()); err != nil {
				return err
			}
			d.mu.Lock()
			defer d.mu.Unlock()
			synced[inode(info)] = true
			return nil
		},
		rename: func(from, to string) error {
			if strings.Contains(to, "/blobs/") {
				info, err := os.Stat(from)
				if err = errors.Join(fail("rename"), err); err != nil {
					return err
				}
				d.mu.Lock()
				if !synced[inode(info)] {
					t.Errorf("%s is renamed to %s before it is on disk", from, to)
				}
				d.mu.Unlock()
				d.took("rename")
			}
			return os.Rename(from, to)
		},
	}
	d.Store = mustOpen(t, d.cfg)
	t.Cleanup(d.let) // before Close, which waits for it
	return d
}

func (d *slowDisk) took(what string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.steps = append(d.steps, what)
}

var (
	pendingName = oci.Name{Registry: "r.test", Repository: "a"}
	pendingRef  = oci.Reference{Name: pendingName, Tag: "t"}
)

// imageOf is an image manifest that lists a layer.
func imageOf(layer string) (oci.Descriptor, []byte) {
	content := fmt.Appendf(nil, `{"schemaVersion":2,"layers":[{"digest":%q}]}`, digest.FromString(layer))
	return oci.Descriptor{MediaType: "application/vnd.oci.image.manifest.v1+json", Digest: digest.FromBytes(content), Size: int64(len(content))}, content
}

// keepImage is what a mirror does with an image manifest it has fetched.
func keepImage(t *testing.T, s *Store, layer string) (oci.Descriptor, []byte) {
	t.Helper()
	desc, content := imageOf(layer)
	if err := errors.Join(s.Put(t.Context(), desc, content), s.Link(pendingName, desc), s.SetTag(pendingRef, Tag{Descriptor: desc})); err != nil {
		t.Fatal(err)
	}
	return desc, content
}

// wantKept fails t unless s holds content under desc, linked and tagged.
func wantKept(t *testing.T, s *Store, desc oci.Descriptor, content []byte) {
	t.Helper()
	if got, err := s.Stat(desc.Digest); err != nil || got != desc {
		t.Errorf("stat says %+v, %v", got, err)
	}
	if got, err := s.Linked(pendingName, desc.Digest); err != nil || got != desc {
		t.Errorf("link is %+v, %v", got, err)
	}
	if got, err := s.Tag(pendingRef); err != nil || got.Descriptor != desc {
		t.Errorf("tag is %+v, %v", got, err)
	}
	if got, err := s.Peek(desc.Digest, 1000); err != nil || !bytes.Equal(got, content) {
		t.Errorf("peeked at %q, %v", got, err)
	}
	b, err := s.Blob(desc.Digest)
	if err != nil {
		t.Error(err)
		return
	}
	defer b.Close()
	if got, err := io.ReadAll(b); err != nil || !bytes.Equal(got, content) || b.Descriptor() != desc {
		t.Errorf("read %q of %+v, %v", got, b.Descriptor(), err)
	}
}

// wantGone fails t unless nothing is left of content, in s or in its directory.
func wantGone(t *testing.T, s *Store, dgst digest.Digest) {
	t.Helper()
	if _, err := s.Stat(dgst); !errors.Is(err, oci.ErrBlobUnknown) {
		t.Errorf("stat: %v", err)
	}
	if got, err := s.Repositories(-1, ""); err != nil || len(got) != 0 {
		t.Errorf("repositories are %v, %v", got, err)
	}
	if _, err := os.Lstat(s.blobPath(dgst)); !os.IsNotExist(err) {
		t.Errorf("its file: %v", err)
	}
	if st := s.Stats(); st.Blobs != 0 || st.CacheBytes != 0 || st.IngestBytes != 0 {
		t.Errorf("stats are %+v", st)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.parents) != 0 || len(s.ingests) != 0 || s.pending.bytes != 0 || s.pending.working {
		t.Errorf("parents %v, ingests %v and %+v are left", s.parents, s.ingests, s.pending)
	}
}

// wantNoIngests fails t unless nothing is left in ingest/.
func wantNoIngests(t *testing.T, dir string) {
	t.Helper()
	if left, err := os.ReadDir(filepath.Join(dir, "ingest")); err != nil || len(left) != 0 {
		t.Errorf("ingests %v are left, %v", left, err)
	}
}

// TestPutDoesNotWait puts an image manifest on a disk that takes its time: it is
// there for every question at once, and in blobs/ when it is on disk.
func TestPutDoesNotWait(t *testing.T) {
	d := newSlowDisk(t, nil)
	desc, content := keepImage(t, d.Store, "layer")
	<-d.reached
	wantKept(t, d.Store, desc, content)
	if _, err := os.Lstat(d.blobPath(desc.Digest)); !os.IsNotExist(err) {
		t.Errorf("it is in blobs/ before it is on disk: %v", err)
	}
	// Once more changes nothing.
	keepImage(t, d.Store, "layer")
	if st := d.Stats(); st.Blobs != 1 || st.CacheBytes != desc.Size || st.IngestBytes != 0 {
		t.Errorf("stats are %+v", st)
	}
	before, err := d.Blob(desc.Digest)
	if err != nil {
		t.Fatal(err)
	}
	defer before.Close()
	d.let()
	settle(d.Store)
	wantKept(t, d.Store, desc, content)
	if got, err := os.ReadFile(d.blobPath(desc.Digest)); err != nil || !bytes.Equal(got, content) {
		t.Errorf("in blobs/ there is %q, %v", got, err)
	}
	if got, err := io.ReadAll(before); err != nil || !bytes.Equal(got, content) {
		t.Errorf("who had opened it before reads %q, %v", got, err)
	}
	wantNoIngests(t, d.cfg.Dir)
	// What a mirror is asked for next is what the first opening of the file
	// left: two new directories, one file, its directory.
	want := "sync file, sync directory, sync directory, rename, sync directory"
	if got := strings.Join(d.steps, ", "); got != want {
		t.Errorf("steps are %s, want %s", got, want)
	}
}

// TestPutTogether puts many while the disk is busy with the first: they take
// each step together.
func TestPutTogether(t *testing.T) {
	const more = 20
	d := newSlowDisk(t, nil)
	keepImage(t, d.Store, "first")
	<-d.reached
	var all []oci.Descriptor
	directories := make(map[string]bool)
	for n := range more {
		desc, _ := keepImage(t, d.Store, fmt.Sprint(n))
		all = append(all, desc)
		directories[filepath.Dir(d.blobPath(desc.Digest))] = true
	}
	d.let()
	settle(d.Store)
	for _, desc := range all {
		if got, err := os.ReadFile(d.blobPath(desc.Digest)); err != nil || digest.FromBytes(got) != desc.Digest {
			t.Errorf("%s: %v", desc.Digest, err)
		}
	}
	wantNoIngests(t, d.cfg.Dir)
	// After the first one's: files, one sync for the new directories, renames,
	// and one sync for each directory.
	steps := slices.Compact(slices.Clone(d.steps[5:]))
	if got := strings.Join(steps, ", "); got != "sync file, sync directory, sync file, rename, sync directory" && got != "sync file, rename, sync directory" {
		t.Errorf("steps are %s", got)
	}
	syncs := 0
	for _, step := range d.steps[5:] {
		if step == "sync directory" {
			syncs++
		}
	}
	if syncs > len(directories)+1 {
		t.Errorf("%d syncs of %d directories", syncs, len(directories))
	}
}

// TestIndexWaitsForPending moves a tag to content that is not on disk yet, and
// looks at what a process that is killed now leaves behind: the tag as it was.
func TestIndexWaitsForPending(t *testing.T) {
	d := newSlowDisk(t, nil)
	d.let()
	old, oldContent := keepImage(t, d.Store, "old")
	settle(d.Store)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}

	gate := make(chan struct{})
	let := sync.OnceFunc(func() { close(gate) })
	cfg := roomy(d.cfg.Dir)
	cfg.files = files{sync: func(f *os.File) error {
		<-gate
		return f.Sync()
	}}
	s := mustOpen(t, cfg)
	t.Cleanup(let)
	desc, content := keepImage(t, s, "new")
	if err := s.SetExposure(pendingName, Exposure{Kind: "private"}); err != nil {
		t.Fatal(err)
	}
	s.noteUses()
	if err := s.index.flush(); err != nil {
		t.Fatal(err)
	}
	left := filepath.Join(t.TempDir(), "left")
	if err := os.CopyFS(left, os.DirFS(cfg.Dir)); err != nil {
		t.Fatal(err)
	}
	killed := mustOpen(t, roomy(left))
	wantKept(t, killed, old, oldContent)
	if _, err := killed.Stat(desc.Digest); !errors.Is(err, oci.ErrBlobUnknown) {
		t.Errorf("what was not on disk: %v", err)
	}
	if got := killed.Exposure(pendingName).Kind; got != "private" {
		t.Errorf("exposure is %q", got)
	}
	wantNoIngests(t, left)
	if err := killed.Close(); err != nil {
		t.Fatal(err)
	}
	CheckIndex(t, left)

	let()
	if err := Flush(s); err != nil {
		t.Fatal(err)
	}
	s.index.mu.Lock()
	value, err := s.index.db.get(string(tagKey(pendingRef).encode()))
	s.index.mu.Unlock()
	if err != nil || tagDigest(value) != desc.Digest {
		t.Errorf("once it is on disk the index says %q, %v", value, err)
	}
	wantKept(t, s, desc, content)
}

// TestPendingFails has each step of bringing content to disk fail: the content
// is forgotten with its names, which is said once, and can be put again.
func TestPendingFails(t *testing.T) {
	for _, call := range []string{"sync file", "rename", "sync directory"} {
		for _, cause := range []error{unix.EIO, unix.ENOSPC} {
			t.Run(call+", "+cause.Error(), func(t *testing.T) {
				var once sync.Once
				d := newSlowDisk(t, func(this string) (err error) {
					if this == call {
						once.Do(func() { err = cause })
					}
					return err
				})
				desc, content := keepImage(t, d.Store, "layer")
				<-d.reached
				reader, err := d.Blob(desc.Digest)
				if err != nil {
					t.Fatal(err)
				}
				defer reader.Close()
				d.let()
				settle(d.Store)
				wantGone(t, d.Store, desc.Digest)
				wantNoIngests(t, d.cfg.Dir)
				if got := d.log.AllEntries(); len(got) != 1 || !errors.Is(got[0].Data[logrus.ErrorKey].(error), cause) {
					t.Errorf("the log has %v", got)
				}
				if got, err := io.ReadAll(reader); err != nil || !bytes.Equal(got, content) {
					t.Errorf("who was reading reads %q, %v", got, err)
				}
				if err := d.Degraded(); err != nil {
					t.Errorf("degraded: %v", err)
				}
				keepImage(t, d.Store, "layer")
				settle(d.Store)
				wantKept(t, d.Store, desc, content)
				if err := d.Close(); err != nil {
					t.Fatal(err)
				}
				CheckIndex(t, d.cfg.Dir)
				wantKept(t, mustOpen(t, roomy(d.cfg.Dir)), desc, content)
			})
		}
	}
}

// TestDirectorySyncFails is the last step failing, when the file has been
// renamed: it does not stay behind unknown.
func TestDirectorySyncFails(t *testing.T) {
	renamed := false
	d := newSlowDisk(t, nil)
	d.let()
	real := d.files
	d.files.rename = func(from, to string) error {
		renamed = renamed || strings.Contains(to, "/blobs/")
		return real.rename(from, to)
	}
	d.files.sync = func(f *os.File) error {
		if renamed {
			return unix.EIO
		}
		return real.sync(f)
	}
	desc, _ := keepImage(t, d.Store, "layer")
	settle(d.Store)
	wantGone(t, d.Store, desc.Digest)
	wantNoIngests(t, d.cfg.Dir)
}

// TestCommitOfPending commits content that is pending by an ingest: it is on
// disk then, whatever becomes of the other.
func TestCommitOfPending(t *testing.T) {
	for _, fails := range []error{nil, unix.EIO} {
		t.Run(fmt.Sprint("then ", fails), func(t *testing.T) {
			var pending bool
			d := newSlowDisk(t, func(call string) error {
				if pending && call == "sync file" {
					return fails
				}
				return nil
			})
			desc, content := keepImage(t, d.Store, "layer")
			<-d.reached
			i, err := d.Ingest(t.Context(), desc.Digest, desc.Size)
			if err != nil {
				t.Fatal(err)
			}
			defer i.Close()
			if _, err := i.WriteAt(content, 0); err != nil {
				t.Fatal(err)
			}
			if _, err := i.Commit(t.Context()); err != nil {
				t.Fatal(err)
			}
			committed, err := os.Stat(d.blobPath(desc.Digest))
			if err != nil {
				t.Fatal(err)
			}
			pending = true
			d.let()
			settle(d.Store)
			wantKept(t, d.Store, desc, content)
			if now, err := os.Stat(d.blobPath(desc.Digest)); err != nil || !os.SameFile(committed, now) {
				t.Errorf("the file was replaced: %v", err)
			}
			wantNoIngests(t, d.cfg.Dir)
			if st := d.Stats(); st.Blobs != 1 || st.CacheBytes != desc.Size || st.IngestBytes != 0 {
				t.Errorf("stats are %+v", st)
			}
			if got := d.log.AllEntries(); len(got) != 0 {
				t.Errorf("the log has %v", got)
			}
		})
	}
}

// TestPendingGoes has content that is pending go: it does not come back.
func TestPendingGoes(t *testing.T) {
	for name, goes := range map[string]func(t *testing.T, s *Store, dgst digest.Digest){
		"evicted": func(t *testing.T, s *Store, _ digest.Digest) {
			s.admit.Lock()
			defer s.admit.Unlock()
			if s.evict(1, "size") == 0 {
				t.Error("nothing was evicted")
			}
		},
		"discarded by a reader": func(t *testing.T, s *Store, dgst digest.Digest) {
			b, err := s.Blob(dgst)
			if err != nil {
				t.Fatal(err)
			}
			defer b.Close()
			if err := b.Discard(); err != nil {
				t.Error(err)
			}
		},
		"removed by hand": func(t *testing.T, s *Store, dgst digest.Digest) {
			if err := os.RemoveAll(filepath.Join(s.dir, "ingest")); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Blob(dgst); !errors.Is(err, oci.ErrBlobUnknown) {
				t.Errorf("a blob without a file: %v", err)
			}
			if err := os.Mkdir(filepath.Join(s.dir, "ingest"), 0o755); err != nil {
				t.Fatal(err)
			}
		},
	} {
		for _, again := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, put again: %v", name, again), func(t *testing.T) {
				d := newSlowDisk(t, nil)
				desc, content := keepImage(t, d.Store, "layer")
				<-d.reached
				goes(t, d.Store, desc.Digest)
				if again {
					keepImage(t, d.Store, "layer")
				}
				d.let()
				settle(d.Store)
				wantNoIngests(t, d.cfg.Dir)
				if !again {
					wantGone(t, d.Store, desc.Digest)
					return
				}
				wantKept(t, d.Store, desc, content)
				if _, err := os.Stat(d.blobPath(desc.Digest)); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// TestCloseWaitsForPending closes a store while content is pending: nothing of
// it is lost.
func TestCloseWaitsForPending(t *testing.T) {
	d := newSlowDisk(t, nil)
	desc, content := keepImage(t, d.Store, "layer")
	<-d.reached
	closed := make(chan error)
	go func() { closed <- d.Close() }() // ends with Close, which let lets through
	for {
		d.Store.mu.Lock()
		begun := d.closed
		d.Store.mu.Unlock()
		if begun {
			break
		}
	}
	// Whoever comes now is told.
	other, otherContent := imageOf("another")
	if err := d.Put(t.Context(), other, otherContent); !errors.Is(err, ErrClosed) {
		t.Errorf("put into a store that is being closed: %v", err)
	}
	select {
	case err := <-closed:
		t.Fatalf("closed while content was not on disk: %v", err)
	default:
	}
	d.let()
	if err := <-closed; err != nil {
		t.Fatal(err)
	}
	wantNoIngests(t, d.cfg.Dir)
	CheckIndex(t, d.cfg.Dir)
	wantKept(t, mustOpen(t, roomy(d.cfg.Dir)), desc, content)
}

// TestPendingIsBounded puts more than may be pending, in number and in bytes:
// the rest is on disk when Put returns.
func TestPendingIsBounded(t *testing.T) {
	for _, test := range []struct {
		name string
		size int
		most int
	}{
		{"number", 20, maxPending},
		{"bytes", 3_000_000, maxPendingBytes / 3_000_000},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := newSlowDisk(t, nil)
			for n := range test.most + 2 {
				content := bytes.Repeat(fmt.Appendf(nil, "%020d", n), test.size/20)
				desc := oci.Descriptor{Digest: digest.FromBytes(content), Size: -1}
				if err := d.Put(t.Context(), desc, content); err != nil {
					t.Fatal(err)
				}
				<-d.reached
				_, err := os.Lstat(d.blobPath(desc.Digest))
				if onDisk := err == nil; onDisk != (n >= test.most) {
					t.Errorf("number %d is on disk: %v", n, onDisk)
				}
			}
			d.let()
			settle(d.Store)
			if st := d.Stats(); st.Blobs != test.most+2 || st.CacheBytes != int64(test.size*(test.most+2)) {
				t.Errorf("stats are %+v", st)
			}
			wantNoIngests(t, d.cfg.Dir)
		})
	}
}

// TestSyncWritesAreNotPending has content on disk when Put returns, where the
// configuration asks for that.
func TestSyncWritesAreNotPending(t *testing.T) {
	cfg := roomy(t.TempDir())
	cfg.SyncWrites = true
	s := mustOpen(t, cfg)
	desc, content := keepImage(t, s, "layer")
	if got, err := os.ReadFile(s.blobPath(desc.Digest)); err != nil || !bytes.Equal(got, content) {
		t.Errorf("in blobs/ there is %q, %v", got, err)
	}
	wantNoIngests(t, cfg.Dir)
}

// TestReadWhilePending reads content all the while it is brought to disk.
func TestReadWhilePending(t *testing.T) {
	d := newSlowDisk(t, nil)
	d.let()
	for n := range 10 {
		desc, content := keepImage(t, d.Store, fmt.Sprint(n))
		var readers sync.WaitGroup
		for range 3 {
			readers.Go(func() {
				for onDisk := false; !onDisk; {
					d.Store.mu.Lock()
					onDisk = d.blobs[desc.Digest].pending == nil
					d.Store.mu.Unlock()
					b, err := d.Blob(desc.Digest)
					if err != nil {
						t.Error(err)
						return
					}
					got, err := io.ReadAll(b)
					b.Close()
					if err != nil || !bytes.Equal(got, content) {
						t.Errorf("read %q, %v", got, err)
						return
					}
				}
			})
		}
		readers.Wait()
	}
}
