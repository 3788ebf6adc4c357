package store

import (
	"bytes"
	"encoding/json"
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/internal/oci"
)

func TestParseManifest(t *testing.T) {
	a, b, c := digest.FromString("a"), digest.FromString("b"), digest.SHA512.FromString("c")
	for name, test := range map[string]struct {
		content   string
		mediaType string
		children  []digest.Digest
	}{
		"image manifest": {`{"schemaVersion":2,"mediaType":"x/y","config":{"digest":"` + a.String() + `"},"layers":[{"digest":"` + b.String() + `"},{"digest":"` + b.String() + `"}]}`, "x/y", []digest.Digest{a, b}},
		"index":          {`{"schemaVersion":2,"manifests":[{"digest":"` + c.String() + `"}]}`, "application/vnd.oci.image.index.v1+json", []digest.Digest{c}},
		"no media type":  {`{"schemaVersion":2,"layers":[]}`, "application/vnd.oci.image.manifest.v1+json", nil},
		"schema 1":       {`{"schemaVersion":1,"mediaType":"old","fsLayers":[{"blobSum":"` + a.String() + `"}]}`, "old", []digest.Digest{a}},
		"bad digests":    {`{"schemaVersion":2,"mediaType":"m","layers":[{"digest":"sha256:../../x"},{"digest":"md5:00"},{}]}`, "m", nil},
	} {
		m := parseManifest([]byte(test.content))
		want := slices.Sorted(slices.Values(test.children))
		if m == nil || m.mediaType != test.mediaType || !slices.Equal(m.children, want) {
			t.Errorf("%s: %+v, want %s and %v", name, m, test.mediaType, want)
		}
	}
	for name, content := range map[string]string{
		"nothing":     "",
		"a config":    `{"architecture":"amd64","config":{"Env":[]},"rootfs":{"type":"layers"}}`,
		"an array":    `[1]`,
		"a number":    `2`,
		"other types": `{"schemaVersion":"2","layers":{}}`,
		"cut short":   `{"schemaVersion":2,"layers":[`,
		"not JSON":    "\x1f\x8b\x08",
	} {
		if m := parseManifest([]byte(content)); m != nil {
			t.Errorf("%s is taken for a manifest: %+v", name, m)
		}
	}
}

func FuzzParseManifest(f *testing.F) {
	f.Add([]byte(`{"schemaVersion":2,"manifests":[{"digest":"` + digest.FromString("a") + `"}]}`))
	f.Add([]byte(`{"schemaVersion":1,"fsLayers":[{"blobSum":"sha256:"}]}`))
	f.Fuzz(func(t *testing.T, content []byte) {
		m := parseManifest(content)
		if m == nil {
			return
		}
		if m.mediaType == "" || !slices.IsSorted(m.children) {
			t.Fatalf("%+v", m)
		}
		for _, child := range m.children {
			if err := checkDigest(child); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func FuzzParseState(f *testing.F) {
	f.Add([]byte(`{"size":10,"held":[[0,5],[5,10]]}`))
	f.Add([]byte(`{"size":-1,"held":[[-5,-3]]}`))
	f.Add([]byte(`{"size":9223372036854775807,"held":[[9223372036854775806,9223372036854775807]]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		size, held, err := parseState(text)
		if err != nil {
			return
		}
		end := int64(0)
		for _, span := range held {
			if span.Start < end || span.Len() <= 0 || span.End > size {
				t.Fatalf("spans %v of %d bytes", held, size)
			}
			end = span.End
		}
	})
}

func FuzzIndexEntry(f *testing.F) {
	name := oci.Name{Registry: "docker.io", Repository: "library/nginx"}
	dgst := digest.FromString("a")
	f.Add(tagKey(oci.Reference{Name: name, Tag: "t"}).encode(), mustJSON(tagValue{MediaType: "m", Digest: dgst, Confirmed: 5}))
	f.Add(linkKey(name, dgst).encode(), []byte("m"))
	f.Add(manifestKey(dgst).encode(), mustJSON(manifestValue{"m", []digest.Digest{dgst}}))
	f.Add(useKey(dgst).encode(), []byte("17"))
	f.Add([]byte("t/a\x00b"), []byte("{}"))
	f.Add(exposureKey(name).encode(), mustJSON(exposureValue{"private", 5}))
	f.Fuzz(func(t *testing.T, text, value []byte) {
		k, ok := parseKey(text)
		if !ok {
			return
		}
		if !bytes.Equal(k.encode(), text) {
			t.Fatalf("key %q is written %q", text, k.encode())
		}
		s := &Store{
			blobs:   map[digest.Digest]*record{dgst: {size: 1}},
			parents: make(map[digest.Digest][]digest.Digest),
			repos:   make(map[oci.Name]*repository),
		}
		if k.kind == kindExposure {
			s.repository(k.name) // which its tags and links made before
		}
		if !s.restore(k, value) {
			return
		}
		// What was restored is what would be written, and restores the same.
		again := s.value(k)
		if again == nil && k.kind != kindManifest {
			t.Fatalf("%q was restored from %q and is gone", text, value)
		}
		if again != nil && !s.restore(k, again) {
			t.Fatalf("%q is written %q, which cannot be read", text, again)
		}
		if k.kind == kindTag && !json.Valid(again) {
			t.Fatalf("a tag is written %q", again)
		}
	})
}
