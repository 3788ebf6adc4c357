package nodeconfig

import (
	"context"
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
)

const (
	containersConfig = "/etc/containers/registries.conf"
	containersDrops  = "/etc/containers/registries.conf.d"
	dropPrefix       = "50-larder-"
	dropSuffix       = ".conf"
)

// registryHost is what may stand in a mirror's location. A port may not: the
// grammar of references has no colon in a path, and every pull of the registry
// would fail.
var registryHost = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$`)

// crio is a node of CRI-O, or a machine with podman, buildah or skopeo: all read
// registries.conf(5). It has no word for "every registry" that would keep the
// registry's name, so each gets a drop-in of its own, and the mirror is asked by
// its path form.
type crio struct{ node *Node }

func newCRIO(n *Node) *crio { return &crio{n} }

// Name implements Target.
func (*crio) Name() string { return "crio" }

// Detect implements Target. podman beside another runtime is not what a node
// pulls with.
func (t *crio) Detect(context.Context) (evidence string, found bool) {
	for _, name := range []string{"/etc/crio", "/run/crio/crio.sock", "/usr/bin/crio", "/usr/local/bin/crio"} {
		if t.node.exists(name) {
			return name, true
		}
	}
	if slices.ContainsFunc([]string{"/var/lib/kubelet", t.node.mainConfig(), "/run/containerd/containerd.sock"}, t.node.exists) {
		return "", false
	}
	for _, name := range []string{"/usr/bin/podman", "/usr/local/bin/podman"} {
		if t.node.exists(name) {
			return name, true
		}
	}
	return "", false
}

// Plan implements Target.
func (t *crio) Plan(_ context.Context, cfg Config) ([]Change, error) {
	if cfg.Mirror.Addr().Is6() {
		return nil, fmt.Errorf("registries.conf takes no IPv6 address as a mirror (%s): every pull would fail; use --address loopback", cfg.Mirror.Addr())
	}
	others, ours, err := t.load()
	if err != nil {
		return nil, err
	}
	// Drop-ins of an earlier run follow the mirror's address.
	registries := slices.Clone(cfg.Registries)
	for _, registry := range ours {
		if !slices.Contains(registries, registry) {
			registries = append(registries, registry)
		}
	}
	if len(registries) == 0 {
		return nil, errors.New("CRI-O and podman have no entry for all registries: name those to mirror, as in --registry docker.io --registry quay.io")
	}
	var changes []Change
	for _, registry := range registries {
		planned, err := t.planRegistry(registry, cfg, others)
		if err != nil {
			return nil, err
		}
		changes = append(changes, planned...)
	}
	if t.reload(changes) {
		changes = append(changes, reloadCRIO(cfg))
	}
	return changes, nil
}

// planRegistry plans the drop-in for one registry.
func (t *crio) planRegistry(registry string, cfg Config, others []containersEntry) ([]Change, error) {
	if !registryHost.MatchString(registry) {
		return nil, fmt.Errorf("--registry %s: it must be a host without a port to stand in a mirror's path; give it a name without one, and its address as endpoints in the mirror's configuration", registry)
	}
	for _, other := range others {
		if other.Prefix == registry {
			why := fmt.Sprintf("it has an entry for %s already, which a drop-in would replace; add to that entry: [[registry.mirror]] location = %q, insecure = true", registry, cfg.Mirror.String()+"/f/"+registry)
			if other.mirrors(cfg.Mirror.String() + "/f/" + registry) {
				why = "its own entry for " + registry + " names the mirror"
				return []Change{note(other.file, why)}, nil
			}
			return []Change{warning(other.file, why)}, nil
		}
	}
	var changes []Change
	for _, other := range others {
		if strings.HasPrefix(other.Prefix, registry+"/") || strings.HasPrefix(other.Prefix, "*.") && strings.HasSuffix(registry, other.Prefix[1:]) {
			changes = append(changes, note(other.file, "its entry for "+other.Prefix+" stays as it is, beside the one for "+registry))
		}
	}
	content, left := containersDropIn(registry, cfg)
	for _, fallback := range left {
		changes = append(changes, warning(containersDrops, "registries.conf takes no mirror by its path here, so "+fallback+" is left out"))
	}
	name := path.Join(containersDrops, dropPrefix+registry+dropSuffix)
	if err := checkDropIn(content, registry); err != nil {
		return nil, fmt.Errorf("write %s: %w", name, err)
	}
	before, err := t.node.read(name)
	if err != nil {
		return nil, err
	}
	if before != nil && !strings.HasPrefix(string(before), mark) {
		return nil, fmt.Errorf("write %s: somebody else's file has that name", name)
	}
	return append(changes, edit(name, before, content, "images of "+registry+" are asked for at the mirror first")), nil
}

// reload reports whether CRI-O is here and has something new to read.
func (t *crio) reload(changes []Change) bool {
	evidence, found := t.Detect(context.Background())
	return found && !strings.Contains(evidence, "podman") &&
		slices.ContainsFunc(changes, func(c Change) bool { return c.Kind == File && c.Action() != "none" })
}

func reloadCRIO(cfg Config) Change {
	return Change{Kind: Restart, Path: "crio", Reload: true, Advice: !cfg.Restart, Why: "CRI-O reads registries.conf.d again; containers go on running"}
}

// Undo implements Target.
func (t *crio) Undo(_ context.Context, cfg Config) ([]Change, error) {
	changes, err := t.node.planUndo(path.Dir(containersDrops))
	if t.reload(changes) {
		changes = append(changes, reloadCRIO(cfg))
	}
	return changes, err
}

// Apply implements Target.
func (t *crio) Apply(ctx context.Context, changes []Change) error {
	return t.node.apply(ctx, changes)
}
