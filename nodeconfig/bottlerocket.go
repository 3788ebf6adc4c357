package nodeconfig

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/larder-registry/larder/bottlerocket"
)

// apiTimeout bounds each request to Bottlerocket's API, which at boot competes
// with everything else that starts.
const apiTimeout = 10 * time.Second

// bottlerocketNode is a node of Bottlerocket. Its registry settings are changed
// through its API; where that cannot be used, the files are written that
// containerd reads, which last until the next boot.
type bottlerocketNode struct {
	node *Node
	// files is the node as seen from a bootstrap or host container, where the
	// host's root is mounted below.
	files *Node
}

func newBottlerocket(n *Node) *bottlerocketNode {
	files := *n
	if n.isDir(bottlerocket.RootFS + "/etc") {
		files.Root = filepath.Join(n.Root, bottlerocket.RootFS)
	}
	return &bottlerocketNode{node: n, files: &files}
}

// Name implements Target.
func (*bottlerocketNode) Name() string { return "bottlerocket" }

// Detect implements Target.
func (t *bottlerocketNode) Detect(context.Context) (evidence string, found bool) {
	for _, name := range []string{"/etc/os-release", "/usr/lib/os-release"} {
		content, err := t.files.read(name)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(content)) {
			if id, ok := strings.CutPrefix(strings.TrimSpace(line), "ID="); ok {
				return name, strings.Trim(id, `"'`) == "bottlerocket"
			}
		}
	}
	return "", false
}

// client speaks to the API by the socket below the node's root, or, in a pod
// that mounts it by itself, at its place in this container.
func (t *bottlerocketNode) client() *bottlerocket.Client {
	for _, n := range []*Node{t.node, t.files} {
		if host, err := n.host(bottlerocket.Socket); err == nil && n.exists(bottlerocket.Socket) {
			return bottlerocket.New(host, apiTimeout)
		}
	}
	return bottlerocket.New(bottlerocket.Socket, apiTimeout)
}

// endpoints are what the settings are to list, in the order wanted.
func endpoints(cfg Config) []string {
	all := []string{cfg.MirrorURL()}
	for _, fallback := range cfg.Fallback {
		all = append(all, strings.TrimRight(fallback, "/"))
	}
	return all
}

// Plan implements Target.
func (t *bottlerocketNode) Plan(ctx context.Context, cfg Config) ([]Change, error) {
	client := t.client()
	registry, err := client.Registry(ctx)
	if errors.Is(err, bottlerocket.ErrNoAPI) || errors.Is(err, bottlerocket.ErrForbidden) {
		return t.planFiles(ctx, cfg, err)
	}
	if err != nil {
		return nil, err
	}
	release, err := client.Release(ctx)
	if err != nil {
		return nil, err
	}
	after := bottlerocket.Registry{Mirrors: registry.With(endpoints(cfg), cfg.Registries), Credentials: registry.Credentials}
	change, err := setting(registry.Mirrors, after.Mirrors, "every registry is asked for at the mirror first")
	if err != nil {
		return nil, err
	}
	changes := []Change{note(bottlerocket.Socket, "the settings API of "+release.Name+" is used: what it is told lasts across boots")}
	if change.Changes() {
		changes = append(changes, note("containerd", "Bottlerocket restarts containerd to apply this, if it is running; pods go on running"))
	}
	changes = append(changes, change)
	return append(changes, t.warnings(after, cfg)...), nil
}

// warnings are about what the settings keep from the mirror.
func (t *bottlerocketNode) warnings(after bottlerocket.Registry, cfg Config) []Change {
	var changes []Change
	entries, credentials := after.Hidden(cfg.MirrorURL())
	for _, registry := range entries {
		changes = append(changes, warning(mirrorsSetting, fmt.Sprintf("%s has an entry of its own, which hides the one for all: to have it mirrored, add --registry %s", registry, registry)))
	}
	for _, registry := range credentials {
		changes = append(changes, warning("settings.container-registry.credentials", fmt.Sprintf("the credentials for %s hide the mirror from it: Bottlerocket makes a directory for them, and containerd looks no further; add --registry %s", registry, registry)))
	}
	for _, endpoint := range after.Before(cfg.MirrorURL()) {
		changes = append(changes, note(mirrorsSetting, endpoint+" is asked before the mirror: Bottlerocket sorts endpoints by the alphabet"))
	}
	return changes
}

const mirrorsSetting = "settings.container-registry.mirrors"

// setting is the change of the setting from before to after.
func setting(before, after []bottlerocket.Mirror, why string) (Change, error) {
	was, err := settingText(before)
	if err != nil {
		return Change{}, err
	}
	will, err := settingText(after)
	return Change{Kind: Setting, Path: mirrorsSetting, Before: was, After: will, Why: why}, err
}

