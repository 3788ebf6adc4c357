package policy

import (
	"fmt"
	"strconv"
	"strings"
)

// This file writes in CEL what image.go and scope.go say in Go. CEL has no
// functions to define and no loops but over lists, so an image goes through a
// row of map steps, each of which adds a few strings to what is known of it. A
// decision is the first of the sorted rules whose host is the end of the
// image's, "/" in front, and whose path is the beginning of the image's, "/" on
// both sides: "/ghcr.io" ends in "/ghcr.io" and in "", "/a.example.com" in
// ".example.com"; "/org/app/" begins with "/org/". What is no image has the host
// "!", for which each scope has a rule.

// hostPattern and its relatives are the grammar of distribution/reference, for
// what image.go leaves of it, in RE2.
const (
	componentPattern = `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
	pathPattern      = `^` + componentPattern + `(/` + componentPattern + `)*$`
	tailPattern      = `^(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(@(sha256:[a-f0-9]{64}|sha384:[a-f0-9]{96}|sha512:[a-f0-9]{128}))?$`
	labelPattern     = `[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?`
	hostPattern      = `^` + labelPattern + `(\.` + labelPattern + `)*$`
	numericPattern   = `(^|\.)([0-9]*|0x[0-9a-f]*)$`
	octetPattern     = `(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])`
	ipv4Pattern      = `^(` + octetPattern + `\.){3}` + octetPattern + `$`
	localIDPattern   = `^(sha256:|sha384:|sha512:|[a-f0-9]{64}$)`
)

// messageExpression names what is denied: all of it, or, where the API server
// would cut the text off (5 KiB), the first.
const messageExpression = `
variables.denied.map(d, d.text).join('; ').size() < 4000
  ? variables.denied.map(d, d.text).join('; ')
  : variables.denied[0].text + ' (and ' + string(variables.denied.size() - 1) + ' more)'`

// variables are the policy as named expressions; the last, denied, lists the
// images whose denial has one of modes.
func (p *Policy) variables(modes []Mode) []variable {
	var vs []variable
	add := func(name, expression string) { vs = append(vs, variable{name, strings.Trim(expression, "\n")}) }
	add("images", imagesOf("variables.spec"))
	add("before", "request.operation == 'UPDATE' ? (\n"+imagesOf("variables.oldspec")+"\n) : []")
	// Only what is new is judged, and only what is judged is taken apart.
	add("asked", "variables.images.filter(i, i != '' && !(i in variables.before))")
	add("aliases", p.aliasesCEL())
	for _, step := range normalise("asked", "key") {
		add(step.name, step.expression)
	}
	for _, step := range normalise("before", "oldkey") {
		add(step.name, step.expression)
	}
	scopes := "variables.rules_general"
	add("rules_general", p.general.rulesCEL())
	for i, name := range sortedKeys(p.namespaces) {
		own := "rules_" + strconv.Itoa(i)
		add(own, p.namespaces[name].rulesCEL())
		scopes = fmt.Sprintf("request.namespace == %s ? variables.%s :\n%s", quoteCEL(name), own, scopes)
	}
	add("rules", scopes)
	add("judged", `
variables.key.map(k, [variables.rules.filter(r, k.host.endsWith(r.host) && k.path.startsWith(r.path) && k.path != r.but)[0]].map(r, {
  'name': k.name,
  'mode': r.deny != '' ? r.deny : (k.digest == '' ? r.tag : ''),
  'text': k.raw + (k.name == '' || k.name == k.raw ? '' : ' (' + k.name + ')') + ': ' + (r.deny != '' ? r.why : 'a tag may change, name the image by digest')
})[0])`)
	quoted := make([]string, len(modes))
	for i, m := range modes {
		quoted[i] = quoteCEL(string(m))
	}
	add("denied", `
variables.judged.filter(j, j.mode in [`+strings.Join(quoted, ", ")+`])
  .filter(j, j.name == '' || !variables.oldkey.exists(o, o.name == j.name))`)
	return vs
}

// imagesOf lists the images of a pod's spec.
func imagesOf(spec string) string {
	return spec + `.?initContainers.orValue([]).map(c, string(c.?image.orValue(''))) +
` + spec + `.?containers.orValue([]).map(c, string(c.?image.orValue(''))) +
` + spec + `.?ephemeralContainers.orValue([]).map(c, string(c.?image.orValue(''))) +
` + spec + `.?volumes.orValue([]).filter(v, has(v.image)).map(v, string(v.image.?reference.orValue('')))`
}

// normalise brings the images of the variable from into the one spelling, in
// steps; the last is called to.
func normalise(from, to string) []variable {
	in := func(i int) string { return "variables." + to + strconv.Itoa(i) }
	// Each step is a variable of its own: the API server bounds what one
	// expression may cost.
	return []variable{
		// The name ends where a tag or a digest begins. An API server takes a
		// map only if its values are of one type, and what an object holds
		// has none until it is said.
		{to + "1", `variables.` + from + `.map(i, string(i)).map(i, {'raw': i, 'rest': i.split('@')[0]}).map(i, {
  'raw': i.raw,
  'name': i.rest.lastIndexOf(':') > i.rest.lastIndexOf('/') ? i.rest.substring(0, i.rest.lastIndexOf(':')) : i.rest
})`},
		// It begins with a host if that looks like one.
		{to + "2", in(1) + `.map(i, {
  'raw': i.raw,
  'name': i.name,
  'tail': i.raw.substring(i.name.size()),
  'head': i.name.contains('/') ? i.name.substring(0, i.name.indexOf('/')) : ''
}).map(i, {
  'raw': i.raw,
  'tail': i.tail,
  'host': i.head == 'localhost' || i.head.matches('[.:A-Z]') ? i.head.lowerAscii() : 'docker.io',
  'path': i.head == 'localhost' || i.head.matches('[.:A-Z]') ? i.name.substring(i.head.size() + 1) : i.name
})`},
		{to + "3", in(2) + `.map(i, {
  'raw': i.raw,
  'tail': i.tail,
  'path': i.path,
  'base': i.host.lastIndexOf(':') > i.host.lastIndexOf(']') ? i.host.substring(0, i.host.lastIndexOf(':')) : i.host,
  'port': i.host.lastIndexOf(':') > i.host.lastIndexOf(']') ? i.host.substring(i.host.lastIndexOf(':')) : ''
})`},
		{to + "4", in(3) + `.map(i, {
  'raw': i.raw,
  'tail': i.tail,
  'path': i.path,
  'host':
    i.raw.matches(` + quoteCEL(localIDPattern) + `) ||
    !i.tail.matches(` + quoteCEL(tailPattern) + `) ||
    !i.path.matches(` + quoteCEL(pathPattern) + `) ||
    !i.port.matches('^(:[1-9][0-9]{0,4})?$') ||
    (i.port != '' && int(i.port.substring(1)) > 65535) ||
    (i.base.startsWith('[')
      ? !i.base.matches('^\\[[0-9a-f:]+\\]$') || !isIP(i.base.substring(1, i.base.size() - 1))
      : i.base.size() > 253 || !i.base.matches(` + quoteCEL(hostPattern) + `) || (i.base.matches(` + quoteCEL(numericPattern) + `) && !i.base.matches(` + quoteCEL(ipv4Pattern) + `)))
    ? '!'
    : i.base.startsWith('[')
    ? '[' + string(ip(i.base.substring(1, i.base.size() - 1))) + ']' + (i.port == ':443' ? '' : i.port)
    : i.base.contains('.') || i.base == 'localhost'
    ? i.base + (i.port == ':443' ? '' : i.port)
    : i.base + (i.port == '' ? ':443' : i.port)
})`},
		{to + "5", in(4) + `.map(i, {
  'raw': i.raw,
  'tail': i.tail,
  'path': i.path,
  'host': i.host in variables.aliases ? variables.aliases[i.host] : i.host
}).map(i, {
  'raw': i.raw,
  'tail': i.tail,
  'host': i.host,
  'path': i.host == 'docker.io' && !i.path.contains('/') ? 'library/' + i.path : i.path
})`},
		{to, in(5) + `.map(i, {
  'raw': i.raw,
  'host': i.host == '!' || i.path.size() > 255 ? '!' : '/' + i.host,
  'path': '/' + i.path + '/',
  'digest': i.tail.contains('@') ? 'yes' : '',
  'name': i.host == '!' || i.path.size() > 255 ? '' : i.host + '/' + i.path + (i.tail == '' ? ':latest' : i.tail.contains('@') ? i.tail.substring(i.tail.indexOf('@')) : i.tail)
})`},
	}
}

// aliasesCEL is the table of aliases.
func (p *Policy) aliasesCEL() string {
	var b strings.Builder
	b.WriteString("{\n")
	for _, alias := range sortedKeys(p.aliases) {
		fmt.Fprintf(&b, "  %s: %s,\n", quoteCEL(alias), quoteCEL(p.aliases[alias]))
	}
	b.WriteString("}")
	return b.String()
}

// rulesCEL lists the scope's rules as they decide, and behind them the default.
// deny is the mode of a denial, tag that of a denial for want of a digest; each
// is empty where there is none.
func (s scope) rulesCEL() string {
	var b strings.Builder
	add := func(host, path, but, deny, tag, why string) {
		fmt.Fprintf(&b, "  {'host': %s, 'path': %s, 'but': %s, 'deny': %s, 'tag': %s, 'why': %s},\n",
			quoteCEL(host), quoteCEL(path), quoteCEL(but), quoteCEL(deny), quoteCEL(tag), quoteCEL(why))
	}
	modeIf := func(m Mode, is bool) string {
		if is {
			return string(m)
		}
		return ""
	}
	add("!", "", "", string(s.mode), "", "not a valid image reference")
	for _, r := range s.rules {
		host, path, but := "/"+r.host, "", ""
		if r.wild {
			host = "." + r.host
		}
		if r.path != "" {
			path = "/" + r.path + "/"
		}
		if r.below {
			but = path
		}
		why := ""
		if r.action == Deny {
			why = fmt.Sprintf("denied by the entry %q", r.text())
		}
		add(host, path, but, modeIf(r.mode, r.action == Deny), modeIf(r.mode, r.action == Allow && r.requireDigest), why)
	}
	add("", "", "", modeIf(s.mode, s.action == Deny), modeIf(s.mode, s.action == Allow && s.requireDigest), "denied by default: no entry allows it")
	return "[\n" + b.String() + "]"
}

// quoteCEL writes s as a CEL string.
func quoteCEL(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'"
}
