package oci_test

import (
	"encoding/json"
	"errors"
	"reflect"
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
	// Also in descriptors, wherever there are some.
	twofold := `{"digest":"` + d + `","Digest":"` + string(longDigest) + `","size":2}`
	for _, c := range []struct{ doc, mediaType string }{
		{`{"schemaVersion":2,"config":` + twofold + `}`, oci.MediaTypeManifest},
		{`{"schemaVersion":2,` + config + `,"layers":[null,` + twofold + `]}`, oci.MediaTypeManifest},
		{`{"schemaVersion":2,` + config + `,"subject":{"digest":"` + d + `","digest":"` + d + `"}}`, oci.MediaTypeManifest},
		{`{"schemaVersion":2,"manifests":[` + twofold + `]}`, oci.MediaTypeIndex},
		{`{"blobs":[` + twofold + `]}`, "x/y"},
	} {
		if _, err := oci.ParseDocument([]byte(c.doc), c.mediaType); !errors.Is(err, oci.ErrManifestInvalid) || !strings.Contains(err.Error(), "twice") {
			t.Errorf("%s: %v", c.doc, err)
		}
	}
	if _, err := oci.ParseDocument([]byte(`{"schemaVersion":2,`+config+`,"layers":[{"digest":"`+d+`","platform":{},"platform":{}}],"x":1,"x":2}`), oci.MediaTypeManifest); err != nil {
		t.Errorf("a field nobody reads: %v", err)
	}
	for _, annotations := range []string{`"text"`, `{"a":1}`, `[]`} {
		doc := `{"schemaVersion":2,` + config + `,"annotations":` + annotations + `}`
		if _, err := oci.ParseDocument([]byte(doc), oci.MediaTypeManifest); !errors.Is(err, oci.ErrManifestInvalid) {
			t.Errorf("annotations %s: %v", annotations, err)
		}
	}
	// Its own word counts as much as the Content-Type's.
	if _, err := oci.ParseDocument([]byte(`{"mediaType":"application/vnd.docker.distribution.manifest.v1+json"}`), "application/json"); !errors.Is(err, oci.ErrManifestInvalid) {
		t.Errorf("schema 1 in disguise: %v", err)
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
	f.Add(`{"mediaType":"application/vnd.docker.distribution.manifest.v1+json"}`, "application/json")
	f.Add(`{"mediaType":" X/y; a","blobs":[{"digest":"`+d+`","diGest":""}],"annotations":{}}`, "x/Y")
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
		if again, err := oci.ParseDocument([]byte(content), doc.MediaType); err != nil || !reflect.DeepEqual(again, doc) {
			t.Errorf("%+v as %s: %+v, %v", doc, doc.MediaType, again, err)
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
			var list []map[string]any // whose names count letter by letter
			if json.Unmarshal(other[field], &list) != nil {
				continue
			}
			for _, c := range list {
				dgst, _ := c["digest"].(string)
				mediaType, _ := c["mediaType"].(string)
				if !seen[digest.Digest(dgst)] && !strings.Contains(mediaType, "nondistributable") && !strings.Contains(mediaType, "foreign") {
					t.Errorf("%s %q was not read", field, dgst)
				}
			}
		}
	})
}
