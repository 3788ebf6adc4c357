package nodeconfig

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// loader is how a generation of containerd puts its configuration together from
// the main file and what it imports (LoadConfig and mergeConfig in its
// services/server/config and cmd/containerd/server/config).
type loader int

const (
	// loader1 is 1.6 and 1.7: a file's table of a plugin replaces the whole
	// table of those before.
	loader1 loader = iota
	// loader20 is 2.0 to 2.2: tables are merged key by key; then all of it is
	// migrated, from the version of the file that came last.
	loader20
	// loader23 is 2.3 and newer: each file is migrated, then merged.
	loader23
)

// newest is the version of the configuration this generation writes itself.
func (l loader) newest() int { return []int{2, 3, 4}[l] }

// The tables in which the CRI plugin's image settings stand.
const (
	pluginV1 = "cri"                         // version 1
	pluginV2 = "io.containerd.grpc.v1.cri"   // version 2
	pluginV3 = "io.containerd.cri.v1.images" // version 3 and 4
)

// defaultRoots is what containerd 2.2 and newer take for an empty config_path
// when no mirrors are set.
const defaultRoots = "/etc/containerd/certs.d:/etc/docker/certs.d"

// parseError is a file of the runtime that cannot be parsed.
type parseError struct {
	path      string
	line, col int
	cause     error
}

func (e *parseError) Error() string {
	if e.line == 0 {
		return fmt.Sprintf("parse %s: %v", e.path, e.cause)
	}
	return fmt.Sprintf("parse %s: line %d, column %d: %v", e.path, e.line, e.col, e.cause)
}

func (e *parseError) Unwrap() error { return e.cause }

// parseTOML decodes a file; the error is a *parseError.
func parseTOML(name string, content []byte) (map[string]any, error) {
	tables := map[string]any{}
	if err := toml.Unmarshal(content, &tables); err != nil {
		e := &parseError{path: name, cause: err}
		if at, ok := errors.AsType[*toml.DecodeError](err); ok {
			e.line, e.col = at.Position()
		}
		return nil, e
	}
	return tables, nil
}

// configFile is one file containerd loads.
type configFile struct {
	name    string
	content []byte
	tables  map[string]any
	imports []string // patterns, absolute
}

// effective is the configuration containerd works with.
type effective struct {
	by      loader
	files   []configFile // in the order of loading; none when there is no main file
	version int          // after merging, before migrating
	all     map[string]any
	images  map[string]any // the CRI plugin's settings for images
}

// load reads main and what it imports the way by does, with the files in overlay
// in place of those on the node.
func (n *Node) load(main string, by loader, overlay map[string][]byte) (*effective, error) {
	e := &effective{by: by, all: map[string]any{}}
	if by != loader1 {
		e.version = by.newest()
	}
	pending, loaded := []string{main}, map[string]bool{}
	for len(pending) > 0 {
		name := pending[0]
		pending = pending[1:]
		if loaded[name] {
			continue
		}
		loaded[name] = true
		content, ok := overlay[name]
		if !ok {
			var err error
			if content, err = n.read(name); err != nil {
				return nil, err
			}
		}
		if content == nil {
			if name == main {
				break // containerd runs on its defaults
			}
			return nil, &parseError{path: main, cause: fmt.Errorf("it imports %s, which does not exist: containerd does not start", name)}
		}
		tables, err := parseTOML(name, content)
		if err != nil {
			return nil, err
		}
		file := configFile{name: name, content: content, tables: tables}
		if err := e.merge(file); err != nil {
			return nil, err
		}
		for _, pattern := range stringsOf(tables["imports"]) {
			pattern = filepath.Clean(pattern)
			if !path.IsAbs(pattern) {
				pattern = path.Join(path.Dir(name), pattern)
			}
			file.imports = append(file.imports, pattern)
			if !strings.Contains(pattern, "*") {
				pending = append(pending, pattern)
				continue
			}
			matches, err := n.glob(pattern, overlay)
			if err != nil {
				return nil, err
			}
			pending = append(pending, matches...)
		}
		e.files = append(e.files, file)
	}
	e.finish()
	return e, nil
}

