package nodeconfig

import "context"

// containerd is a node whose kubelet talks to containerd itself: EKS's Amazon
// Linux, kind, and most nodes made by hand.
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
		return n.ContainerdConfig
	}
	return "/etc/containerd/config.toml"
}

// Plan implements Target.
func (t *containerd) Plan(_ context.Context, cfg Config) ([]Change, error) {
	return t.node.planHosts([]string{"/etc/containerd/certs.d"}, cfg, hostsOptions{})
}

// Undo implements Target.
func (t *containerd) Undo(context.Context, Config) ([]Change, error) {
	return t.node.planUndo("/etc/containerd")
}

// Apply implements Target.
func (t *containerd) Apply(ctx context.Context, changes []Change) error {
	return t.node.apply(ctx, changes)
}
