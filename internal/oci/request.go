package oci

import (
	"errors"
	"net/url"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
)

// Kind says which of the spec's endpoints a request is for; also a word of the
// access log and the metrics.
type Kind string

// The kinds, with the spec's endpoint numbers (section "Endpoints").
const (
	KindPing      Kind = "ping"      // end-1   /v2/
	KindBlob      Kind = "blob"      // end-2   /v2/<name>/blobs/<digest>
	KindManifest  Kind = "manifest"  // end-3   /v2/<name>/manifests/<reference>
	KindTags      Kind = "tags"      // end-8   /v2/<name>/tags/list
	KindReferrers Kind = "referrers" // end-12  /v2/<name>/referrers/<digest>
	// KindCatalog is Docker's, /v2/_catalog; the spec only reserves it.
	KindCatalog Kind = "catalog"
)

// Request is one request of the distribution API, taken apart.
type Request struct {
	// Kind is empty when the path is none of the API's.
	Kind Kind
	// Name is empty for ping and catalog.
	Name Name
	// Reference is set for manifest.
	Reference Reference
	// Digest is set for blob and referrers.
	Digest digest.Digest
	// Namespaced: the registry came in the query (?ns=), and the answer owes
	// an OCI-Namespace header.
	Namespaced bool
	// N is how many entries tags and catalog may return, at most MaxPage; -1
	// when the request does not say.
	N int
	// Last is the entry after which tags and catalog start; empty for the
	// beginning.
	Last string
	// ArtifactType filters referrers when it is not empty.
	ArtifactType string
}

// MaxPage is the most entries one answer to tags or catalog holds.
const MaxPage = 10_000

const (
	// maxLast bounds ?last=: the longest name a catalog holds, and some.
	maxLast = 1024
	// maxArtifactType bounds ?artifactType=; RFC 6838 section 4.2 allows a
	// media type 127 characters on either side of the slash.
	maxArtifactType = 255
)

// ParseRequest takes a request of the distribution API apart. escapedPath is
// the path as it came (url.URL.EscapedPath): an encoded slash is no slash.
//
// The registry comes from, in this order: ?ns=<registry> (containerd), the path
// form /v2/f/<registry>/<repository>/… (podman, CRI-O), or defaultRegistry
// (Docker's registry-mirrors); an empty defaultRegistry refuses requests that
// name none. When ns and the path name the same registry the path form is
// meant; when they differ, "f/…" is the repository's own name.
//
// Errors: ErrNameInvalid for a bad path, repository or registry;
// ErrManifestUnknown for a manifest whose tag or digest is beyond the grammar
// (the conformance suite wants 404 there), ErrDigestInvalid for a blob's or a
// referrers' (it wants 400 or 404, the spec 400); ErrNameUnknown for a path
// that is no endpoint; ErrPageInvalid for bad n, last or artifactType; and
// ErrUnsupported for a method other than GET and HEAD. The Request is then
// filled in as far as parsing got, for the log.
func ParseRequest(method, escapedPath string, query url.Values, defaultRegistry string) (Request, error) {
	r, err := parseRequest(escapedPath, query, defaultRegistry)
	if refused := checkMethod(method); refused != nil && !errors.Is(err, ErrNameUnknown) {
		// Also where a path is bad for what it is: pushes post to
		// …/blobs/uploads/.
		return r, refused
	}
	return r, err
}

func parseRequest(escapedPath string, query url.Values, defaultRegistry string) (Request, error) {
	r := Request{N: -1}
	segments, err := splitPath(escapedPath)
	if err != nil {
		return r, err
	}
	var repository []string
	var target string
	r.Kind, repository, target = endpoint(segments)
	switch r.Kind {
	case "":
		return r, Errorf(ErrNameUnknown, "no such endpoint")
	case KindPing:
		return r, nil
	case KindCatalog:
	default:
		if err := r.parseName(repository, query, defaultRegistry); err != nil {
			return r, err
		}
		if err := r.parseTarget(target); err != nil {
			return r, err
		}
	}
	return r, r.parseQuery(query)
}

// checkMethod lets the methods through that read.
func checkMethod(method string) error {
	if method != "GET" && method != "HEAD" {
		return ErrUnsupported
	}
	return nil
}

