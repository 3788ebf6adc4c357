package conformance

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/internal/oci"
)

// TestPing is end-1.
func TestPing(t *testing.T) {
	r := startCentral(t)
	for _, path := range []string{"/v2/", "/v2"} {
		r.do("GET", path, nil).want(200, "Docker-Distribution-Api-Version", "registry/2.0")
	}
}

// TestTags is end-8a and end-8b.
func TestTags(t *testing.T) {
	r := startCentral(t)
	const repository = "team/app"
	r.do("GET", "/v2/"+repository+"/tags/list", nil).refused(404, "NAME_UNKNOWN")
	image := r.image(repository, "listed")
	all := []string{"10", "2", "A", "B", "_x", "a", "a-b", "a.b", "b", "latest"}
	for _, tag := range []string{"latest", "b", "a.b", "a-b", "a", "_x", "B", "A", "2", "10"} {
		r.put(repository, tag, image).want(201)
	}
	list := func(query string) answer { return r.do("GET", "/v2/"+repository+"/tags/list"+query, nil) }
	if got := list("").list("tags"); !slices.Equal(got, all) {
		t.Errorf("tags %q, want %q", got, all)
	}
	var doc struct{ Name string }
	if err := json.Unmarshal(list("").body, &doc); err != nil || doc.Name != repository {
		t.Errorf("name %q, %v", doc.Name, err)
	}
	for n := range 12 {
		a := list("?n=" + strconv.Itoa(n))
		if got := a.list("tags"); !slices.Equal(got, all[:min(n, len(all))]) {
			t.Errorf("n=%d: %q", n, got)
		}
		if more := a.next() != ""; more != (n > 0 && n < len(all)) {
			t.Errorf("n=%d: Link %q", n, a.header.Get("Link"))
		}
	}
	for i, last := range all {
		if got := list("?last=" + last).list("tags"); !slices.Equal(got, all[i+1:]) {
			t.Errorf("last=%s: %q", last, got)
		}
	}
	// last need not be a tag.
	if got := list("?last=aa").list("tags"); !slices.Equal(got, []string{"b", "latest"}) {
		t.Errorf("last=aa: %q", got)
	}
	// From Link to Link.
	var followed []string
	for next := "/v2/" + repository + "/tags/list?n=3"; next != ""; {
		a := r.do("GET", next, nil)
		followed = append(followed, a.list("tags")...)
		next = a.next()
	}
	if !slices.Equal(followed, all) {
		t.Errorf("page by page: %q", followed)
	}
	for _, bad := range []string{"?n=x", "?n=-1", "?n=1.5", "?last=" + strings.Repeat("x", 2000)} {
		list(bad).refused(400, "PAGINATION_NUMBER_INVALID")
	}
}

// TestCatalog is Docker's list of repositories, which the spec reserves.
func TestCatalog(t *testing.T) {
	r := startCentral(t)
	if got := r.do("GET", "/v2/_catalog", nil).list("repositories"); len(got) != 0 {
		t.Errorf("repositories %q", got)
	}
	all := []string{"a", "a-b", "a/b", "a/b/c", "ab", "b"}
	for _, name := range []string{"ab", "a/b/c", "b", "a", "a/b", "a-b"} {
		r.put(name, "v1", r.image(name, name)).want(201)
	}
	var followed []string
	for next := "/v2/_catalog?n=2"; next != ""; {
		a := r.do("GET", next, nil)
		followed = append(followed, a.list("repositories")...)
		next = a.next()
	}
	if !slices.Equal(followed, all) {
		t.Errorf("repositories %q, want %q", followed, all)
	}
	if got := r.do("GET", "/v2/_catalog?last=a/b", nil).list("repositories"); !slices.Equal(got, all[3:]) {
		t.Errorf("after a/b: %q", got)
	}
}

// referrersOf gets the whole list, page by page.
func (r *registry) referrersOf(repository string, subject digest.Digest, artifactType string) []descriptor {
	r.t.Helper()
	query := ""
	if artifactType != "" {
		query = "?artifactType=" + url.QueryEscape(artifactType)
	}
	all := []descriptor{}
	for next := "/v2/" + repository + "/referrers/" + string(subject) + query; next != ""; {
		filters := ""
		if artifactType != "" {
			filters = "artifactType"
		}
		a := r.do("GET", next, nil).want(200, "Content-Type", oci.MediaTypeIndex, "OCI-Filters-Applied", filters)
		var index struct {
			SchemaVersion int
			MediaType     string
			Manifests     []descriptor
		}
		if err := json.Unmarshal(a.body, &index); err != nil || index.SchemaVersion != 2 || index.MediaType != oci.MediaTypeIndex || index.Manifests == nil {
			r.t.Fatalf("referrers %.200s: %v", a.body, err)
		}
		if len(a.body) > oci.MaxManifestSize {
			r.t.Errorf("a page of %d bytes", len(a.body))
		}
		all = append(all, index.Manifests...)
		next = a.next()
	}
	return all
}

