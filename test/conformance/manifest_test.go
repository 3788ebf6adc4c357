package conformance

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/internal/oci"
)

// roundTrip pushes a manifest under a tag and gets it back by tag and digest.
func roundTrip(t *testing.T, r *registry, repository, tag string, body []byte) {
	t.Helper()
	var doc struct{ MediaType string }
	if err := json.Unmarshal(body, &doc); err != nil {
		t.Fatal(err)
	}
	dgst := string(digest.FromBytes(body))
	a := r.put(repository, tag, body).want(201, "Docker-Content-Digest", dgst, "Content-Length", "0")
	r.do("GET", a.location(), nil).want(200).is(body)
	header := []string{"Content-Type", doc.MediaType, "Docker-Content-Digest", dgst, "Content-Length", strconv.Itoa(len(body)), "Content-Encoding", "", "Transfer-Encoding", ""}
	for _, reference := range []string{tag, dgst} {
		path := "/v2/" + repository + "/manifests/" + reference
		r.do("GET", path, nil, "Accept", oci.MediaTypeIndex, "Accept", oci.MediaTypeManifest).want(200, header...).is(body)
		r.do("HEAD", path, nil).want(200, header...).is(nil)
	}
}

// TestPushManifest is end-7, end-3 and end-2's HEAD for all kinds of manifests.
func TestPushManifest(t *testing.T) {
	r := startCentral(t)
	const repository = "team/app"
	config, layer := []byte(`{"os":"linux"}`), random("layer", 2000)
	empty := []byte("{}")
	for _, blob := range [][]byte{config, layer, empty} {
		r.pushBlob(repository, blob)
	}
	one := manifest(oci.MediaTypeManifest, map[string]any{"config": describe(typeConfig, config), "layers": []descriptor{describe(typeLayer, layer)}})
	two := manifest(oci.MediaTypeManifest, map[string]any{"config": describe(typeConfig, empty), "layers": []descriptor{describe(typeLayer, layer)}})
	index := manifest(oci.MediaTypeIndex, map[string]any{"manifests": []descriptor{describe(oci.MediaTypeManifest, one), describe(oci.MediaTypeManifest, two)}})
	large := map[string]string{}
	for i := range 390 {
		large[fmt.Sprintf("large-annotation-%d", i)] = strings.Repeat("A", 10000)
	}
	inline := describe(typeConfig, config)
	inline.Data = config
	elsewhere := describe("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", []byte("never pushed"))
	elsewhere.URLs = []string{"https://example.com/layer"}
	foreign := describe("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", []byte("never pushed either"))
	withLayers := func(layers ...descriptor) map[string]any {
		return map[string]any{"config": describe(typeConfig, config), "layers": layers}
	}
	tests := []struct {
		name string
		body []byte
	}{
		{"image", one},
		{"another image", two},
		{"index", index},
		{"index of an index", manifest(oci.MediaTypeIndex, map[string]any{"manifests": []descriptor{describe(oci.MediaTypeIndex, index)}})},
		{"empty index", manifest(oci.MediaTypeIndex, map[string]any{"manifests": []descriptor{}})},
		{"no layers", manifest(oci.MediaTypeManifest, withLayers())},
		{"artifact", manifest(oci.MediaTypeManifest, map[string]any{"artifactType": "application/vnd.example.v1", "config": describe(typeEmpty, empty), "layers": []descriptor{describe("application/vnd.example.v1", layer)}})},
		{"artifact without layers", manifest(oci.MediaTypeManifest, map[string]any{"artifactType": "application/vnd.example.v1", "config": describe(typeEmpty, empty), "layers": []descriptor{describe(typeEmpty, empty)}})},
		{"artifact index", manifest(oci.MediaTypeIndex, map[string]any{"artifactType": "application/vnd.example.v1", "manifests": []descriptor{describe(oci.MediaTypeManifest, one)}})},
		{"large", manifest(oci.MediaTypeManifest, map[string]any{"config": describe(typeConfig, config), "layers": []descriptor{}, "annotations": large})},
		{"data in a descriptor", manifest(oci.MediaTypeManifest, map[string]any{"config": inline, "layers": []descriptor{}})},
		{"layers that are elsewhere", manifest(oci.MediaTypeManifest, withLayers(elsewhere, foreign, describe(typeLayer, layer)))},
		{"unknown fields", manifest(oci.MediaTypeManifest, map[string]any{"config": describe(typeConfig, config), "layers": []descriptor{}, "org.example.field": map[string]any{"deep": []int{1}}, "Unknown": 1})},
		{"white space", append([]byte("\n  "), append(one, "\n \n"...)...)},
		{"Docker schema 2", manifest(oci.MediaTypeDockerManifest, map[string]any{"config": describe("application/vnd.docker.container.image.v1+json", config), "layers": []descriptor{describe("application/vnd.docker.image.rootfs.diff.tar.gzip", layer)}})},
		{"Docker list", manifest(oci.MediaTypeDockerList, map[string]any{"manifests": []descriptor{describe(oci.MediaTypeManifest, one)}})},
		{"unknown media type", manifest("application/vnd.example.manifest.v7+json", map[string]any{"blobs": []descriptor{describe("x/y", layer)}})},
		{"index of blobs", manifest(oci.MediaTypeIndex, map[string]any{"manifests": []descriptor{describe("application/vnd.buildkit.cacheconfig.v0", config)}})},
	}
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			roundTrip(t, r.in(t), repository, fmt.Sprintf("tag-%d", i), tt.body)
		})
	}
	if got := r.do("GET", "/v2/"+repository+"/tags/list", nil).list("tags"); len(got) != len(tests) {
		t.Errorf("%d tags, want %d", len(got), len(tests))
	}
}

