package store

import (
	"bytes"
	"io"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/internal/oci"
)

// roomy are limits that no test's disk reaches.
func roomy(dir string) Config {
	return Config{Dir: dir, MaxSize: Bytes(1 << 30), MinFree: Bytes(0)}
}

func TestContentSurvivesReopen(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(t.Context(), roomy(dir))
	if err != nil {
		t.Fatal(err)
	}
	content := bytes.Repeat([]byte("larder"), 100_000)
	dgst := digest.FromBytes(content)
	i, err := s.Ingest(t.Context(), dgst, int64(len(content)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := i.WriteAt(content, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := i.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	i.Close()
	name := oci.Name{Registry: "r.test", Repository: "a/b"}
	ref := oci.Reference{Name: name, Tag: "v1"}
	manifest := []byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","layers":[{"digest":"` + dgst.String() + `"}]}`)
	md := oci.Descriptor{MediaType: "application/vnd.oci.image.manifest.v1+json", Digest: digest.FromBytes(manifest), Size: int64(len(manifest))}
	if err := s.Put(t.Context(), md, manifest); err != nil {
		t.Fatal(err)
	}
	confirmed := time.Unix(1_700_000_000, 0)
	if err := s.SetTag(ref, Tag{md, confirmed}); err != nil {
		t.Fatal(err)
	}
	if err := s.Link(name, md); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	s, err = Open(t.Context(), roomy(dir))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	b, err := s.Blob(dgst)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	got, err := io.ReadAll(b)
	if err != nil || !bytes.Equal(got, content) {
		t.Fatalf("read %d other bytes, %v", len(got), err)
	}
	tag, err := s.Tag(ref)
	if err != nil || tag.Descriptor != md || !tag.Confirmed.Equal(confirmed) {
		t.Fatalf("tag is %+v, %v", tag, err)
	}
	if d, err := s.Linked(name, md.Digest); err != nil || d != md {
		t.Fatalf("link is %+v, %v", d, err)
	}
	if d, err := s.Stat(md.Digest); err != nil || d != md {
		t.Fatalf("manifest is %+v, %v", d, err)
	}
}
