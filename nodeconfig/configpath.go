package nodeconfig

import (
	"errors"
	"fmt"
	"path"
	"reflect"
	"slices"
	"strings"
)

// ErrConflict is returned, wrapped, when the node's configuration has settings
// that containerd refuses beside config_path. They are somebody's decision, so
// they are not converted.
var ErrConflict = errors.New("containerd refuses these beside config_path")

// planConfigPath plans the one edit after which every way in which this release
// may load its configuration ends with config_path = value, and with nothing
// else changed. before has one loaded configuration for each such way.
func (n *Node) planConfigPath(main string, r release, before []*effective, value string) (Change, error) {
	for _, way := range n.waysTo(main, r, before[0], value) {
		if n.leadsTo(main, way, before, value) {
			name, after := way.Path, way.After
			way.check = func() error { return n.checkConfigPath(main, before, name, after, value) }
			return way, nil
		}
	}
	return Change{}, fmt.Errorf("%s: config_path cannot be set without changing something else; set it by hand to %q in the table registry of the CRI plugin's settings for images", main, value)
}

// waysTo lists edits that may set config_path, the best first: a file of our own
// where one is imported and merged, else one place in a file that is there.
func (n *Node) waysTo(main string, r release, e *effective, value string) []Change {
	var ways []Change
	if r.atLeast(2, 0) {
		for _, base := range []string{"larder.toml", "zz-larder.toml"} {
			for _, file := range e.files {
				for _, pattern := range file.imports {
					name := path.Join(path.Dir(pattern), base)
					if ok, err := path.Match(pattern, name); err != nil || !ok || strings.Contains(path.Dir(pattern), "*") || slices.Contains(e.names(), name) {
						continue
					}
					ways = append(ways, edit(name, nil, versionless(value), "containerd reads registries' directories from "+value))
				}
			}
		}
	}
	if len(e.files) == 0 {
		return append(ways, edit(main, nil, newMain(r, value), "containerd has no configuration file; the new one only says where registries' directories are"))
	}
	for _, file := range slices.Backward(e.files) {
		for _, plugin := range []string{pluginV2, pluginV3, pluginV1} {
			contents, err := setConfigPath(file.content, []string{"plugins", plugin, "registry"}, value)
			if err != nil {
				continue // it was parsed before
			}
			for _, after := range contents {
				ways = append(ways, edit(file.name, file.content, after, "containerd reads registries' directories from "+value))
			}
		}
	}
	return ways
}

// names are the files that were loaded.
func (e *effective) names() []string {
	names := make([]string, len(e.files))
	for i, file := range e.files {
		names[i] = file.name
	}
	return names
}

// versionless has no version key on purpose: a version lower than the main file's
// keeps 2.0 to 2.2 from migrating that, and a higher one keeps 2.3 from starting.
func versionless(value string) []byte {
	return []byte(mark + "# There is no version key on purpose: it would decide how the main file is read.\n" +
		"[plugins." + quoteKey(pluginV3) + ".registry]\n  config_path = " + quoteValue(value) + "\n")
}

// newMain is a configuration for a containerd that had none. Every release since
// 1.6 reads version 2; 2.x is given its own.
func newMain(r release, value string) []byte {
	version, plugin := "2", pluginV2
	if r.atLeast(2, 0) {
		version, plugin = "3", pluginV3
	}
	return []byte(mark + "version = " + version + "\n\n[plugins." + quoteKey(plugin) + ".registry]\n  config_path = " + quoteValue(value) + "\n")
}

// leadsTo reports whether, after the edit, every way of loading ends as wanted.
func (n *Node) leadsTo(main string, way Change, before []*effective, value string) bool {
	for _, e := range before {
		after, err := n.load(main, e.by, map[string][]byte{way.Path: way.After})
		if err != nil || after.configPath() != value || len(after.conflicts()) > 0 {
			return false
		}
		if !reflect.DeepEqual(e.rest(), after.rest()) {
			return false
		}
	}
	return true
}

// rest is the configuration but for config_path and the version it is noted in.
func (e *effective) rest() map[string]any {
	all := clone(e.all)
	delete(all, "version")
	plugins, _ := all["plugins"].(map[string]any)
	for _, plugin := range []string{pluginV1, pluginV2, pluginV3} {
		table, _ := plugins[plugin].(map[string]any)
		registry, _ := table["registry"].(map[string]any)
		delete(registry, "config_path")
	}
	prune(all)
	return all
}

// prune removes tables with nothing in them.
func prune(tables map[string]any) {
	for key, value := range tables {
		if table, ok := value.(map[string]any); ok {
			prune(table)
			if len(table) == 0 {
				delete(tables, key)
			}
		}
	}
}

// checkConfigPath reads the configuration back.
func (n *Node) checkConfigPath(main string, before []*effective, name string, after []byte, value string) error {
	for _, e := range before {
		now, err := n.load(main, e.by, nil)
		if err != nil {
			return err
		}
		if got := now.configPath(); got != value {
			return fmt.Errorf("read back %s: config_path is %q, not %q", name, got, value)
		}
		for _, file := range now.files {
			if file.name == name && string(file.content) != string(after) {
				return fmt.Errorf("read back %s: %w", name, ErrChanged)
			}
		}
	}
	return nil
}