func TestManifestBySha512(t *testing.T) {
	r := startCentral(t)
	const repository = "team/app"
	content := random("512", 1000)
	dgst := digest.SHA512.FromBytes(content)
	r.do("POST", "/v2/"+repository+"/blobs/uploads/?digest="+string(dgst), content).want(201)
	desc := descriptor{MediaType: typeLayer, Digest: dgst, Size: len(content)}
	image := manifest(oci.MediaTypeManifest, map[string]any{"config": desc, "layers": []descriptor{desc}})
	reference := string(digest.SHA512.FromBytes(image))
	r.put(repository, reference, image).want(201, "Docker-Content-Digest", reference)
	r.do("GET", "/v2/"+repository+"/manifests/"+reference, nil).want(200, "Docker-Content-Digest", reference).is(image)
	index := manifest(oci.MediaTypeIndex, map[string]any{"manifests": []descriptor{{MediaType: oci.MediaTypeManifest, Digest: digest.Digest(reference), Size: len(image)}}})
	top := string(digest.SHA512.FromBytes(index))
	r.do("PUT", "/v2/"+repository+"/manifests/"+top+"?tag=one&tag=two&tag=one", index, "Content-Type", oci.MediaTypeIndex).want(201)
	for _, tag := range []string{"one", "two"} {
		r.do("GET", "/v2/"+repository+"/manifests/"+tag, nil).want(200, "Docker-Content-Digest", top).is(index)
	}
}

// TestTagParameters is end-7b of the spec's next version.
func TestTagParameters(t *testing.T) {
	r := startCentral(t)
	image := r.image("team/app", "tagged")
	path := "/v2/team/app/manifests/" + string(digest.FromBytes(image))
	query := url.Values{}
	for i := range 12 {
		query.Add("tag", fmt.Sprintf("t%02d", i))
	}
	a := r.do("PUT", path+"?"+query.Encode(), image, "Content-Type", oci.MediaTypeManifest).want(201)
	if got := a.header.Values("OCI-Tag"); len(got) != 12 || got[3] != "t03" {
		t.Errorf("OCI-Tag %q", got)
	}
	if got := r.do("GET", "/v2/team/app/tags/list", nil).list("tags"); len(got) != 12 {
		t.Errorf("tags %q", got)
	}
	r.do("PUT", path+"?tag=.no", image, "Content-Type", oci.MediaTypeManifest).refused(400, "MANIFEST_INVALID")
	r.do("PUT", "/v2/team/app/manifests/v1?tag=x", image, "Content-Type", oci.MediaTypeManifest).refused(400, "MANIFEST_INVALID")
}