// splitPath gives the decoded segments after /v2/; none for /v2 and /v2/.
func splitPath(escapedPath string) ([]string, error) {
	rest, ok := strings.CutPrefix(escapedPath, "/v2")
	if !ok || rest != "" && rest[0] != '/' {
		return nil, Errorf(ErrNameUnknown, "no such endpoint")
	}
	if rest == "" || rest == "/" {
		return nil, nil
	}
	segments := strings.Split(rest[1:], "/")
	for i, s := range segments {
		s, err := url.PathUnescape(s)
		if err != nil || s == "" || s == "." || s == ".." || strings.Contains(s, "/") {
			return nil, Errorf(ErrNameInvalid, "the path has a part that is empty, badly encoded, dots only, or holds an encoded slash")
		}
		segments[i] = s
	}
	return segments, nil
}

// endpoint finds out which endpoint the segments after /v2/ name. It reads
// from the end, because a repository may itself have a component called blobs
// or manifests. Kind is empty when it is none.
func endpoint(segments []string) (kind Kind, repository []string, target string) {
	n := len(segments)
	switch {
	case n == 0:
		return KindPing, nil, ""
	case n == 1 && segments[0] == "_catalog":
		return KindCatalog, nil, ""
	case n < 3:
		return "", nil, ""
	}
	repository, target = segments[:n-2], segments[n-1]
	switch segments[n-2] {
	case "manifests":
		return KindManifest, repository, target
	case "blobs":
		return KindBlob, repository, target
	case "referrers":
		return KindReferrers, repository, target
	case "tags":
		if target == "list" {
			return KindTags, repository, ""
		}
	}
	return "", nil, ""
}

// parseName works out r.Name from the path's repository segments and ?ns=.
func (r *Request) parseName(segments []string, query url.Values, defaultRegistry string) error {
	ns, err := namespace(query)
	if err != nil {
		return err
	}
	r.Namespaced = ns != ""
	if len(segments) > 2 && segments[0] == "f" && looksLikeRegistry(segments[1]) {
		inPath, err := normalRegistry(segments[1])
		if ns == "" && err != nil {
			return err
		}
		if ns == "" || err == nil && inPath == ns {
			r.Name, err = NewName(inPath, strings.Join(segments[2:], "/"))
			return err
		}
	}
	registry := ns
	if registry == "" {
		registry = defaultRegistry
	}
	if registry == "" {
		return Errorf(ErrNameInvalid, "no registry named: send ?ns=<registry>, or ask for /v2/f/<registry>/<repository>/…")
	}
	r.Name, err = NewName(registry, strings.Join(segments, "/"))
	return err
}

// namespace gives ?ns= normalised, or empty when it was not sent.
func namespace(query url.Values) (string, error) {
	values := query["ns"]
	if len(values) == 0 || len(values) == 1 && values[0] == "" {
		return "", nil
	}
	if len(values) > 1 {
		return "", Errorf(ErrNameInvalid, "ns was sent %d times: send it once", len(values))
	}
	return normalRegistry(values[0])
}

// parseTarget reads what follows manifests/, blobs/ or referrers/.
func (r *Request) parseTarget(target string) error {
	switch r.Kind {
	case KindManifest:
		r.Reference.Name = r.Name
		if !strings.Contains(target, ":") { // no tag has a colon
			if !validTag(target) {
				return errTag(target)
			}
			r.Reference.Tag = target
			return nil
		}
		dgst, err := ParseDigest(target)
		if err != nil {
			return Errorf(ErrManifestUnknown, "%s is neither a tag nor a sha256 or sha512 digest", quote(target))
		}
		r.Reference.Digest = dgst
	case KindBlob, KindReferrers:
		dgst, err := ParseDigest(target)
		if err != nil {
			return err
		}
		r.Digest = dgst
	}
	return nil
}

// parseQuery reads the parameters of the kinds that have some.
func (r *Request) parseQuery(query url.Values) error {
	switch r.Kind {
	case KindReferrers:
		r.ArtifactType = query.Get("artifactType")
		if len(r.ArtifactType) > maxArtifactType || !printable(r.ArtifactType) {
			r.ArtifactType = ""
			return Errorf(ErrPageInvalid, "artifactType is a media type of at most %d characters", maxArtifactType)
		}
	case KindTags, KindCatalog:
		r.Last = query.Get("last")
		if len(r.Last) > maxLast || !printable(r.Last) {
			r.Last = ""
			return Errorf(ErrPageInvalid, "last is a name of at most %d characters", maxLast)
		}
		if s := query.Get("n"); s != "" {
			n, err := strconv.ParseUint(s, 10, 64)
			if err != nil && !errors.Is(err, strconv.ErrRange) { // out of range: n is the largest number
				return Errorf(ErrPageInvalid, "n is a number from 0 up")
			}
			r.N = int(min(n, MaxPage))
		}
	}
	return nil
}

// printable reports whether s is plain ASCII without control characters.
func printable(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}
