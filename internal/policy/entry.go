package policy

import (
	"fmt"
	"strings"

	"github.com/larder-registry/larder/internal/oci"
)

// entry is the image part of a rule, parsed and in one spelling.
type entry struct {
	// host is as canonicalHost gives it. With wild it stands for every host
	// that ends in a dot and host.
	host string
	wild bool
	// path is empty for all of a host. With below it stands for what lies
	// under it, else also for itself.
	path  string
	below bool
}

// text is the one spelling.
func (e entry) text() string {
	s := e.host
	if e.wild {
		s = "*." + s
	}
	if e.path != "" {
		s += "/" + e.path
	}
	if e.below {
		s += "/*"
	}
	return s
}

func (e entry) matches(host, path string) bool {
	if e.wild {
		if !strings.HasSuffix(host, e.host) || !strings.HasSuffix(strings.TrimSuffix(host, e.host), ".") {
			return false
		}
	} else if host != e.host {
		return false
	}
	if e.path == "" {
		return true
	}
	rest, ok := strings.CutPrefix(path, e.path)
	return ok && (rest == "" && !e.below || strings.HasPrefix(rest, "/"))
}

// segments is the entry's length: the host and each component of the path.
func (e entry) segments() int {
	if e.path == "" {
		return 1
	}
	return 2 + strings.Count(e.path, "/")
}

// labels orders hosts by how exact they are.
func (e entry) labels() int {
	if !e.wild {
		return 1 << 10 // more than any name has
	}
	return 1 + strings.Count(e.host, ".")
}

// same reports whether two entries speak of the same images, or differ only in
// whether the path itself is among them.
func (e entry) same(f entry) bool {
	return e.host == f.host && e.wild == f.wild && e.path == f.path
}

// mistake says what is wrong with an entry, and what to write instead: fix in
// words, or else what was probably meant.
type mistake struct {
	text, fix string
	meant     []string
}

// advice is the fix, in words. What was meant may have mistakes of its own; only
// what is an entry in the end is proposed.
func (m *mistake) advice(aliases map[string]string) string {
	entries := m.entries(aliases, 4)
	switch {
	case len(m.meant) == 0:
		return m.fix
	case len(entries) == 0:
		return `write a registry, with a path if you like: "ghcr.io/org"`
	}
	for i, e := range entries {
		entries[i] = fmt.Sprintf("%q", e)
	}
	return "did you mean " + strings.Join(entries, " or ") + "?"
}

// entries follows what was meant to entries, over so many mistakes.
func (m *mistake) entries(aliases map[string]string, steps int) (entries []string) {
	for _, meant := range m.meant {
		_, wrong := parseEntry(meant, aliases)
		if wrong == nil {
			entries = append(entries, meant)
		} else if steps > 0 {
			entries = append(entries, wrong.entries(aliases, steps-1)...)
		}
	}
	return entries
}

// parseEntry reads an entry. It accepts only what matches some image, and what
// means the same as an image name does: everything else comes back as a mistake
// with the entry that was probably meant.
func parseEntry(s string, aliases map[string]string) (e entry, wrong *mistake) {
	if wrong := misread(s); wrong != nil {
		return entry{}, wrong
	}
	trimmed, star := strings.CutSuffix(s, "/*")
	trimmed, slash := strings.CutSuffix(trimmed, "/")
	host, path, _ := strings.Cut(trimmed, "/")
	e = entry{path: path, below: (star || slash) && path != ""}
	host, e.wild = strings.CutPrefix(host, "*.")
	var err error
	if strings.ContainsAny(host+path, "*?[]") && !strings.HasPrefix(host, "[") {
		return entry{}, badStar(s)
	}
	if e.wild {
		e.host, wrong = wildHost(s, host)
	} else if e.host, err = canonicalHost(host, aliases); err != nil {
		wrong = &mistake{text: fmt.Sprintf("%q can never match: %v", s, err)}
	}
	if wrong != nil {
		return entry{}, wrong
	}
	if path == "" {
		return e, nil
	}
	if lower := strings.ToLower(path); lower != path {
		return entry{}, &mistake{text: fmt.Sprintf("%q can never match: repositories are in lower case", s), meant: []string{strings.Replace(s, path, lower, 1)}}
	}
	if _, err := oci.NewName("localhost", path); err != nil {
		return entry{}, &mistake{text: fmt.Sprintf("%q can never match: %v", s, clean(err))}
	}
	if e.host != dockerHub || strings.Contains(path, "/") {
		return e, nil
	}
	if path == "library" {
		e.below = true
	}
	if !e.below {
		return entry{}, &mistake{
			text:  fmt.Sprintf("%q is not what it looks like: as an image it is %s/library/%s", s, dockerHub, path),
			meant: []string{dockerHub + "/library/" + path, dockerHub + "/" + path + "/*"},
		}
	}
	return e, nil
}

