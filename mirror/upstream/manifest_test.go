package upstream

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/internal/oci"
)

func TestResolve(t *testing.T) {
	good := manifestHeader(manifestJSON)
	want := oci.Descriptor{MediaType: oci.MediaTypeManifest, Digest: digest.FromString(manifestJSON), Size: int64(len(manifestJSON))}
	const head, get = "HEAD /v2/team/app/manifests/v1", "GET /v2/team/app/manifests/v1"
	for _, test := range []struct {
		name string
		head func(w http.ResponseWriter)
		want []string
	}{
		{"all there", func(w http.ResponseWriter) {
			copyHeader(w, good)
			w.Header().Set("Content-Length", itoa(len(manifestJSON)))
		}, []string{head}},
		{"no digest", func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", oci.MediaTypeManifest)
			w.Header().Set("Content-Length", itoa(len(manifestJSON)))
		}, []string{head, get}},
		{"no length", func(w http.ResponseWriter) { copyHeader(w, good); w.(http.Flusher).Flush() }, []string{head, get}},
		{"length 0", func(w http.ResponseWriter) { copyHeader(w, good); w.Header().Set("Content-Length", "0") }, []string{head, get}},
		{"type of no manifest", func(w http.ResponseWriter) {
			copyHeader(w, good)
			w.Header().Set("Content-Type", "text/html")
			w.Header().Set("Content-Length", itoa(len(manifestJSON)))
		}, []string{head, get}},
		{"405", func(w http.ResponseWriter) { w.WriteHeader(http.StatusMethodNotAllowed) }, []string{head, get}},
		{"403", func(w http.ResponseWriter) { w.WriteHeader(http.StatusForbidden) }, []string{head, get}},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := newOrigin(t, func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodHead {
					test.head(w)
					return
				}
				answer(http.StatusOK, good, manifestJSON)(w, r)
			})
			c := newClient(t, o)
			got, err := c.Resolve(t.Context(), o.tag("v1"))
			if err != nil || got != want {
				t.Fatalf("Resolve: %+v, %v; want %+v", got, err, want)
			}
			wantRequests(t, o, test.want...)

			// The manifest that was fetched already is not fetched again.
			m, err := c.Manifest(t.Context(), oci.Reference{Name: o.name(), Digest: want.Digest})
			if len(test.want) == 2 {
				if err != nil || string(m.Bytes) != manifestJSON || m.Descriptor != want {
					t.Errorf("Manifest: %+v, %v", m.Descriptor, err)
				}
				wantRequests(t, o, test.want...)
			}
		})
	}
}

func TestManifest(t *testing.T) {
	good := manifestHeader(manifestJSON)
	with := func(key, value string) http.Header {
		h := good.Clone()
		h.Set(key, value)
		return h
	}
	const bareIndex = `{"schemaVersion":2,"manifests":[]}`
	sha512 := digest.SHA512.FromString(manifestJSON)
	big := `{"mediaType":"` + oci.MediaTypeManifest + `","x":"` + strings.Repeat("x", oci.MaxManifestSize) + `"}`
	for _, test := range []struct {
		name    string
		header  http.Header
		content string
		dgst    digest.Digest // asked for; by tag if empty
		typ     string
		err     error
	}{
		{name: "by tag", header: good, content: manifestJSON, typ: oci.MediaTypeManifest},
		{name: "by digest", header: good, content: manifestJSON, dgst: digest.FromString(manifestJSON), typ: oci.MediaTypeManifest},
		{name: "by sha512", header: http.Header{"Content-Type": {oci.MediaTypeManifest}}, content: manifestJSON, dgst: sha512, typ: oci.MediaTypeManifest},
		{name: "announced as sha512", header: with("Docker-Content-Digest", sha512.String()), content: manifestJSON, typ: oci.MediaTypeManifest},
		{name: "other content", header: http.Header{}, content: manifestJSON, dgst: digest.FromString("x"), err: oci.ErrDigestInvalid},
		{name: "wrong digest announced", header: with("Docker-Content-Digest", digest.FromString("x").String()), content: manifestJSON, err: oci.ErrDigestInvalid},
		{name: "charset", header: with("Content-Type", oci.MediaTypeManifest+"; charset=utf-8"), content: manifestJSON, typ: oci.MediaTypeManifest},
		{name: "octet stream", header: with("Content-Type", "application/octet-stream"), content: manifestJSON, typ: oci.MediaTypeManifest},
		{name: "no type", header: with("Content-Type", ""), content: manifestJSON, typ: oci.MediaTypeManifest},
		{name: "no type anywhere, index", header: http.Header{"Content-Type": {"application/json"}}, content: bareIndex, typ: oci.MediaTypeIndex},
		{name: "another kind is kept as said", header: with("Content-Type", oci.MediaTypeDockerList), content: manifestJSON, typ: oci.MediaTypeDockerList},
		{name: "html", header: http.Header{"Content-Type": {"text/html"}}, content: "<html>log in</html>", err: oci.ErrManifestInvalid},
		{name: "html as manifest", header: http.Header{"Content-Type": {oci.MediaTypeManifest}}, content: "<html>log in</html>", err: oci.ErrManifestInvalid},
		{name: "json of no kind", header: http.Header{"Content-Type": {"application/json"}}, content: `{"a":1}`, err: oci.ErrManifestInvalid},
		{name: "too large", header: http.Header{"Content-Type": {oci.MediaTypeManifest}}, content: big, err: oci.ErrManifestInvalid},
		{name: "empty", header: http.Header{"Content-Type": {oci.MediaTypeManifest}}, content: "", err: oci.ErrManifestInvalid},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := newOrigin(t, answer(http.StatusOK, test.header, test.content))
			ref := o.tag("v1")
			if test.dgst != "" {
				ref = oci.Reference{Name: o.name(), Digest: test.dgst}
			}
			m, err := newClient(t, o).Manifest(t.Context(), ref)
			if !errors.Is(err, test.err) {
				t.Fatalf("Manifest: %v, want %v", err, test.err)
			}
			if len(o.requests()) != 1 {
				t.Errorf("asked %d times for content that does not change", len(o.requests()))
			}
			if test.err != nil {
				return
			}
			if string(m.Bytes) != test.content || m.MediaType != test.typ || m.Size != int64(len(test.content)) {
				t.Errorf("Manifest: %+v", m.Descriptor)
			}
			if m.Digest.Algorithm().FromBytes(m.Bytes) != m.Digest || test.dgst != "" && m.Digest != test.dgst {
				t.Errorf("digest %s is not that of the bytes", m.Digest)
			}
			if got := o.last(t).Header.Get("Accept"); !strings.Contains(got, oci.MediaTypeIndex) || !strings.HasSuffix(got, "*/*") {
				t.Errorf("Accept: %s", got)
			}
			if got := o.last(t).Header.Get("Accept-Encoding"); got != "identity" {
				t.Errorf("Accept-Encoding: %s", got)
			}
		})
	}
}

