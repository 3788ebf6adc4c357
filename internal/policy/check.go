package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Problem is one thing that is wrong with a Config, or in a warning merely not
// what its writer may expect.
type Problem struct {
	// Path leads to it by the keys of a configuration file: "allow[2]",
	// "namespaces.team-a.deny[0].mode"; empty for all of it.
	Path string
	// Text says what is wrong; Fix, if any, what to write instead.
	Text, Fix string
	// Warning: the policy can be used all the same.
	Warning bool
}

// String gives "path: text; fix".
func (p Problem) String() string {
	s := p.Text
	if p.Path != "" {
		s = p.Path + ": " + s
	}
	if p.Fix != "" {
		s += "; " + p.Fix
	}
	return s
}

// Problems is what is wrong with a Config; the error of [New].
type Problems []Problem

// Error gives one line for each.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

func (ps Problems) mistakes() Problems {
	return slices.DeleteFunc(slices.Clone(ps), func(p Problem) bool { return p.Warning })
}

// Check tells everything that is wrong with cfg, warnings included; nothing if
// [New] takes it gladly.
func Check(cfg Config) Problems {
	_, problems := compile(cfg)
	return problems
}

// compiler makes a Policy and notes what stands against it.
type compiler struct {
	aliases  map[string]string
	problems Problems
}

func (c *compiler) note(path, text, fix string) {
	c.problems = append(c.problems, Problem{Path: path, Text: text, Fix: fix})
}

func compile(cfg Config) (*Policy, Problems) {
	c := &compiler{}
	c.aliases, c.problems = allAliases(cfg.Aliases)
	general := scope{
		action:        c.action("default", cfg.Default, Deny),
		mode:          c.mode("mode", cfg.Mode, Enforce),
		requireDigest: cfg.RequireDigest,
	}
	general.rules = c.rules("", general, cfg.Allow, cfg.Deny)
	if cfg.Default == "" && len(cfg.Allow) == 0 {
		c.note("", "no image could run: there is no default and nothing is allowed", "write default: Allow, or default: Deny if you mean it")
	}
	p := &Policy{aliases: c.aliases, general: general, namespaces: map[string]scope{}}
	for _, name := range sortedKeys(cfg.Namespaces) {
		p.namespaces[name] = c.namespace(name, cfg.Namespaces[name], general)
	}
	sortRules(p.general.rules)
	c.conflicts(p.general)
	return p, c.problems
}

// namespace puts a namespace's rules over the general ones.
func (c *compiler) namespace(name string, n Namespace, general scope) scope {
	path := "namespaces." + name
	if !isLabel(name) {
		c.note(path, fmt.Sprintf("%q can never match: it is not the name of a namespace", name), "write lower-case letters, digits and '-'; there are no patterns")
	}
	s := scope{
		name:          name,
		action:        c.action(join(path, "default"), n.Default, general.action),
		mode:          c.mode(join(path, "mode"), n.Mode, general.mode),
		requireDigest: general.requireDigest,
		ownAction:     n.Default != "",
		ownDigest:     n.RequireDigest != nil,
	}
	if n.RequireDigest != nil {
		s.requireDigest = *n.RequireDigest
	}
	s.rules = c.rules(path, s, n.Allow, n.Deny)
	own := s.rules
	for _, r := range general.rules {
		if slices.ContainsFunc(own, func(o rule) bool { return o.same(r.entry) && (r.below || !o.below) }) {
			continue
		}
		if !r.ownMode {
			r.mode = s.mode
		}
		if !r.ownDigest {
			r.requireDigest = s.requireDigest
		}
		s.rules = append(s.rules, r)
	}
	sortRules(s.rules)
	c.conflicts(s)
	return s
}

// rules parses both lists of one scope.
func (c *compiler) rules(path string, s scope, allow, deny []Rule) []rule {
	var rules []rule
	for i, r := range deny {
		at := join(path, "deny["+strconv.Itoa(i)+"]")
		if r.RequireDigest != nil {
			c.note(at+".require_digest", "what is denied is denied by digest too", "remove it")
		}
		rules = c.add(rules, at, s, r, Deny)
	}
	for i, r := range allow {
		at := join(path, "allow["+strconv.Itoa(i)+"]")
		rules = c.add(rules, at, s, r, Allow)
	}
	return rules
}

// add parses one entry and adds it to the rules of its scope.
func (c *compiler) add(rules []rule, at string, s scope, r Rule, action Action) []rule {
	e, wrong := parseEntry(r.Image, c.aliases)
	if wrong != nil {
		c.note(at, wrong.text, wrong.advice(c.aliases))
		return rules
	}
	if portless(e) {
		c.problems = append(c.problems, Problem{
			Path: at, Warning: true,
			Text: fmt.Sprintf("%q is the registry on port 443 only", r.Image),
			Fix:  fmt.Sprintf("name the port for another one: %q", e.host+":5000"),
		})
	}
	parsed := rule{
		entry: e, action: action, scope: s.name, at: at,
		bare: strings.TrimSuffix(strings.TrimPrefix(e.text(), "*."), "/*"),
		mode: c.mode(at+".mode", r.Mode, s.mode), ownMode: r.Mode != "",
		requireDigest: s.requireDigest, ownDigest: r.RequireDigest != nil,
	}
	if r.RequireDigest != nil {
		parsed.requireDigest = *r.RequireDigest
	}
	if action == Allow && parsed.ownMode && !parsed.requireDigest {
		c.note(at+".mode", "what is allowed is not denied, so the mode never counts", "remove it, or add require_digest: true")
	}
	first := slices.IndexFunc(rules, func(o rule) bool { return o.action == action && o.entry == e })
	switch {
	case first < 0:
		rules = append(rules, parsed)
	case parsed.ownMode || parsed.ownDigest || rules[first].ownMode || rules[first].ownDigest:
		c.note(at, fmt.Sprintf("%q is there twice, first as %s", r.Image, rules[first].at), "keep one of them")
	}
	return rules
}

// conflicts notes the allow entries written for a scope that a deny entry as
// long as they are leaves nothing of.
func (c *compiler) conflicts(s scope) {
	for _, a := range s.rules {
		if a.action != Allow || a.scope != s.name {
			continue
		}
		for _, d := range s.rules {
			if d.action == Deny && d.same(a.entry) && (a.below || !d.below) {
				c.note(a.at, fmt.Sprintf("%q can never allow anything: %s denies the same, and deny wins", a.text(), d.at), "remove one of them")
			}
		}
	}
}

// portless reports whether e names an address or localhost without a port.
// Registries there hardly ever listen on port 443.
func portless(e entry) bool {
	_, err := netip.ParseAddr(strings.Trim(e.host, "[]"))
	return !e.wild && (err == nil || e.host == "localhost")
}

func (c *compiler) action(path string, a, otherwise Action) Action {
	switch a {
	case "":
		return otherwise
	case Allow, Deny:
		return a
	}
	c.note(path, fmt.Sprintf("unknown value %q", a), "write Allow or Deny")
	return otherwise
}

func (c *compiler) mode(path string, m, otherwise Mode) Mode {
	switch m {
	case "":
		return otherwise
	case Enforce, Warn, Audit:
		return m
	}
	c.note(path, fmt.Sprintf("unknown value %q", m), "write enforce, warn or audit")
	return otherwise
}

// isLabel reports whether s can be a namespace's name (RFC 1123 label).
func isLabel(s string) bool {
	return s != "" && len(s) <= 63 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") == "" && s[0] != '-' && s[len(s)-1] != '-'
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}
