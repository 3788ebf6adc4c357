package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/internal/oci"
	"github.com/larder-registry/larder/store"
)

// manifestType is what the suite's image manifests are.
const manifestType = "application/vnd.oci.image.manifest.v1+json"

// PutManifest puts an image manifest that lists children and returns what it is.
func PutManifest(t testing.TB, s *store.Store, children ...digest.Digest) (oci.Descriptor, []byte) {
	t.Helper()
	var layers []string
	for _, child := range children {
		layers = append(layers, fmt.Sprintf(`{"digest":%q}`, child))
	}
	content := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"layers":[%s]}`, manifestType, strings.Join(layers, ","))
	desc := oci.Descriptor{MediaType: manifestType, Digest: digest.FromBytes(content), Size: int64(len(content))}
	if err := s.Put(t.Context(), desc, content); err != nil {
		t.Fatalf("put manifest: %v", err)
	}
	return desc, content
}

func reopen(t *testing.T, h house) {
	s := h.store(t)
	layer := Content(200_000, 20)
	dgst := Add(t, s, layer)
	desc, manifest := PutManifest(t, s, dgst)
	name := oci.Name{Registry: "[::1]:5000", Repository: "a/b"}
	ref := oci.Reference{Name: name, Tag: "v1"}
	confirmed := time.Unix(1_700_000_000, 0)
	if err := s.SetTag(ref, store.Tag{Descriptor: desc}); err != nil {
		t.Fatal(err)
	}
	s.ConfirmTag(ref, confirmed)
	s.ConfirmTag(ref, confirmed.Add(-time.Hour))
	if err := s.Link(name, desc); err != nil {
		t.Fatal(err)
	}
	if err := s.Link(name, oci.Descriptor{Digest: dgst, Size: int64(len(layer))}); err != nil {
		t.Fatal(err)
	}
	stats := s.Stats()
	for range 2 {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}

	s = h.store(t)
	Holds(t, s, dgst, layer)
	Holds(t, s, desc.Digest, manifest)
	if got, err := s.Stat(desc.Digest); err != nil || got != desc {
		t.Errorf("manifest is %+v, %v", got, err)
	}
	if got, err := s.Tag(ref); err != nil || got.Descriptor != desc || !got.Confirmed.Equal(confirmed) {
		t.Errorf("tag is %+v, %v", got, err)
	}
	if got, err := s.Linked(name, desc.Digest); err != nil || got != desc {
		t.Errorf("link is %+v, %v", got, err)
	}
	if got := s.Stats(); got.CacheBytes != stats.CacheBytes || got.Blobs != 2 {
		t.Errorf("stats are %+v, were %+v", got, stats)
	}
	if err := s.Degraded(); err != nil {
		t.Errorf("degraded: %v", err)
	}
}

// partial leaves a partial ingest of content behind that holds spans.
func partial(t *testing.T, s *store.Store, content []byte, spans ...oci.Span) digest.Digest {
	t.Helper()
	dgst := digest.FromBytes(content)
	i, err := s.Ingest(t.Context(), dgst, int64(len(content)))
	if err != nil {
		t.Fatal(err)
	}
	for _, span := range spans {
		if _, err := i.WriteAt(content[span.Start:span.End], span.Start); err != nil {
			t.Fatal(err)
		}
	}
	if err := i.SaveHeld(spans); err != nil {
		t.Fatal(err)
	}
	if err := i.Close(); err != nil {
		t.Fatal(err)
	}
	return dgst
}

func resume(t *testing.T, h house) {
	content := Content(900_000, 21)
	held := []oci.Span{{Start: 0, End: 100_000}, {Start: 500_000, End: 600_001}}
	s := h.store(t)
	dgst := partial(t, s, content, held...)
	for _, again := range []string{"in the same store", "after a reopen"} {
		if size, ok := s.Partial(dgst); !ok || size != int64(len(content)) {
			t.Fatalf("%s: partial has size %d, %v", again, size, ok)
		}
		if got := s.Stats().IngestBytes; got != int64(len(content)) {
			t.Fatalf("%s: partial counts %d bytes", again, got)
		}
		i, err := s.Ingest(t.Context(), dgst, int64(len(content)))
		if err != nil {
			t.Fatal(err)
		}
		if got := i.Held(); !slices.Equal(got, held) {
			t.Fatalf("%s: held is %v", again, got)
		}
		for _, span := range held {
			got := make([]byte, span.Len())
			if _, err := i.ReadAt(got, span.Start); err != nil || !bytes.Equal(got, content[span.Start:span.End]) {
				t.Fatalf("%s: held bytes are others: %v", again, err)
			}
		}
		i.Close()
		s.Close()
		s = h.store(t)
	}
	i, err := s.Ingest(t.Context(), dgst, int64(len(content)))
	if err != nil {
		t.Fatal(err)
	}
	defer i.Close()
	if err := i.Hash(t.Context(), 100_000); err != nil {
		t.Fatal(err)
	}
	for _, gap := range []oci.Span{{Start: 100_000, End: 500_000}, {Start: 600_001, End: 900_000}} {
		if _, err := i.WriteAt(content[gap.Start:gap.End], gap.Start); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := i.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	Holds(t, s, dgst, content)
	Check(t, h.dir)
	if n := Ingests(t, h.dir); n != 0 {
		t.Fatalf("%d ingests are left", n)
	}
	// A partial of another size is another content: it is not resumed.
	other := Content(1000, 22)
	partial(t, s, other, oci.Span{Start: 0, End: 10})
	i, err = s.Ingest(t.Context(), digest.FromBytes(other), 999)
	if err != nil {
		t.Fatal(err)
	}
	if got := i.Held(); len(got) != 0 {
		t.Fatalf("a partial of another size was resumed: %v", got)
	}
	i.Abort()
}

func resumeLies(t *testing.T, h house) {
	s := h.store(t)
	content := Content(10_000, 23)
	dgst := partial(t, s, content, oci.Span{Start: 0, End: 10_000})
	s.Close()
	data, err := filepath.Glob(filepath.Join(h.dir, "ingest", "*", "data"))
	if err != nil || len(data) != 1 {
		t.Fatalf("data files are %v, %v", data, err)
	}
	bad := bytes.Clone(content)
	bad[9_000] ^= 0x80
	if err := os.WriteFile(data[0], bad, 0o644); err != nil {
		t.Fatal(err)
	}
	s = h.store(t)
	i, err := s.Ingest(t.Context(), dgst, 10_000)
	if err != nil {
		t.Fatal(err)
	}
	defer i.Abort()
	if got := i.Held(); len(got) != 1 {
		t.Fatalf("held is %v", got)
	}
	if _, err := i.Commit(t.Context()); !errors.Is(err, oci.ErrDigestInvalid) {
		t.Fatalf("commit: %v", err)
	}
	Lacks(t, s, h.dir, dgst)
}

func partialsCleaned(t *testing.T, h house) {
	s := h.store(t)
	content := func(seed uint64) []byte { return Content(1000, 30+seed) }
	half := oci.Span{Start: 0, End: 500}
	good := partial(t, s, content(0), half)
	spoil := map[string]func(dir string) error{
		"no state":             func(dir string) error { return os.Remove(filepath.Join(dir, "state")) },
		"no data":              func(dir string) error { return os.Remove(filepath.Join(dir, "data")) },
		"state is not JSON":    func(dir string) error { return os.WriteFile(filepath.Join(dir, "state"), []byte("{"), 0o644) },
		"state is empty":       func(dir string) error { return os.WriteFile(filepath.Join(dir, "state"), nil, 0o644) },
		"spans beyond the end": func(dir string) error { return writeState(dir, `{"size":1000,"held":[[0,1001]]}`) },
		"spans out of order":   func(dir string) error { return writeState(dir, `{"size":1000,"held":[[10,20],[0,5]]}`) },
		"empty span":           func(dir string) error { return writeState(dir, `{"size":1000,"held":[[10,10]]}`) },
		"another size":         func(dir string) error { return writeState(dir, `{"size":1001,"held":[[0,10]]}`) },
		"data is short":        func(dir string) error { return os.Truncate(filepath.Join(dir, "data"), 10) },
		"too old": func(dir string) error {
			old := time.Now().Add(-25 * time.Hour)
			return os.Chtimes(filepath.Join(dir, "data"), old, old)
		},
		"not named by a digest": func(dir string) error { return os.Rename(dir, filepath.Join(h.dir, "ingest", "put-1")) },
	}
	var lost []digest.Digest
	dirs := make(map[string]string)
	for n, name := range slices.Sorted(maps.Keys(spoil)) {
		dgst := partial(t, s, content(uint64(n+1)), half)
		dirs[name] = filepath.Join(h.dir, "ingest", "sha256-"+dgst.Encoded())
		lost = append(lost, dgst)
	}
	// A partial whose content is committed by another path, in a crash between
	// the two.
	committed := Add(t, s, content(99))
	dirs["committed"] = filepath.Join(h.dir, "ingest", "sha256-"+committed.Encoded())
	s.Close()
	for name, f := range spoil {
		if err := f(dirs[name]); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.CopyFS(dirs["committed"], os.DirFS(filepath.Join(h.dir, "ingest", "sha256-"+good.Encoded()))); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(h.dir, "ingest", "stray"), nil, 0o644); err != nil {
		t.Fatal(err)
	}

	s = h.store(t)
	if n := Ingests(t, h.dir); n != 1 {
		t.Errorf("%d ingests are left, want the good one", n)
	}
	if _, ok := s.Partial(good); !ok {
		t.Error("the good partial is gone")
	}
	for _, dgst := range lost {
		if _, ok := s.Partial(dgst); ok {
			t.Errorf("a partial that cannot be resumed is offered: %s", dgst)
		}
	}
	if got := s.Stats().IngestBytes; got != 1000 {
		t.Errorf("partials count %d bytes", got)
	}
	Check(t, h.dir)
}

func writeState(dir, text string) error {
	return os.WriteFile(filepath.Join(dir, "state"), []byte(text), 0o644)
}

func strangersCleaned(t *testing.T, h house) {
	s := h.store(t)
	content := Content(1000, 40)
	dgst := Add(t, s, content)
	s.Close()
	hex := dgst.Encoded()
	blobs := filepath.Join(h.dir, "blobs", "sha256")
	other := digest.FromString("elsewhere").Encoded()
	for _, file := range []string{
		filepath.Join(blobs, hex),                            // not in its directory
		filepath.Join(blobs, "zz", hex),                      // in another's
		filepath.Join(blobs, hex[:2], "README"),              // no digest
		filepath.Join(blobs, other[:2], other+".tmp"),        // left by something else
		filepath.Join(h.dir, "blobs", "md5", "d4", "d41d8c"), // no algorithm of ours
		filepath.Join(blobs, other[:2], other),               // empty, as after a power cut
	} {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	linked := digest.FromString("a link").Encoded()
	if err := os.MkdirAll(filepath.Join(blobs, linked[:2]), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(blobs, linked[:2], linked)); err != nil {
		t.Fatal(err)
	}
	s = h.store(t)
	Check(t, h.dir)
	if st := s.Stats(); st.Blobs != 1 || st.CacheBytes != 1000 {
		t.Fatalf("stats are %+v", st)
	}
	Holds(t, s, dgst, content)
}

func vanished(t *testing.T, h house) {
	s := h.store(t)
	layer := Content(1000, 41)
	dgst := Add(t, s, layer)
	desc, _ := PutManifest(t, s)
	ref := oci.Reference{Name: oci.Name{Registry: "r.test", Repository: "a"}, Tag: "t"}
	if err := s.SetTag(ref, store.Tag{Descriptor: desc}); err != nil {
		t.Fatal(err)
	}
	Settled(t, h.dir)
	for _, d := range []digest.Digest{dgst, desc.Digest} {
		if err := os.Remove(BlobPath(h.dir, d)); err != nil {
			t.Fatal(err)
		}
		Lacks(t, s, h.dir, d)
	}
	if _, err := s.Tag(ref); !errors.Is(err, oci.ErrManifestUnknown) {
		t.Fatalf("the tag of a vanished manifest: %v", err)
	}
	if st := s.Stats(); st.Blobs != 0 || st.CacheBytes != 0 {
		t.Fatalf("stats are %+v", st)
	}
	Holds(t, s, Add(t, s, layer), layer)
}

func short(t *testing.T, h house) {
	s := h.store(t)
	layer := Content(1000, 42)
	dgst := Add(t, s, layer)
	if err := errors.Join(os.Chmod(BlobPath(h.dir, dgst), 0o644), os.Truncate(BlobPath(h.dir, dgst), 999)); err != nil {
		t.Fatal(err)
	}
	Lacks(t, s, h.dir, dgst)
	Holds(t, s, Add(t, s, layer), layer)
	Check(t, h.dir)
}

func discarded(t *testing.T, h house) {
	s := h.store(t)
	layer := Content(1000, 43)
	dgst := Add(t, s, layer)
	old, err := s.Blob(dgst)
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	if err := old.Discard(); err != nil {
		t.Fatal(err)
	}
	Lacks(t, s, h.dir, dgst)
	Add(t, s, layer)
	// The reader of the old file must not take the new one away.
	if err := old.Discard(); err != nil {
		t.Fatal(err)
	}
	Holds(t, s, dgst, layer)
	if got := s.Stats().CacheBytes; got != 1000 {
		t.Fatalf("cache has %d bytes", got)
	}
}

func locked(t *testing.T, h house) {
	s := h.store(t)
	cfg := store.Config{Dir: h.dir, MinFree: store.Bytes(0)}
	_, err := h.open(t, cfg)
	if !errors.Is(err, store.ErrLocked) {
		t.Fatalf("second open: %v", err)
	}
	for _, want := range []string{h.dir, strconv.Itoa(os.Getpid())} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q does not name %s", err, want)
		}
	}
	cfg.LockWait = time.Minute
	opened := make(chan error)
	go func() { // ends with the Open, which the Close below lets through
		second, err := h.open(t, cfg)
		if err == nil {
			err = second.Close()
		}
		opened <- err
	}()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-opened; err != nil {
		t.Fatal(err)
	}
}
