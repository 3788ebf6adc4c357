package nodeconfig

import (
	"bytes"
	"net/netip"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpproxy"
)

// environment is the proxy settings a runtime works with, and where they were
// seen.
type environment struct {
	source string
	proxy  httpproxy.Config
}

// set takes one variable, as Go's own client reads it.
func (e *environment) set(name, value string) {
	switch strings.ToUpper(name) {
	case "HTTP_PROXY":
		e.proxy.HTTPProxy = value
	case "HTTPS_PROXY":
		e.proxy.HTTPSProxy = value
	case "NO_PROXY":
		e.proxy.NoProxy = value
	}
}

// checkProxy finds out whether the runtime would send what is meant for the
// mirror to a proxy. A proxy's address may hold a password, so it is not told.
func (d *doctor) checkProxy() {
	mirror := d.mirror
	if !mirror.IsValid() {
		addr := d.cfg.Address
		if !addr.IsValid() {
			addr = netip.AddrFrom4([4]byte{127, 0, 0, 1})
		}
		mirror = netip.AddrPortFrom(addr, d.cfg.Port)
	}
	all := d.running()
	if len(all) == 0 {
		all = []environment{d.configured()}
	}
	for _, e := range all {
		u, err := e.proxy.ProxyFunc()(&url.URL{Scheme: "http", Host: mirror.String()})
		if err != nil || u != nil {
			d.say("proxy", Bad, "HTTP_PROXY is set ("+e.source+"), and NO_PROXY does not except "+mirror.Addr().String()+": what is meant for the mirror goes to the proxy", "add "+mirror.Addr().String()+" to NO_PROXY and restart the runtime, or use larder init --address loopback, which no proxy catches")
			return
		}
	}
	d.say("proxy", Good, "no proxy catches "+mirror.Addr().String()+" ("+all[0].source+")", "")
}

// programs are the processes that pull, by their names.
func (d *doctor) programs() []string {
	switch t := d.target.(type) {
	case *rancher:
		// Their containerd has the environment of the program it is part of.
		return []string{"containerd", t.name, t.name + "-server", t.name + "-agent"}
	case *crio:
		return []string{"crio"}
	case *docker:
		return []string{"dockerd"}
	default:
		return []string{"containerd"}
	}
}

// running reads the environment of the runtime's processes, as far as they can
// be seen from here.
func (d *doctor) running() []environment {
	ids, err := d.node.list("/proc")
	if err != nil {
		return nil
	}
	var all []environment
	for _, id := range ids {
		if _, err := strconv.Atoi(id); err != nil {
			continue
		}
		name, err := d.node.read(path.Join("/proc", id, "comm"))
		if err != nil || !slices.Contains(d.programs(), strings.TrimSpace(string(name))) {
			continue
		}
		raw, err := d.node.read(path.Join("/proc", id, "environ"))
		if err != nil || len(raw) == 0 {
			continue
		}
		e := environment{source: "the environment of " + strings.TrimSpace(string(name)) + ", process " + id}
		for variable := range bytes.SplitSeq(raw, []byte{0}) {
			if name, value, ok := strings.Cut(string(variable), "="); ok {
				e.set(name, value)
			}
		}
		all = append(all, e)
	}
	return all
}

// configured reads the environment the runtime is started with, from its unit
// and the files that names.
func (d *doctor) configured() environment {
	e := environment{source: "its unit sets none"}
	var unit string
	switch t := d.target.(type) {
	case *rancher:
		unit = t.unit()
		for _, name := range []string{"/etc/default/" + unit, "/etc/sysconfig/" + unit, "/etc/systemd/system/" + unit + ".service.env"} {
			e.file(d.node, name)
		}
	case *crio:
		unit = "crio"
	case *docker:
		unit = "docker"
	default:
		unit = "containerd"
	}
	for _, name := range d.node.unitFiles(unit + ".service") {
		content, err := d.node.read(name)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(content)) {
			key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
			switch strings.TrimSpace(key) {
			case "Environment":
				for _, variable := range unquoteUnit(value) {
					if name, value, ok := strings.Cut(variable, "="); ok {
						e.set(name, value)
					}
				}
				e.source = name
			case "EnvironmentFile":
				e.file(d.node, strings.TrimPrefix(strings.TrimSpace(value), "-"))
			}
		}
	}
	return e
}

// file reads a file of variables, one a line.
func (e *environment) file(n *Node, name string) {
	content, err := n.read(name)
	if err != nil || content == nil {
		return
	}
	for line := range strings.Lines(string(content)) {
		line = strings.TrimPrefix(strings.TrimSpace(line), "export ")
		if key, value, ok := strings.Cut(line, "="); ok && !strings.HasPrefix(line, "#") {
			e.set(key, strings.Trim(value, `"'`))
		}
	}
	e.source = name
}

// unquoteUnit splits what follows Environment= in a unit: words, each with or
// without quotes around it (systemd.exec(5)).
func unquoteUnit(value string) []string {
	var words []string
	var word strings.Builder
	quote, inside := rune(0), false
	for _, r := range value {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote == 0 && (r == '"' || r == '\''):
			quote, inside = r, true
		case quote == 0 && (r == ' ' || r == '\t'):
			if inside {
				words = append(words, word.String())
			}
			word.Reset()
			inside = false
		default:
			word.WriteRune(r)
			inside = true
		}
	}
	if inside {
		words = append(words, word.String())
	}
	return words
}