// TestReferrers is end-12a and end-12b.
func TestReferrers(t *testing.T) {
	r := startCentral(t)
	const repository = "team/app"
	empty := []byte("{}")
	r.pushBlob(repository, empty)
	image := r.image(repository, "subject")
	subject := describe(oci.MediaTypeManifest, image)
	if got := r.referrersOf("never/seen", subject.Digest, ""); len(got) != 0 {
		t.Errorf("referrers in a repository nobody knows: %v", got)
	}
	artifact := func(name, artifactType, configType string) []byte {
		return manifest(oci.MediaTypeManifest, map[string]any{
			"artifactType": artifactType, "config": describe(configType, empty), "layers": []descriptor{describe(typeEmpty, empty)},
			"subject": subject, "annotations": map[string]string{"name": name, "quote": `<&>"é`},
		})
	}
	sbom := artifact("sbom", "application/vnd.example.sbom", typeEmpty)
	signature := artifact("signature", "application/vnd.example.signature", typeEmpty)
	byConfig := artifact("config", "", "application/vnd.example.sbom")
	index := manifest(oci.MediaTypeIndex, map[string]any{
		"artifactType": "application/vnd.example.index", "manifests": []descriptor{}, "subject": subject, "annotations": map[string]string{"name": "index"},
	})
	plainIndex := manifest(oci.MediaTypeIndex, map[string]any{"manifests": []descriptor{}, "subject": subject})
	expect := func(name, artifactType string, want map[digest.Digest]descriptor) {
		t.Helper()
		got := map[digest.Digest]descriptor{}
		for _, d := range r.referrersOf(repository, subject.Digest, artifactType) {
			got[d.Digest] = d
		}
		if !maps.EqualFunc(got, want, func(a, b descriptor) bool {
			return a.MediaType == b.MediaType && a.Size == b.Size && a.ArtifactType == b.ArtifactType && maps.Equal(a.Annotations, b.Annotations)
		}) {
			t.Errorf("%s: referrers\n%+v, want\n%+v", name, got, want)
		}
	}
	want := map[digest.Digest]descriptor{}
	add := func(body []byte, mediaType, artifactType, name string) {
		t.Helper()
		// The subject need not be there yet, and it is named in the answer.
		r.put(repository, string(digest.FromBytes(body)), body).want(201, "OCI-Subject", string(subject.Digest))
		d := describe(mediaType, body)
		d.ArtifactType = artifactType
		switch name {
		case "":
		case "index":
			d.Annotations = map[string]string{"name": name}
		default:
			d.Annotations = map[string]string{"name": name, "quote": `<&>"é`}
		}
		want[d.Digest] = d
	}
	add(sbom, oci.MediaTypeManifest, "application/vnd.example.sbom", "sbom")
	expect("before the subject", "", want)
	r.put(repository, "v1", image).want(201, "OCI-Subject", "")
	add(signature, oci.MediaTypeManifest, "application/vnd.example.signature", "signature")
	add(byConfig, oci.MediaTypeManifest, "application/vnd.example.sbom", "config")
	add(index, oci.MediaTypeIndex, "application/vnd.example.index", "index")
	add(plainIndex, oci.MediaTypeIndex, "", "")
	expect("all", "", want)
	only := maps.Clone(want)
	maps.DeleteFunc(only, func(_ digest.Digest, d descriptor) bool { return d.ArtifactType != "application/vnd.example.sbom" })
	if len(only) != 2 {
		t.Fatalf("%d of the type", len(only))
	}
	expect("of one type", "application/vnd.example.sbom", only)
	expect("of a type nobody has", "application/vnd.example.none", map[digest.Digest]descriptor{})
	// In another repository nothing refers to it.
	if got := r.referrersOf("team/other", subject.Digest, ""); len(got) != 0 {
		t.Errorf("referrers in another repository: %v", got)
	}
	// A deleted one refers to nothing any more; the rest does, without a subject.
	r.do("DELETE", "/v2/"+repository+"/manifests/"+string(digest.FromBytes(sbom)), nil).want(202)
	delete(want, digest.FromBytes(sbom))
	expect("without the deleted one", "", want)
	r.do("DELETE", "/v2/"+repository+"/manifests/"+string(subject.Digest), nil).want(202)
	expect("without the subject", "", want)
	r.do("GET", "/v2/"+repository+"/referrers/sha256:bad", nil).refused(400, "DIGEST_INVALID")

	// A client that does without the API keeps its list under a tag (spec,
	// "Unavailable Referrers API"): an index as any other.
	tag := strings.Replace(string(subject.Digest), ":", "-", 1)
	list := manifest(oci.MediaTypeIndex, map[string]any{"manifests": []descriptor{describe(oci.MediaTypeManifest, signature)}})
	r.put(repository, tag, list).want(201)
	r.do("GET", "/v2/"+repository+"/manifests/"+tag, nil).want(200).is(list)
	expect("beside the tag", "", want)
}

// TestManyReferrers is that a list too long for one answer comes in pages.
func TestManyReferrers(t *testing.T) {
	r := startCentral(t)
	const repository = "team/app"
	empty := []byte("{}")
	r.pushBlob(repository, empty)
	subject := describe(oci.MediaTypeManifest, []byte("not there"))
	want := map[digest.Digest]bool{}
	for i := range 7 {
		body := manifest(oci.MediaTypeManifest, map[string]any{
			"config": describe(typeEmpty, empty), "layers": []descriptor{}, "subject": subject,
			"annotations": map[string]string{"n": strconv.Itoa(i), "long": strings.Repeat("x", 1<<20)},
		})
		r.put(repository, fmt.Sprintf("r%d", i), body).want(201)
		want[digest.FromBytes(body)] = true
	}
	for _, artifactType := range []string{"", typeEmpty} {
		got := map[digest.Digest]bool{}
		for _, d := range r.referrersOf(repository, subject.Digest, artifactType) {
			got[d.Digest] = true
		}
		if !maps.Equal(got, want) {
			t.Errorf("%d of %d referrers", len(got), len(want))
		}
	}
}