// settingText is the setting as JSON; nil when it lists nothing.
func settingText(mirrors []bottlerocket.Mirror) ([]byte, error) {
	if len(mirrors) == 0 {
		return nil, nil
	}
	raw, err := json.MarshalIndent(mirrors, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write %s: %w", mirrorsSetting, err)
	}
	return append(raw, '\n'), nil
}

// planFiles plans what is left when the API cannot be used: releases before
// there was one for this, and containers that may write files but not speak to
// it.
func (t *bottlerocketNode) planFiles(ctx context.Context, cfg Config, why error) ([]Change, error) {
	changes, err := newContainerd(t.files).Plan(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("%w; nor can its files be written: %w", why, err)
	}
	first := []Change{warning("/etc/containerd", fmt.Sprintf("files are written, because the settings API cannot be used (%v); Bottlerocket renders /etc/containerd anew at every boot, so this has to run at every boot, and releases from 1.51 on let only superpowered host containers write there; mount %s to use the API", why, bottlerocket.Socket))}
	return append(first, changes...), nil
}

// Undo implements Target. From the settings it takes the endpoints that are this
// machine itself, at the mirror's port, since the API keeps no record of what was
// there.
func (t *bottlerocketNode) Undo(ctx context.Context, cfg Config) ([]Change, error) {
	changes, err := t.files.planUndo("/etc/containerd")
	if err != nil {
		return nil, err
	}
	registry, err := t.client().Registry(ctx)
	switch {
	case errors.Is(err, bottlerocket.ErrNoAPI), errors.Is(err, bottlerocket.ErrForbidden):
		return append(changes, warning(bottlerocket.Socket, fmt.Sprintf("the settings were not looked at: %v", err))), nil
	case err != nil:
		return nil, err
	}
	after := registry.Without(append(endpoints(cfg), localEndpoints(cfg.Mirror.Port())...))
	change, err := setting(registry.Mirrors, after, "the mirror's endpoints go; others stay")
	if err != nil {
		return nil, err
	}
	if change.Changes() {
		changes = append(changes, note("containerd", "Bottlerocket restarts containerd to apply this, if it is running; pods go on running"), change)
	}
	return changes, nil
}

// localEndpoints are the endpoints a mirror on this machine can have: loopback,
// and every address of its own, since one of them was this when it was
// configured.
func localEndpoints(port uint16) []string {
	addrs := []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}
	own, err := net.InterfaceAddrs()
	if err == nil {
		for _, a := range own {
			if prefix, err := netip.ParsePrefix(a.String()); err == nil {
				addrs = append(addrs, prefix.Addr().Unmap())
			}
		}
	}
	var all []string
	for _, addr := range addrs {
		all = append(all, Config{Mirror: netip.AddrPortFrom(addr, port)}.MirrorURL())
	}
	return all
}

// Apply implements Target.
func (t *bottlerocketNode) Apply(ctx context.Context, changes []Change) error {
	for _, c := range changes {
		var err error
		switch {
		case c.Kind == Setting && c.Changes():
			err = t.applySetting(ctx, c)
		case c.Kind != Setting:
			err = t.files.apply(ctx, []Change{c})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// applySetting commits one transaction. The settings must still be those the
// plan was made for.
func (t *bottlerocketNode) applySetting(ctx context.Context, c Change) error {
	client := t.client()
	registry, err := client.Registry(ctx)
	if err != nil {
		return err
	}
	now, err := settingText(registry.Mirrors)
	if err != nil {
		return err
	}
	if !bytes.Equal(now, c.Before) {
		return fmt.Errorf("set %s: %w", c.Path, ErrChanged)
	}
	var mirrors []bottlerocket.Mirror
	if c.After != nil {
		if err := json.Unmarshal(c.After, &mirrors); err != nil {
			return fmt.Errorf("set %s: %w", c.Path, err)
		}
	}
	t.node.at("set " + c.Path)
	if _, err = client.SetMirrors(ctx, mirrors); errors.Is(err, bottlerocket.ErrUnsupported) {
		return fmt.Errorf("%w; to write containerd's files instead, use --target containerd --root %s", err, filepath.Join(t.files.Root, string(os.PathSeparator)))
	}
	return err
}

// UserData is Bottlerocket's user data that makes a node use the mirror: the
// settings themselves, and, for an address that only the node knows, a bootstrap
// container that runs command in image.
func UserData(cfg Config, image string, command []string) (static, bootstrap string) {
	return bottlerocket.StaticUserData(endpoints(cfg), cfg.Registries), bottlerocket.BootstrapUserData(image, command)
}
