package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/internal/oci"
)

// hold puts text into s.
func hold(t testing.TB, s *Store, text string) oci.Descriptor {
	t.Helper()
	desc := oci.Descriptor{Digest: digest.FromString(text), Size: int64(len(text))}
	if err := s.Put(t.Context(), desc, []byte(text)); err != nil {
		t.Fatal(err)
	}
	return desc
}

// manifestOf is an image manifest that lists blobs, or an index of image
// manifests.
func manifestOf(t testing.TB, index bool, children ...oci.Descriptor) string {
	t.Helper()
	type child struct {
		Digest digest.Digest `json:"digest"`
	}
	var list []child
	for _, c := range children {
		list = append(list, child{c.Digest})
	}
	doc := map[string]any{"schemaVersion": 2, "layers": list}
	if index {
		doc = map[string]any{"schemaVersion": 2, "manifests": list}
	}
	text, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestHoldings(t *testing.T) {
	cfg := roomy(t.TempDir())
	cfg.Pin = []string{"r.test/pinned:*"}
	s := mustOpen(t, cfg)
	shared, own := hold(t, s, strings.Repeat("s", 1000)), hold(t, s, strings.Repeat("o", 300))
	gone := oci.Descriptor{Digest: digest.FromString("never held")}
	amd := hold(t, s, manifestOf(t, false, shared, own))
	arm := oci.Descriptor{Digest: digest.FromString("manifest for another platform")}
	index := hold(t, s, manifestOf(t, true, amd, arm))
	half := hold(t, s, manifestOf(t, false, shared, gone))
	bare := hold(t, s, manifestOf(t, true, arm))
	name := func(repository string) oci.Name { return oci.Name{Registry: "r.test", Repository: repository} }
	at := time.Unix(1000, 0)
	tag := func(repository, tag string, desc oci.Descriptor) {
		t.Helper()
		if err := s.SetTag(oci.Reference{Name: name(repository), Tag: tag}, Tag{desc, at}); err != nil {
			t.Fatal(err)
		}
	}
	link := func(repository string, desc oci.Descriptor) {
		t.Helper()
		if err := s.Link(name(repository), desc); err != nil {
			t.Fatal(err)
		}
	}
	tag("pinned", "1", index)
	for _, desc := range []oci.Descriptor{index, amd, shared, own} {
		link("pinned", desc)
	}
	tag("half", "1", half)
	tag("bare", "1", bare)
	link("untagged", amd)
	link("untagged", shared)
	if err := s.SetExposure(name("half"), Exposure{Kind: "private", At: at}); err != nil {
		t.Fatal(err)
	}
	found := map[string]Holding{}
	total := s.Holdings(func(h *Holding) {
		if h.Used.IsZero() {
			t.Errorf("%s was never used", h.Reference)
		}
		h.Used = time.Time{}
		found[h.Reference.String()] = *h
		s.Stats() // nobody waits for the lister
	})
	want := map[string]Holding{
		"r.test/pinned:1":                        {Root: index.Digest, MediaType: oci.MediaTypeIndex, Size: index.Size + amd.Size + shared.Size + own.Size, Confirmed: at, Pinned: true},
		"r.test/half:1":                          {Root: half.Digest, MediaType: oci.MediaTypeManifest, Size: half.Size + shared.Size, Confirmed: at, Partial: true, Exposure: "private"},
		"r.test/bare:1":                          {Root: bare.Digest, MediaType: oci.MediaTypeIndex, Size: bare.Size, Confirmed: at, Partial: true},
		"r.test/untagged@" + amd.Digest.String(): {Root: amd.Digest, MediaType: oci.MediaTypeManifest, Size: amd.Size + shared.Size + own.Size},
	}
	for ref, h := range want {
		got := found[ref]
		h.Reference = got.Reference
		if !reflect.DeepEqual(got, h) {
			t.Errorf("%s: %+v, want %+v", ref, got, h)
		}
		delete(found, ref)
	}
	if len(found) > 0 || total != len(want) {
		t.Errorf("%d in all, and also %v", total, found)
	}
}

// TestPeekIsNoUse reads content without that counting.
func TestPeekIsNoUse(t *testing.T) {
	s := mustOpen(t, roomy(t.TempDir()))
	desc := hold(t, s, "content")
	long := time.Unix(5, 0)
	s.mu.Lock()
	s.blobs[desc.Digest].used = long
	s.mu.Unlock()
	content, err := s.Peek(desc.Digest, 7)
	if err != nil || !bytes.Equal(content, []byte("content")) {
		t.Errorf("%q, %v", content, err)
	}
	if _, err := s.Peek(desc.Digest, 6); !errors.Is(err, oci.ErrSizeInvalid) {
		t.Errorf("too long: %v", err)
	}
	if _, err := s.Peek(digest.FromString("other"), 6); !errors.Is(err, oci.ErrBlobUnknown) {
		t.Errorf("not there: %v", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if used := s.blobs[desc.Digest].used; !used.Equal(long) {
		t.Errorf("it counted as a use at %v", used)
	}
}

func TestSpace(t *testing.T) {
	s := mustOpen(t, Config{Dir: t.TempDir(), MinFree: Bytes(1 << 20)})
	if sp := s.Space(); sp.Total <= 0 || sp.Free < 0 || sp.Free > sp.Total || sp.MinFree != 1<<20 {
		t.Errorf("%+v", sp)
	}
	d, err := OpenDepot(DepotConfig{Dir: t.TempDir(), MinFree: Bytes(1 << 40)})
	if err != nil {
		t.Fatal(err)
	}
	if sp, err := d.Space(); err != nil || sp.Total <= 0 || sp.MinFree != 1<<40 {
		t.Errorf("%+v, %v", sp, err)
	}
}

// BenchmarkHoldings lists 10,000 images of ten layers each.
func BenchmarkHoldings(b *testing.B) {
	s := mustOpen(b, roomy(b.TempDir()))
	const images, layers = 10_000, 10
	s.mu.Lock()
	for i := range images {
		rec := &record{size: 1000, mediaType: oci.MediaTypeManifest, used: time.Unix(int64(i), 0)}
		for l := range layers {
			dgst := digest.FromString(fmt.Sprint(i/2, l)) // shared by two
			s.blobs[dgst] = &record{size: 1 << 20}
			rec.children = append(rec.children, dgst)
		}
		root := digest.FromString(fmt.Sprint("manifest", i))
		s.blobs[root] = rec
		name := oci.Name{Registry: "r.test", Repository: fmt.Sprint(i % 100)}
		s.repository(name).tags[fmt.Sprint(i)] = Tag{Descriptor: oci.Descriptor{Digest: root}}
	}
	s.mu.Unlock()
	b.ReportAllocs()
	for b.Loop() {
		if total := s.Holdings(func(*Holding) {}); total != images {
			b.Fatal(total)
		}
	}
}
