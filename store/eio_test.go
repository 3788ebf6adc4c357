package store

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/larder-registry/larder/internal/oci"
)

// roomy is for a store without limits that matter.
func roomy(dir string) Config {
	return Config{Dir: dir, MaxSize: Bytes(1 << 30), MinFree: Bytes(0)}
}

func mustOpen(t testing.TB, cfg Config) *Store {
	t.Helper()
	s, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// failing returns files of which the named call fails once with err.
func failing(call string, err error) files {
	real, left := files{}.orReal(), 1
	fail := func(this string) bool {
		if this == call && left > 0 {
			left--
			return true
		}
		return false
	}
	return files{
		writeAt: func(f *os.File, p []byte, off int64) (int, error) {
			if fail("write") {
				return 0, err
			}
			return real.writeAt(f, p, off)
		},
		readAt: func(f *os.File, p []byte, off int64) (int, error) {
			if fail("read") {
				return 0, err
			}
			return real.readAt(f, p, off)
		},
		sync: func(f *os.File) error {
			kind := "sync file"
			if strings.Contains(f.Name(), "blobs") {
				kind = "sync directory"
			}
			if fail(kind) {
				return err
			}
			return real.sync(f)
		},
		rename: func(from, to string) error {
			kind := "rename blob"
			if filepath.Base(to) == "state" {
				kind = "rename state"
			}
			if fail(kind) {
				return err
			}
			return real.rename(from, to)
		},
		allocate: func(f *os.File, size int64) error {
			if fail("allocate") {
				return err
			}
			return real.allocate(f, size)
		},
	}
}

// TestFailingCalls has each call into the file system fail once, with an I/O
// error and with a full quota, and looks at what is left behind.
func TestFailingCalls(t *testing.T) {
	content := []byte(strings.Repeat("larder", 1000))
	dgst := digest.FromBytes(content)
	for _, call := range []string{"write", "read", "sync file", "sync directory", "rename blob", "rename state", "allocate"} {
		for name, cause := range map[string]error{"input/output error": unix.EIO, "quota": unix.EDQUOT} {
			t.Run(call+", "+name, func(t *testing.T) {
				cfg := roomy(t.TempDir())
				cfg.files = failing(call, &os.PathError{Op: "test", Path: "x", Err: cause})
				s := mustOpen(t, cfg)
				attempt := func() error {
					i, err := s.Ingest(t.Context(), dgst, int64(len(content)))
					if err != nil {
						return err
					}
					defer i.Abort()
					if _, err := i.WriteAt(content, 0); err != nil {
						return err
					}
					if err := i.SaveHeld([]oci.Span{{Start: 0, End: int64(len(content))}}); err != nil {
						return err
					}
					_, err = i.Commit(t.Context())
					return err
				}
				err := attempt()
				if !errors.Is(err, cause) {
					t.Fatalf("the failure shows as %v", err)
				}
				noSpace := name == "quota" && call != "read" // which takes no space
				if got := errors.Is(err, ErrNoSpace); got != noSpace {
					t.Errorf("no space is %v for %v", got, err)
				}
				if left, err := os.ReadDir(filepath.Join(cfg.Dir, "ingest")); err != nil || len(left) != 0 {
					t.Errorf("ingests %v are left, %v", left, err)
				}
				s.mu.Lock()
				if n := s.ingestBytes(); n != 0 || len(s.ingests) != 0 {
					t.Errorf("%d bytes stay reserved", n)
				}
				s.mu.Unlock()
				if err := attempt(); err != nil {
					t.Fatalf("once it works again: %v", err)
				}
				b, err := s.Blob(dgst)
				if err != nil {
					t.Fatal(err)
				}
				b.Close()
				if err := s.Degraded(); err != nil {
					t.Errorf("degraded: %v", err)
				}
			})
		}
	}
}

// TestNotReserved is a file system that cannot reserve space: what running
// ingests have still to write counts as gone.
func TestNotReserved(t *testing.T) {
	cfg := roomy(t.TempDir())
	cfg.MinFree = Bytes(1000)
	cfg.files = files{
		allocate: func(f *os.File, size int64) error { return errors.Join(f.Truncate(size), errNotReserved) },
		statfs: func(string) (unix.Statfs_t, error) {
			return unix.Statfs_t{Frsize: 1, Blocks: 1 << 40, Bavail: 11_000}, nil
		},
	}
	s := mustOpen(t, cfg)
	first, err := s.Ingest(t.Context(), digest.FromString("a"), 6000)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Abort()
	if _, err := s.Ingest(t.Context(), digest.FromString("b"), 4001); !errors.Is(err, ErrNoSpace) {
		t.Fatalf("ingest of what the first has been promised: %v", err)
	}
	second, err := s.Ingest(t.Context(), digest.FromString("b"), 4000)
	if err != nil {
		t.Fatal(err)
	}
	second.Abort()
}

func TestDefaultLimits(t *testing.T) {
	for _, test := range []struct{ total, avail, max, minFree int64 }{
		{100 << 30, 90 << 30, 20 << 30, 25 << 30},
		{1 << 40, 1 << 39, 50 << 30, 256 << 30},
	} {
		cfg := Config{Dir: t.TempDir(), files: files{statfs: func(string) (unix.Statfs_t, error) {
			return unix.Statfs_t{Frsize: 4096, Blocks: uint64(test.total / 4096), Bavail: uint64(test.avail / 4096)}, nil
		}}}
		s := mustOpen(t, cfg)
		r := s.free.room(s, 0)
		if r.max != test.max || r.minFree != test.minFree || r.avail != test.avail {
			t.Errorf("of %d bytes: %+v", test.total, r)
		}
		if got, want := s.Stats().FreeRatio, float64(test.avail)/float64(test.total); got != want {
			t.Errorf("free ratio is %v, want %v", got, want)
		}
	}
	// A file system that does not say how full it is.
	s := mustOpen(t, Config{Dir: t.TempDir(), files: files{statfs: func(string) (unix.Statfs_t, error) {
		return unix.Statfs_t{}, unix.ENOSYS
	}}})
	if st := s.Stats(); st.FreeRatio != -1 || st.LimitBytes != defaultMaxBytes {
		t.Errorf("stats are %+v", st)
	}
	if err := s.Put(t.Context(), oci.Descriptor{Digest: digest.FromString("x"), Size: 1}, []byte("x")); err != nil {
		t.Error(err)
	}
}

func TestNewerIndexIsRefused(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, roomy(dir))
	if err := s.Put(t.Context(), oci.Descriptor{Digest: digest.FromString("x"), Size: 1}, []byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	setVersion := func(version string) {
		t.Helper()
		db, err := openDatabase(tuned(filepath.Join(dir, "index"), false, s.log))
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(db.write([]entry{{[]byte(versionKey), []byte(version)}}), db.close()); err != nil {
			t.Fatal(err)
		}
	}
	setVersion(strconv.Itoa(indexVersion + 1))
	for range 2 {
		_, err := Open(t.Context(), roomy(dir))
		if err == nil || !strings.Contains(err.Error(), "newer version") || !strings.Contains(err.Error(), strconv.Itoa(indexVersion+1)) {
			t.Fatalf("opening a newer index: %v", err)
		}
	}
	// An index whose version says nothing is not one: it is rebuilt.
	setVersion("one")
	s = mustOpen(t, roomy(dir))
	if _, err := s.Stat(digest.FromString("x")); err != nil {
		t.Error(err)
	}
}

// TestLongManifest is an image manifest whose children do not fit an entry of
// the index: they are read from its file again.
func TestLongManifest(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, roomy(dir))
	var layers []string
	for n := range 2000 {
		layers = append(layers, `{"digest":"`+digest.FromString(strconv.Itoa(n)).String()+`"}`)
	}
	content := []byte(`{"schemaVersion":2,"mediaType":"long","layers":[` + strings.Join(layers, ",") + `]}`)
	dgst := digest.FromBytes(content)
	if err := s.Put(t.Context(), oci.Descriptor{MediaType: "long", Digest: dgst, Size: -1}, content); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, roomy(dir))
	if rec := s.blobs[dgst]; rec == nil || rec.mediaType != "long" || len(rec.children) != 2000 {
		t.Fatalf("the manifest is known as %+v", rec)
	}
}

