// Package storetest holds the suite that every store passes, however it is
// configured and whatever file system it lies on. It uses the exported API and
// looks at the data directory, and compares bytes. It refuses to know how a
// store works inside: the tests of faults and crashes, which do, are beside the
// store's own code.
package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/internal/oci"
	"github.com/larder-registry/larder/store"
)

// Open opens a store as the suite asks, with what the caller wants to vary.
type Open func(t *testing.T, cfg store.Config) (*store.Store, error)

// Run runs the suite. Each case has a directory of its own.
func Run(t *testing.T, open Open) {
	cases := []struct {
		name string
		run  func(t *testing.T, h house)
	}{
		{"commit makes content visible, whole", commitVisible},
		{"sha512 content", commitSHA512},
		{"empty content", commitEmpty},
		{"abort leaves nothing", abortLeavesNothing},
		{"wrong bytes are never committed", wrongBytes},
		{"missing bytes are never committed", missingBytes},
		{"the same blob twice", sameBlobTwice},
		{"one ingest of a digest at a time", oneIngest},
		{"what an ingest refuses", ingestRefuses},
		{"the running hash can be copied", hashClone},
		{"reading on after commit and close", readOn},
		{"put verifies", putVerifies},
		{"put by many at once", putByMany},
		{"everything survives a reopen", reopen},
		{"a partial ingest is resumed", resume},
		{"a partial with false claims fails its digest", resumeLies},
		{"partials that cannot be resumed go at open", partialsCleaned},
		{"files that are no blobs go at open", strangersCleaned},
		{"names of files that are gone go at open", namesCleaned},
		{"a blob whose file vanished is forgotten", vanished},
		{"a blob whose file is short is removed", short},
		{"a discarded blob can be fetched again", discarded},
		{"tags", tags},
		{"links", links},
		{"exposure lasts as long as its repository", exposure},
		{"lists", lists},
		{"the size limit holds", sizeLimit},
		{"running ingests count", ingestsCount},
		{"least recently used goes first", lru},
		{"last use survives a reopen", lruReopen},
		{"pinned references go last", pins},
		{"a blob being read stays", readersStay},
		{"image manifests go with their layers", manifestsFollow},
		{"partials go before blobs", partialsFirst},
		{"one process at a time", locked},
		{"many at once", manyAtOnce},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.run(t, house{dir: t.TempDir(), open: open})
		})
	}
}

// house is one case's data directory.
type house struct {
	dir  string
	open Open
}

// store opens the directory without limits that matter, and closes it when the
// case ends.
func (h house) store(t *testing.T) *store.Store {
	t.Helper()
	return h.limited(t, 1<<30)
}