func TestManifestTooLargeNamesTheLimit(t *testing.T) {
	o := newOrigin(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", oci.MediaTypeManifest)
		// No length, so that only reading tells.
		w.(http.Flusher).Flush()
		_, _ = io.WriteString(w, `"`+strings.Repeat("x", oci.MaxManifestSize)+`"`)
	})
	_, err := newClient(t, o).Manifest(t.Context(), o.tag("v1"))
	if !errors.Is(err, oci.ErrManifestInvalid) || !strings.Contains(err.Error(), "4 MiB") {
		t.Errorf("Manifest: %v", err)
	}
}

func TestReferrers(t *testing.T) {
	const index = `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`
	subject := digest.FromString("subject")
	api := "/v2/team/app/referrers/" + subject.String()
	tag := "/v2/team/app/manifests/sha256-" + subject.Encoded()
	header := http.Header{"Content-Type": {oci.MediaTypeIndex}}
	for _, test := range []struct {
		name  string
		serve map[string]http.HandlerFunc
		err   error
		want  []string
	}{
		{"api", map[string]http.HandlerFunc{api: answer(200, header, index)}, nil, []string{"GET " + api}},
		{"tag", map[string]http.HandlerFunc{tag: answer(200, header, index)}, nil, []string{"GET " + api, "GET " + tag}},
		{"neither", nil, oci.ErrManifestUnknown, []string{"GET " + api, "GET " + tag}},
		{"pages", map[string]http.HandlerFunc{api: answer(200, http.Header{
			"Content-Type": {oci.MediaTypeIndex}, "Link": {`</next>; rel="next"`},
		}, index)}, oci.ErrUnsupported, []string{"GET " + api}},
		{"no index", map[string]http.HandlerFunc{api: answer(200, http.Header{}, manifestJSON)}, oci.ErrManifestInvalid, []string{"GET " + api}},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := newOrigin(t, func(w http.ResponseWriter, r *http.Request) {
				if h := test.serve[r.URL.Path]; h != nil {
					h(w, r)
					return
				}
				http.NotFound(w, r)
			})
			m, err := newClient(t, o).Referrers(t.Context(), o.name(), subject, "application/x")
			if !errors.Is(err, test.err) {
				t.Fatalf("Referrers: %v, want %v", err, test.err)
			}
			if err == nil && string(m.Bytes) != index {
				t.Errorf("Referrers: %s", m.Bytes)
			}
			wantRequests(t, o, test.want...)
			o.mu.Lock()
			defer o.mu.Unlock()
			if got := o.seen[0].URL.Query().Get("artifactType"); got != "application/x" {
				t.Errorf("artifactType: %q", got)
			}
		})
	}
}

func copyHeader(w http.ResponseWriter, h http.Header) {
	for key, values := range h {
		w.Header()[key] = values
	}
}
