package oci_test

import (
	"errors"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/internal/oci"
)

var (
	someDigest = digest.FromString("some")
	longDigest = digest.SHA512.FromString("some")
)

func TestParseOwn(t *testing.T) {
	d, d512 := string(someDigest), string(longDigest)
	for _, tt := range []struct {
		name, method, target string
		want                 func(o *oci.Own)
		err                  *oci.Error
	}{
		{"ping", "GET", "/v2/", func(o *oci.Own) { o.Kind = oci.KindPing }, nil},
		{"catalog", "GET", "/v2/_catalog?n=3&last=a", func(o *oci.Own) { o.Kind, o.N, o.Last = oci.KindCatalog, 3, "a" }, nil},
		{"a name is taken as it is", "GET", "/v2/nginx/tags/list", func(o *oci.Own) { o.Kind, o.Name.Repository = oci.KindTags, "nginx" }, nil},
		{"words of the API in a name", "POST", "/v2/blobs/uploads/blobs/uploads/", func(o *oci.Own) { o.Kind, o.Name.Repository = oci.KindUploads, "blobs/uploads" }, nil},
		{"without the slash", "POST", "/v2/a/blobs/uploads", func(o *oci.Own) { o.Kind, o.Name.Repository = oci.KindUploads, "a" }, nil},
		{"mount", "POST", "/v2/a/blobs/uploads/?mount=" + d + "&from=b/c", func(o *oci.Own) {
			o.Kind, o.Name.Repository, o.Mount, o.From.Repository = oci.KindUploads, "a", someDigest, "b/c"
		}, nil},
		{"mount without from", "POST", "/v2/a/blobs/uploads/?mount=" + d, func(o *oci.Own) {
			o.Kind, o.Name.Repository, o.Mount = oci.KindUploads, "a", someDigest
		}, nil},
		{"mount of nonsense is an upload", "POST", "/v2/a/blobs/uploads/?mount=x&from=b", func(o *oci.Own) { o.Kind, o.Name.Repository = oci.KindUploads, "a" }, nil},
		{"mount from nonsense is an upload", "POST", "/v2/a/blobs/uploads/?mount=" + d + "&from=../b", func(o *oci.Own) { o.Kind, o.Name.Repository = oci.KindUploads, "a" }, nil},
		{"monolithic", "POST", "/v2/a/blobs/uploads/?digest=" + d512, func(o *oci.Own) {
			o.Kind, o.Name.Repository, o.Content = oci.KindUploads, "a", longDigest
		}, nil},
		{"an algorithm", "POST", "/v2/a/blobs/uploads/?digest-algorithm=sha512", func(o *oci.Own) {
			o.Kind, o.Name.Repository, o.Algorithm = oci.KindUploads, "a", digest.SHA512
		}, nil},
		{"an unknown algorithm", "POST", "/v2/a/blobs/uploads/?digest-algorithm=md5", nil, oci.ErrDigestInvalid},
		{"a bad digest", "POST", "/v2/a/blobs/uploads/?digest=sha256:x", nil, oci.ErrDigestInvalid},
		{"chunk", "PATCH", "/v2/a/blobs/uploads/ABC234", func(o *oci.Own) { o.Kind, o.Name.Repository, o.Upload = oci.KindUpload, "a", "ABC234" }, nil},
		{"close", "PUT", "/v2/a/blobs/uploads/ABC234?digest=" + d, func(o *oci.Own) {
			o.Kind, o.Name.Repository, o.Upload, o.Content = oci.KindUpload, "a", "ABC234", someDigest
		}, nil},
		{"close without a digest", "PUT", "/v2/a/blobs/uploads/ABC234", nil, oci.ErrDigestInvalid},
		{"an id of another's making", "GET", "/v2/a/blobs/uploads/abc", nil, oci.ErrBlobUploadUnknown},
		{"an id that is too long", "GET", "/v2/a/blobs/uploads/" + strings.Repeat("A", 65), nil, oci.ErrBlobUploadUnknown},
		{"a path for an id", "GET", "/v2/a/blobs/uploads/..", nil, oci.ErrNameInvalid},
		{"put by tag", "PUT", "/v2/a/manifests/v1", func(o *oci.Own) {
			o.Kind, o.Name.Repository = oci.KindManifest, "a"
			o.Reference = oci.Reference{Name: o.Name, Tag: "v1"}
		}, nil},
		{"put by digest with tags", "PUT", "/v2/a/manifests/" + d + "?tag=x&tag=y&tag=x", func(o *oci.Own) {
			o.Kind, o.Name.Repository, o.Tags = oci.KindManifest, "a", []string{"x", "y"}
			o.Reference = oci.Reference{Name: o.Name, Digest: someDigest}
		}, nil},
		{"tags beside a tag", "PUT", "/v2/a/manifests/v1?tag=x", nil, oci.ErrManifestInvalid},
		{"a bad tag", "PUT", "/v2/a/manifests/.x", nil, oci.ErrManifestInvalid},
		{"a bad tag among tags", "PUT", "/v2/a/manifests/" + d + "?tag=-", nil, oci.ErrManifestInvalid},
		{"a bad digest to put", "PUT", "/v2/a/manifests/sha256:x", nil, oci.ErrDigestInvalid},
		{"a bad tag to get", "GET", "/v2/a/manifests/.x", nil, oci.ErrManifestUnknown},
		{"a bad digest to get", "GET", "/v2/a/manifests/sha256:x", nil, oci.ErrManifestUnknown},
		{"delete of a blob", "DELETE", "/v2/a/blobs/" + d, func(o *oci.Own) { o.Kind, o.Name.Repository, o.Digest = oci.KindBlob, "a", someDigest }, nil},
		{"delete of a list", "DELETE", "/v2/a/tags/list", nil, oci.ErrUnsupported},
		{"referrers after one", "GET", "/v2/a/referrers/" + d + "?artifactType=x/y&last=" + d512, func(o *oci.Own) {
			o.Kind, o.Name.Repository, o.Digest, o.ArtifactType, o.Last = oci.KindReferrers, "a", someDigest, "x/y", d512
		}, nil},
		{"upper case", "GET", "/v2/A/tags/list", nil, oci.ErrNameInvalid},
		{"an encoded slash", "GET", "/v2/a%2Fb/tags/list", nil, oci.ErrNameInvalid},
		{"nowhere", "GET", "/v2/a/b/c", nil, oci.ErrNameUnknown},
		{"only uploads end in a slash", "GET", "/v2/a/tags/list/", nil, oci.ErrNameInvalid},
	} {
		t.Run(tt.name, func(t *testing.T) {
			u, err := url.Parse(tt.target)
			if err != nil {
				t.Fatal(err)
			}
			got, err := oci.ParseOwn(tt.method, u.EscapedPath(), u.Query())
			if tt.err != nil {
				if !errors.Is(err, tt.err) {
					t.Errorf("error %v, want %v", err, tt.err)
				}
				return
			}
			want := oci.Own{Request: oci.Request{N: -1}}
			tt.want(&want)
			if tags := got.Tags; err != nil || !slices.Equal(tags, want.Tags) {
				t.Errorf("tags %q, want %q: %v", tags, want.Tags, err)
			}
			if got.Request != want.Request || got.Upload != want.Upload || got.Mount != want.Mount || got.From != want.From ||
				got.Content != want.Content || got.Algorithm != want.Algorithm {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
		})
	}
}

func TestForeign(t *testing.T) {
	own := []string{"registry.example", "127.0.0.1:5000"}
	for target, want := range map[string]bool{
		"/v2/a/tags/list": false, "/v2/a/tags/list?ns=registry.example": false, "/v2/a/tags/list?ns=127.0.0.1:5000": false,
		"/v2/a/tags/list?ns=REGISTRY.example": false, "/v2/a/tags/list?ns=": false,
		"/v2/a/tags/list?ns=docker.io": true, "/v2/a/tags/list?ns=registry.example:5000": true, "/v2/a/tags/list?ns=x&ns=y": true, "/v2/a/tags/list?ns=-": true,
		"/v2/f/docker.io/a/tags/list": true, "/v2/f/localhost/a/tags/list": true, "/v2/f/10.0.0.1:5000/a/tags/list": true, "/v2/f/%64ocker.io/a/tags/list": true,
		"/v2/f/team/a/tags/list": false, "/v2/f/tags/list": false, "/v2/g/docker.io/a/tags/list": false,
		"/v2/?ns=docker.io": false, "/v2/_catalog?ns=docker.io": false,
	} {
		u, err := url.Parse(target)
		if err != nil {
			t.Fatal(err)
		}
		if got := oci.Foreign(u.EscapedPath(), u.Query(), own); got != want {
			t.Errorf("%s: %v, want %v", target, got, want)
		}
	}
}

func FuzzParseOwn(f *testing.F) {
	f.Add("GET", "/v2/a/tags/list", "n=3&last=x")
	f.Add("POST", "/v2/a/b/blobs/uploads/", "mount=sha256:x&from=b&digest=y")
	f.Add("PUT", "/v2/a/blobs/uploads/ABC", "digest="+string(someDigest))
	f.Add("PUT", "/v2/a/manifests/"+string(longDigest), "tag=a&tag=b")
	f.Add("GET", "/v2/f/docker.io/x/blobs/"+string(someDigest), "ns=docker.io")
	f.Fuzz(func(t *testing.T, method, path, query string) {
		q, err := url.ParseQuery(query)
		if err != nil {
			return
		}
		if oci.Foreign(path, q, []string{"registry.example"}) {
			return
		}
		o, err := oci.ParseOwn(method, path, q)
		if err != nil {
			return
		}
		if !slices.Contains(oci.MethodsOf(o.Kind), method) {
			t.Errorf("%s is let through for %s", method, o.Kind)
		}
		if o.Name.Registry != "" || o.From.Registry != "" {
			t.Errorf("a registry in %+v", o)
		}
		for _, name := range []string{o.Name.Repository, o.From.Repository} {
			if name != "" && (len(name) > 255 || strings.Contains("/"+name+"/", "/../") || strings.Contains(name, "/_") || strings.ToLower(name) != name) {
				t.Errorf("repository %q", name)
			}
		}
		if strings.HasPrefix(o.Name.Repository, "f/docker.io/") || strings.HasPrefix(o.Name.Repository, "f/localhost/") {
			t.Errorf("a name of another registry's: %q", o.Name.Repository)
		}
		for _, dgst := range []digest.Digest{o.Digest, o.Mount, o.Content, o.Reference.Digest} {
			if dgst != "" && dgst.Validate() != nil {
				t.Errorf("digest %q", dgst)
			}
		}
		if strings.ContainsAny(o.Upload, "/.\x00") {
			t.Errorf("upload %q", o.Upload)
		}
	})
}

func TestPattern(t *testing.T) {
	for _, tt := range []struct {
		pattern, repository string
		want                bool
	}{
		{"*", "a/b/c", true},
		{"team-a", "team-a", true},
		{"team-a", "team-a/app/part", true},
		{"team-a", "team-abc", false},
		{"team-a/app", "team-a", false},
		{"team-*", "team-a/app", true},
		{"team-*/app", "team-a/app", true},
		{"team-*/app", "team-a/other", false},
		{"*/app", "x/app/y", true},
		{"*/app", "app", false},
		{"team-a/", "team-a/app", true},
		{"team-a/", "team-abc", false},
	} {
		if err := oci.CheckPatterns([]oci.Pattern{oci.Pattern(tt.pattern)}); err != nil {
			t.Errorf("%s: %v", tt.pattern, err)
		}
		if got := oci.MatchAny([]oci.Pattern{oci.Pattern(tt.pattern)}, tt.repository); got != tt.want {
			t.Errorf("%s means %s: %v", tt.pattern, tt.repository, got)
		}
	}
	for _, bad := range [][]oci.Pattern{nil, {""}, {"/a"}, {"a//b"}, {"/"}, {"**"}, {"a/**/b"}, {"["}, {"a?c"}, {"Team"}, {"host:5000/a"}} {
		if oci.CheckPatterns(bad) == nil {
			t.Errorf("patterns %q are taken", bad)
		}
	}
}
