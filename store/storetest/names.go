package storetest

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/internal/oci"
	"github.com/larder-registry/larder/store"
)

func tags(t *testing.T, h house) {
	s := h.store(t)
	one, _ := PutManifest(t, s, digest.FromString("one"))
	two, _ := PutManifest(t, s, digest.FromString("two"))
	ref := oci.Reference{Name: oci.Name{Registry: "docker.io", Repository: "library/nginx"}, Tag: "latest"}
	if _, err := s.Tag(ref); !errors.Is(err, oci.ErrManifestUnknown) {
		t.Fatalf("a tag nobody set: %v", err)
	}
	s.ConfirmTag(ref, time.Now())
	if _, err := s.Tag(ref); !errors.Is(err, oci.ErrManifestUnknown) {
		t.Fatalf("confirming made a tag: %v", err)
	}
	dangling := store.Tag{Descriptor: oci.Descriptor{MediaType: manifestType, Digest: digest.FromString("nothing")}}
	if err := s.SetTag(ref, dangling); !errors.Is(err, oci.ErrManifestUnknown) {
		t.Fatalf("a tag to nothing: %v", err)
	}
	for _, desc := range []oci.Descriptor{one, two} {
		if err := s.SetTag(ref, store.Tag{Descriptor: desc}); err != nil {
			t.Fatal(err)
		}
		if got, err := s.Tag(ref); err != nil || got.Descriptor != desc || !got.Confirmed.IsZero() {
			t.Fatalf("tag is %+v, %v", got, err)
		}
	}
	elsewhere := ref
	elsewhere.Registry = "ghcr.io"
	if _, err := s.Tag(elsewhere); !errors.Is(err, oci.ErrManifestUnknown) {
		t.Fatalf("the same tag of another registry: %v", err)
	}
	for range 2 {
		if err := s.DeleteTag(ref); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Tag(ref); !errors.Is(err, oci.ErrManifestUnknown) {
		t.Fatalf("a deleted tag: %v", err)
	}
	s.Close()
	s = h.store(t)
	if _, err := s.Tag(ref); !errors.Is(err, oci.ErrManifestUnknown) {
		t.Fatalf("a deleted tag came back: %v", err)
	}
	ref.Tag = strings.Repeat("x", 100_000)
	if err := s.SetTag(ref, store.Tag{Descriptor: one}); !errors.Is(err, oci.ErrNameInvalid) {
		t.Fatalf("an endless tag: %v", err)
	}
	if err := s.SetTag(oci.Reference{Name: ref.Name}, store.Tag{Descriptor: one}); err == nil {
		t.Fatal("an empty tag could be set")
	}
}

func links(t *testing.T, h house) {
	s := h.store(t)
	dgst := Add(t, s, Content(10, 50))
	desc := oci.Descriptor{MediaType: "application/vnd.test", Digest: dgst, Size: 10}
	name := oci.Name{Registry: "docker.io", Repository: "library/nginx"}
	other := oci.Name{Registry: "docker.io", Repository: "library/redis"}
	if _, err := s.Linked(name, dgst); !errors.Is(err, oci.ErrBlobUnknown) {
		t.Fatalf("content nobody vouched for: %v", err)
	}
	for range 2 {
		if err := s.Link(name, desc); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := s.Linked(name, dgst); err != nil || got != desc {
		t.Fatalf("link is %+v, %v", got, err)
	}
	if _, err := s.Linked(other, dgst); !errors.Is(err, oci.ErrBlobUnknown) {
		t.Fatalf("another repository vouches too: %v", err)
	}
	desc.MediaType = "application/vnd.test.v2"
	if err := s.Link(name, desc); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Linked(name, dgst); err != nil || got != desc {
		t.Fatalf("link is %+v, %v", got, err)
	}
	if err := s.Link(name, oci.Descriptor{Digest: digest.FromString("nothing")}); !errors.Is(err, oci.ErrBlobUnknown) {
		t.Fatalf("a link to nothing: %v", err)
	}
	desc.MediaType = strings.Repeat("x", 256)
	if err := s.Link(name, desc); !errors.Is(err, oci.ErrNameInvalid) {
		t.Fatalf("an endless media type: %v", err)
	}
}

func namesCleaned(t *testing.T, h house) {
	s := h.store(t)
	gone, _ := PutManifest(t, s, digest.FromString("gone"))
	stays, _ := PutManifest(t, s, digest.FromString("stays"))
	a, b := oci.Name{Registry: "r.test", Repository: "a"}, oci.Name{Registry: "r.test", Repository: "b"}
	for _, ref := range []oci.Reference{{Name: a, Tag: "t"}, {Name: b, Tag: "t"}} {
		if err := s.SetTag(ref, store.Tag{Descriptor: gone}); err != nil {
			t.Fatal(err)
		}
		if err := s.Link(ref.Name, gone); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Link(b, stays); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if err := os.Remove(BlobPath(h.dir, gone.Digest)); err != nil {
		t.Fatal(err)
	}
	s = h.store(t)
	if got, err := s.Repositories(-1, ""); err != nil || !slices.Equal(got, []string{b.String()}) {
		t.Errorf("repositories are %v, %v", got, err)
	}
	if got, err := s.Tags(b, -1, ""); err != nil || len(got) != 0 {
		t.Errorf("tags are %v, %v", got, err)
	}
	if _, err := s.Linked(b, stays.Digest); err != nil {
		t.Errorf("the link of what stayed: %v", err)
	}
	// The content may come back; what the names said of it does not.
	PutManifest(t, s, digest.FromString("gone"))
	if _, err := s.Linked(a, gone.Digest); !errors.Is(err, oci.ErrBlobUnknown) {
		t.Errorf("a link came back: %v", err)
	}
	if _, err := s.Tag(oci.Reference{Name: a, Tag: "t"}); !errors.Is(err, oci.ErrManifestUnknown) {
		t.Errorf("a tag came back: %v", err)
	}
}

func lists(t *testing.T, h house) {
	s := h.store(t)
	desc, _ := PutManifest(t, s)
	name := oci.Name{Registry: "docker.io", Repository: "library/nginx"}
	if _, err := s.Tags(name, -1, ""); !errors.Is(err, oci.ErrNameUnknown) {
		t.Fatalf("tags of a repository nobody has: %v", err)
	}
	if got, err := s.Repositories(-1, ""); err != nil || got == nil || len(got) != 0 {
		t.Fatalf("repositories of an empty store: %#v, %v", got, err)
	}
	for _, tag := range []string{"b", "1", "a", "B"} {
		if err := s.SetTag(oci.Reference{Name: name, Tag: tag}, store.Tag{Descriptor: desc}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Link(oci.Name{Registry: "127.0.0.1:5000", Repository: "x"}, desc); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		n    int
		last string
		want []string
	}{
		{-1, "", []string{"1", "B", "a", "b"}},
		{2, "", []string{"1", "B"}},
		{2, "B", []string{"a", "b"}},
		{-1, "a", []string{"b"}},
		{5, "b", []string{}},
		{0, "", []string{}},
		{-1, "0", []string{"1", "B", "a", "b"}},
	} {
		if got, err := s.Tags(name, c.n, c.last); err != nil || !slices.Equal(got, c.want) || got == nil {
			t.Errorf("%d tags after %q: %#v, %v", c.n, c.last, got, err)
		}
	}
	all := []string{"127.0.0.1:5000/x", "docker.io/library/nginx"}
	if got, err := s.Repositories(-1, ""); err != nil || !slices.Equal(got, all) {
		t.Errorf("repositories are %v, %v", got, err)
	}
	if got, err := s.Repositories(1, all[0]); err != nil || !slices.Equal(got, all[1:]) {
		t.Errorf("repositories after the first are %v, %v", got, err)
	}
	for _, tag := range []string{"b", "1", "a", "B"} {
		if err := s.DeleteTag(oci.Reference{Name: name, Tag: tag}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Tags(name, -1, ""); !errors.Is(err, oci.ErrNameUnknown) {
		t.Errorf("tags of a repository that is empty now: %v", err)
	}
}
