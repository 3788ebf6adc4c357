package storetest

import (
	"bytes"
	"errors"
	"io"
	"os"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/internal/oci"
	"github.com/larder-registry/larder/store"
)

// unit is the size of the blobs that limits are tried with; a limit of n units
// holds n of them, and an eviction takes one more than needed (its slack).
const unit = 64 << 10

// fillUp adds n blobs of one unit each, oldest first.
func fillUp(t *testing.T, s *store.Store, n int, seed uint64) []digest.Digest {
	t.Helper()
	var all []digest.Digest
	for k := range n {
		all = append(all, Add(t, s, Content(unit, seed+uint64(k))))
	}
	return all
}

// has reports which of the digests s holds, without using them.
func has(s *store.Store, all []digest.Digest) []bool {
	list := make([]bool, len(all))
	for k, dgst := range all {
		_, err := s.Stat(dgst)
		list[k] = err == nil
	}
	return list
}

// wantHas fails t unless s holds just those of all that want says: '1' is held.
func wantHas(t *testing.T, s *store.Store, h house, all []digest.Digest, want string) {
	t.Helper()
	Settled(t, h.dir)
	got := ""
	for k, held := range has(s, all) {
		if held {
			got += "1"
			Holds(t, s, all[k], mustRead(t, h, all[k]))
		} else {
			got += "0"
			Lacks(t, s, h.dir, all[k])
		}
	}
	if got != want {
		t.Fatalf("held are %s, want %s", got, want)
	}
}

func mustRead(t *testing.T, h house, dgst digest.Digest) []byte {
	t.Helper()
	content, err := os.ReadFile(BlobPath(h.dir, dgst))
	if err != nil {
		t.Fatal(err)
	}
	if digest.FromBytes(content) != dgst {
		t.Fatalf("file of %s has other bytes", dgst)
	}
	return content
}

func sizeLimit(t *testing.T, h house) {
	s := h.limited(t, 4*unit)
	all := fillUp(t, s, 4, 100)
	if got := s.Stats().LimitBytes; got != 4*unit {
		t.Fatalf("limit is %d", got)
	}
	// What can never fit evicts nothing.
	if _, err := s.Ingest(t.Context(), digest.FromString("huge"), 4*unit+1); !errors.Is(err, store.ErrNoSpace) {
		t.Fatalf("ingest beyond the limit: %v", err)
	}
	wantHas(t, s, h, all, "1111")
	if n := Ingests(t, h.dir); n != 0 {
		t.Fatalf("%d ingests are left", n)
	}
	more := Add(t, s, Content(unit, 150))
	wantHas(t, s, h, append(all, more), "00111")
	st := s.Stats()
	if st.Evictions["size"] != 2 || st.CacheBytes != 3*unit || st.IngestBytes != 0 {
		t.Fatalf("stats are %+v", st)
	}
	Check(t, h.dir)
}

func ingestsCount(t *testing.T, h house) {
	s := h.limited(t, 4*unit)
	all := fillUp(t, s, 2, 200)
	first, err := s.Ingest(t.Context(), digest.FromString("a"), unit)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Abort()
	second, err := s.Ingest(t.Context(), digest.FromString("b"), 2*unit)
	if err != nil {
		t.Fatal(err)
	}
	wantHas(t, s, h, all, "00")
	if _, err := s.Ingest(t.Context(), digest.FromString("c"), 2*unit); !errors.Is(err, store.ErrNoSpace) {
		t.Fatalf("ingest beyond what running ones leave: %v", err)
	}
	if err := second.Abort(); err != nil {
		t.Fatal(err)
	}
	third, err := s.Ingest(t.Context(), digest.FromString("c"), 2*unit)
	if err != nil {
		t.Fatalf("what an abort gave back is not there: %v", err)
	}
	third.Abort()
}

func lru(t *testing.T, h house) {
	s := h.limited(t, 5*unit)
	all := fillUp(t, s, 5, 300)
	use(t, s, all[0], all[2])
	all = append(all, Add(t, s, Content(unit, 350)))
	wantHas(t, s, h, all, "101011")
}

