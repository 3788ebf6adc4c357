package oci_test

import (
	"errors"
	"net/url"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/larder-registry/larder/internal/oci"
)

// show writes what matters of a request in one line, for the table below.
func show(r oci.Request) string {
	var b strings.Builder
	b.WriteString(string(r.Kind))
	switch r.Kind {
	case oci.KindManifest:
		b.WriteString(" " + r.Reference.String())
	case oci.KindBlob, oci.KindReferrers:
		b.WriteString(" " + r.Name.String() + "@" + r.Digest.String())
	case oci.KindTags:
		b.WriteString(" " + r.Name.String())
	}
	if r.Namespaced {
		b.WriteString(" ns")
	}
	if r.N != -1 {
		b.WriteString(" n=" + strconv.Itoa(r.N))
	}
	if r.Last != "" {
		b.WriteString(" last=" + r.Last)
	}
	if r.ArtifactType != "" {
		b.WriteString(" type=" + r.ArtifactType)
	}
	return b.String()
}

func TestParseRequest(t *testing.T) {
	d := sha256Digest
	long := strings.Repeat("a", 255)
	tests := map[string]struct {
		target string // of the request line, with GET
		want   string // of show; empty: refused
		err    error
	}{
		"ping":               {"/v2/", "ping", nil},
		"ping without slash": {"/v2", "ping", nil},
		"catalog":            {"/v2/_catalog?n=10&last=a.b/c", "catalog n=10 last=a.b/c", nil},

		// Where the registry comes from.
		"default registry":            {"/v2/nginx/manifests/latest", "manifest docker.io/library/nginx:latest", nil},
		"ns":                          {"/v2/org/app/manifests/v1?ns=ghcr.io", "manifest ghcr.io/org/app:v1 ns", nil},
		"ns of hub":                   {"/v2/library/nginx/manifests/1?ns=docker.io", "manifest docker.io/library/nginx:1 ns", nil},
		"ns with port":                {"/v2/a/blobs/" + d + "?ns=127.0.0.1%3A5000", "blob 127.0.0.1:5000/a@" + d + " ns", nil},
		"ns in capitals":              {"/v2/a/tags/list?ns=GHCR.io", "tags ghcr.io/a ns", nil},
		"ns ipv6":                     {"/v2/a/tags/list?ns=[::1]:5000", "tags [::1]:5000/a ns", nil},
		"ns empty":                    {"/v2/a/b/tags/list?ns=", "tags docker.io/a/b", nil},
		"path form":                   {"/v2/f/ghcr.io/org/app/manifests/v1", "manifest ghcr.io/org/app:v1", nil},
		"path form, hub":              {"/v2/f/docker.io/nginx/manifests/v1", "manifest docker.io/library/nginx:v1", nil},
		"path form, port":             {"/v2/f/127.0.0.1:5000/a/blobs/" + d, "blob 127.0.0.1:5000/a@" + d, nil},
		"path form, encoded port":     {"/v2/f/127.0.0.1%3A5000/a/blobs/" + d, "blob 127.0.0.1:5000/a@" + d, nil},
		"path form, ipv6":             {"/v2/f/[::1]:5000/a/tags/list", "tags [::1]:5000/a", nil},
		"path form, encoded ipv6":     {"/v2/f/%5B::1%5D:5000/a/tags/list", "tags [::1]:5000/a", nil},
		"path form, localhost":        {"/v2/f/localhost/a/tags/list", "tags localhost/a", nil},
		"path form and the same ns":   {"/v2/f/Index.docker.io/nginx/tags/list?ns=docker.io", "tags docker.io/library/nginx ns", nil},
		"path form and another ns":    {"/v2/f/ghcr.io/app/tags/list?ns=quay.io", "tags quay.io/f/ghcr.io/app ns", nil},
		"path form bad, another ns":   {"/v2/f/a.123/app/tags/list?ns=quay.io", "tags quay.io/f/a.123/app ns", nil},
		"f as a repository":           {"/v2/f/manifests/v1", "manifest docker.io/library/f:v1", nil},
		"f and a host as repository":  {"/v2/f/ghcr.io/manifests/v1", "manifest docker.io/f/ghcr.io:v1", nil},
		"f and no host":               {"/v2/f/org/app/manifests/v1", "manifest docker.io/f/org/app:v1", nil},
		"f later":                     {"/v2/a/f/ghcr.io/b/manifests/v1", "manifest docker.io/a/f/ghcr.io/b:v1", nil},
		"path form twice":             {"/v2/f/a.b/f/c.d/e/tags/list", "tags a.b/f/c.d/e", nil},
		"unrelated query":             {"/v2/a/b/tags/list?x=y&N=3", "tags docker.io/a/b", nil},
		"ns twice":                    {"/v2/a/tags/list?ns=a.b&ns=c.d", "", oci.ErrNameInvalid},
		"ns with user":                {"/v2/a/tags/list?ns=u:p%40a.b", "", oci.ErrNameInvalid},
		"ns with scheme":              {"/v2/a/tags/list?ns=http://a.b", "", oci.ErrNameInvalid},
		"ns with path":                {"/v2/a/tags/list?ns=a.b/c", "", oci.ErrNameInvalid},
		"ns with a question mark":     {"/v2/a/tags/list?ns=a.b%3Fx", "", oci.ErrNameInvalid},
		"ns with space":               {"/v2/a/tags/list?ns=a.b%20", "", oci.ErrNameInvalid},
		"ns with newline":             {"/v2/a/tags/list?ns=a.b%0d%0aX:y", "", oci.ErrNameInvalid},
		"ns with trailing dot":        {"/v2/a/tags/list?ns=docker.io.", "", oci.ErrNameInvalid},
		"ns with bad port":            {"/v2/a/tags/list?ns=a.b:70000", "", oci.ErrNameInvalid},
		"path form, trailing dot":     {"/v2/f/docker.io./a/tags/list", "", oci.ErrNameInvalid},
		"path form, user":             {"/v2/f/u@a.b/a/tags/list", "", oci.ErrNameInvalid},
		"path form, bad port":         {"/v2/f/a.b:0/a/tags/list", "", oci.ErrNameInvalid},
		"path form, ipv6 unclosed":    {"/v2/f/[::1/a/tags/list", "", oci.ErrNameInvalid},
		"path form, slash in address": {"/v2/f/a.b%2Fc/a/tags/list", "", oci.ErrNameInvalid},

		// Which endpoint.
		"manifest by digest":       {"/v2/a/b/manifests/" + d, "manifest docker.io/a/b@" + d, nil},
		"manifest by sha512":       {"/v2/a/b/manifests/" + sha512Digest, "manifest docker.io/a/b@" + sha512Digest, nil},
		"encoded digest":           {"/v2/a/b/blobs/" + strings.Replace(d, ":", "%3A", 1), "blob docker.io/a/b@" + d, nil},
		"blobs in the name":        {"/v2/a/blobs/manifests/v1", "manifest docker.io/a/blobs:v1", nil},
		"manifests in the name":    {"/v2/a/manifests/v1/blobs/" + d, "blob docker.io/a/manifests/v1@" + d, nil},
		"tags in the name":         {"/v2/a/tags/list/tags/list", "tags docker.io/a/tags/list", nil},
		"tag called list":          {"/v2/a/manifests/list", "manifest docker.io/library/a:list", nil},
		"tag called manifests":     {"/v2/a/manifests/manifests", "manifest docker.io/library/a:manifests", nil},
		"name is a keyword":        {"/v2/blobs/manifests/v1", "manifest docker.io/library/blobs:v1", nil},
		"catalog in the name":      {"/v2/a/_catalog", "", oci.ErrNameUnknown},
		"referrers":                {"/v2/a/b/referrers/" + d + "?artifactType=application/x%2Bjson", "referrers docker.io/a/b@" + d + " type=application/x+json", nil},
		"longest name":             {"/v2/" + long + "/tags/list?ns=a.b", "tags a.b/" + long + " ns", nil},
		"no endpoint":              {"/v2/a/b", "", oci.ErrNameUnknown},
		"only a name":              {"/v2/a", "", oci.ErrNameUnknown},
		"no name":                  {"/v2/tags/list", "", oci.ErrNameUnknown},
		"no name, manifest":        {"/v2/manifests/v1", "", oci.ErrNameUnknown},
		"tags without list":        {"/v2/a/tags/all", "", oci.ErrNameUnknown},
		"two after manifests":      {"/v2/a/manifests/v1/v2", "", oci.ErrNameUnknown},
		"outside":                  {"/v1/a", "", oci.ErrNameUnknown},
		"prefix only":              {"/v2x/a/b/tags/list", "", oci.ErrNameUnknown},
		"upload, not spoken yet":   {"/v2/a/blobs/uploads/", "", oci.ErrNameInvalid},
		"name too long":            {"/v2/" + long + "a/tags/list?ns=a.b", "", oci.ErrNameInvalid},
		"upper-case name":          {"/v2/Nginx/manifests/v1", "", oci.ErrNameInvalid},
		"double slash":             {"/v2//a/tags/list", "", oci.ErrNameInvalid},
		"double slash inside":      {"/v2/a//b/tags/list", "", oci.ErrNameInvalid},
		"trailing slash":           {"/v2/a/tags/list/", "", oci.ErrNameInvalid},
		"traversal":                {"/v2/../../etc/tags/list", "", oci.ErrNameInvalid},
		"encoded traversal":        {"/v2/%2e%2e/%2e%2e/etc/tags/list", "", oci.ErrNameInvalid},
		"encoded slash":            {"/v2/a%2Fb/tags/list", "", oci.ErrNameInvalid},
		"encoded slash, traversal": {"/v2/a/manifests/..%2F..%2Fx", "", oci.ErrNameInvalid},
		"encoded twice":            {"/v2/a%252Fb/tags/list", "", oci.ErrNameInvalid},
		"encoded nul":              {"/v2/a%00/tags/list", "", oci.ErrNameInvalid},
		"bad encoding":             {"/v2/a%zz/tags/list", "", oci.ErrNameInvalid},
		"bracket in the name":      {"/v2/%5Ba%5D/tags/list", "", oci.ErrNameInvalid},

		// What is asked for.
		"conformance: bad name":     {"/v2/a/manifests/.INVALID_MANIFEST_NAME", "", oci.ErrManifestUnknown},
		"tag of 128":                {"/v2/a/manifests/" + long[:128], "manifest docker.io/library/a:" + long[:128], nil},
		"tag of 129":                {"/v2/a/manifests/" + long[:129], "", oci.ErrManifestUnknown},
		"manifest, short digest":    {"/v2/a/manifests/sha256:baddigeststring", "", oci.ErrManifestUnknown},
		"manifest, other algorithm": {"/v2/a/manifests/" + sha384Digest, "", oci.ErrManifestUnknown},
		"blob, tag":                 {"/v2/a/blobs/latest", "", oci.ErrDigestInvalid},
		"blob, short digest":        {"/v2/a/blobs/sha256:baddigeststring", "", oci.ErrDigestInvalid},
		"blob, long digest":         {"/v2/a/blobs/" + d + "0", "", oci.ErrDigestInvalid},
		"blob, digest in capitals":  {"/v2/a/blobs/" + strings.ToUpper(d), "", oci.ErrDigestInvalid},
		"referrers, tag":            {"/v2/a/referrers/latest", "", oci.ErrDigestInvalid},

		// Parameters.
		"n zero":               {"/v2/a/tags/list?n=0", "tags docker.io/library/a n=0", nil},
		"n beyond the page":    {"/v2/a/tags/list?n=1000000", "tags docker.io/library/a n=10000", nil},
		"n beyond int64":       {"/v2/a/tags/list?n=99999999999999999999", "tags docker.io/library/a n=10000", nil},
		"last without n":       {"/v2/a/tags/list?last=v1", "tags docker.io/library/a last=v1", nil},
		"n negative":           {"/v2/a/tags/list?n=-1", "", oci.ErrPageInvalid},
		"n a word":             {"/v2/_catalog?n=all", "", oci.ErrPageInvalid},
		"last too long":        {"/v2/a/tags/list?last=" + strings.Repeat("a", 1025), "", oci.ErrPageInvalid},
		"last with newline":    {"/v2/a/tags/list?last=a%0Ab", "", oci.ErrPageInvalid},
		"type too long":        {"/v2/a/referrers/" + d + "?artifactType=" + long + "a", "", oci.ErrPageInvalid},
		"type with control":    {"/v2/a/referrers/" + d + "?artifactType=a%7F", "", oci.ErrPageInvalid},
		"n means nothing here": {"/v2/a/manifests/v1?n=x&last=y&artifactType=z", "manifest docker.io/library/a:v1", nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			path, rawQuery, _ := strings.Cut(tt.target, "?")
			query, err := url.ParseQuery(rawQuery)
			if err != nil {
				t.Fatal(err)
			}
			for _, method := range []string{"GET", "HEAD"} {
				got, err := oci.ParseRequest(method, path, query, "docker.io")
				if tt.err != nil {
					if !errors.Is(err, tt.err) {
						t.Errorf("%s: got %s, %v; want %v", method, show(got), err, tt.err)
					}
				} else if err != nil || show(got) != tt.want {
					t.Errorf("%s: got %s, %v; want %s", method, show(got), err, tt.want)
				}
			}
			if tt.err == nil {
				if got, err := oci.ParseRequest("POST", path, query, "docker.io"); !errors.Is(err, oci.ErrUnsupported) || show(got) != tt.want {
					t.Errorf("POST: got %s, %v; want ErrUnsupported and %s", show(got), err, tt.want)
				}
			}
		})
	}
}

