package nodeconfig

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
)

// mark is the first line of every file that is ours from its first byte.
const mark = "# Written by larder init; 'larder init --undo' takes it back.\n"

// errForeign is a hosts.toml of somebody else that the mirror cannot be put into.
var errForeign = errors.New("it is not ours and stays as it is, so these pulls do not go through the mirror")

// defaultDir holds what applies to registries without a directory of their own.
const defaultDir = "_default"

// hostsOptions is what the runtime's version decides about hosts.toml.
type hostsOptions struct {
	// dialTimeout may be written: containerd knows it since 2.1. (2.0.7 to
	// 2.0.11 know it, too, but then try TLS first.)
	dialTimeout bool
}

// planHosts plans the hosts.toml files that make containerd ask the mirror, then
// the fallbacks, then the registry itself. roots are the directories of
// config_path, in the order in which containerd looks into them; for each
// registry the first directory found counts, and in every root _default is
// found. So a _default in an earlier root hides everything in later ones.
//
// Registries with a directory of their own are hidden from the default: those in
// cfg.Registries get the mirror there, beside what their directory has; the
// others are warned of.
func (n *Node) planHosts(roots []string, cfg Config, o hostsOptions) ([]Change, error) {
	own, err := n.ownDirs(roots)
	if err != nil {
		return nil, err
	}
	place := n.defaultRoot(roots, own)
	c, err := n.planHostsFile(path.Join(roots[place], defaultDir), cfg, o, "every registry without a directory of its own is asked for at the mirror first")
	if err != nil {
		return nil, err
	}
	var changes []Change
	for _, d := range own {
		if d.root > place {
			changes = append(changes, warning(path.Join(roots[d.root], d.name), "containerd does not get to it, since it finds "+path.Join(roots[place], defaultDir)+" first"))
			continue
		}
		dir := path.Join(roots[d.root], d.name)
		named := slices.Contains(cfg.Registries, d.registry())
		mirrored, err := n.mirrored(dir, cfg)
		if err != nil {
			return nil, err
		}
		if !named && !mirrored {
			changes = append(changes, warning(dir, fmt.Sprintf("it hides the mirror from pulls of %s: to have them mirrored, add --registry %s", d.registry(), d.registry())))
			continue
		}
		c, err := n.planHostsFile(dir, cfg, o, d.registry()+" has a directory of its own, which hides the default")
		switch {
		case errors.Is(err, errForeign):
			changes = append(changes, warning(dir, err.Error()))
		case err != nil:
			return nil, err
		}
		changes = append(changes, c...)
	}
	return append(changes, c...), nil
}

// ownDir is a registry's own directory.
type ownDir struct {
	root int // which of the roots it is found in first
	name string
}

// registry is whose directory it is: "reg_5000_" is reg:5000's.
func (d ownDir) registry() string {
	name, ok := strings.CutSuffix(d.name, "_")
	if i := strings.LastIndexByte(name, '_'); ok && i > 0 {
		return name[:i] + ":" + name[i+1:]
	}
	return d.name
}

// ownDirs lists registries' directories below the roots.
func (n *Node) ownDirs(roots []string) ([]ownDir, error) {
	var own []ownDir
	for i, root := range roots {
		names, err := n.list(root)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			if name == defaultDir || strings.HasPrefix(name, ".") || !n.isDir(path.Join(root, name)) {
				continue
			}
			d := ownDir{root: i, name: name}
			if !slices.ContainsFunc(own, func(o ownDir) bool { return o.registry() == d.registry() }) {
				own = append(own, d)
			}
		}
	}
	return own, nil
}

// defaultRoot chooses the root whose _default gets the mirror: the one that is
// found now; else the first, unless a _default there would hide directories in
// later roots.
func (n *Node) defaultRoot(roots []string, own []ownDir) int {
	for i, root := range roots {
		if n.isDir(path.Join(root, defaultDir)) {
			return i
		}
	}
	if slices.ContainsFunc(own, func(d ownDir) bool { return d.root > 0 }) {
		return len(roots) - 1
	}
	return 0
}

// mirrored reports whether the directory's hosts.toml is ours or has a table of
// ours in it.
func (n *Node) mirrored(dir string, cfg Config) (bool, error) {
	content, err := n.read(path.Join(dir, "hosts.toml"))
	if err != nil {
		return false, err
	}
	return strings.HasPrefix(string(content), mark) || strings.Contains(string(content), blockStart) ||
		strings.Contains(string(content), quoteValue(cfg.MirrorURL())), nil
}

