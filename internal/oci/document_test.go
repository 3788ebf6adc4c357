package oci_test

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/internal/oci"
)

func TestParseDocument(t *testing.T) {
	d := string(someDigest)
	config := `"config":{"mediaType":"x/config","digest":"` + d + `","size":2}`
	image := `{"schemaVersion":2,` + config + `,"layers":[
		{"mediaType":"x/layer","digest":"` + string(longDigest) + `","size":0},
		{"mediaType":"application/vnd.oci.image.layer.nondistributable.v1.tar","digest":"` + d + `","size":1},
		{"mediaType":"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip","digest":"` + d + `","size":1}],
		"subject":{"digest":"` + d + `","size":7},"annotations":{"a":"b"},"unknown":[{}]}`
	got, err := oci.ParseDocument([]byte(image), oci.MediaTypeManifest+"; charset=utf-8")
	if err != nil {
		t.Fatal(err)
	}
	want := []oci.Descriptor{{MediaType: "x/config", Digest: someDigest, Size: 2}, {MediaType: "x/layer", Digest: longDigest}}
	if got.MediaType != oci.MediaTypeManifest || got.ArtifactType != "x/config" || !slices.Equal(got.Blobs, want) || got.Manifests != nil ||
		got.Subject != (oci.Descriptor{Digest: someDigest, Size: 7}) || string(got.Annotations) != `{"a":"b"}` {
		t.Errorf("%+v", got)
	}
	if c := got.Children(); !slices.Equal(c, []digest.Digest{someDigest, longDigest}) {
		t.Errorf("children %q", c)
	}
	index := `{"schemaVersion":2,"mediaType":"` + oci.MediaTypeIndex + `","artifactType":"x/y","manifests":[{"mediaType":"m","digest":"` + d + `","size":1}]}`
	for _, contentType := range []string{"", oci.MediaTypeIndex, "application/json", "application/octet-stream"} {
		got, err := oci.ParseDocument([]byte(index), contentType)
		if err != nil || got.MediaType != oci.MediaTypeIndex || got.ArtifactType != "x/y" || len(got.Manifests) != 1 || got.Blobs != nil {
			t.Errorf("sent as %q: %+v, %v", contentType, got, err)
		}
	}
	// Each field once, in Unicode's other spellings as well.
	for _, twice := range []string{"layers", "Layers", "layerſ", "LAYERS"} {
		doc := `{"schemaVersion":2,` + config + `,"layers":[],"` + twice + `":[]}`
		if _, err := oci.ParseDocument([]byte(doc), oci.MediaTypeManifest); !errors.Is(err, oci.ErrManifestInvalid) {
			t.Errorf("layers and %s: %v", twice, err)
		}
	}
	if _, err := oci.ParseDocument([]byte(`{"schemaVersion":2,`+config+`,"layers":[],"x":1,"x":2}`), oci.MediaTypeManifest); err != nil {
		t.Errorf("a field nobody reads: %v", err)
	}
}

// FuzzParseDocument compares what is read with what a reader that knows no cases
// and takes the first of two fields would read: whoever pulls must not see a
// layer that was not checked.
func FuzzParseDocument(f *testing.F) {
	d := string(someDigest)
	f.Add(`{"schemaVersion":2,"config":{"digest":"`+d+`","size":2},"layers":[{"digest":"`+d+`"}]}`, oci.MediaTypeManifest)
	f.Add(`{"schemaVersion":2,"manifests":[{"digest":"`+d+`"}],"subject":{"digest":"`+d+`"}}`, oci.MediaTypeIndex)
	f.Add(`{"blobs":[{"digest":"`+d+`"}]}`, "x/y")
	f.Add(`{"Layers":[],"layers":[]}`, "x/y")
	f.Add(strings.Repeat("[", 100), "x/y")
	f.Fuzz(func(t *testing.T, content, contentType string) {
		doc, err := oci.ParseDocument([]byte(content), contentType)
		if err != nil {
			if !errors.Is(err, oci.ErrManifestInvalid) {
				t.Errorf("error %v", err)
			}
			return
		}
		if doc.MediaType == "" || len(doc.MediaType) > oci.MaxMediaType {
			t.Errorf("media type %q", doc.MediaType)
		}
		seen := map[digest.Digest]bool{}
		for _, child := range doc.Children() {
			if child.Validate() != nil {
				t.Errorf("child %q", child)
			}
			seen[child] = true
		}
		var other map[string]json.RawMessage
		if err := json.Unmarshal([]byte(content), &other); err != nil {
			t.Fatalf("taken, and not an object: %v", err)
		}
		for _, field := range []string{"layers", "blobs", "manifests"} {
			var list []struct{ MediaType, Digest string }
			if json.Unmarshal(other[field], &list) != nil {
				continue
			}
			for _, c := range list {
				if !seen[digest.Digest(c.Digest)] && !strings.Contains(c.MediaType, "nondistributable") && !strings.Contains(c.MediaType, "foreign") {
					t.Errorf("%s %q was not read", field, c.Digest)
				}
			}
		}
	})
}
