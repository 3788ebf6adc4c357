package nodeconfig

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"path"
	"slices"
	"strings"
)

// anyRegistry stands for all registries without a directory of their own.
const anyRegistry = "registry.example"

// lazySnapshotters are those that fetch layers by themselves while containers
// run, past containerd's hosts and so past any mirror.
var lazySnapshotters = []string{"soci", "stargz", "nydus", "overlaybd"}

// checkContainerd looks at everything between containerd's configuration and
// the mirror, and returns where containerd answers.
func (d *doctor) checkContainerd(ctx context.Context, n *Node, unit string) (socket string) {
	s, err := n.inspectContainerd(ctx)
	if socket = n.containerdSocket; socket == "" && len(s.ways) > 0 {
		socket = s.ways[0].socket()
	}
	if err != nil {
		d.say("runtime", Bad, err.Error(), "mend the file; containerd does not start with it")
		return socket
	}
	verdict, known := Good, "containerd "+s.release.String()
	if s.source != "" {
		known += " (" + s.source + ")"
	}
	if !s.running {
		verdict, known = Doubtful, known+"; it does not answer at "+socket
	}
	d.say("runtime", verdict, known, "")
	if s.running {
		d.checkSince(n, s, socket, unit)
	}
	d.checkConfigPath(n, s)
	d.checkSnapshotter(s)
	return socket
}

// checkSince compares when containerd was started, which is when it made its
// socket, with what it read then.
func (d *doctor) checkSince(n *Node, s containerdState, socket, unit string) {
	host, err := n.host(socket)
	if err != nil {
		return
	}
	made, err := attributesOf(host)
	if err != nil {
		return
	}
	for _, file := range s.ways[0].files {
		host, err := n.host(file.name)
		if err != nil {
			continue
		}
		if a, err := attributesOf(host); err == nil && a.modified.After(made.modified) {
			d.say("restart", Doubtful, fmt.Sprintf("%s was changed at %s, after containerd was started", file.name, a.modified.UTC().Format("2006-01-02 15:04:05 MST")), "systemctl restart "+unit)
			return
		}
	}
	d.say("restart", Good, "containerd was started after its configuration was last changed", "")
}

// checkConfigPath follows containerd from config_path to the hosts it asks.
func (d *doctor) checkConfigPath(n *Node, s containerdState) {
	roots, literal, configured := s.roots()
	conflicts := s.conflicts()
	e := s.ways[0]
	switch {
	case configured && e.configPath() != "" && len(conflicts) > 0:
		d.say("legacy", Bad, fmt.Sprintf("%s has config_path and %s: containerd does not load its CRI plugin with both", s.main, strings.Join(conflicts, ", ")), "move what they say to hosts.toml files below "+roots[0]+", and remove them")
		return
	case !configured && len(conflicts) > 0:
		d.checkInline(s, e)
		return
	case !configured:
		d.say("config_path", Bad, s.main+" sets no config_path, and containerd "+s.release.String()+" has none by itself: it reads no hosts.toml", d.initRemedy())
		return
	}
	evidence := strings.Join(roots, ", then ")
	if e.configPath() == "" {
		evidence += " (built in)"
	}
	d.say("config_path", Good, evidence, "")
	d.checkTransfer(s, literal)
	lookups := [][]string{roots}
	if literal != nil {
		lookups = [][]string{literal}
		if !s.release.known() {
			lookups = append(lookups, roots)
		}
	}
	for _, lookup := range lookups {
		d.checkHosts(n, s.release, lookup)
	}
}

// checkTransfer says who fetches, since the two read config_path differently.
func (d *doctor) checkTransfer(s containerdState, literal []string) {
	local := s.ways[0].localPull()
	switch {
	case !s.release.known():
		d.say("transfer", Unknown, "containerd's version is not known, so neither is whether it uses the transfer service", "")
	case !s.release.atLeast(2, 1):
		d.say("transfer", Good, "containerd "+s.release.String()+" fetches in its CRI plugin", "")
	case local != "":
		d.say("transfer", Good, "images are fetched in the CRI plugin, because of "+local, "")
	case literal != nil:
		d.say("transfer", Doubtful, "images are fetched by the transfer service, which takes the list in config_path for one directory, "+literal[0], "name one directory in config_path; until then hosts.toml has to be there")
	default:
		d.say("transfer", Good, "images are fetched by the transfer service, which reads the one directory in config_path", "")
	}
}

// checkInline looks at mirrors that stand in the configuration itself, as
// Bottlerocket before 1.56 has them.
func (d *doctor) checkInline(s containerdState, e *effective) {
	mirrors, _ := e.registry()["mirrors"].(map[string]any)
	reach := map[string]bool{}
	for name, value := range mirrors {
		table, _ := value.(map[string]any)
		reach[name] = slices.ContainsFunc(stringsOf(table["endpoint"]), d.ours)
	}
	if !reach["*"] {
		d.say("legacy", Bad, fmt.Sprintf("%s has registry.mirrors, and none for all registries at %s; containerd reads no hosts.toml besides", s.main, d.wanted()), "move what they say to hosts.toml files and set config_path, or add the mirror as registry.mirrors.\"*\"")
		return
	}
	d.say("legacy", Good, s.main+" has the mirror as registry.mirrors.\"*\"", "")
	for _, name := range slices.Sorted(maps.Keys(reach)) {
		if name != "*" && !reach[name] {
			d.hidden(name, "registry.mirrors."+quoteValue(name))
		}
	}
}

