package oci

import (
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
)

// Name is a repository as containerd names it: the registry's namespace and
// the repository's path below it. Both parts are normalised by ParseName.
type Name struct {
	// Registry is the host as clients write it, lower case, with its port if
	// it has one: "docker.io", "127.0.0.1:5000", "[::1]:5000". Docker Hub's
	// other names are folded into "docker.io". Empty for a repository of the
	// registry itself, see [Own].
	Registry string
	// Repository is the path, at most 255 bytes: "library/nginx".
	Repository string
}

// String gives the path form, <registry>/<repository>, or the repository alone
// when it is the registry's own.
func (n Name) String() string {
	if n.Registry == "" {
		return n.Repository
	}
	return n.Registry + "/" + n.Repository
}

// Reference names one image manifest in a repository: by Digest when it is
// set, else by Tag. Exactly one of the two is set.
type Reference struct {
	Name
	Tag    string
	Digest digest.Digest
}

// String gives <registry>/<repository>:<tag> or …@<digest>.
func (r Reference) String() string {
	if r.Digest != "" {
		return r.Name.String() + "@" + r.Digest.String()
	}
	return r.Name.String() + ":" + r.Tag
}

// Target gives the tag or the digest, as it stands in a request's path.
func (r Reference) Target() string {
	if r.Digest != "" {
		return r.Digest.String()
	}
	return r.Tag
}

// maxRepository bounds a repository's path in bytes. The distribution spec
// (section "Pulling manifests") leaves the bound open and notes that many
// clients stop at 255 for host and path; Docker's grammar bounds the path
// alone, and so do we.
const maxRepository = 255

// ParseName takes <registry>/<repository> apart, the form Name.String gives.
// The registry is always spelled out: "nginx" is not a Name (ParseReference
// knows Docker's short forms). It fails with ErrNameInvalid.
func ParseName(s string) (Name, error) {
	registry, repository, ok := strings.Cut(s, "/")
	if !ok {
		return Name{}, Errorf(ErrNameInvalid, "%s is not <registry>/<repository>", quote(s))
	}
	return NewName(registry, repository)
}

// NewName makes a Name of its two parts and normalises them: the registry in
// lower case, Docker Hub's other names as docker.io, and a Docker Hub
// repository of one component under library/. It fails with ErrNameInvalid
// when either part is beyond the grammar; the message says what to write
// instead.
func NewName(registry, repository string) (Name, error) {
	registry, err := normalRegistry(registry)
	if err != nil {
		return Name{}, err
	}
	if registry == dockerHub && repository != "" && !strings.Contains(repository, "/") {
		repository = "library/" + repository
	}
	if err := checkRepository(repository); err != nil {
		return Name{}, err
	}
	return Name{Registry: registry, Repository: repository}, nil
}

// checkRepository holds a repository's path to the distribution spec's grammar:
// components of [a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*, joined by slashes.
func checkRepository(repository string) error {
	if len(repository) > maxRepository {
		return Errorf(ErrNameInvalid, "repository name is longer than %d bytes", maxRepository)
	}
	for component := range strings.SplitSeq(repository, "/") {
		if !validComponent(component) {
			return Errorf(ErrNameInvalid,
				"repository name %s: each part between slashes is lower-case letters and digits, with single '.', '_', '__' or '-' inside",
				quote(repository))
		}
	}
	return nil
}

// validComponent reports whether s is one component of a repository's path.
func validComponent(s string) bool {
	if s == "" || !isAlphanumeric(s[0]) || !isAlphanumeric(s[len(s)-1]) {
		return false
	}
	for i := 0; i < len(s); {
		if isAlphanumeric(s[i]) {
			i++
			continue
		}
		start := i
		for !isAlphanumeric(s[i]) { // ends: the last byte is alphanumeric
			i++
		}
		separator := s[start:i]
		if separator != "." && separator != "_" && separator != "__" && strings.Trim(separator, "-") != "" {
			return false
		}
	}
	return true
}

func isAlphanumeric(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= '0' && c <= '9'
}

// quote shows input in an error text: escaped, and cut so that a hostile
// request cannot fill a log.
func quote(s string) string {
	const most = 128
	if len(s) > most {
		return strconv.Quote(s[:most]) + "…"
	}
	return strconv.Quote(s)
}
