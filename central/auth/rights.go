package auth

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/larder-registry/larder/internal/oci"
)

// Rule gives rights. Rules add up; there is no rule that takes a right away. One
// action does not include another: who pushes usually needs pull too, since
// clients look first.
type Rule struct {
	// Subjects are patterns; see [Subject] for what they are about. One
	// asterisk stands for any characters but ':' and '/', two for any.
	Subjects []string
	// Repositories are patterns, see [oci.Pattern]; "f/docker.io" is what is
	// pulled through from there.
	Repositories []string
	// Actions are oci.ActionPull, ActionPush and ActionDelete.
	Actions []oci.Action
}

// rule is a Rule made ready.
type rule struct {
	subjects     []subjectPattern
	repositories []oci.Pattern
	actions      []oci.Action
}

func parseRules(rules []Rule) ([]rule, error) {
	parsed := make([]rule, len(rules))
	for i, r := range rules {
		var err error
		if parsed[i], err = parseRule(r); err != nil {
			return nil, fmt.Errorf("read rule %d: %w", i+1, err)
		}
	}
	return parsed, nil
}

// CheckRule says what is wrong with r, if anything.
func CheckRule(r Rule) error {
	_, err := parseRule(r)
	return err
}

func parseRule(r Rule) (rule, error) {
	parsed := rule{actions: r.Actions}
	switch {
	case len(r.Subjects) == 0:
		return rule{}, fmt.Errorf("it is about no subjects")
	case len(r.Repositories) == 0:
		return rule{}, fmt.Errorf(`it is about no repositories; "*" is every one`)
	case len(r.Actions) == 0:
		return rule{}, fmt.Errorf("it gives no actions; write pull, push or delete")
	}
	for _, s := range r.Subjects {
		p, err := parseSubjectPattern(s)
		if err != nil {
			return rule{}, err
		}
		parsed.subjects = append(parsed.subjects, p)
	}
	for _, s := range r.Repositories {
		if err := checkPattern(oci.Pattern(s)); err != nil {
			return rule{}, err
		}
		parsed.repositories = append(parsed.repositories, oci.Pattern(s))
	}
	for _, action := range r.Actions {
		if !slices.Contains(actions(), action) {
			return rule{}, fmt.Errorf("action %.40q: write pull, push or delete", action)
		}
	}
	return parsed, nil
}

// actions are those a rule can give.
func actions() []oci.Action {
	return []oci.Action{oci.ActionPull, oci.ActionPush, oci.ActionDelete}
}

// checkPattern says what is wrong with a pattern, if anything: it means a
// repository of this registry's own, or the path form of another's.
func checkPattern(p oci.Pattern) error {
	name := strings.ReplaceAll(strings.TrimSuffix(string(p), "/"), "*", "x")
	if isForeign(name) && !strings.Contains(string(p), "**") {
		return nil
	}
	return p.Check()
}

// isRepository reports whether s can be a repository's name: one of this
// registry's own, or the path form of another's, "f/<registry>/…", which for a
// pattern may also end with the registry.
func isRepository(s string) bool {
	if isForeign(s) {
		return true
	}
	_, err := oci.NewName("localhost", s)
	return err == nil
}

// isForeign reports whether s is the path form of another registry's repository,
// or of the registry.
func isForeign(s string) bool {
	rest, ok := strings.CutPrefix(s, "f/")
	if !ok {
		return false
	}
	registry, repository, _ := strings.Cut(rest, "/")
	_, err := oci.NewName(registry, cmp.Or(repository, "x"))
	return err == nil
}

func (r *rule) allows(s Subject, action oci.Action, repository string) bool {
	return slices.Contains(r.actions, action) &&
		oci.MatchAny(r.repositories, repository) &&
		slices.ContainsFunc(r.subjects, func(p subjectPattern) bool { return p.matches(s) })
}

func (s *settings) allows(who Subject, action oci.Action, repository string) bool {
	return slices.ContainsFunc(s.rules, func(r rule) bool { return r.allows(who, action, repository) })
}

// entitled reports whether the subject may do action in the repository, as
// rules stand now. It fails when the reviewer has to be asked and cannot be.
func (a *Authority) entitled(ctx context.Context, s Subject, action oci.Action, repository string) (bool, error) {
	switch {
	case action == oci.ActionCatalog:
		return a.mayList(s), nil
	case action != oci.ActionPull && isForeign(repository):
		return false, nil // not by any rule: it is another registry's
	}
	if a.settings.Load().allows(s, action, repository) {
		return true, nil
	}
	if a.reviewer == nil || s.IsAnonymous() {
		return false, nil
	}
	ok, err := a.reviewer.Allowed(ctx, s, action, repository)
	if err != nil {
		return false, fmt.Errorf("review access: %w", err)
	}
	return ok, nil
}

// mayList reports whether the subject gets a list of repositories at all, which
// shows those it may pull: everybody who is known, and anonymous callers where
// some rule lets them pull something.
func (a *Authority) mayList(s Subject) bool {
	return !s.IsAnonymous() || slices.ContainsFunc(a.settings.Load().rules, func(r rule) bool {
		return slices.Contains(r.actions, oci.ActionPull) &&
			slices.ContainsFunc(r.subjects, func(p subjectPattern) bool { return p.matches(s) })
	})
}

// sees reports whether a list of all repositories shows this one to the
// subject: whether it may be pulled. A reviewer is asked about the first
// component only, so that a list of thousands costs few questions; what
// somebody may pull by a narrower right is pulled by name.
func (a *Authority) sees(ctx context.Context, s Subject, repository string) bool {
	if a.settings.Load().allows(s, oci.ActionPull, repository) {
		return true
	}
	if a.reviewer == nil || s.IsAnonymous() {
		return false
	}
	namespace, _, _ := strings.Cut(repository, "/")
	ok, err := a.reviewer.Allowed(ctx, s, oci.ActionPull, namespace)
	return err == nil && ok
}