func TestBadPin(t *testing.T) {
	cfg := roomy(t.TempDir())
	cfg.Pin = []string{"docker.io/[a"}
	if _, err := Open(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "docker.io/[a") {
		t.Fatalf("a bad glob: %v", err)
	}
}

// TestIndexIsNoDirectory has something else stand where the index should be.
func TestIndexIsNoDirectory(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "index"), []byte("not one"), 0o644); err != nil {
		t.Fatal(err)
	}
	s := mustOpen(t, roomy(dir))
	if err := s.index.trouble(); err != nil {
		t.Errorf("the index was not replaced: %v", err)
	}
}

// TestDiedWhileOpening is a start that ended inside badger: the next one does
// not try the same index again.
func TestDiedWhileOpening(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, roomy(dir))
	desc := oci.Descriptor{Digest: digest.FromString("x"), Size: 1}
	if err := s.Put(t.Context(), desc, []byte("x")); err != nil {
		t.Fatal(err)
	}
	ref := oci.Reference{Name: oci.Name{Registry: "r.test", Repository: "a"}, Tag: "t"}
	if err := s.SetTag(ref, Tag{Descriptor: desc}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "index", "OPENING"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		s = mustOpen(t, roomy(dir))
		if _, err := s.Tag(ref); !errors.Is(err, oci.ErrManifestUnknown) {
			t.Errorf("a tag of the index that was given up: %v", err)
		}
		if _, err := s.Stat(desc.Digest); err != nil {
			t.Errorf("a blob went with the index: %v", err)
		}
		if err := s.index.trouble(); err != nil {
			t.Error(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestReservedOnce looks at free space in the moment between the reserving of a
// new ingest's blocks and the noting of it: they must not count twice, or a blob
// would be evicted for nothing.
func TestReservedOnce(t *testing.T) {
	var free atomic.Int64
	free.Store(10_000)
	var s *Store
	relieved := make(chan struct{})
	cfg := roomy(t.TempDir())
	cfg.files = files{
		statfs: func(string) (unix.Statfs_t, error) {
			return unix.Statfs_t{Frsize: 1, Blocks: 1 << 40, Bavail: uint64(free.Load())}, nil
		},
		allocate: func(f *os.File, size int64) error {
			free.Add(-size)
			if size == 6000 {
				go func() { // ends when it is let look
					s.relieve()
					close(relieved)
				}()
				select {
				case <-relieved:
				case <-time.After(100 * time.Millisecond):
				}
			}
			return f.Truncate(size)
		},
	}
	s = mustOpen(t, cfg)
	desc := oci.Descriptor{Digest: digest.FromString("x"), Size: 1}
	if err := s.Put(t.Context(), desc, []byte("x")); err != nil {
		t.Fatal(err)
	}
	i, err := s.Ingest(t.Context(), digest.FromString("a"), 6000)
	if err != nil {
		t.Fatal(err)
	}
	defer i.Abort()
	<-relieved
	if _, err := s.Stat(desc.Digest); err != nil {
		t.Errorf("a blob was evicted for nothing: %v", err)
	}
}
