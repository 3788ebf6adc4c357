package policy

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// scope is a policy as it is for one namespace, or for those without rules of
// their own.
type scope struct {
	name          string // empty for the general one
	action        Action
	mode          Mode
	requireDigest bool
	// ownAction and ownDigest: the namespace says so itself.
	ownAction, ownDigest bool
	// rules are in the order in which they decide: the first that matches.
	rules []rule
}

// rule is an entry of one of the lists.
type rule struct {
	entry
	action        Action
	mode          Mode
	requireDigest bool
	// ownMode and ownDigest: the entry says so itself, and does not follow its
	// scope.
	ownMode, ownDigest bool
	// scope is the namespace it was written for; empty for a general one.
	scope string
	// bare is the entry without its wildcards, for nearest.
	bare string
	// at is where it was written, as Problem.Path has it.
	at string
}

// sortRules brings rules into the order in which they decide. More path
// segments go first, then an exact host before a wildcard, then the wildcard
// with more labels, then deny before allow.
func sortRules(rules []rule) {
	slices.SortStableFunc(rules, func(a, b rule) int {
		return cmp.Or(
			-cmp.Compare(a.segments(), b.segments()),
			-cmp.Compare(a.labels(), b.labels()),
			-cmp.Compare(a.action, b.action), // "Deny" before "Allow"
			cmp.Compare(a.text(), b.text()),
		)
	})
}

// String is the Verdict's Rule for an image this rule decides.
func (r rule) String() string {
	s := strings.ToLower(string(r.action)) + " " + r.text()
	if r.scope != "" {
		s += " in namespace " + r.scope
	}
	return s
}

// decide is the policy itself.
func (s scope) decide(i image) Verdict {
	v := Verdict{Mode: s.mode, Normalized: i.String()}
	needsDigest := s.requireDigest
	at := slices.IndexFunc(s.rules, func(r rule) bool { return r.matches(i.host, i.path) })
	switch {
	case at >= 0 && s.rules[at].action == Deny:
		r := s.rules[at]
		v.Mode, v.Rule, v.Reason = r.mode, r.String(), fmt.Sprintf("denied by the entry %q", r.text())
		return v
	case at >= 0:
		r := s.rules[at]
		v.Mode, v.Rule, v.Reason = r.mode, r.String(), fmt.Sprintf("allowed by the entry %q", r.text())
		needsDigest = r.requireDigest
	case s.action == Deny:
		v.Rule, v.Reason = s.inScope("default Deny", s.ownAction), "denied by default: no entry allows it"
		if v.Nearest = s.nearest(i.host + "/" + i.path); v.Nearest != "" {
			v.Reason += fmt.Sprintf("; the nearest that is allowed is %q", v.Nearest)
		}
		return v
	default:
		v.Rule, v.Reason = s.inScope("default Allow", s.ownAction), "allowed by default: no entry denies it"
	}
	if needsDigest && i.dgst == "" && i.tag != "" {
		v.Rule, v.Reason = s.inScope("require_digest", s.ownDigest), fmt.Sprintf("a tag may change: name the image by digest, %s/%s@sha256:…", i.host, i.path)
		return v
	}
	v.Allowed = true
	return v
}

// invalid is the verdict on what is not an image reference. The parser's errors
// repeat some of what they were given, which may be anything.
func (s scope) invalid(err error) Verdict {
	const most = 200
	text := strings.Map(func(r rune) rune {
		if !strconv.IsPrint(r) {
			return '?'
		}
		return r
	}, err.Error())
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "…"
	}
	return Verdict{Mode: s.mode, Rule: "invalid", Reason: "not a valid image reference: " + text}
}

func (s scope) inScope(what string, own bool) string {
	if own {
		what += " in namespace " + s.name
	}
	return what
}

// nearest is the allow entry that shares most of its beginning and end with
// name, and at least half of itself. It is what a writer of "quay.io/x/app" is
// shown who should have written "quay.io/y/app", or another registry.
func (s scope) nearest(name string) string {
	best, most := "", 0
	for _, r := range s.rules {
		if r.action != Allow {
			continue
		}
		shared := sharedPrefix(r.bare, name)
		shared += sharedSuffix(r.bare[shared:], name[shared:])
		if 2*shared >= len(r.bare) && shared > most {
			best, most = r.text(), shared
		}
	}
	return best
}

func sharedPrefix(a, b string) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}

func sharedSuffix(a, b string) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[len(a)-1-i] != b[len(b)-1-i] {
			return i
		}
	}
	return n
}

// texts lists the entries of one list, in their one spelling.
func (s scope) texts(action Action) []string {
	texts := []string{}
	for _, r := range s.rules {
		if r.action == action {
			texts = append(texts, r.text())
		}
	}
	slices.Sort(texts)
	return texts
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