// limited opens the directory with room for max bytes.
func (h house) limited(t *testing.T, max int64, pin ...string) *store.Store {
	t.Helper()
	s, err := h.open(t, store.Config{Dir: h.dir, MaxSize: store.Bytes(max), MinFree: store.Bytes(0), Pin: pin})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// Content returns n bytes that only seed decides.
func Content(n int, seed uint64) []byte {
	var key [32]byte
	copy(key[:], fmt.Sprintf("larder %d", seed))
	content := make([]byte, n)
	rand.NewChaCha8(key).Read(content)
	return content
}

// Add ingests and commits content, and returns its digest.
func Add(t testing.TB, s *store.Store, content []byte) digest.Digest {
	t.Helper()
	dgst := digest.FromBytes(content)
	i, err := s.Ingest(t.Context(), dgst, int64(len(content)))
	if err != nil {
		t.Fatalf("ingest: %v", err)
	}
	defer i.Close()
	if _, err := i.WriteAt(content, 0); err != nil {
		t.Fatalf("write: %v", err)
	}
	desc, err := i.Commit(t.Context())
	if err != nil {
		t.Fatalf("commit: %v", err)
	}
	if want := (oci.Descriptor{Digest: dgst, Size: int64(len(content))}); desc != want {
		t.Fatalf("committed %+v, want %+v", desc, want)
	}
	return dgst
}

// Holds fails t unless s holds content under dgst, byte for byte.
func Holds(t testing.TB, s *store.Store, dgst digest.Digest, content []byte) {
	t.Helper()
	b, err := s.Blob(dgst)
	if err != nil {
		t.Fatalf("open blob: %v", err)
	}
	defer b.Close()
	got, err := io.ReadAll(b)
	if err != nil {
		t.Fatalf("read blob: %v", err)
	}
	if !bytes.Equal(got, content) {
		t.Fatalf("blob %s has other bytes", dgst)
	}
	if b.Descriptor().Size != int64(len(content)) {
		t.Fatalf("blob %s says it has %d bytes", dgst, b.Descriptor().Size)
	}
}

// Lacks fails t unless s does not hold dgst, and neither does its directory.
func Lacks(t testing.TB, s *store.Store, dir string, dgst digest.Digest) {
	t.Helper()
	if b, err := s.Blob(dgst); !errors.Is(err, oci.ErrBlobUnknown) {
		if err == nil {
			b.Close()
		}
		t.Fatalf("opening %s: %v, want blob unknown", dgst, err)
	}
	if _, err := s.Stat(dgst); !errors.Is(err, oci.ErrBlobUnknown) {
		t.Fatalf("stat of %s: %v, want blob unknown", dgst, err)
	}
	if _, err := os.Lstat(BlobPath(dir, dgst)); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("file of %s is there: %v", dgst, err)
	}
}

// BlobPath is where a digest's file lies in a data directory.
func BlobPath(dir string, dgst digest.Digest) string {
	hex := dgst.Encoded()
	return filepath.Join(dir, "blobs", string(dgst.Algorithm()), hex[:2], hex)
}

// Settled waits until what was put into the store in dir is on disk: Put returns
// a moment before, and tells nobody afterwards.
func Settled(t testing.TB, dir string) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	deadline := time.NewTimer(5 * time.Minute)
	defer deadline.Stop()
	for {
		left, err := filepath.Glob(filepath.Join(dir, "ingest", "put-*"))
		if err != nil {
			t.Fatal(err)
		}
		if len(left) == 0 {
			return
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("not on disk yet: %v", left)
		}
	}
}

// Check fails t unless the data directory of a store, open or closed, is in
// order once what was put is on disk: every blob hashes to its name and is read-only, and every ingest that
// is there has data and a state.
func Check(t testing.TB, dir string) {
	t.Helper()
	Settled(t, dir)
	err := filepath.WalkDir(filepath.Join(dir, "blobs"), func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		alg := digest.Algorithm(filepath.Base(filepath.Dir(filepath.Dir(path))))
		want := digest.NewDigestFromEncoded(alg, e.Name())
		if err := want.Validate(); err != nil || path != BlobPath(dir, want) {
			t.Errorf("%s is no place for a blob: %v", path, err)
			return nil
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if got := alg.FromBytes(content); got != want {
			t.Errorf("blob %s hashes to %s", want, got)
		}
		if info, err := e.Info(); err != nil || info.Mode() != 0o444 {
			t.Errorf("blob %s has mode %v, %v", want, info.Mode(), err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	ingests, err := os.ReadDir(filepath.Join(dir, "ingest"))
	if err != nil {
		t.Error(err)
	}
	for _, e := range ingests {
		for _, part := range []string{"data", "state"} {
			if _, err := os.Lstat(filepath.Join(dir, "ingest", e.Name(), part)); err != nil {
				t.Errorf("ingest without its %s: %v", part, err)
			}
		}
	}
}

// Ingests counts what lies in ingest/ once what was put is on disk.
func Ingests(t testing.TB, dir string) int {
	t.Helper()
	Settled(t, dir)
	list, err := os.ReadDir(filepath.Join(dir, "ingest"))
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}
