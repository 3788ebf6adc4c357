package oci

import (
	"errors"
	"net/url"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
)

// The kinds that only a registry one can push to has, with the spec's endpoint
// numbers.
const (
	KindUploads Kind = "uploads" // end-4, end-11   /v2/<name>/blobs/uploads/
	KindUpload  Kind = "upload"  // end-5, -6, -13, and cancelling  /v2/<name>/blobs/uploads/<id>
)

// Own is a request to a registry that holds content of its own, taken apart.
// The registry of its Name is empty, and Name.Repository the whole name.
type Own struct {
	Request
	// Upload is the id of an upload; set for KindUpload.
	Upload string
	// Mount is the blob that an upload asks to have from elsewhere instead
	// (end-11), From the repository it is in; empty for wherever it is.
	Mount digest.Digest
	From  Name
	// Content is the digest that what is sent should have: ?digest=, for
	// KindUploads (optional) and for PUT of a KindUpload (never empty).
	Content digest.Digest
	// Algorithm is what an upload announces its digest to be made with
	// (?digest-algorithm=); empty when it does not.
	Algorithm digest.Algorithm
	// Tags are further tags for an image manifest that is put by its digest
	// (?tag=), none twice.
	Tags []string
}

const (
	// maxTags bounds ?tag=; the spec asks for ten at least.
	maxTags = 32
	// maxUpload bounds the id of an upload.
	maxUpload = 64
)

// Foreign reports whether a request is for another registry's content, which
// is never mixed with a registry's own: it names in ?ns= a registry that is
// none of own (normalised hosts), or in the path as /v2/f/<registry>/…. The
// version check and the catalog are the registry's own in any case.
func Foreign(escapedPath string, query url.Values, own []string) bool {
	switch escapedPath {
	case "/v2", "/v2/", "/v2/_catalog":
		return false
	}
	if values := query["ns"]; len(values) > 0 && values[0] != "" {
		ns, err := namespace(query)
		return err != nil || !slices.Contains(own, ns)
	}
	rest, ok := strings.CutPrefix(escapedPath, "/v2/")
	segments := strings.SplitN(rest, "/", 3)
	if !ok || len(segments) < 3 || segments[0] != "f" {
		return false
	}
	registry, err := url.PathUnescape(segments[1])
	return err != nil || looksLikeRegistry(registry)
}

// ParseOwn takes a request apart that is not [Foreign]. The errors are those of
// [ParseRequest], and ErrUnsupported for a method an endpoint does not have;
// for what is being pushed they are ErrDigestInvalid and ErrManifestInvalid.
func ParseOwn(method, escapedPath string, query url.Values) (Own, error) {
	r := Own{Request: Request{N: -1}}
	// The one path that ends in a slash.
	trimmed, _ := strings.CutSuffix(escapedPath, "/blobs/uploads/")
	starts := trimmed != escapedPath
	if starts {
		escapedPath = trimmed + "/blobs/uploads"
	}
	segments, err := splitPath(escapedPath)
	if err != nil {
		return r, err
	}
	var repository []string
	var target string
	r.Kind, repository, target = ownEndpoint(segments)
	switch {
	case r.Kind == "":
		return r, Errorf(ErrNameUnknown, "no such endpoint")
	case !slices.Contains(MethodsOf(r.Kind), method):
		return r, ErrUnsupported
	case r.Kind == KindPing:
		return r, nil
	}
	if r.Kind != KindCatalog {
		name := strings.Join(repository, "/")
		if err := checkRepository(name); err != nil {
			return r, err
		}
		if len(repository) > 2 && repository[0] == "f" && looksLikeRegistry(repository[1]) {
			// Foreign looks at the path as it came, and this one has an
			// escape in it: nothing is pushed under another's name.
			return r, Errorf(ErrNameInvalid, "%s is how another registry's content is named", quote(name))
		}
		r.Name.Repository = name
	}
	if err := r.parseOwnTarget(method, target); err != nil {
		return r, err
	}
	return r, r.parseOwnQuery(method, query)
}