func TestParseRequestWithoutDefaultRegistry(t *testing.T) {
	_, err := oci.ParseRequest("GET", "/v2/a/tags/list", nil, "")
	if !errors.Is(err, oci.ErrNameInvalid) || !strings.Contains(err.Error(), "?ns=") {
		t.Errorf("got %v; want ErrNameInvalid naming the fix", err)
	}
}

// format writes a request as a client would send it.
func format(r oci.Request) (path string, query url.Values) {
	query = url.Values{}
	if r.Kind != oci.KindPing && r.Kind != oci.KindCatalog {
		if r.Namespaced {
			path = r.Name.Repository
			query.Set("ns", r.Name.Registry)
		} else {
			path = "f/" + r.Name.String()
		}
	}
	switch r.Kind {
	case oci.KindPing:
	case oci.KindCatalog:
		path = "_catalog"
	case oci.KindManifest:
		path += "/manifests/" + r.Reference.Target()
	case oci.KindBlob:
		path += "/blobs/" + r.Digest.String()
	case oci.KindReferrers:
		path += "/referrers/" + r.Digest.String()
	case oci.KindTags:
		path += "/tags/list"
	}
	if r.N >= 0 {
		query.Set("n", strconv.Itoa(r.N))
	}
	if r.Last != "" {
		query.Set("last", r.Last)
	}
	if r.ArtifactType != "" {
		query.Set("artifactType", r.ArtifactType)
	}
	return (&url.URL{Path: "/v2/" + path}).EscapedPath(), query
}

