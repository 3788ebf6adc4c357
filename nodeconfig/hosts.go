package nodeconfig

import (
	"fmt"
	"path"
	"strings"
)

// mark is the first line of every file that is ours from its first byte.
const mark = "# Written by larder init; 'larder init --undo' takes it back.\n"

// hostsOptions is what the runtime's version decides about hosts.toml.
type hostsOptions struct {
	// dialTimeout may be written: containerd knows it since 2.1.
	dialTimeout bool
}

// planHosts plans the hosts.toml that makes containerd ask the mirror, then the
// fallbacks, then the registry itself. roots are the directories of config_path
// in its order; the default goes to the last one, where it hides nothing.
func (n *Node) planHosts(roots []string, cfg Config, o hostsOptions) ([]Change, error) {
	name := path.Join(roots[len(roots)-1], "_default", "hosts.toml")
	before, err := n.read(name)
	if err != nil {
		return nil, err
	}
	return []Change{edit(name, before, defaultHosts(cfg, o), "every registry is asked for at the mirror first")}, nil
}

// defaultHosts is the hosts.toml for every registry. The empty server leaves the
// registry itself as the last resort, also in k3s's containerd, which takes a
// missing one for "none".
func defaultHosts(cfg Config, o hostsOptions) []byte {
	var b strings.Builder
	b.WriteString(mark)
	b.WriteString("server = \"\"\n")
	for _, url := range append([]string{cfg.MirrorURL()}, cfg.Fallback...) {
		fmt.Fprintf(&b, "\n[host.%q]\n  capabilities = [\"pull\", \"resolve\"]\n", url)
		if o.dialTimeout {
			b.WriteString("  dial_timeout = \"200ms\"\n")
		}
	}
	return []byte(b.String())
}
