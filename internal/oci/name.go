package oci

import "github.com/opencontainers/go-digest"

// Name is a repository as containerd names it: the registry's namespace and
// the repository's path below it. Both parts are normalised by ParseName.
type Name struct {
	// Registry is the host as clients write it, lower case, with its port if
	// it has one: "docker.io", "127.0.0.1:5000", "[::1]:5000". Docker Hub's
	// other names are folded into "docker.io".
	Registry string
	// Repository is the path, at most 255 bytes: "library/nginx".
	Repository string
}

// String gives the path form, <registry>/<repository>.
func (n Name) String() string { return n.Registry + "/" + n.Repository }

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
