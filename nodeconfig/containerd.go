package nodeconfig

import (
	"context"
	"fmt"
	"net/netip"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// containerd is a node whose kubelet talks to containerd itself: EKS's Amazon
// Linux, kind, and most nodes made by hand.
//
// Its configuration is read the way the release on the node reads it. Where no
// config_path is in force it is set, in the one place that changes nothing else;
// then the mirror is put into the directories that are really looked into.
type containerd struct{ node *Node }

func newContainerd(n *Node) *containerd { return &containerd{n} }

// Name implements Target.
func (*containerd) Name() string { return "containerd" }

// Detect implements Target.
func (t *containerd) Detect(context.Context) (evidence string, found bool) {
	for _, name := range []string{t.node.mainConfig(), "/run/containerd/containerd.sock", "/usr/bin/containerd", "/usr/local/bin/containerd"} {
		if t.node.exists(name) {
			return name, true
		}
	}
	return "", false
}

// mainConfig is containerd's configuration file.
func (n *Node) mainConfig() string {
	if n.ContainerdConfig != "" {
		return path.Clean("/" + n.ContainerdConfig)
	}
	return "/etc/containerd/config.toml"
}

// Plan implements Target.
func (t *containerd) Plan(ctx context.Context, cfg Config) ([]Change, error) {
	state, err := t.node.inspectContainerd(ctx)
	if err != nil {
		return nil, err
	}
	cfg, changes := withoutLiterals(cfg, state.release)
	roots, literal, configured := state.roots()
	conflicts := state.conflicts()
	switch {
	case configured && len(conflicts) > 0:
		changes = append(changes, warning(state.main, fmt.Sprintf("containerd refuses these beside config_path, so its CRI plugin does not load: %s", strings.Join(conflicts, ", "))))
	case configured:
		changes = append(changes, note(state.main, state.describe()))
	case len(conflicts) > 0:
		return nil, fmt.Errorf("%s: %w: %s; move what they say to %s/<registry>/hosts.toml, then run this again", state.main, ErrConflict, strings.Join(conflicts, ", "), roots[0])
	}
	options := hostsOptions{dialTimeout: state.release.atLeast(2, 1)}
	lookups := [][]string{roots}
	if literal != nil {
		lookups = append(lookups, literal)
	}
	if configured {
		lookups = append(lookups, state.otherRoots()...)
	}
	for _, lookup := range lookups {
		planned, err := t.node.planHosts(lookup, cfg, options)
		if err != nil {
			return nil, err
		}
		changes = append(changes, planned...)
	}
	if configured {
		return changes, nil
	}
	// Last, because it is what puts all of the above in force.
	set, err := t.node.planConfigPath(state.main, state.release, state.ways, roots[0])
	if err != nil {
		return nil, err
	}
	changes = append(changes, set)
	if by := t.node.rewrites(set.Path); by != "" {
		changes = append(changes, warning(set.Path, by))
	}
	return append(changes, state.restart(cfg, "containerd reads "+set.Path+" only when it starts; containers go on running meanwhile")), nil
}

// Undo implements Target.
func (t *containerd) Undo(ctx context.Context, cfg Config) ([]Change, error) {
	files, dirs := []string{t.node.mainConfig()}, []string{path.Dir(t.node.mainConfig()), "/etc/docker/certs.d"}
	state, err := t.node.inspectContainerd(ctx)
	if err == nil {
		roots, literal, _ := state.roots()
		dirs = slices.Concat(dirs, roots, literal)
		for _, file := range state.ways[0].files {
			files = append(files, file.name)
		}
	}
	changes, err := t.node.planUndoOf(files, dirs)
	if err != nil {
		return nil, err
	}
	if slices.ContainsFunc(changes, func(c Change) bool {
		return c.Kind == File && path.Ext(c.Path) == ".toml" && path.Base(c.Path) != "hosts.toml" && c.Action() != "none"
	}) {
		changes = append(changes, state.restart(cfg, "containerd reads its configuration only when it starts; containers go on running meanwhile"))
	}
	return changes, nil
}

// Apply implements Target.
func (t *containerd) Apply(ctx context.Context, changes []Change) error {
	return t.node.apply(ctx, changes)
}

// containerdState is what is found out of a node's containerd.
type containerdState struct {
	main    string
	release release
	source  string // how the release is known
	running bool
	ways    []*effective // one for each way the release may load it; at least one
}

// inspectContainerd reads the configuration and asks for the version. The error
// names the line that cannot be parsed.
func (n *Node) inspectContainerd(ctx context.Context) (containerdState, error) {
	s := containerdState{main: n.mainConfig()}
	socket := (&effective{}).socket()
	for _, by := range []loader{loader23, loader20, loader1} {
		if e, err := n.load(s.main, by, nil); err == nil {
			socket = e.socket()
			break
		}
	}
	if n.containerdSocket != "" {
		socket = n.containerdSocket
	}
	s.release, s.source, s.running = n.containerdRelease(ctx, socket)
	var failures []error
	for _, by := range s.release.loaders() {
		e, err := n.load(s.main, by, nil)
		if err != nil {
			failures = append(failures, err)
			continue
		}
		s.ways = append(s.ways, e)
	}
	if len(s.ways) == 0 {
		return s, fmt.Errorf("%w; nothing was changed", failures[0])
	}
	for _, e := range s.ways {
		disabled := stringsOf(e.all["disabled_plugins"])
		if slices.Contains(disabled, "cri") || slices.Contains(disabled, pluginV2) || slices.Contains(disabled, pluginV3) {
			return s, fmt.Errorf("%s: its CRI plugin is disabled (disabled_plugins), so no kubelet pulls through it; name the runtime that is used by --target", s.main)
		}
	}
	return s, nil
}

// roots are the directories the CRI plugin looks into, in order, and whether
// they are in force now; literal is the single, oddly named directory that the
// transfer service looks into in their place. It takes a list of directories for
// the name of one (HostDirFromRoot, given the raw config_path, in the CRI
// plugin's image_pull.go from 2.1 to 2.4 at least).
func (s containerdState) roots() (roots, literal []string, configured bool) {
	split := func(list string) []string {
		return slices.DeleteFunc(filepath.SplitList(list), func(dir string) bool { return dir == "" })
	}
	values := s.values()
	if i := slices.IndexFunc(values, func(v string) bool { return v != "" }); slices.Contains(values, "") {
		if i >= 0 {
			return split(values[i])[:1], nil, false
		}
		return []string{path.Join(path.Dir(s.main), "certs.d")}, nil, false
	}
	roots = split(values[0])
	if len(roots) > 1 && s.transfers() {
		literal = []string{path.Clean(values[0])}
	}
	return roots, literal, true
}

// values is config_path, as each of the ways of loading ends with it.
func (s containerdState) values() []string {
	values := make([]string, len(s.ways))
	for i, e := range s.ways {
		values[i] = e.configPath()
		if strings.Trim(values[i], ":") == "" {
			values[i] = "" // a list of nothing
		}
		if values[i] == "" && s.release.atLeast(2, 2) && len(e.conflicts()) == 0 {
			values[i] = defaultRoots
		}
	}
	return values
}

// otherRoots are the directories of the other ways of loading, when it is not
// known which is this containerd's and they differ.
func (s containerdState) otherRoots() [][]string {
	var others [][]string
	values := s.values()
	for i, value := range values {
		if !slices.Contains(values[:i], value) && i > 0 {
			others = append(others, filepath.SplitList(value))
		}
	}
	return others
}

// transfers reports whether pulls may go through the transfer service.
func (s containerdState) transfers() bool {
	if s.release.known() && !s.release.atLeast(2, 1) {
		return false
	}
	return slices.ContainsFunc(s.ways, func(e *effective) bool { return !e.by.old() && e.localPull() == "" })
}

func (s containerdState) conflicts() []string {
	var all []string
	for _, e := range s.ways {
		for _, name := range e.conflicts() {
			if !slices.Contains(all, name) {
				all = append(all, name)
			}
		}
	}
	return all
}

// describe is what was found, in a sentence.
func (s containerdState) describe() string {
	text := "containerd " + s.release.String()
	if s.source != "" {
		text += " (" + s.source + ")"
	}
	roots, literal, _ := s.roots()
	ways := []string{strings.Join(roots, ", then ")}
	for _, others := range s.otherRoots() {
		ways = append(ways, strings.Join(others, ", then "))
	}
	text += " reads registries' directories from " + strings.Join(ways, ", or from ")
	if literal != nil {
		text += "; its transfer service takes this list for one directory's name, so the mirror is named there as well"
	}
	return text
}

// restart is what puts a changed configuration in force.
func (s containerdState) restart(cfg Config, why string) Change {
	if !s.running {
		why += " (it did not answer now: when it is not running yet, there is nothing to do)"
	}
	return Change{Kind: Restart, Path: "containerd", Advice: !cfg.Restart, Why: why}
}

// withoutLiterals replaces IPv6 literals where hosts.toml cannot have any:
// containerd 1.x fails to parse a key with a bracket in it, ignores the whole
// file, and only logs it.
func withoutLiterals(cfg Config, r release) (Config, []Change) {
	if r.atLeast(2, 0) {
		return cfg, nil
	}
	var changes []Change
	if cfg.Mirror.Addr().Is6() && !cfg.Mirror.Addr().Is4In6() {
		loopback := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), cfg.Mirror.Port())
		changes = append(changes, warning("", fmt.Sprintf("containerd %s cannot read an IPv6 address in hosts.toml and would ignore the file, so the mirror is named as %s instead of %s", r, loopback, cfg.Mirror)))
		cfg.Mirror = loopback
	}
	var fallback []string
	for _, base := range cfg.Fallback {
		if literal6(base) {
			changes = append(changes, warning("", fmt.Sprintf("containerd %s cannot read an IPv6 address in hosts.toml and would ignore the file, so the fallback %s is left out; give it a name", r, base)))
			continue
		}
		fallback = append(fallback, base)
	}
	cfg.Fallback = fallback
	return cfg, changes
}

// rewrites says who writes a configuration file anew, so that an edit does not
// last; empty when nobody is known to.
func (n *Node) rewrites(name string) string {
	switch {
	case n.exists("/etc/eks/nodeadm") || n.exists("/usr/bin/nodeadm") || n.exists("/etc/eks/nodeadm.d"):
		return "nodeadm writes " + name + " anew at every boot: set config_path in the NodeConfig's spec.containerd.config as well (larder init --target al2023 --print-user-data)"
	case n.exists("/etc/eks/bootstrap.sh"):
		return "bootstrap.sh writes " + name + " anew at boot: run larder init after it, from the user data"
	}
	return ""
}
