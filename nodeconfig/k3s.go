package nodeconfig

import (
	"context"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// rancherSocket is where the containerd of k3s and RKE2 answers.
const rancherSocket = "/run/k3s/containerd/containerd.sock"

// rancher is a node of k3s or RKE2, which bring a containerd of their own and
// write its configuration from registries.yaml whenever they start.
//
// A hosts.toml below their certs.d that they did not write themselves stays, and
// takes no restart; so that is the way, unless registries.yaml has an entry of
// its own for the same registries, or the configuration names no certs.d: before
// the first start, and on releases from before 2024. Their containerd takes a
// missing server line for "no registry behind the mirrors", so it is always
// written.
type rancher struct {
	node *Node
	name string // k3s, or rke2
}

func newRancher(n *Node, name string) *rancher { return &rancher{n, name} }

// Name implements Target.
func (t *rancher) Name() string { return t.name }

// Detect implements Target.
func (t *rancher) Detect(context.Context) (evidence string, found bool) {
	for _, name := range []string{
		t.config(), "/etc/rancher/" + t.name, "/var/lib/rancher/" + t.name,
		"/usr/local/bin/" + t.name, "/usr/bin/" + t.name, "/opt/rke2/bin/" + t.name,
	} {
		if t.node.exists(name) {
			return name, true
		}
	}
	return "", false
}

func (t *rancher) registries() string { return "/etc/rancher/" + t.name + "/registries.yaml" }

func (t *rancher) containerd() string {
	return "/var/lib/rancher/" + t.name + "/agent/etc/containerd"
}

func (t *rancher) config() string { return t.containerd() + "/config.toml" }
func (t *rancher) certs() string  { return t.containerd() + "/certs.d" }

// Plan implements Target.
func (t *rancher) Plan(ctx context.Context, cfg Config) ([]Change, error) {
	cfg, changes := withoutLiterals(cfg, t.release(ctx))
	before, err := t.node.read(t.registries())
	if err != nil {
		return nil, err
	}
	registries, err := parseRegistries(before)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w: %s does not start with it either", t.registries(), err, t.name)
	}
	named, reads, err := t.readsCerts()
	if err != nil {
		return nil, err
	}
	inYAML, inCerts := t.ways(cfg.Registries, registries)
	wildcard := registries.own("*") || !reads
	if wildcard {
		inYAML = append([]string{"*"}, inYAML...)
	}
	after := before
	for _, registry := range inYAML {
		if after, err = addEndpoints(after, registry, endpoints(cfg)); err != nil {
			return nil, fmt.Errorf("edit %s: %w", t.registries(), err)
		}
	}
	if len(inYAML) > 0 {
		why := "it has entries of its own, which " + t.name + " writes into containerd's configuration when it starts"
		if !reads {
			why = named + ", so the mirror is named here, and takes effect when " + t.name + " starts"
		}
		changes = append(changes, edit(t.registries(), before, after, why))
	}
	if !wildcard {
		hosts := cfg
		hosts.Registries = inCerts
		planned, err := t.node.planHosts([]string{t.certs()}, hosts, hostsOptions{})
		if err != nil {
			return nil, err
		}
		changes = append(changes, planned...)
	}
	for _, registry := range registries.names() {
		if registry != "*" && !slices.Contains(inYAML, registry) {
			changes = append(changes, warning(t.registries(), fmt.Sprintf("%s has an entry of its own, which hides the one for all: to have it mirrored, add --registry %s", registry, registry)))
		}
	}
	return append(changes, t.restart(cfg, inYAML, changes)...), nil
}

// release is what the running containerd says it is. Others on the node do not
// count.
func (t *rancher) release(ctx context.Context) release {
	text, err := t.node.askContainerd(ctx, rancherSocket)
	if err != nil {
		return release{}
	}
	r, _ := parseRelease(text)
	return r
}

// ways sorts the registries that are named: those registries.yaml knows belong
// there, since a directory for them is written anew at every start.
func (t *rancher) ways(named []string, have registriesYAML) (inYAML, inCerts []string) {
	for _, registry := range named {
		if have.own(registry) {
			inYAML = append(inYAML, registry)
		} else {
			inCerts = append(inCerts, registry)
		}
	}
	return inYAML, inCerts
}

// readsCerts reports whether the configuration that was last generated has
// containerd read certs.d, and what is the matter if not. Which containerd it
// was generated for does not change the answer.
func (t *rancher) readsCerts() (why string, reads bool, err error) {
	understood := false
	for _, by := range []loader{loader23, loader20, loader1} {
		e, failed := t.node.load(t.config(), by, nil)
		if failed != nil {
			err = failed
			continue
		}
		understood = true
		if len(e.files) == 0 {
			return t.name + " has not started here yet", false, nil
		}
		if slices.Contains(filepath.SplitList(e.configPath()), t.certs()) {
			return "", true, nil
		}
	}
	if !understood {
		return "", false, err
	}
	return t.config() + " names no certs.d", false, nil
}

// restart is what is left to do when registries.yaml is or was changed and k3s
// has not read it since.
func (t *rancher) restart(cfg Config, inYAML []string, changes []Change) []Change {
	if !slices.ContainsFunc(changes, func(c Change) bool { return c.Path == t.registries() && c.Kind == File }) || t.generated(cfg, inYAML) {
		return nil
	}
	unit := t.unit()
	if unit == "" {
		return []Change{note(t.registries(), t.name+" reads it when it starts")}
	}
	return []Change{{Kind: Restart, Path: unit, Advice: !cfg.Restart, Why: t.name + " reads registries.yaml when it starts only; pods go on running"}}
}

// generated reports whether what k3s has generated already names the mirror.
func (t *rancher) generated(cfg Config, inYAML []string) bool {
	for _, registry := range inYAML {
		if registry == "*" {
			registry = "_default"
		}
		content, err := t.node.read(path.Join(t.certs(), registry, "hosts.toml"))
		if err != nil || !strings.Contains(string(content), cfg.MirrorURL()) {
			return false
		}
	}
	return true
}

// unit is the systemd unit that runs here.
func (t *rancher) unit() string {
	units := []string{"k3s-agent", "k3s"}
	if t.name == "rke2" {
		units = []string{"rke2-agent", "rke2-server"}
	}
	for _, unit := range units {
		// RKE2 installs both units, and enables one.
		if t.node.exists("/etc/systemd/system/multi-user.target.wants/" + unit + ".service") {
			return unit
		}
	}
	for _, unit := range units {
		if len(t.node.unitFiles(unit+".service")) > 0 {
			return unit
		}
	}
	return ""
}

// Undo implements Target.
func (t *rancher) Undo(_ context.Context, cfg Config) ([]Change, error) {
	changes, err := t.node.planUndo(path.Dir(t.registries()), t.containerd())
	if err != nil {
		return nil, err
	}
	if slices.ContainsFunc(changes, func(c Change) bool { return c.Path == t.registries() && c.Action() != "none" }) {
		if unit := t.unit(); unit != "" {
			changes = append(changes, Change{Kind: Restart, Path: unit, Advice: !cfg.Restart, Why: t.name + " reads registries.yaml when it starts only; pods go on running"})
		}
	}
	return changes, nil
}

// Apply implements Target.
func (t *rancher) Apply(ctx context.Context, changes []Change) error {
	return t.node.apply(ctx, changes)
}