// use opens the blobs in turn.
func use(t *testing.T, s *store.Store, all ...digest.Digest) {
	t.Helper()
	for _, dgst := range all {
		b, err := s.Blob(dgst)
		if err != nil {
			t.Fatal(err)
		}
		b.Close()
	}
}

func lruReopen(t *testing.T, h house) {
	s := h.limited(t, 5*unit)
	all := fillUp(t, s, 5, 400)
	use(t, s, all[3], all[1], all[0])
	s.Close()
	s = h.limited(t, 5*unit)
	all = append(all, Add(t, s, Content(unit, 450)))
	wantHas(t, s, h, all, "110101")
}

func pins(t *testing.T, h house) {
	s := h.limited(t, 6*unit, "r.test/pinned/*:keep*")
	all := fillUp(t, s, 5, 500)
	// Reached through an index, as multi-platform images are.
	manifest, _ := PutManifest(t, s, all[0])
	index, _ := PutManifest(t, s, manifest.Digest)
	pinned := oci.Name{Registry: "r.test", Repository: "pinned/a"}
	if err := s.SetTag(oci.Reference{Name: pinned, Tag: "keep-1"}, store.Tag{Descriptor: index}); err != nil {
		t.Fatal(err)
	}
	loose, _ := PutManifest(t, s, all[1])
	if err := s.SetTag(oci.Reference{Name: pinned, Tag: "drop"}, store.Tag{Descriptor: loose}); err != nil {
		t.Fatal(err)
	}
	all = append(all, Add(t, s, Content(unit, 550)))
	wantHas(t, s, h, all, "101111")
	// Last does not mean never.
	big := Add(t, s, Content(6*unit, 551))
	wantHas(t, s, h, append(all, manifest.Digest, index.Digest, big), "000000001")
	if _, err := s.Tag(oci.Reference{Name: pinned, Tag: "keep-1"}); !errors.Is(err, oci.ErrManifestUnknown) {
		t.Fatalf("the tag dangles: %v", err)
	}
}

func readersStay(t *testing.T, h house) {
	s := h.limited(t, 3*unit)
	all := fillUp(t, s, 3, 600)
	want := mustRead(t, h, all[0])
	b, err := s.Blob(all[0])
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	use(t, s, all[1], all[2])
	all = append(all, Add(t, s, Content(unit, 650)))
	wantHas(t, s, h, all, "1001")
	if got, err := io.ReadAll(b); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("the reader got other bytes: %v", err)
	}
	if _, err := s.Ingest(t.Context(), digest.FromString("all"), 3*unit); !errors.Is(err, store.ErrNoSpace) {
		t.Fatalf("room was made while a blob is read: %v", err)
	}
	for range 2 {
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	}
	Add(t, s, Content(3*unit, 651))
	wantHas(t, s, h, all, "0000")
}

func manifestsFollow(t *testing.T, h house) {
	s := h.limited(t, 5*unit)
	all := fillUp(t, s, 3, 700)
	shared, own, stays := all[0], all[1], all[2]
	first, _ := PutManifest(t, s, shared)
	second, _ := PutManifest(t, s, shared, own)
	index, _ := PutManifest(t, s, second.Digest)
	third, _ := PutManifest(t, s, stays)
	name := oci.Name{Registry: "r.test", Repository: "app"}
	byTag := map[string]oci.Descriptor{"first": first, "second": second, "index": index, "third": third}
	for tag, desc := range byTag {
		if err := s.SetTag(oci.Reference{Name: name, Tag: tag}, store.Tag{Descriptor: desc}); err != nil {
			t.Fatal(err)
		}
		if err := s.Link(name, desc); err != nil {
			t.Fatal(err)
		}
	}
	use(t, s, own, stays, first.Digest, second.Digest, index.Digest, third.Digest)
	// Over by one unit and a little: only the shared layer has to go.
	Add(t, s, Content(2*unit, 750))
	wantHas(t, s, h, []digest.Digest{shared, first.Digest, second.Digest, index.Digest}, "0000")
	wantHas(t, s, h, []digest.Digest{own, stays, third.Digest}, "111")
	check := func(when string) {
		t.Helper()
		for tag, desc := range byTag {
			_, tagErr := s.Tag(oci.Reference{Name: name, Tag: tag})
			_, linkErr := s.Linked(name, desc.Digest)
			if tag == "third" {
				if tagErr != nil || linkErr != nil {
					t.Errorf("%s: tag and link of what stayed: %v, %v", when, tagErr, linkErr)
				}
				continue
			}
			if !errors.Is(tagErr, oci.ErrManifestUnknown) || !errors.Is(linkErr, oci.ErrBlobUnknown) {
				t.Errorf("%s: tag and link of %s, which went: %v, %v", when, tag, tagErr, linkErr)
			}
		}
	}
	check("at once")
	if got := s.Stats().Evictions; got["manifest"] != 3 || got["size"] != 1 {
		t.Errorf("evictions are %v", got)
	}
	s.Close()
	s = h.limited(t, 5*unit)
	check("after a reopen")
	if list, err := s.Tags(name, -1, ""); err != nil || len(list) != 1 || list[0] != "third" {
		t.Errorf("tags are %v, %v", list, err)
	}
}

