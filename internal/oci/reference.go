package oci

import (
	_ "crypto/sha256" // go-digest knows an algorithm only once it is linked in
	_ "crypto/sha512"
	"strings"

	"github.com/opencontainers/go-digest"
)

// maxTag bounds a tag in bytes (distribution spec, "Pulling manifests").
const maxTag = 128

// ParseReference reads an image reference as people and Kubernetes write it:
// registry/repository:tag, registry/repository@digest, or Docker's short forms
// ("nginx", "team/app:v1"), which mean Docker Hub. Without tag or digest the
// tag is "latest"; with both, the digest decides and the tag is dropped, as in
// containerd. It fails with ErrNameInvalid, ErrManifestUnknown for a tag beyond
// the grammar, or ErrDigestInvalid.
func ParseReference(s string) (Reference, error) {
	rest, dgst, hasDigest := strings.Cut(s, "@")
	tag, hasTag := "latest", false
	if i := strings.LastIndexByte(rest, ':'); i > strings.LastIndexByte(rest, '/') {
		rest, tag, hasTag = rest[:i], rest[i+1:], true
	}
	registry, repository, ok := strings.Cut(rest, "/")
	if !ok || !looksLikeRegistry(registry) {
		registry, repository = dockerHub, rest
	}
	name, err := NewName(registry, repository)
	if err != nil {
		return Reference{}, err
	}
	ref := Reference{Name: name}
	if hasTag || !hasDigest {
		if !validTag(tag) {
			return Reference{}, errTag(tag)
		}
		ref.Tag = tag
	}
	if hasDigest {
		ref.Tag = ""
		if ref.Digest, err = ParseDigest(dgst); err != nil {
			return Reference{}, err
		}
	}
	return ref, nil
}

// ParseDigest reads a digest as it stands in a reference or a request:
// sha256:<64 hex> or sha512:<128 hex>, in lower case. Both may be used as a
// file name. It fails with ErrDigestInvalid.
func ParseDigest(s string) (digest.Digest, error) {
	algorithm, encoded, _ := strings.Cut(s, ":")
	// Not digest.Validate: every request would pay for its regular expressions.
	a := digest.Algorithm(algorithm)
	if a != digest.SHA256 && a != digest.SHA512 || len(encoded) != 2*a.Size() || strings.Trim(encoded, "0123456789abcdef") != "" {
		return "", Errorf(ErrDigestInvalid, "%s is not a digest: write sha256: or sha512: and lower-case hexadecimal", quote(s))
	}
	return digest.Digest(s), nil
}

// validTag holds a tag to the spec's grammar, [a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}.
func validTag(s string) bool {
	if s == "" || len(s) > maxTag || s[0] == '.' || s[0] == '-' {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if !isAlphanumeric(c) && (c < 'A' || c > 'Z') && c != '_' && c != '.' && c != '-' {
			return false
		}
	}
	return true
}

// errTag is the answer to a tag beyond the grammar: no registry can hold an
// image manifest of that name, so the spec's conformance suite asks for "not
// found" and not for "bad request".
func errTag(tag string) *Error {
	return Errorf(ErrManifestUnknown, "%s is not a tag: at most %d letters, digits, '_', '.' and '-', not starting with '.' or '-'", quote(tag), maxTag)
}
