package store

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/internal/oci"
)

// TestBlobAllocates holds opening a blob to what opening a file costs and
// little more: it is on the path of every hit.
func TestBlobAllocates(t *testing.T) {
	s := mustOpen(t, roomy(t.TempDir()))
	dgst := digest.FromString("hot")
	if err := s.Put(t.Context(), oci.Descriptor{Digest: dgst, Size: 3}, []byte("hot")); err != nil {
		t.Fatal(err)
	}
	settle(s)
	file := testing.AllocsPerRun(200, func() {
		f, err := os.Open(s.blobPath(dgst))
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
	})
	blob := testing.AllocsPerRun(200, func() {
		b, err := s.Blob(dgst)
		if err != nil {
			t.Fatal(err)
		}
		b.Close()
	})
	if blob > file+4 {
		t.Errorf("opening a blob makes %v allocations, opening its file %v", blob, file)
	}
	name := oci.Name{Registry: "r.test", Repository: "a"}
	if err := s.Link(name, oci.Descriptor{Digest: dgst, Size: 3}); err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(200, func() {
		if _, err := s.Linked(name, dgst); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("looking up a link makes %v allocations", n)
	}
}

func BenchmarkBlob(b *testing.B) {
	s := mustOpen(b, roomy(b.TempDir()))
	dgst := digest.FromString("hot")
	if err := s.Put(b.Context(), oci.Descriptor{Digest: dgst, Size: 3}, []byte("hot")); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			blob, err := s.Blob(dgst)
			if err != nil {
				b.Error(err)
				return
			}
			blob.Close()
		}
	})
}

// BenchmarkOpen opens a store of 10,000 blobs, a third of them image manifests
// with tags, with its index and without.
func BenchmarkOpen(b *testing.B) {
	dir := b.TempDir()
	for n := range 10_000 {
		content := fmt.Appendf(nil, "layer %d", n)
		if n%3 == 0 {
			content = fmt.Appendf(nil, `{"schemaVersion":2,"layers":[{"digest":%q},{"digest":%q}]}`, digest.FromString(fmt.Sprint(n)), digest.FromString(fmt.Sprint(n+1)))
		}
		dgst := digest.FromBytes(content)
		path := (&Store{dir: dir}).blobPath(dgst)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(path, content, 0o444); err != nil {
			b.Fatal(err)
		}
	}
	s, err := Open(b.Context(), roomy(dir))
	if err != nil {
		b.Fatal(err)
	}
	s.mu.Lock()
	for dgst, rec := range s.blobs {
		if rec.mediaType != "" {
			name := oci.Name{Registry: "r.test", Repository: dgst.Encoded()[:2]}
			s.repository(name).tags[dgst.Encoded()[2:20]] = Tag{Descriptor: oci.Descriptor{Digest: dgst, Size: rec.size}}
			s.repository(name).links[dgst] = "application/vnd.oci.image.manifest.v1+json"
		}
	}
	s.dirtyAll()
	s.mu.Unlock()
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	for _, index := range []string{"indexed", "rebuilt"} {
		b.Run(index, func(b *testing.B) {
			for b.Loop() {
				if index == "rebuilt" {
					if err := os.RemoveAll(filepath.Join(dir, "index")); err != nil {
						b.Fatal(err)
					}
				}
				s, err := Open(b.Context(), roomy(dir))
				if err != nil {
					b.Fatal(err)
				}
				if got := s.Stats().Blobs; got != 10_000 {
					b.Fatalf("%d blobs", got)
				}
				b.StopTimer()
				if err := s.Close(); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
		})
	}
}

func BenchmarkCommit(b *testing.B) {
	s := mustOpen(b, roomy(b.TempDir()))
	content := make([]byte, 1<<20)
	b.SetBytes(int64(len(content)))
	for n := 0; b.Loop(); n++ {
		copy(content, fmt.Sprint(n))
		dgst := digest.FromBytes(content)
		i, err := s.Ingest(b.Context(), dgst, int64(len(content)))
		if err != nil {
			b.Fatal(err)
		}
		if _, err := i.WriteAt(content, 0); err != nil {
			b.Fatal(err)
		}
		if _, err := i.Commit(b.Context()); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(io.NewSectionReader(i, 0, 10), make([]byte, 10)); err != nil {
			b.Fatal(err)
		}
		i.Close()
	}
}
