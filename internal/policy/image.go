package policy

import (
	"errors"
	"maps"
	"strings"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/internal/oci"
)

// dockerHub is the one name by which Docker Hub is decided.
const dockerHub = "docker.io"

// hubAliases are the names of Docker Hub's servers. containerd really contacts
// the last two where an image names them, and gets Docker Hub's content.
func hubAliases() map[string]string {
	return map[string]string{
		"index.docker.io":         dockerHub,
		"registry-1.docker.io":    dockerHub,
		"registry.hub.docker.com": dockerHub,
	}
}

// image is an image reference in the one spelling that is decided on.
type image struct {
	host string // lower case, no alias; with its port unless that is 443
	path string
	tag  string // empty where there is a digest: containerd drops it then
	dgst digest.Digest
}

// String gives host/path:tag or host/path@digest, which parseImage reads back
// to the same image.
func (i image) String() string {
	s := i.host + "/" + i.path
	if i.dgst != "" {
		return s + "@" + i.dgst.String()
	}
	if i.tag != "" {
		s += ":" + i.tag
	}
	return s
}

// Why an image is refused whatever the entries say, when it is not the parser's
// doing.
var (
	errNoHost  = errors.New("the part before the first slash is no host, and cannot be a repository")
	errLocalID = errors.New("an image ID stands for whatever the node holds; write repository@sha256:…")
)

// parseImage reads what a container's image field holds, with the parser that
// the kubelet and containerd use, and brings it into the one spelling. It fails
// where the kubelet would, and where an image could be taken for two things.
func parseImage(raw string, aliases map[string]string) (image, error) {
	if isLocalID(raw) {
		return image{}, errLocalID
	}
	named, err := reference.ParseNormalizedNamed(raw)
	if err != nil {
		return image{}, err
	}
	host, path := reference.Domain(named), reference.Path(named)
	if host == "" {
		return image{}, errNoHost
	}
	i, err := canonical(host, path, aliases)
	if err != nil {
		return image{}, err
	}
	if d, ok := named.(reference.Digested); ok {
		i.dgst = d.Digest()
	} else if t, ok := reference.TagNameOnly(named).(reference.Tagged); ok {
		i.tag = t.Tag()
	}
	return i, nil
}

// isLocalID reports whether containerd would take raw for the ID of an image
// that is on the node. It does so when no image of that name is there: the
// tag of a repository called like a digest's algorithm is then looked up among
// the IDs, and the beginning of one is enough (digestset.Lookup, by way of
// CRIImageService.LocalResolve). What starts with a host is never looked up.
func isLocalID(raw string) bool {
	algorithm, _, ok := strings.Cut(raw, ":")
	return ok && (algorithm == "sha256" || algorithm == "sha384" || algorithm == "sha512")
}

// canonical brings host and path into the one spelling.
func canonical(host, path string, aliases map[string]string) (image, error) {
	host, err := canonicalHost(host, aliases)
	if err != nil {
		return image{}, err
	}
	if host == dockerHub && !strings.Contains(path, "/") {
		path = "library/" + path
	}
	if _, err := oci.NewName("localhost", path); err != nil {
		return image{}, clean(err)
	}
	return image{host: host, path: path}, nil
}

// canonicalHost gives the one spelling of a registry: lower case, IPv6 as RFC
// 5952 writes it, no port 443, no alias. Port 443 stays where the host would be
// taken for a part of a repository without it.
func canonicalHost(host string, aliases map[string]string) (string, error) {
	if !strings.ContainsAny(host, ".:[") && !strings.EqualFold(host, "localhost") {
		host += ":443"
	}
	name, err := oci.NewName(host, "x")
	if err != nil {
		return "", clean(err)
	}
	host = name.Registry
	if bare, ok := strings.CutSuffix(host, ":443"); ok && (strings.ContainsAny(bare, ".[") || bare == "localhost") {
		host = bare
	}
	if target, ok := aliases[host]; ok {
		return target, nil
	}
	return host, nil
}

// clean takes the distribution spec's code off an error's text.
func clean(err error) error {
	if e, ok := errors.AsType[*oci.Error](err); ok {
		return errors.New(e.Message)
	}
	return err
}

// allAliases adds the built-in aliases to those of a configuration. What is
// wrong with the latter is said by problems.
func allAliases(own map[string]string) (all map[string]string, problems Problems) {
	all = hubAliases()
	note := func(alias, text, fix string) {
		problems = append(problems, Problem{Path: join("aliases", alias), Text: text, Fix: fix})
	}
	added := map[string]string{}
	for _, alias := range sortedKeys(own) {
		name := own[alias]
		from, err := canonicalHost(alias, nil)
		if err != nil || strings.Contains(alias, "/") {
			note(alias, "not the name of a registry", "write a host with its port, if it has one: mirror.example:5000")
			continue
		}
		to, err := canonicalHost(name, all)
		if err != nil || strings.Contains(name, "/") {
			note(alias, "what it stands for is not the name of a registry", "write a host: docker.io")
			continue
		}
		if from == to || from == dockerHub {
			note(alias, "a registry's name cannot be its own alias", "remove it")
			continue
		}
		added[from] = to
	}
	for _, from := range sortedKeys(added) {
		if _, chain := added[added[from]]; chain {
			note(from, "it stands for another alias", "write the name of the registry itself")
		}
	}
	maps.Copy(all, added)
	return all, problems
}
