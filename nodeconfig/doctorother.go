package nodeconfig

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path"
	"slices"
	"strings"

	"github.com/larder-registry/larder/bottlerocket"
)

// checkSettings looks at Bottlerocket's settings, of which the files are only
// copies.
func (d *doctor) checkSettings(ctx context.Context, t *bottlerocketNode) {
	client := t.client()
	registry, err := client.Registry(ctx)
	switch {
	case errors.Is(err, bottlerocket.ErrNoAPI), errors.Is(err, bottlerocket.ErrForbidden):
		d.say("settings", Unknown, err.Error(), "run it where "+bottlerocket.Socket+" is mounted, in a privileged pod or a host container")
		return
	case err != nil:
		d.say("settings", Doubtful, err.Error(), "")
		return
	}
	wildcard := slices.IndexFunc(registry.Mirrors, func(m bottlerocket.Mirror) bool {
		return m.Registry == bottlerocket.Wildcard && slices.ContainsFunc(m.Endpoints, d.ours)
	})
	if wildcard < 0 {
		d.say("settings", Bad, mirrorsSetting+` has no entry "*" with the mirror at `+d.wanted()+"; what the files say is lost at the next boot", d.initRemedy())
		return
	}
	endpoint := registry.Mirrors[wildcard].Endpoints[slices.IndexFunc(registry.Mirrors[wildcard].Endpoints, d.ours)]
	d.say("settings", Good, mirrorsSetting+` has `+endpoint+` for "*"`, "")
	_, credentials := registry.Hidden(endpoint)
	for _, name := range credentials {
		d.hidden(name, "settings.container-registry.credentials")
	}
}

// checkContainers looks at registries.conf as CRI-O and podman do.
func (d *doctor) checkContainers(t *crio) {
	others, ours, err := t.load()
	if err != nil {
		d.say("registries.conf", Bad, err.Error(), "mend the file, or take it away")
		return
	}
	var mirrored []string
	for _, registry := range ours {
		name := path.Join(containersDrops, dropPrefix+registry+dropSuffix)
		content, err := t.node.read(name)
		if err != nil {
			d.say("registries.conf", Unknown, err.Error(), "")
			continue
		}
		entries, err := parseContainers(content)
		if err != nil || !slices.ContainsFunc(entries, func(e containersEntry) bool { return d.reached(e, registry) }) {
			d.say("registries.conf", Doubtful, name+" does not name the mirror at "+d.wanted(), d.initRemedy()+" --registry "+registry)
			continue
		}
		mirrored = append(mirrored, registry)
		for _, other := range others {
			if other.Prefix == registry && path.Dir(other.file) == containersDrops && other.file > name {
				d.say("shadowing", Doubtful, other.file+" replaces the entry for "+registry, "name the mirror there, or rename the file so that it comes first")
			}
		}
	}
	for _, other := range others {
		if d.reached(other, other.Prefix) {
			mirrored = append(mirrored, other.Prefix)
		}
	}
	var missing []string
	for _, registry := range d.cfg.Registries {
		if !slices.Contains(mirrored, registry) {
			missing = append(missing, registry)
		}
	}
	switch {
	case len(mirrored) == 0:
		d.say("registries.conf", Bad, "no registry has the mirror at "+d.wanted()+" in "+containersConfig+" or its drop-ins", d.initRemedy()+" --registry docker.io")
	case len(missing) > 0:
		d.say("registries.conf", Bad, strings.Join(missing, ", ")+" does not have the mirror", d.initRemedy()+" --registry "+strings.Join(missing, " --registry "))
	default:
		d.say("registries.conf", Good, "mirrored are "+strings.Join(mirrored, ", ")+", and no others", "")
	}
}

// reached reports whether an entry asks the mirror for registry.
func (d *doctor) reached(e containersEntry, registry string) bool {
	for _, m := range e.Mirrors {
		host, inside, _ := strings.Cut(m.Location, "/")
		if inside == "f/"+registry && m.Insecure && d.ours("http://"+host) {
			return true
		}
	}
	return false
}

// checkDocker looks at daemon.json, at the running engine, and at the
// hosts.toml for engines with containerd's store.
func (d *doctor) checkDocker(ctx context.Context, t *docker) {
	content, err := t.node.read(dockerConfig)
	if err != nil {
		d.say("daemon.json", Unknown, err.Error(), "")
		return
	}
	config := map[string]any{}
	if !blank(content) {
		if config, err = parseDaemon(content); err != nil {
			d.say("daemon.json", Bad, dockerConfig+": "+err.Error(), "mend the file; dockerd does not start with it")
			return
		}
	}
	mirrors, err := listed(config)
	switch {
	case err != nil:
		d.say("daemon.json", Bad, dockerConfig+": "+err.Error(), "mend the file")
		return
	case !slices.ContainsFunc(mirrors, func(m string) bool { return d.ours(strings.TrimRight(m, "/")) }):
		d.say("daemon.json", Bad, fmt.Sprintf("%s: registry-mirrors are %s, and not the mirror at %s", dockerConfig, joined(mirrors, "not set"), d.wanted()), d.initRemedy())
	default:
		d.say("daemon.json", Good, "registry-mirrors has the mirror", "")
	}
	d.checkEngine(ctx, t)
}

// dockerInfo is what is asked of a running engine.
type dockerInfo struct {
	ServerVersion string
	// DriverStatus has "driver-type io.containerd.snapshotter.v1" where images
	// are kept in containerd's store.
	DriverStatus   [][2]string
	RegistryConfig struct{ Mirrors []string }
}

// checkEngine asks the running engine what it works with.
func (d *doctor) checkEngine(ctx context.Context, t *docker) {
	info, err := askDocker(ctx, t.node)
	if err != nil {
		d.say("runtime", Unknown, "ask Docker: "+err.Error(), "")
		return
	}
	d.say("runtime", Good, "Docker "+info.ServerVersion+" answers", "")
	if !slices.ContainsFunc(info.RegistryConfig.Mirrors, func(m string) bool { return d.ours(strings.TrimRight(m, "/")) }) {
		d.say("restart", Bad, "the running engine's mirrors are "+joined(info.RegistryConfig.Mirrors, "none"), "systemctl reload docker")
	}
	if !slices.ContainsFunc(info.DriverStatus, func(s [2]string) bool { return s[1] == "io.containerd.snapshotter.v1" }) {
		d.say("registries", Doubtful, "the engine keeps images in its classic store, which has mirrors for docker.io only", `set "features": {"containerd-snapshotter": true} in daemon.json to have all registries mirrored`)
		return
	}
	d.checkDir(t.node, release{}, path.Join(dockerCerts, defaultDir), anyRegistry)
}

// askDocker asks the engine behind its socket (Docker's API, GET /info).
func askDocker(ctx context.Context, n *Node) (info dockerInfo, err error) {
	host, err := n.host("/run/docker.sock")
	if err != nil {
		return info, err
	}
	ctx, cancel := context.WithTimeout(ctx, askPatience)
	defer cancel()
	client := http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", host)
		},
		DisableKeepAlives: true,
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://docker/info", http.NoBody)
	if err != nil {
		return info, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return info, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return info, fmt.Errorf("it answers %s", resp.Status)
	}
	err = json.NewDecoder(io.LimitReader(resp.Body, maxMessage)).Decode(&info)
	return info, err
}