// FuzzParseRequest: whatever is accepted is within the grammar, and is the
// same request when written out and parsed again.
func FuzzParseRequest(f *testing.F) {
	for _, s := range [][2]string{
		{"/v2/", ""},
		{"/v2/_catalog", "n=3&last=a"},
		{"/v2/library/nginx/manifests/latest", "ns=docker.io"},
		{"/v2/f/[::1]:5000/a/blobs/" + sha256Digest, ""},
		{"/v2/f/docker.io/nginx/referrers/" + sha256Digest, "artifactType=a/b"},
		{"/v2/f/docker.io/nginx/tags/list", "ns=ghcr.io"},
		{"/v2/f/docker.io/nginx/tags/list", "ns=index.docker.io&n=5"},
		{"/v2/a%2Fb/../c//manifests/.x", "ns=u:p@h"},
	} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, path, rawQuery string) {
		query, err := url.ParseQuery(rawQuery)
		if err != nil {
			return
		}
		r, err := oci.ParseRequest("GET", path, query, "docker.io")
		if err != nil {
			var spec *oci.Error
			if !errors.As(err, &spec) || len(err.Error()) > 2048 {
				t.Fatalf("%s?%s: %v", path, rawQuery, err)
			}
			return
		}
		if len(r.Name.Repository) > 255 || strings.Contains("/"+r.Name.Repository+"/", "/../") || len(r.Reference.Tag) > 128 {
			t.Fatalf("%s?%s: accepted %#v", path, rawQuery, r)
		}
		again, query := format(r)
		got, err := oci.ParseRequest("GET", again, query, "")
		if err != nil || !reflect.DeepEqual(got, r) {
			t.Fatalf("%s?%s → %s?%s: got %#v, %v; want %#v", path, rawQuery, again, query.Encode(), got, err, r)
		}
	})
}
