package oci_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/distribution/reference"

	"github.com/larder-registry/larder/internal/oci"
)

var (
	sha256Digest = "sha256:" + strings.Repeat("0123456789abcdef", 4)
	sha384Digest = "sha384:" + strings.Repeat("0123456789abcdef", 6)
	sha512Digest = "sha512:" + strings.Repeat("0123456789abcdef", 8)
)

func TestParseReference(t *testing.T) {
	longTag := strings.Repeat("v", 128)
	tests := map[string]struct {
		in, want string
		err      error
	}{
		"short":               {"nginx", "docker.io/library/nginx:latest", nil},
		"short with tag":      {"nginx:1.27", "docker.io/library/nginx:1.27", nil},
		"team":                {"team/app:v1", "docker.io/team/app:v1", nil},
		"full":                {"ghcr.io/org/app:v1", "ghcr.io/org/app:v1", nil},
		"port, no tag":        {"127.0.0.1:5000/app", "127.0.0.1:5000/app:latest", nil},
		"port and tag":        {"127.0.0.1:5000/app:v1", "127.0.0.1:5000/app:v1", nil},
		"ipv6":                {"[::1]:5000/app:v1", "[::1]:5000/app:v1", nil},
		"localhost":           {"localhost/app:v1", "localhost/app:v1", nil},
		"digest":              {"ghcr.io/app@" + sha256Digest, "ghcr.io/app@" + sha256Digest, nil},
		"sha512":              {"ghcr.io/app@" + sha512Digest, "ghcr.io/app@" + sha512Digest, nil},
		"tag and digest":      {"ghcr.io/app:v1@" + sha256Digest, "ghcr.io/app@" + sha256Digest, nil},
		"longest tag":         {"a.b/c:" + longTag, "a.b/c:" + longTag, nil},
		"tag of all kinds":    {"a.b/c:_A-z.9", "a.b/c:_A-z.9", nil},
		"empty":               {"", "", oci.ErrNameInvalid},
		"upper case":          {"Nginx", "", oci.ErrNameInvalid},
		"tag too long":        {"a.b/c:" + longTag + "v", "", oci.ErrManifestUnknown},
		"tag empty":           {"a.b/c:", "", oci.ErrManifestUnknown},
		"tag starts with dot": {"a.b/c:.v", "", oci.ErrManifestUnknown},
		"tag with slash":      {"a.b/c:v/w", "", oci.ErrNameInvalid},
		"bad tag, digest":     {"a.b/c:.v@" + sha256Digest, "", oci.ErrManifestUnknown},
		"digest empty":        {"a.b/c@", "", oci.ErrDigestInvalid},
		"digest short":        {"a.b/c@sha256:abc", "", oci.ErrDigestInvalid},
		"digest upper case":   {"a.b/c@" + strings.ToUpper(sha256Digest), "", oci.ErrDigestInvalid},
		"digest twice":        {"a.b/c@" + sha256Digest + "@" + sha256Digest, "", oci.ErrDigestInvalid},
		"sha384":              {"a.b/c@" + sha384Digest, "", oci.ErrDigestInvalid},
		"scheme":              {"https://a.b/c:v1", "", oci.ErrNameInvalid},
		"user":                {"user:pw@a.b/c:v1", "", oci.ErrDigestInvalid},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := oci.ParseReference(tt.in)
			if tt.err != nil {
				if !errors.Is(err, tt.err) {
					t.Errorf("got %q, %v; want %v", got, err, tt.err)
				}
				return
			}
			if err != nil || got.String() != tt.want {
				t.Fatalf("got %q, %v; want %q", got, err, tt.want)
			}
			if (got.Tag == "") == (got.Digest == "") {
				t.Errorf("%#v: want exactly one of tag and digest", got)
			}
		})
	}
}

// FuzzParseReference holds what is accepted to two properties: written out and
// read again it is the same, and Docker's own parser reads it the same way.
func FuzzParseReference(f *testing.F) {
	for _, s := range []string{
		"nginx", "nginx:1.27", "team/app:v1@" + sha256Digest, "[::1]:5000/app", "localhost/a", "INDEX.docker.io/nginx",
		"registry-1.docker.io/nginx", "127.0.0.1:5000/a__b/c-d:V_1", "a.b/c@" + sha512Digest, "a/../b", "a.b:99999/c", "[::ffff:1.2.3.4]/a",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		ref, err := oci.ParseReference(s)
		if err != nil {
			return
		}
		again, err := oci.ParseReference(ref.String())
		if err != nil || again != ref {
			t.Fatalf("%q → %q → %q, %v", s, ref, again, err)
		}
		name, err := oci.ParseName(ref.Name.String())
		if err != nil || name != ref.Name {
			t.Fatalf("ParseName(%q) = %q, %v", ref.Name, name, err)
		}
		theirs, err := reference.ParseDockerRef(ref.String())
		if err != nil || theirs.String() != ref.String() {
			t.Fatalf("%q: Docker reads %v, %v", ref, theirs, err)
		}
	})
}

func FuzzParseDigest(f *testing.F) {
	for _, s := range []string{sha256Digest, sha384Digest, sha512Digest, "", "sha256:", "sha256:../../x", "blake3:" + strings.Repeat("0", 64)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := oci.ParseDigest(s)
		if err != nil {
			if !errors.Is(err, oci.ErrDigestInvalid) {
				t.Fatalf("%q: %v", s, err)
			}
			return
		}
		if d.Validate() != nil || d.String() != s || strings.Trim(d.Encoded(), "0123456789abcdef") != "" || len(d.Encoded()) != d.Algorithm().Size()*2 {
			t.Fatalf("%q became %q", s, d)
		}
	})
}
