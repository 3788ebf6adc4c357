package upstream

import (
	"cmp"
	"path"
	"slices"
	"strings"
)

// bestKey picks from keys, the way Docker's configuration and credential
// plugins name what a credential is for, the one that fits a repository best:
// a host, perhaps with a port, a scheme and a path, its labels perhaps patterns
// ("*.example.com", as the kubelet reads them). A host spelt out goes before a
// pattern, a longer path before a shorter one. Empty if none fits.
func bestKey(keys []string, host, repository string) string {
	type fit struct {
		key   string
		exact bool
		depth int
	}
	var fits []fit
	for _, key := range keys {
		keyHost, keyPath := splitKey(key)
		if !matchHost(keyHost, host) || keyPath != "" && keyPath != repository && !strings.HasPrefix(repository, keyPath+"/") {
			continue
		}
		fits = append(fits, fit{key, keyHost == host, len(keyPath)})
	}
	if len(fits) == 0 {
		return ""
	}
	best := slices.MinFunc(fits, func(a, b fit) int {
		switch {
		case a.exact != b.exact && a.exact:
			return -1
		case a.exact != b.exact:
			return 1
		}
		return cmp.Or(cmp.Compare(b.depth, a.depth), cmp.Compare(a.key, b.key))
	})
	return best.key
}

// splitKey takes a key apart and spells Docker Hub's host as clients do. The
// paths /v1 and /v2 say nothing: they are of the API and not of a repository.
func splitKey(key string) (host, path string) {
	if _, rest, ok := strings.Cut(key, "://"); ok {
		key = rest
	}
	host, path, _ = strings.Cut(key, "/")
	host = strings.ToLower(host)
	if path = strings.Trim(path, "/"); path == "v1" || path == "v2" {
		path = ""
	}
	if !strings.ContainsAny(host, "*?[") || strings.HasPrefix(host, "[") {
		host = normalHost(host)
	}
	return host, path
}

// matchHost compares label by label; a pattern never spans a dot, and ports
// have to be the same.
func matchHost(pattern, host string) bool {
	if pattern == host {
		return true
	}
	if !strings.ContainsAny(pattern, "*?[") || strings.HasPrefix(host, "[") {
		return false
	}
	patternHost, hostHost := bareHost(pattern), bareHost(host)
	if pattern[len(patternHost):] != host[len(hostHost):] {
		return false
	}
	globs, labels := strings.Split(patternHost, "."), strings.Split(hostHost, ".")
	if len(globs) != len(labels) {
		return false
	}
	for i, glob := range globs {
		if ok, err := path.Match(glob, labels[i]); err != nil || !ok {
			return false
		}
	}
	return true
}