// glob lists the files a pattern matches, those of overlay included, in order.
func (n *Node) glob(pattern string, overlay map[string][]byte) ([]string, error) {
	var names []string
	matches, err := filepath.Glob(filepath.Join(escapeGlob(n.Root), pattern))
	if err != nil {
		return nil, fmt.Errorf("import %s: %w", pattern, err)
	}
	for _, match := range matches {
		names = append(names, path.Join("/", strings.TrimPrefix(match, filepath.Clean(n.Root))))
	}
	for name := range overlay {
		if ok, err := path.Match(pattern, name); err == nil && ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// escapeGlob makes a directory's name match itself only.
func escapeGlob(dir string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(filepath.Clean(dir))
}

// merge adds a file to what was loaded before.
func (e *effective) merge(file configFile) error {
	version := 0
	if v, ok := file.tables["version"].(int64); ok {
		version = int(v)
	}
	tables := clone(file.tables)
	plugins, _ := tables["plugins"].(map[string]any)
	switch {
	case version > e.by.newest():
		return &parseError{path: file.name, cause: fmt.Errorf("its version is %d, and this containerd knows at most %d", version, e.by.newest())}
	case e.by == loader20 && version < 2:
		plugins = nameV1(plugins)
		version = e.version
	case e.by == loader23:
		if version < 2 {
			migrateImages(plugins)
			plugins = nameV1(plugins)
		}
		if version < 3 {
			migrateImages(plugins)
		}
		version = e.version
	}
	if version != 0 {
		e.version = version
	}
	if plugins != nil {
		tables["plugins"] = plugins
	}
	if e.by == loader1 {
		merged, _ := e.all["plugins"].(map[string]any)
		for name, table := range plugins {
			if merged == nil {
				merged = map[string]any{}
			}
			merged[name] = table
		}
		delete(tables, "plugins")
		if merged != nil {
			e.all["plugins"] = merged
		}
	}
	mergeTables(e.all, tables)
	return nil
}

// finish finds the settings for images in what was merged.
func (e *effective) finish() {
	plugins, _ := e.all["plugins"].(map[string]any)
	if plugins == nil {
		plugins = map[string]any{}
	}
	name := pluginV3
	switch {
	case e.by == loader1 && e.version < 2:
		name = pluginV1
	case e.by == loader1:
		name = pluginV2
	case e.by == loader20 && e.version < 3:
		migrateImages(plugins)
	}
	e.images, _ = plugins[name].(map[string]any)
	if e.by == loader1 {
		e.images = imagesV2(e.images)
	}
}

// registry is the table registry of the settings for images.
func (e *effective) registry() map[string]any {
	registry, _ := e.images["registry"].(map[string]any)
	return registry
}

// configPath is config_path as it is written; empty when it is not set.
func (e *effective) configPath() string {
	text, _ := e.registry()["config_path"].(string)
	return text
}

// conflicts names the tables that keep containerd's CRI plugin from loading once
// config_path is set (ValidateImageConfig; ValidatePluginConfig in 1.x).
func (e *effective) conflicts() []string {
	var names []string
	if mirrors, ok := e.registry()["mirrors"].(map[string]any); ok {
		for _, name := range slices.Sorted(maps.Keys(mirrors)) {
			names = append(names, fmt.Sprintf("registry.mirrors.%q", name))
		}
	}
	configs, _ := e.registry()["configs"].(map[string]any)
	for _, name := range slices.Sorted(maps.Keys(configs)) {
		config, _ := configs[name].(map[string]any)
		if _, ok := config["tls"]; ok && e.by == loader1 {
			names = append(names, fmt.Sprintf("registry.configs.%q.tls", name))
		}
	}
	return names
}

// localPull says why containerd 2.1 and newer fetch images in the CRI plugin and
// not by the transfer service; empty when they use the service
// (CheckLocalImagePullConfigs).
func (e *effective) localPull() string {
	flag := func(key string, byDefault bool) bool {
		if v, ok := e.images[key].(bool); ok {
			return v
		}
		return byDefault
	}
	some := func(key string) bool {
		table, _ := e.registry()[key].(map[string]any)
		return len(table) > 0
	}
	downloads, ok := e.images["max_concurrent_downloads"].(int64)
	switch {
	case flag("use_local_image_pull", false):
		return "use_local_image_pull"
	case !flag("disable_snapshot_annotations", true):
		return "disable_snapshot_annotations = false"
	case flag("discard_unpacked_layers", false):
		return "discard_unpacked_layers = true"
	case some("mirrors"), some("configs"), some("auths"):
		return "registry.mirrors, configs or auths"
	case ok && downloads != 3:
		return "max_concurrent_downloads"
	case flag("image_pull_with_sync_fs", false):
		return "image_pull_with_sync_fs"
	}
	return ""
}

// socket is where this containerd answers.
func (e *effective) socket() string {
	plugins, _ := e.all["plugins"].(map[string]any)
	server, _ := plugins["io.containerd.server.v1.grpc"].(map[string]any)
	old, _ := e.all["grpc"].(map[string]any)
	for _, table := range []map[string]any{server, old} {
		if address, ok := table["address"].(string); ok && address != "" {
			return address
		}
	}
	return "/run/containerd/containerd.sock"
}

// nameV1 gives the plugin that version 1 calls cri its later name.
func nameV1(plugins map[string]any) map[string]any {
	table, ok := plugins[pluginV1]
	if !ok {
		return plugins
	}
	plugins = maps.Clone(plugins)
	delete(plugins, pluginV1)
	plugins[pluginV2] = table
	return plugins
}

// migrateImages copies the settings for images from where version 2 has them to
// where version 3 has them, replacing what is there, table by table
// (configMigration in plugins/cri/images).
func migrateImages(plugins map[string]any) {
	old, ok := plugins[pluginV2].(map[string]any)
	if !ok {
		return
	}
	images, _ := plugins[pluginV3].(map[string]any)
	if images == nil {
		images = map[string]any{}
	}
	maps.Copy(images, imagesV2(old))
	plugins[pluginV3] = images
}

// imagesV2 picks the settings for images out of the whole CRI plugin's.
func imagesV2(cri map[string]any) map[string]any {
	images := map[string]any{}
	for _, key := range []string{"registry", "max_concurrent_downloads", "image_pull_progress_timeout", "image_pull_with_sync_fs"} {
		if value, ok := cri[key]; ok {
			images[key] = value
		}
	}
	containerd, _ := cri["containerd"].(map[string]any)
	if _, ok := containerd["runtimes"]; !ok {
		return images // the migration stops here, too
	}
	for _, key := range []string{"snapshotter", "disable_snapshot_annotations", "discard_unpacked_layers"} {
		if value, ok := containerd[key]; ok {
			images[key] = value
		}
	}
	return images
}

// mergeTables puts from into to, table by table; other values replace.
func mergeTables(to, from map[string]any) {
	for key, value := range from {
		table, ok := value.(map[string]any)
		old, both := to[key].(map[string]any)
		if ok && both {
			mergeTables(old, table)
			continue
		}
		to[key] = value
	}
}

// clone copies tables all the way down.
func clone(tables map[string]any) map[string]any {
	c := make(map[string]any, len(tables))
	for key, value := range tables {
		if table, ok := value.(map[string]any); ok {
			value = clone(table)
		}
		c[key] = value
	}
	return c
}

func stringsOf(value any) []string {
	list, _ := value.([]any)
	var texts []string
	for _, item := range list {
		if text, ok := item.(string); ok {
			texts = append(texts, text)
		}
	}
	return texts
}
