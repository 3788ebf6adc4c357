package storetest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/internal/oci"
	"github.com/larder-registry/larder/store"
)

func oneIngest(t *testing.T, h house) {
	s := h.store(t)
	dgst := digest.FromString("busy")
	i, err := s.Ingest(t.Context(), dgst, 4)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Ingest(t.Context(), dgst, 4); !errors.Is(err, store.ErrBusy) {
		t.Fatalf("second ingest: %v", err)
	}
	if err := i.Close(); err != nil {
		t.Fatal(err)
	}
	i, err = s.Ingest(t.Context(), dgst, 4)
	if err != nil {
		t.Fatal(err)
	}
	i.Abort()
}

func ingestRefuses(t *testing.T, h house) {
	s := h.store(t)
	for name, dgst := range map[string]digest.Digest{
		"no digest":         "",
		"a path":            "sha256:../../../../etc/passwd",
		"too short":         "sha256:abcd",
		"upper case":        "sha256:" + digest.Digest("E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855"),
		"unknown algorithm": "md5:d41d8cd98f00b204e9800998ecf8427e",
		"sha384":            digest.SHA384.FromString("x"),
	} {
		if _, err := s.Ingest(t.Context(), dgst, 1); !errors.Is(err, oci.ErrDigestInvalid) {
			t.Errorf("ingest of %s: %v", name, err)
		}
		if _, err := s.Blob(dgst); !errors.Is(err, oci.ErrBlobUnknown) {
			t.Errorf("blob of %s: %v", name, err)
		}
		if err := s.Put(t.Context(), oci.Descriptor{Digest: dgst, Size: 1}, []byte("x")); !errors.Is(err, oci.ErrDigestInvalid) {
			t.Errorf("put of %s: %v", name, err)
		}
	}
	content := Content(1000, 8)
	dgst := digest.FromBytes(content)
	if _, err := s.Ingest(t.Context(), dgst, -1); !errors.Is(err, oci.ErrSizeInvalid) {
		t.Errorf("ingest of unknown size: %v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Ingest(ended, dgst, 1000); !errors.Is(err, context.Canceled) {
		t.Errorf("ingest under an ended context: %v", err)
	}
	i, err := s.Ingest(t.Context(), dgst, 1000)
	if err != nil {
		t.Fatal(err)
	}
	defer i.Abort()
	for _, off := range []int64{-1, 1, 1000, 1 << 62} {
		if _, err := i.WriteAt(content, off); !errors.Is(err, oci.ErrSizeInvalid) {
			t.Errorf("write at %d: %v", off, err)
		}
	}
	if _, err := i.WriteAt(content, 0); err != nil {
		t.Fatal(err)
	}
	if err := i.Hash(t.Context(), 1001); !errors.Is(err, oci.ErrSizeInvalid) {
		t.Errorf("hash beyond the end: %v", err)
	}
	if err := i.Hash(ended, 1000); !errors.Is(err, context.Canceled) {
		t.Errorf("hash under an ended context: %v", err)
	}
	if err := i.Hash(t.Context(), 500); err != nil {
		t.Fatal(err)
	}
	// What is hashed must not change any more, or wrong bytes could be committed.
	if _, err := i.WriteAt([]byte{0}, 499); err == nil {
		t.Error("a hashed byte could be overwritten")
	}
	if _, err := i.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	Check(t, h.dir)
}

func hashClone(t *testing.T, h house) {
	s := h.store(t)
	content := Content(2_000_000, 9)
	for _, alg := range []digest.Algorithm{digest.SHA256, digest.SHA512} {
		i, err := s.Ingest(t.Context(), alg.FromBytes(content), int64(len(content)))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := i.WriteAt(content, 0); err != nil {
			t.Fatal(err)
		}
		if err := i.Hash(t.Context(), 1_234_567); err != nil {
			t.Fatal(err)
		}
		running, at := i.HashClone()
		if at != 1_234_567 {
			t.Fatalf("the copy stands at %d", at)
		}
		running.Write(content[at:])
		if got := digest.NewDigest(alg, running); got != alg.FromBytes(content) {
			t.Fatalf("the copy ends as %s", got)
		}
		if _, err := i.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		i.Close()
	}
}

func readOn(t *testing.T, h house) {
	s := h.store(t)
	content := Content(50_000, 10)
	dgst := digest.FromBytes(content)
	i, err := s.Ingest(t.Context(), dgst, int64(len(content)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := i.WriteAt(content, 0); err != nil {
		t.Fatal(err)
	}
	before, err := i.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer before.Close()
	release, ok := i.Acquire()
	if !ok {
		t.Fatal("an open ingest cannot be acquired")
	}
	if _, err := i.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	after, err := i.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer after.Close()
	if err := i.Close(); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(content))
	if _, err := i.ReadAt(got, 0); err != nil || !bytes.Equal(got, content) {
		t.Fatalf("an acquired ingest reads otherwise: %v", err)
	}
	release()
	release()
	if _, err := i.ReadAt(got, 0); !errors.Is(err, os.ErrClosed) {
		t.Fatalf("read after the last release: %v", err)
	}
	if _, ok := i.Acquire(); ok {
		t.Fatal("a closed ingest could be acquired")
	}
	for name, f := range map[string]*os.File{"before": before, "after": after} {
		if got, err := io.ReadAll(f); err != nil || !bytes.Equal(got, content) {
			t.Fatalf("a file opened %s the commit reads otherwise: %v", name, err)
		}
	}
}