// MethodsOf lists the methods that an endpoint of a registry with content of its
// own has.
func MethodsOf(kind Kind) []string {
	switch kind {
	case KindBlob:
		return []string{"GET", "HEAD", "DELETE"}
	case KindManifest:
		return []string{"GET", "HEAD", "PUT", "DELETE"}
	case KindUploads:
		return []string{"POST"}
	case KindUpload:
		return []string{"GET", "HEAD", "PATCH", "PUT", "DELETE"}
	}
	return []string{"GET", "HEAD"}
}

// ownEndpoint is endpoint with the two for uploads.
func ownEndpoint(segments []string) (kind Kind, repository []string, target string) {
	n := len(segments)
	if n >= 3 && segments[n-2] == "blobs" && segments[n-1] == "uploads" {
		return KindUploads, segments[:n-2], ""
	}
	if n >= 4 && segments[n-3] == "blobs" && segments[n-2] == "uploads" {
		return KindUpload, segments[:n-3], segments[n-1]
	}
	return endpoint(segments)
}

// parseOwnTarget reads what follows the endpoint's word.
func (r *Own) parseOwnTarget(method, target string) error {
	switch {
	case r.Kind == KindUploads:
		return nil
	case r.Kind == KindUpload:
		if len(target) > maxUpload || strings.Trim(target, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") != "" {
			return ErrBlobUploadUnknown
		}
		r.Upload = target
		return nil
	}
	err := r.parseTarget(target)
	if r.Kind != KindManifest || method != "PUT" || err == nil {
		return err
	}
	// What cannot be asked for is unknown; what cannot be put is invalid.
	spec, _ := errors.AsType[*Error](err)
	if strings.Contains(target, ":") {
		return Errorf(ErrDigestInvalid, "%s", spec.Message)
	}
	return Errorf(ErrManifestInvalid, "%s", spec.Message)
}

// parseOwnQuery reads the parameters.
func (r *Own) parseOwnQuery(method string, query url.Values) error {
	switch {
	case r.Kind == KindUploads:
		return r.parseStart(query)
	case r.Kind == KindUpload && method == "PUT":
		return r.parseContent(query.Get("digest"))
	case r.Kind == KindManifest && method == "PUT":
		return r.parseTags(query["tag"])
	case r.Kind == KindReferrers:
		// Where the page before ended: a digest, and our own making.
		if last, err := ParseDigest(query.Get("last")); err == nil {
			r.Last = string(last)
		}
	}
	return r.parseQuery(query)
}

// parseStart reads how an upload is started. A mount that cannot be meant is no
// error: the spec has the client upload instead.
func (r *Own) parseStart(query url.Values) error {
	if dgst, err := ParseDigest(query.Get("mount")); err == nil {
		from := query.Get("from")
		if from == "" || checkRepository(from) == nil {
			r.Mount, r.From.Repository = dgst, from
		}
	}
	if algorithm := digest.Algorithm(query.Get("digest-algorithm")); algorithm != "" {
		if algorithm != digest.SHA256 && algorithm != digest.SHA512 {
			return Errorf(ErrDigestInvalid, "digest-algorithm %s is neither sha256 nor sha512", quote(string(algorithm)))
		}
		r.Algorithm = algorithm
	}
	if s := query.Get("digest"); s != "" {
		return r.parseContent(s)
	}
	return nil
}

// parseContent reads the digest of what is uploaded.
func (r *Own) parseContent(s string) (err error) {
	r.Content, err = ParseDigest(s)
	return err
}

// parseTags reads the tags an image manifest gets besides its digest.
func (r *Own) parseTags(tags []string) error {
	if len(tags) == 0 {
		return nil
	}
	if r.Reference.Digest == "" {
		return Errorf(ErrManifestInvalid, "parameter tag needs a digest in the path")
	}
	for _, tag := range tags {
		if !validTag(tag) {
			return Errorf(ErrManifestInvalid, "%s", errTag(tag).Message)
		}
		if !slices.Contains(r.Tags, tag) {
			r.Tags = append(r.Tags, tag)
		}
	}
	if len(r.Tags) > maxTags {
		return Errorf(ErrManifestInvalid, "at most %d tags can be given at once", maxTags)
	}
	return nil
}
