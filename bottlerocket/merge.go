package bottlerocket

import "slices"

// Wildcard is the entry for all registries that have none of their own.
const Wildcard = "*"

// With returns the entries with endpoints added, before those that are there,
// for the wildcard and for each of registries. What is there stays as it is.
func (r Registry) With(endpoints, registries []string) []Mirror {
	mirrors := slices.Clone(r.Mirrors)
	for _, registry := range append([]string{Wildcard}, registries...) {
		i := slices.IndexFunc(mirrors, func(m Mirror) bool { return m.Registry == registry })
		if i < 0 {
			mirrors = append(mirrors, Mirror{Registry: registry})
			i = len(mirrors) - 1
		}
		there := mirrors[i].Endpoints
		missing := slices.DeleteFunc(slices.Clone(endpoints), func(e string) bool { return slices.Contains(there, e) })
		mirrors[i].Endpoints = slices.Concat(missing, there)
	}
	return mirrors
}

// Without returns the entries without endpoints. An entry that loses its last
// endpoint, and says nothing else, goes.
func (r Registry) Without(endpoints []string) []Mirror {
	var mirrors []Mirror
	for _, m := range r.Mirrors {
		before := len(m.Endpoints)
		m.Endpoints = slices.DeleteFunc(slices.Clone(m.Endpoints), func(e string) bool { return slices.Contains(endpoints, e) })
		if before > 0 && len(m.Endpoints) == 0 && len(m.rest) == 0 {
			continue
		}
		mirrors = append(mirrors, m)
	}
	return mirrors
}

// Hidden names the registries that the wildcard does not reach: those with an
// entry of their own, and those with credentials, for which Bottlerocket makes
// a directory that hides the wildcard's. Docker Hub's credentials are under
// another name and hide nothing. Registries whose entry has endpoint are not
// named.
func (r Registry) Hidden(endpoint string) (entries, credentials []string) {
	own := map[string]bool{}
	for _, m := range r.Mirrors {
		own[m.Registry] = true
		if m.Registry != Wildcard && !slices.Contains(m.Endpoints, endpoint) {
			entries = append(entries, m.Registry)
		}
	}
	for _, registry := range r.Credentials {
		if !own[registry] && registry != "docker.io" && !slices.Contains(credentials, registry) {
			credentials = append(credentials, registry)
		}
	}
	return entries, credentials
}

// Before names the endpoints that Bottlerocket has asked before endpoint, in
// the entries that have it: it sorts them by the alphabet.
func (r Registry) Before(endpoint string) []string {
	var before []string
	for _, m := range r.Mirrors {
		if !slices.Contains(m.Endpoints, endpoint) {
			continue
		}
		for _, other := range m.Endpoints {
			if other < endpoint && !slices.Contains(before, other) {
				before = append(before, other)
			}
		}
	}
	slices.Sort(before)
	return before
}