func TestManifestsThatAreRefused(t *testing.T) {
	r := startCentral(t)
	const repository = "team/app"
	config := []byte(`{"os":"linux"}`)
	r.pushBlob(repository, config)
	r.pushBlob("team/other", []byte("a layer of another repository"))
	image := func(fields map[string]any) string {
		all := map[string]any{"config": describe(typeConfig, config), "layers": []descriptor{}}
		for k, v := range fields {
			all[k] = v
		}
		return string(manifest(oci.MediaTypeManifest, all))
	}
	for _, tt := range []struct {
		name, body, contentType, code string
	}{
		{"not JSON", "hello", oci.MediaTypeManifest, "MANIFEST_INVALID"},
		{"nothing", "", oci.MediaTypeManifest, "MANIFEST_INVALID"},
		{"a list", "[]", oci.MediaTypeManifest, "MANIFEST_INVALID"},
		{"null", "null", oci.MediaTypeManifest, "MANIFEST_INVALID"},
		{"two documents", image(nil) + "{}", oci.MediaTypeManifest, "MANIFEST_INVALID"},
		{"cut short", image(nil)[:50], oci.MediaTypeManifest, "MANIFEST_INVALID"},
		{"deeply nested", `{"x":` + strings.Repeat("[", 1<<20), oci.MediaTypeManifest, "MANIFEST_INVALID"},
		{"nested and closed", `{"x":` + strings.Repeat("[", 1<<19) + strings.Repeat("]", 1<<19) + "}", oci.MediaTypeManifest, "MANIFEST_INVALID"},
		{"another type than it says", image(nil), oci.MediaTypeIndex, "MANIFEST_INVALID"},
		{"no type at all", `{"schemaVersion":2}`, "", "MANIFEST_INVALID"},
		{"schema 1", `{"schemaVersion":1}`, "application/vnd.docker.distribution.manifest.v1+prettyjws", "MANIFEST_INVALID"},
		{"wrong schemaVersion", image(map[string]any{"schemaVersion": 1}), oci.MediaTypeManifest, "MANIFEST_INVALID"},
		{"no config", `{"schemaVersion":2,"layers":[]}`, oci.MediaTypeManifest, "MANIFEST_INVALID"},
		{"image and index in one", image(map[string]any{"manifests": []descriptor{}}), oci.MediaTypeManifest, "MANIFEST_INVALID"},
		{"a field twice", strings.Replace(image(nil), "{", `{"layers":[],`, 1), oci.MediaTypeManifest, "MANIFEST_INVALID"},
		{"a field in two cases", strings.Replace(image(nil), "{", `{"Layers":[],`, 1), oci.MediaTypeManifest, "MANIFEST_INVALID"},
		{"a bad digest", image(map[string]any{"layers": []descriptor{{Digest: "sha256:x"}}}), oci.MediaTypeManifest, "MANIFEST_INVALID"},
		{"a negative size", image(map[string]any{"layers": []descriptor{{Digest: digest.FromString("x"), Size: -1}}}), oci.MediaTypeManifest, "MANIFEST_INVALID"},
		{"a bad subject", image(map[string]any{"subject": descriptor{Digest: "x"}}), oci.MediaTypeManifest, "MANIFEST_INVALID"},
		{"a missing layer", image(map[string]any{"layers": []descriptor{describe(typeLayer, []byte("missing"))}}), oci.MediaTypeManifest, "MANIFEST_BLOB_UNKNOWN"},
		{"another repository's layer", image(map[string]any{"layers": []descriptor{describe(typeLayer, []byte("a layer of another repository"))}}), oci.MediaTypeManifest, "MANIFEST_BLOB_UNKNOWN"},
		{"a missing config", image(map[string]any{"config": describe(typeConfig, []byte("missing"))}), oci.MediaTypeManifest, "MANIFEST_BLOB_UNKNOWN"},
		{"an index of what is missing", string(manifest(oci.MediaTypeIndex, map[string]any{"manifests": []descriptor{describe(oci.MediaTypeManifest, []byte("missing"))}})), oci.MediaTypeIndex, "MANIFEST_BLOB_UNKNOWN"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			local := r.in(t)
			local.do("PUT", "/v2/"+repository+"/manifests/v1", []byte(tt.body), "Content-Type", tt.contentType).refused(400, tt.code)
			local.do("GET", "/v2/"+repository+"/manifests/v1", nil).refused(404, "MANIFEST_UNKNOWN")
			local.do("GET", "/v2/"+repository+"/manifests/"+string(digest.FromString(tt.body)), nil).refused(404, "MANIFEST_UNKNOWN")
		})
	}
	good := []byte(image(nil))
	put := func(reference string, body []byte) answer {
		return r.do("PUT", "/v2/"+repository+"/manifests/"+reference, body, "Content-Type", oci.MediaTypeManifest)
	}
	put(string(digest.FromBytes(good)), append(bytes.Clone(good), "  "...)).refused(400, "DIGEST_INVALID")
	put("sha256:baddigeststring", good).refused(400, "DIGEST_INVALID")
	put("sha256:totallywrong", []byte("blah blah")).refused(400, "DIGEST_INVALID")
	put(".INVALID_MANIFEST_NAME", good).refused(400, "MANIFEST_INVALID")
	put("%C3%BCnicode", good).refused(400, "MANIFEST_INVALID")
	put(strings.Repeat("a", 129), good).refused(400, "MANIFEST_INVALID")
	put(strings.Repeat("a", 50_000), good).refused(400, "MANIFEST_INVALID")
	put(strings.Repeat("a", 1<<20), good).want(431) // by net/http, before anybody has read it
	put(strings.Repeat("a", 128), good).want(201)
	full := append(bytes.Clone(good), bytes.Repeat([]byte(" "), oci.MaxManifestSize-len(good))...)
	put("full", full).want(201)
	put("over", append(full, ' ')).refused(413, "SIZE_INVALID")
	r.stream("PUT", "/v2/"+repository+"/manifests/over", append(full, ' '), "Content-Type", oci.MediaTypeManifest).refused(413, "SIZE_INVALID")
	for _, reference := range []string{".INVALID_MANIFEST_NAME", "sha256:baddigeststring", "missing", string(digest.FromString("missing"))} {
		r.do("GET", "/v2/"+repository+"/manifests/"+reference, nil).refused(404, "MANIFEST_UNKNOWN")
		r.do("HEAD", "/v2/"+repository+"/manifests/"+reference, nil).want(404)
		r.do("DELETE", "/v2/"+repository+"/manifests/"+reference, nil).refused(404, "MANIFEST_UNKNOWN")
	}
}

