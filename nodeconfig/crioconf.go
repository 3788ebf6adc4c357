package nodeconfig

import (
	"bytes"
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// containersEntry is a [[registry]] of registries.conf(5), as far as it decides
// where images come from.
type containersEntry struct {
	Prefix   string `toml:"prefix"`
	Location string `toml:"location"`
	Mirrors  []struct {
		Location string `toml:"location"`
		Insecure bool   `toml:"insecure"`
	} `toml:"mirror"`

	file string
}

func (e containersEntry) mirrors(location string) bool {
	for _, m := range e.Mirrors {
		if m.Location == location {
			return true
		}
	}
	return false
}

// load reads registries.conf and its drop-ins. A file that cannot be read makes
// every pull of the node fail, so it is an error here. ours are the registries
// that have a drop-in of an earlier run.
func (t *crio) load() (others []containersEntry, ours []string, err error) {
	files := []string{containersConfig}
	drops, err := t.node.list(containersDrops)
	if err != nil {
		return nil, nil, err
	}
	for _, base := range drops {
		if strings.HasSuffix(base, dropSuffix) {
			files = append(files, path.Join(containersDrops, base))
		}
	}
	for _, name := range files {
		content, err := t.node.read(name)
		if err != nil {
			return nil, nil, err
		}
		entries, err := parseContainers(content)
		if err != nil {
			return nil, nil, fmt.Errorf("read %s: %w: no image can be pulled until that is mended", name, err)
		}
		if registry, ok := dropRegistry(name); ok && bytes.HasPrefix(content, []byte(mark)) {
			ours = append(ours, registry)
			continue
		}
		for i := range entries {
			entries[i].file = name
		}
		others = append(others, entries...)
	}
	return others, ours, nil
}

// dropRegistry is the registry a drop-in of ours is for, by its name.
func dropRegistry(name string) (string, bool) {
	registry, ok := strings.CutPrefix(path.Base(name), dropPrefix)
	if !ok {
		return "", false
	}
	registry, ok = strings.CutSuffix(registry, dropSuffix)
	return registry, ok && registryHost.MatchString(registry)
}

// parseContainers reads the entries of one file. An entry without a prefix is
// for its location.
func parseContainers(content []byte) ([]containersEntry, error) {
	var file struct {
		Registry []containersEntry `toml:"registry"`
	}
	if err := toml.Unmarshal(content, &file); err != nil {
		if e, ok := errors.AsType[*toml.DecodeError](err); ok {
			line, _ := e.Position()
			return nil, fmt.Errorf("line %d: %w", line, err)
		}
		return nil, err
	}
	for i := range file.Registry {
		e := &file.Registry[i]
		if e.Prefix == "" {
			e.Prefix = e.Location
		}
		e.Prefix = strings.TrimSuffix(e.Prefix, "/")
	}
	return file.Registry, nil
}

// containersDropIn writes the entry of one registry, and names the fallbacks that have no
// place in it. A fallback is asked by the path form, as the mirror is.
func containersDropIn(registry string, cfg Config) (content []byte, left []string) {
	var b strings.Builder
	b.WriteString(mark)
	fmt.Fprintf(&b, "[[registry]]\nprefix = %q\nlocation = %q\n", registry, registry)
	for _, base := range append([]string{cfg.MirrorURL()}, cfg.Fallback...) {
		scheme, host, _ := strings.Cut(strings.TrimRight(base, "/"), "://")
		if strings.ContainsAny(host, "/[") {
			left = append(left, base)
			continue
		}
		fmt.Fprintf(&b, "\n[[registry.mirror]]\nlocation = %q\n", host+"/f/"+registry)
		if scheme == "http" {
			b.WriteString("insecure = true\n")
		}
	}
	return []byte(b.String()), left
}

// checkDropIn reads a drop-in before it is put in its place: a bad one would
// make every pull of the node fail.
func checkDropIn(content []byte, registry string) error {
	entries, err := parseContainers(content)
	if err != nil {
		return err
	}
	if len(entries) != 1 || entries[0].Prefix != registry || entries[0].Location != registry || len(entries[0].Mirrors) == 0 {
		return fmt.Errorf("it would not say what was meant for %s", registry)
	}
	for _, m := range entries[0].Mirrors {
		host, inside, _ := strings.Cut(m.Location, "/")
		if inside != "f/"+registry || host == "" || strings.ContainsAny(host, " \t@?#") {
			return fmt.Errorf("mirror %q is no place an image can come from", m.Location)
		}
	}
	return nil
}