// planHostsFile plans the hosts.toml in dir: anew when there is none or it is
// ours, else with our hosts put before those that are in it.
func (n *Node) planHostsFile(dir string, cfg Config, o hostsOptions, why string) ([]Change, error) {
	name := path.Join(dir, "hosts.toml")
	before, err := n.read(name)
	if err != nil {
		return nil, err
	}
	var after []byte
	if len(strings.TrimSpace(string(before))) == 0 || strings.HasPrefix(string(before), mark) {
		certificates, err := n.certificates(dir)
		if err != nil {
			return nil, err
		}
		after = hostsFile(cfg, o, certificates)
	} else {
		if after, err = addHosts(before, hostTables(cfg, o)); err != nil {
			return nil, fmt.Errorf("%s: %w: %w", name, errForeign, err)
		}
		why += "; the hosts that were in this file follow"
	}
	c := edit(name, before, after, why)
	if !c.Changes() {
		return nil, nil
	}
	want := endpoints(cfg)
	c.check = func() error { return n.checkHosts(dir, want) }
	return []Change{c}, nil
}

// hostsFile is a hosts.toml of our own. The empty server leaves the registry
// itself as the last resort, also in k3s's containerd, which takes a missing one
// for "none".
func hostsFile(cfg Config, o hostsOptions, certificates string) []byte {
	return []byte(mark + "server = \"\"\n" + certificates + "\n" + hostTables(cfg, o))
}

// hostTables are the tables of our hosts. There is no skip_verify, no ca and no
// header, since with them containerd tries TLS first.
func hostTables(cfg Config, o hostsOptions) string {
	var tables []string
	for _, host := range endpoints(cfg) {
		table := "[host." + quoteValue(host) + "]\n  capabilities = [\"pull\", \"resolve\"]\n"
		if o.dialTimeout {
			table += "  dial_timeout = \"200ms\"\n"
		}
		tables = append(tables, table)
	}
	return strings.Join(tables, "\n")
}

// certificates are the keys for the certificates a directory holds in Docker's
// way, which containerd reads only while there is no hosts.toml.
func (n *Node) certificates(dir string) (string, error) {
	names, err := n.list(dir)
	if err != nil {
		return "", err
	}
	var ca, client []string
	for _, name := range names {
		base, ok := strings.CutSuffix(name, ".cert")
		switch {
		case strings.HasSuffix(name, ".crt"):
			ca = append(ca, quoteValue(name))
		case ok && slices.Contains(names, base+".key"):
			client = append(client, "["+quoteValue(name)+", "+quoteValue(base+".key")+"]")
		case ok:
			client = append(client, quoteValue(name)) // the key is in it
		}
	}
	text := ""
	if len(ca) > 0 {
		text += "ca = [" + strings.Join(ca, ", ") + "]\n"
	}
	if len(client) > 0 {
		text += "client = [" + strings.Join(client, ", ") + "]\n"
	}
	return text, nil
}

// CheckFallback returns an error unless text can be one of Config.Fallback, and
// an IPv6 literal only where the runtime's hosts.toml can name one.
func CheckFallback(text string) error {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return fmt.Errorf("%q is no URL", text) // the parser's own words may repeat a password
	case u.Scheme != "http" && u.Scheme != "https", u.Host == "", u.Hostname() == "":
		return fmt.Errorf("%q is no http or https URL with a host", u.Redacted())
	case u.User != nil, u.RawQuery != "", u.Fragment != "":
		return fmt.Errorf("%q: a user, a query or a fragment has no place in it", u.Redacted())
	}
	return nil
}

// CheckRegistry returns an error unless text names a registry as images do: a
// host, with its port where there is one.
func CheckRegistry(text string) error {
	if !regexp.MustCompile(`^([A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:]+\])(:[0-9]{1,5})?$`).MatchString(text) {
		return fmt.Errorf("%q is no registry's host: write it as images have it, without scheme and path (ghcr.io, registry.example:5000)", text)
	}
	return nil
}

// literal6 reports whether a base URL names its host by an IPv6 address.
func literal6(base string) bool {
	u, err := url.Parse(base)
	if err != nil {
		return false
	}
	addr, err := netip.ParseAddr(u.Hostname())
	return err == nil && addr.Is6()
}