// hidden says that one registry's pulls go past the mirror; badly if that
// registry was asked about.
func (d *doctor) hidden(registry, where string) {
	verdict := Doubtful
	if slices.Contains(d.cfg.Registries, registry) {
		verdict = Bad
	}
	d.say("shadowing", verdict, where+" is for "+registry+" alone and does not name the mirror", d.initRemedy()+" --registry "+registry)
}

// checkHosts reads the hosts.toml files that count below roots.
func (d *doctor) checkHosts(n *Node, r release, roots []string) {
	own, err := n.ownDirs(roots)
	if err != nil {
		d.say("hosts.toml", Unknown, err.Error(), "")
		return
	}
	place := n.defaultRoot(roots, own)
	d.checkDir(n, r, path.Join(roots[place], defaultDir), anyRegistry)
	hidden := 0
	for _, o := range own {
		if o.root > place {
			continue
		}
		dir := path.Join(roots[o.root], o.name)
		if at, _, err := d.askedAt(n, dir, o.registry()); err != nil || at < 0 {
			d.hidden(o.registry(), dir)
			hidden++
		}
	}
	if hidden == 0 {
		d.say("shadowing", Good, fmt.Sprintf("%d registries have a directory of their own, and all name the mirror", len(own)), "")
	}
}

// askedAt is the mirror's place among the hosts that containerd asks for images
// of registry, -1 if it is not among them, and their base URLs.
func (d *doctor) askedAt(n *Node, dir, registry string) (at int, asked []string, err error) {
	if !n.isDir(dir) {
		return -1, nil, errors.New("there is no such directory")
	}
	hosts, err := n.readHosts(dir, registry)
	if err != nil {
		return -1, nil, err
	}
	at = -1
	for i, host := range hosts {
		base := (&url.URL{Scheme: host.Scheme, Host: host.Host}).String()
		asked = append(asked, base)
		if at < 0 && d.ours(base) {
			at = i
		}
	}
	return at, asked, nil
}

// checkDir looks at the directory for all registries.
func (d *doctor) checkDir(n *Node, r release, dir, registry string) {
	name := path.Join(dir, "hosts.toml")
	at, asked, err := d.askedAt(n, dir, registry)
	if err == nil {
		err = oldParser(n, r, name)
	}
	switch {
	case err != nil:
		d.say("hosts.toml", Bad, name+": "+err.Error(), d.initRemedy())
	case at < 0:
		d.say("hosts.toml", Bad, fmt.Sprintf("%s: containerd asks %s, and not the mirror at %s", name, strings.Join(asked, ", then "), d.wanted()), d.initRemedy())
	case at > 0:
		d.say("hosts.toml", Doubtful, fmt.Sprintf("%s: containerd asks %s: the mirror is not the first", name, strings.Join(asked, ", then ")), "move the mirror's table to the top")
	default:
		d.say("hosts.toml", Good, fmt.Sprintf("%s, as containerd reads it: %s", name, strings.ReplaceAll(strings.Join(asked, ", then "), "https://"+registry, "the registry itself")), "")
	}
	d.checkServer(n, name)
}

// oldParser is what releases stumble over that are older than the parser that
// is built in here: all of the file is ignored then.
func oldParser(n *Node, r release, name string) error {
	content, err := n.read(name)
	if err != nil || !r.known() {
		return err
	}
	switch text := string(content); {
	case r.major < 2 && strings.Contains(text, `://[`):
		return fmt.Errorf("it names an IPv6 address, and containerd %s ignores such a file", r)
	case !r.atLeast(2, 2) && strings.Contains(text, `"referrers"`):
		return fmt.Errorf("it has the capability referrers, and containerd %s ignores a file with it", r)
	}
	return nil
}

// checkServer: k3s's containerd takes a missing server for "no registry behind
// the mirrors".
func (d *doctor) checkServer(n *Node, name string) {
	content, err := n.read(name)
	if _, ok := d.target.(*rancher); !ok || err != nil || content == nil {
		return
	}
	tables, err := parseTOML(name, content)
	if _, ok := tables["server"]; err == nil && !ok {
		d.say("fallback", Doubtful, name+" has no server line, which "+d.target.Name()+" takes for none: without the mirror nothing can be pulled", `add server = "" as its first line`)
	}
}

// checkSnapshotter looks for snapshotters that fetch layers by themselves.
func (d *doctor) checkSnapshotter(s containerdState) {
	var used []string
	use := func(value any) {
		if name, ok := value.(string); ok && name != "" && !slices.Contains(used, name) {
			used = append(used, name)
		}
	}
	for _, e := range s.ways {
		use(e.images["snapshotter"])
		plugins, _ := e.all["plugins"].(map[string]any)
		for _, plugin := range []string{pluginV1, pluginV2, "io.containerd.cri.v1.runtime"} {
			cri, _ := plugins[plugin].(map[string]any)
			containerd, _ := cri["containerd"].(map[string]any)
			use(containerd["snapshotter"])
			runtimes, _ := containerd["runtimes"].(map[string]any)
			for _, value := range runtimes {
				runtime, _ := value.(map[string]any)
				use(runtime["snapshotter"])
			}
		}
	}
	slices.Sort(used)
	for _, name := range used {
		if slices.ContainsFunc(lazySnapshotters, func(lazy string) bool { return strings.Contains(name, lazy) }) {
			d.say("snapshotter", Doubtful, name+" may fetch layers by itself, from the registry and past every mirror", "use overlayfs, or accept that the layers of images made for "+name+" are not cached")
			return
		}
	}
	d.say("snapshotter", Good, joined(used, "containerd's default"), "")
}
