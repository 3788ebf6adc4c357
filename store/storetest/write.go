package storetest

import (
	"bytes"
	"errors"
	"os"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/internal/oci"
	"github.com/larder-registry/larder/store"
)

func commitVisible(t *testing.T, h house) {
	s := h.store(t)
	content := Content(1_300_000, 1)
	dgst := digest.FromBytes(content)
	i, err := s.Ingest(t.Context(), dgst, int64(len(content)))
	if err != nil {
		t.Fatal(err)
	}
	defer i.Close()
	// Back to front, in pieces that share no boundary with anything.
	for end := len(content); end > 0; {
		start := max(end-77_777, 0)
		if n, err := i.WriteAt(content[start:end], int64(start)); err != nil || n != end-start {
			t.Fatalf("wrote %d, %v", n, err)
		}
		end = start
		Lacks(t, s, h.dir, dgst)
	}
	got := make([]byte, len(content))
	if _, err := i.ReadAt(got, 0); err != nil || !bytes.Equal(got, content) {
		t.Fatalf("what was written reads back otherwise: %v", err)
	}
	for _, to := range []int64{1, 600_000, 600_000, 3} {
		if err := i.Hash(t.Context(), to); err != nil {
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
	if st := s.Stats(); st.CacheBytes != int64(len(content)) || st.Blobs != 1 || st.IngestBytes != 0 {
		t.Fatalf("stats are %+v", st)
	}
}

func commitSHA512(t *testing.T, h house) {
	s := h.store(t)
	content := Content(5000, 2)
	dgst := digest.SHA512.FromBytes(content)
	if err := s.Put(t.Context(), oci.Descriptor{Digest: dgst, Size: -1}, content); err != nil {
		t.Fatal(err)
	}
	Holds(t, s, dgst, content)
	Check(t, h.dir)
}

func commitEmpty(t *testing.T, h house) {
	s := h.store(t)
	dgst := Add(t, s, nil)
	Holds(t, s, dgst, nil)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	Holds(t, h.store(t), dgst, nil)
}

func abortLeavesNothing(t *testing.T, h house) {
	s := h.store(t)
	kept := Content(1000, 3)
	other := Add(t, s, kept)
	content := Content(100_000, 4)
	dgst := digest.FromBytes(content)
	i, err := s.Ingest(t.Context(), dgst, int64(len(content)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := i.WriteAt(content, 0); err != nil {
		t.Fatal(err)
	}
	if err := i.SaveHeld([]oci.Span{{Start: 0, End: int64(len(content))}}); err != nil {
		t.Fatal(err)
	}
	if got := s.Stats().IngestBytes; got != int64(len(content)) {
		t.Fatalf("the ingest reserves %d bytes", got)
	}
	for range 2 {
		if err := i.Abort(); err != nil {
			t.Fatal(err)
		}
	}
	if n := Ingests(t, h.dir); n != 0 {
		t.Fatalf("%d ingests are left", n)
	}
	if got := s.Stats().IngestBytes; got != 0 {
		t.Fatalf("%d bytes stay reserved", got)
	}
	Lacks(t, s, h.dir, dgst)
	Holds(t, s, other, kept)
	if _, err := i.WriteAt(content, 0); !errors.Is(err, store.ErrClosed) {
		t.Fatalf("write after abort: %v", err)
	}
	if _, err := i.Commit(t.Context()); err == nil {
		t.Fatal("commit after abort succeeded")
	}
	// An abort after another ingest has begun must not touch that one.
	again, err := s.Ingest(t.Context(), dgst, int64(len(content)))
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if err := i.Abort(); err != nil {
		t.Fatal(err)
	}
	if _, err := again.WriteAt(content, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := again.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	Holds(t, s, dgst, content)
}

func wrongBytes(t *testing.T, h house) {
	s := h.store(t)
	content := Content(300_000, 5)
	dgst := digest.FromBytes(content)
	i, err := s.Ingest(t.Context(), dgst, int64(len(content)))
	if err != nil {
		t.Fatal(err)
	}
	bad := bytes.Clone(content)
	bad[len(bad)/2] ^= 1
	if _, err := i.WriteAt(bad, 0); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := i.Verify(t.Context()); !errors.Is(err, oci.ErrDigestInvalid) {
			t.Fatalf("verify: %v", err)
		}
		if _, err := i.Commit(t.Context()); !errors.Is(err, oci.ErrDigestInvalid) {
			t.Fatalf("commit: %v", err)
		}
		Lacks(t, s, h.dir, dgst)
	}
	if err := i.Abort(); err != nil {
		t.Fatal(err)
	}
	if n := Ingests(t, h.dir); n != 0 {
		t.Fatalf("%d ingests are left", n)
	}
}

func missingBytes(t *testing.T, h house) {
	s := h.store(t)
	content := Content(10_000, 6)
	i, err := s.Ingest(t.Context(), digest.FromBytes(content), int64(len(content)))
	if err != nil {
		t.Fatal(err)
	}
	defer i.Abort()
	if _, err := i.WriteAt(content[:9_999], 0); err != nil {
		t.Fatal(err)
	}
	if _, err := i.Commit(t.Context()); !errors.Is(err, oci.ErrDigestInvalid) {
		t.Fatalf("commit: %v", err)
	}
	Lacks(t, s, h.dir, digest.FromBytes(content))
}

func sameBlobTwice(t *testing.T, h house) {
	s := h.store(t)
	content := Content(4000, 7)
	dgst := digest.FromBytes(content)
	i, err := s.Ingest(t.Context(), dgst, int64(len(content)))
	if err != nil {
		t.Fatal(err)
	}
	defer i.Close()
	if _, err := i.WriteAt(content, 0); err != nil {
		t.Fatal(err)
	}
	// Another path commits the same content first.
	if err := s.Put(t.Context(), oci.Descriptor{Digest: dgst, Size: int64(len(content))}, content); err != nil {
		t.Fatal(err)
	}
	Settled(t, h.dir)
	first, err := os.Stat(BlobPath(h.dir, dgst))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := i.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	second, err := os.Stat(BlobPath(h.dir, dgst))
	if err != nil {
		t.Fatal(err)
	}
	if !os.SameFile(first, second) {
		t.Fatal("the second commit replaced the file of the first")
	}
	Add(t, s, content)
	if st := s.Stats(); st.Blobs != 1 || st.CacheBytes != int64(len(content)) || st.IngestBytes != 0 {
		t.Fatalf("stats are %+v", st)
	}
	Holds(t, s, dgst, content)
	Check(t, h.dir)
}

func putVerifies(t *testing.T, h house) {
	s := h.store(t)
	content := Content(100, 11)
	dgst := digest.FromBytes(content)
	if err := s.Put(t.Context(), oci.Descriptor{Digest: dgst, Size: 100}, Content(100, 12)); !errors.Is(err, oci.ErrDigestInvalid) {
		t.Errorf("put of other bytes: %v", err)
	}
	if err := s.Put(t.Context(), oci.Descriptor{Digest: dgst, Size: 101}, content); !errors.Is(err, oci.ErrSizeInvalid) {
		t.Errorf("put of another size: %v", err)
	}
	Lacks(t, s, h.dir, dgst)
	for range 2 {
		if err := s.Put(t.Context(), oci.Descriptor{Digest: dgst, Size: 100}, content); err != nil {
			t.Fatal(err)
		}
	}
	Holds(t, s, dgst, content)
	Check(t, h.dir)
}

func putByMany(t *testing.T, h house) {
	s := h.store(t)
	content := Content(2000, 13)
	desc := oci.Descriptor{Digest: digest.FromBytes(content), Size: 2000}
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			if err := s.Put(t.Context(), desc, content); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	Holds(t, s, desc.Digest, content)
	if st := s.Stats(); st.Blobs != 1 || st.CacheBytes != 2000 || st.IngestBytes != 0 {
		t.Fatalf("stats are %+v", st)
	}
	if n := Ingests(t, h.dir); n != 0 {
		t.Fatalf("%d ingests are left", n)
	}
}
