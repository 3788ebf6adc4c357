package oci

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// Pattern names repositories by whole components: "team-a" is the repository of
// that name and all below it, never "team-abc"; a slash at the end adds nothing.
// An asterisk stands within one component: "team-*/public". "*" alone is every
// repository.
type Pattern string

// Match reports whether the pattern, one that Check has nothing against, means a
// repository.
func (p Pattern) Match(repository string) bool {
	if p == "*" {
		return true
	}
	for wanted := range strings.SplitSeq(strings.TrimSuffix(string(p), "/"), "/") {
		component, rest, _ := strings.Cut(repository, "/")
		if ok, err := path.Match(wanted, component); err != nil || !ok || component == "" {
			return false
		}
		repository = rest
	}
	return true
}

// Check says what is wrong with the pattern, if anything. It is a repository's
// name once each asterisk is a letter: any other could never match.
func (p Pattern) Check() error {
	name := strings.ReplaceAll(strings.TrimSuffix(string(p), "/"), "*", "x")
	switch {
	case strings.Contains(string(p), "**"):
		return fmt.Errorf("repository pattern %.80q: an asterisk stands within one component, and what is below is always meant", string(p))
	case p != "*" && checkRepository(name) != nil:
		return fmt.Errorf(`repository pattern %.80q: write components such as "team-a" or "team-*/app", or "*"`, string(p))
	}
	return nil
}

// CheckPatterns is Check for several, of which there has to be one.
func CheckPatterns(patterns []Pattern) error {
	if len(patterns) == 0 {
		return fmt.Errorf(`it names no repositories; "*" is every one`)
	}
	for _, p := range patterns {
		if err := p.Check(); err != nil {
			return err
		}
	}
	return nil
}

// MatchAny reports whether one of the patterns means a repository.
func MatchAny(patterns []Pattern, repository string) bool {
	return slices.ContainsFunc(patterns, func(p Pattern) bool { return p.Match(repository) })
}