func partialsFirst(t *testing.T, h house) {
	s := h.limited(t, 4*unit)
	all := fillUp(t, s, 2, 800)
	half := oci.Span{Start: 0, End: unit / 2}
	old := partial(t, s, Content(unit, 850), half)
	recent := partial(t, s, Content(unit, 851), half)
	add := Add(t, s, Content(unit/2, 852))
	wantHas(t, s, h, append(all, add), "111")
	if _, ok := s.Partial(old); ok {
		t.Error("the older partial stayed")
	}
	if _, ok := s.Partial(recent); !ok {
		t.Error("the more recent partial went")
	}
	if n := Ingests(t, h.dir); n != 1 {
		t.Errorf("%d ingests are left", n)
	}
	if got := s.Stats(); len(got.Evictions) != 0 || got.IngestBytes != unit {
		t.Errorf("stats are %+v", got)
	}
}

func manyAtOnce(t *testing.T, h house) {
	s := h.limited(t, 8*unit)
	contents := make([][]byte, 24)
	for k := range contents {
		contents[k] = Content(unit/2+k, 900+uint64(k))
	}
	name := oci.Name{Registry: "r.test", Repository: "many"}
	var wg sync.WaitGroup
	for worker := range 6 {
		wg.Go(func() {
			for k := range 3 * len(contents) {
				content := contents[(k*7+worker*5)%len(contents)]
				if err := visit(t, s, name, content); err != nil {
					t.Errorf("worker %d: %v", worker, err)
					return
				}
			}
		})
	}
	wg.Wait()
	st := s.Stats()
	if st.IngestBytes != 0 || st.CacheBytes > 8*unit {
		t.Errorf("stats are %+v", st)
	}
	if n := Ingests(t, h.dir); n != 0 {
		t.Errorf("%d ingests are left", n)
	}
	Check(t, h.dir)
	for k, content := range contents {
		if _, err := s.Stat(digest.FromBytes(content)); err == nil {
			Holds(t, s, digest.FromBytes(content), contents[k])
		}
	}
}

// visit reads content from s, or brings it in.
func visit(t *testing.T, s *store.Store, name oci.Name, content []byte) error {
	dgst := digest.FromBytes(content)
	b, err := s.Blob(dgst)
	if err == nil {
		defer b.Close()
		got, err := io.ReadAll(b)
		if err == nil && !bytes.Equal(got, content) {
			err = errors.New("read other bytes")
		}
		return err
	}
	if !errors.Is(err, oci.ErrBlobUnknown) {
		return err
	}
	i, err := s.Ingest(t.Context(), dgst, int64(len(content)))
	if errors.Is(err, store.ErrBusy) || errors.Is(err, store.ErrNoSpace) {
		return nil
	}
	if err != nil {
		return err
	}
	defer i.Close()
	if _, err := i.WriteAt(content, 0); err != nil {
		return err
	}
	if _, err := i.Commit(t.Context()); err != nil {
		return err
	}
	// It may be evicted already; everything else is a failure.
	if err := s.Link(name, oci.Descriptor{Digest: dgst}); err != nil && !errors.Is(err, oci.ErrBlobUnknown) {
		return err
	}
	return nil
}
