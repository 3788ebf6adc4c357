package auth

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Subject is who asks, as rules name it.
type Subject struct {
	// Name has the kind or the provider before the first colon: "user:alice",
	// "cert:build-7", "kubernetes:system:serviceaccount:team-a:ci",
	// "github:repo:acme/app:ref:refs/heads/main". The one without a colon is
	// "anonymous".
	Name string
	// Groups are the provider's, each "group:<provider>:<group>".
	Groups []string
}

// The names that stand for more than one subject, or for none.
const (
	anonymous     = "anonymous"
	authenticated = "authenticated"
	everybody     = "*"
)

// Anonymous is the subject of a request without credentials.
func Anonymous() Subject { return Subject{Name: anonymous} }

// IsAnonymous reports whether nothing is known of the subject.
func (s Subject) IsAnonymous() bool { return s.Name == anonymous }

// subjectPattern matches subjects: a name as it is, "anonymous",
// "authenticated" (everybody but the anonymous), "*" (everybody), or a name
// with asterisks. One asterisk stands for any run of characters without ':'
// and '/', so that github:repo:acme/*:ref:refs/heads/main is about branches
// named main and nothing that merely ends so; two stand for any run at all.
type subjectPattern struct {
	literal string
	glob    *regexp.Regexp // when there is an asterisk
}

// maxPattern bounds a pattern in bytes.
const maxPattern = 512

func parseSubjectPattern(s string) (subjectPattern, error) {
	kind, _, named := strings.Cut(s, ":")
	switch {
	case s == "" || len(s) > maxPattern:
		return subjectPattern{}, fmt.Errorf("subject %.40q: write 1 to %d characters", s, maxPattern)
	case s == anonymous || s == authenticated || s == everybody:
		return subjectPattern{literal: s}, nil
	case !named:
		return subjectPattern{}, fmt.Errorf(`subject %q: write anonymous, authenticated, "*", or a kind and a name such as user:%s`, s, s)
	case strings.Contains(kind, "*"):
		return subjectPattern{}, fmt.Errorf("subject %q: the kind before the first colon is written out", s)
	case strings.Contains(s, "***"):
		return subjectPattern{}, fmt.Errorf("subject %q: one asterisk or two", s)
	case !strings.Contains(s, "*"):
		return subjectPattern{literal: s}, nil
	}
	expression := strings.ReplaceAll(regexp.QuoteMeta(s), `\*\*`, `(?s:.*)`)
	expression = strings.ReplaceAll(expression, `\*`, `[^:/]*`)
	glob, err := regexp.Compile(`^` + expression + `$`)
	if err != nil {
		return subjectPattern{}, fmt.Errorf("subject %q: %w", s, err)
	}
	return subjectPattern{glob: glob}, nil
}

// matches reports whether the pattern is about s, by its name or by a group.
func (p subjectPattern) matches(s Subject) bool {
	switch p.literal {
	case everybody:
		return true
	case anonymous:
		return s.IsAnonymous()
	case authenticated:
		return !s.IsAnonymous()
	}
	return p.matchesName(s.Name) || slices.ContainsFunc(s.Groups, p.matchesName)
}

func (p subjectPattern) matchesName(name string) bool {
	if p.glob != nil {
		return p.glob.MatchString(name)
	}
	return p.literal == name
}
