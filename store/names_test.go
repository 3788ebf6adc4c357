package store

import (
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/internal/oci"
)

// TestNamesAreBounded gives one small image more names than a store remembers.
func TestNamesAreBounded(t *testing.T) {
	s := mustOpen(t, roomy(t.TempDir()))
	desc := oci.Descriptor{Digest: digest.FromString("x"), Size: 1}
	if err := s.Put(t.Context(), desc, []byte("x")); err != nil {
		t.Fatal(err)
	}
	ref := func(n int) oci.Reference {
		return oci.Reference{Name: oci.Name{Registry: "r.test", Repository: strconv.Itoa(n % 100)}, Tag: strconv.Itoa(n)}
	}
	s.mu.Lock()
	for n := range maxNames {
		s.repository(ref(n).Name).tags[ref(n).Tag] = Tag{desc, time.Unix(int64(n), 0)}
		s.names++
	}
	s.mu.Unlock()
	last := ref(maxNames)
	if err := s.SetTag(last, Tag{desc, time.Unix(maxNames, 0)}); err != nil {
		t.Fatal(err)
	}
	if err := s.Link(oci.Name{Registry: "r.test", Repository: "new"}, desc); err != nil {
		t.Fatal(err)
	}
	count := 0
	repos, err := s.Repositories(-1, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, repo := range repos {
		tags, err := s.Tags(oci.Name{Registry: "r.test", Repository: repo[len("r.test/"):]}, -1, "")
		if err != nil {
			t.Fatal(err)
		}
		count += len(tags)
	}
	if want := maxNames - maxNames/8 + 1; count != want {
		t.Errorf("%d tags are left, want %d", count, want)
	}
	for n, want := range map[int]bool{0: false, maxNames/8 - 1: false, maxNames / 8: true, maxNames: true} {
		if _, err := s.Tag(ref(n)); (err == nil) != want {
			t.Errorf("tag %d: %v", n, err)
		}
	}
}

// TestChangesAreBounded changes more than is remembered while the index cannot
// be written: then all of it is written as it is.
func TestChangesAreBounded(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, roomy(dir))
	for n := range 4 {
		content := fmt.Append(nil, n)
		desc := oci.Descriptor{Digest: digest.FromBytes(content), Size: int64(len(content))}
		if err := s.Put(t.Context(), desc, content); err != nil {
			t.Fatal(err)
		}
		if err := s.SetTag(oci.Reference{Name: oci.Name{Registry: "r.test", Repository: "a"}, Tag: strconv.Itoa(n)}, Tag{Descriptor: desc}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.index.flush(); err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	s.dropName(key{kindTag, oci.Name{Registry: "r.test", Repository: "a"}, "2"})
	for n := range maxChanged {
		s.dirty(key{kindUse, oci.Name{}, strconv.Itoa(n)})
	}
	if !s.index.lost || len(s.index.changed) > maxChanged {
		t.Errorf("%d changes are remembered", len(s.index.changed))
	}
	s.mu.Unlock()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, roomy(dir))
	tags, err := s.Tags(oci.Name{Registry: "r.test", Repository: "a"}, -1, "")
	if err != nil || fmt.Sprint(tags) != "[0 1 3]" {
		t.Errorf("tags are %v, %v", tags, err)
	}
}