// TestDelete is end-9 and end-10, manifests first and blobs first.
func TestDelete(t *testing.T) {
	for _, blobsFirst := range []bool{false, true} {
		t.Run(fmt.Sprintf("blobs first: %v", blobsFirst), func(t *testing.T) {
			r := startCentral(t)
			const repository = "team/app"
			image := r.image(repository, "deleted")
			path := "/v2/" + repository + "/manifests/"
			dgst := string(digest.FromBytes(image))
			for _, tag := range []string{"a", "b", "c"} {
				r.put(repository, tag, image).want(201)
			}
			layer := "/v2/" + repository + "/blobs/" + string(digest.FromBytes(random("deleted", 3000)))
			deleteBlob := func() {
				r.do("DELETE", layer, nil).want(202)
				r.do("HEAD", layer, nil).want(404)
				r.do("GET", layer, nil).want(404)
			}
			if blobsFirst {
				deleteBlob()
			}
			// A tag goes alone.
			r.do("DELETE", path+"a", nil).want(202)
			r.do("HEAD", path+"a", nil).want(404)
			r.do("GET", path+"b", nil).want(200).is(image)
			r.do("GET", path+dgst, nil).want(200).is(image)
			// A manifest takes its tags along.
			r.do("DELETE", path+dgst, nil).want(202)
			for _, reference := range []string{dgst, "b", "c"} {
				r.do("HEAD", path+reference, nil).want(404)
				r.do("DELETE", path+reference, nil).refused(404, "MANIFEST_UNKNOWN")
			}
			if got := r.do("GET", "/v2/"+repository+"/tags/list", nil).list("tags"); len(got) != 0 {
				t.Errorf("tags %q are left", got)
			}
			if !blobsFirst {
				deleteBlob()
			}
			// And can come back.
			if blobsFirst {
				r.put(repository, "a", image).refused(400, "MANIFEST_BLOB_UNKNOWN")
			}
			r.image(repository, "deleted")
			r.put(repository, "a", image).want(201)
			r.do("GET", path+"a", nil).want(200).is(image)
		})
	}
}
