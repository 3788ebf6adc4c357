package nodeconfig

import (
	"bytes"
	"context"
	"fmt"
	"path"
	"slices"
	"strings"
)

const (
	dockerConfig = "/etc/docker/daemon.json"
	dockerCerts  = "/etc/docker/certs.d"
)

// docker is a machine whose images are pulled by Docker Engine. Its
// registry-mirrors are asked for Docker Hub only. An engine that keeps its images
// in containerd's store reads a hosts.toml below /etc/docker/certs.d for every
// registry; to another the file means nothing, so both are written.
type docker struct{ node *Node }

func newDocker(n *Node) *docker { return &docker{n} }

// Name implements Target.
func (*docker) Name() string { return "docker" }

// Detect implements Target. Where there is a kubelet, it is not Docker that
// pulls: Kubernetes has not used it since 1.24.
func (t *docker) Detect(context.Context) (evidence string, found bool) {
	if t.node.exists("/var/lib/kubelet") {
		return "", false
	}
	for _, name := range []string{dockerConfig, "/run/docker.sock", "/usr/bin/dockerd", "/usr/local/bin/dockerd"} {
		if t.node.exists(name) {
			return name, true
		}
	}
	return "", false
}

// Plan implements Target.
func (t *docker) Plan(_ context.Context, cfg Config) ([]Change, error) {
	if by := t.mirrorsByFlag(); by != "" {
		return nil, fmt.Errorf("%s passes --registry-mirror to dockerd, which does not start when %s has registry-mirrors too: add --registry-mirror=%s there, or take the flag out", by, dockerConfig, cfg.MirrorURL())
	}
	before, err := t.node.read(dockerConfig)
	if err != nil {
		return nil, err
	}
	mirrors, changes := []string{cfg.MirrorURL()}, []Change(nil)
	for _, fallback := range cfg.Fallback {
		if base, ok := withoutPath(fallback); ok {
			mirrors = append(mirrors, base)
		} else {
			changes = append(changes, warning(dockerConfig, "Docker takes no mirror with a path, so "+fallback+" is left out"))
		}
	}
	after, err := addMirrors(before, mirrors)
	if err != nil {
		return nil, fmt.Errorf("edit %s: %w", dockerConfig, err)
	}
	daemon := edit(dockerConfig, before, after, "images of Docker Hub are asked for at the mirror first; Docker asks no mirror for other registries unless it keeps its images in containerd's store")
	hosts, err := t.node.planHosts([]string{dockerCerts}, cfg, hostsOptions{})
	if err != nil {
		return nil, err
	}
	changes = append(append(changes, daemon), hosts...)
	if daemon.Changes() {
		changes = append(changes, reloadDocker(cfg))
	}
	return changes, nil
}

func reloadDocker(cfg Config) Change {
	return Change{Kind: Restart, Path: "docker", Reload: true, Advice: !cfg.Restart, Why: "dockerd reads daemon.json again; containers go on running"}
}

// Undo implements Target.
func (t *docker) Undo(_ context.Context, cfg Config) ([]Change, error) {
	changes, err := t.node.planUndo(path.Dir(dockerConfig))
	if slices.ContainsFunc(changes, func(c Change) bool { return c.Path == dockerConfig && c.Action() != "none" && c.Changes() }) {
		changes = append(changes, reloadDocker(cfg))
	}
	return changes, err
}

// Apply implements Target.
func (t *docker) Apply(ctx context.Context, changes []Change) error {
	return t.node.apply(ctx, changes)
}

// mirrorsByFlag names the file that has dockerd started with mirrors of its own.
func (t *docker) mirrorsByFlag() string {
	for _, name := range append(t.node.unitFiles("docker.service"), "/etc/default/docker", "/etc/sysconfig/docker") {
		content, err := t.node.read(name)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(content)) {
			if line = strings.TrimSpace(line); !strings.HasPrefix(line, "#") && strings.Contains(line, "--registry-mirror") {
				return name
			}
		}
	}
	return ""
}

// unitFiles lists the files that make up a systemd unit, drop-ins after it.
func (n *Node) unitFiles(unit string) []string {
	var files []string
	for _, dir := range []string{"/usr/lib/systemd/system", "/usr/local/lib/systemd/system", "/etc/systemd/system", "/run/systemd/system"} {
		if name := path.Join(dir, unit); n.exists(name) {
			files = append(files, name)
		}
		drops, err := n.list(path.Join(dir, unit+".d"))
		if err != nil {
			continue
		}
		for _, base := range drops {
			if strings.HasSuffix(base, ".conf") {
				files = append(files, path.Join(dir, unit+".d", base))
			}
		}
	}
	return files
}

// withoutPath cuts a URL's trailing slash, and reports whether it has no path.
func withoutPath(base string) (string, bool) {
	base = strings.TrimRight(base, "/")
	_, host, _ := strings.Cut(base, "://")
	return base, !strings.Contains(host, "/")
}

// blank reports whether a file says nothing.
func blank(content []byte) bool { return len(bytes.TrimSpace(content)) == 0 }