// misread finds what is no entry at all, but something that looks like one.
func misread(s string) *mistake {
	bare := strings.TrimSpace(s)
	switch _, rest, scheme := strings.Cut(bare, "://"); {
	case bare == "":
		return &mistake{text: "the entry is empty", fix: `write a registry, with a path if you like: "ghcr.io/org"`}
	case bare == "*" || bare == "**" || bare == "*/*" || bare == "/":
		return &mistake{text: fmt.Sprintf("%q: an entry for every image is what default is for", s), fix: "write default: Allow or default: Deny"}
	case scheme:
		return &mistake{text: fmt.Sprintf("%q can never match: images are named without a scheme", s), meant: []string{rest}}
	case bare[0] == '/':
		return &mistake{text: fmt.Sprintf("%q can never match: it starts with a slash", s), meant: []string{strings.TrimLeft(bare, "/")}}
	case bare != s:
		return &mistake{text: fmt.Sprintf("%q can never match: it has a space", s), meant: []string{bare}}
	}
	if name, _, ok := strings.Cut(s, "@"); ok {
		return &mistake{text: fmt.Sprintf("%q: an entry is about a repository, not about one digest", s), meant: []string{spelledOut(untagged(name))}}
	}
	first, _, hasPath := strings.Cut(s, "/")
	if name := untagged(s); name != s && (hasPath || !isNumber(s[len(name)+1:])) && !strings.Contains(s[len(name):], "]") {
		return &mistake{text: fmt.Sprintf("%q: an entry is about a repository, not about one tag", s), meant: []string{spelledOut(name)}}
	}
	if !strings.ContainsAny(first, ".:[") && !strings.EqualFold(first, "localhost") {
		return &mistake{text: fmt.Sprintf("%q names no registry; as an image it is on Docker Hub", s), meant: []string{spelledOut(s)}}
	}
	return nil
}

// untagged cuts off a tag: what follows the last colon behind the last slash.
func untagged(s string) string {
	if i := strings.LastIndexByte(s, ':'); i > strings.LastIndexByte(s, '/') {
		return s[:i]
	}
	return s
}

// spelledOut gives a name as an image name is read: with Docker Hub in front
// where there is no registry.
func spelledOut(s string) string {
	lower := strings.ToLower(strings.TrimSuffix(s, "/"))
	if i, err := parseImage(lower, hubAliases()); err == nil {
		i.tag, i.dgst = "", ""
		return i.String()
	}
	if rest, ok := strings.CutSuffix(lower, "/*"); ok && !strings.ContainsAny(rest, "*/") {
		return dockerHub + "/" + lower
	}
	return strings.ToLower(s)
}

func isNumber(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }

// badStar explains wildcards to one who hoped for more.
func badStar(s string) *mistake {
	m := &mistake{text: fmt.Sprintf("%q: a * stands alone, at the end behind a slash or at the start before a dot", s)}
	if before := strings.TrimRight(strings.TrimRight(s, "*"), "/"); before != s && strings.Contains(before, "/") && !strings.ContainsAny(before, "*?") {
		m.meant = []string{before + "/*"}
	} else {
		m.fix = `write "ghcr.io/org/*" or "*.example.com"`
	}
	return m
}

// wildHost gives the one spelling of what follows *. in the entry s. As the end
// of a longer name it is no alias, and needs no dot.
func wildHost(s, host string) (string, *mistake) {
	host, err := canonicalHost("x."+host, nil)
	host = strings.TrimPrefix(host, "x.")
	switch {
	case err != nil:
		return "", &mistake{text: fmt.Sprintf("%q can never match: what stands behind the * is not the end of a host's name", s), fix: `write "*.example.com"; addresses have no wildcard`}
	case host == dockerHub:
		return "", &mistake{text: fmt.Sprintf("%q can never match: Docker Hub is %s by whatever name it is asked", s, dockerHub), meant: []string{dockerHub}}
	}
	return host, nil
}
