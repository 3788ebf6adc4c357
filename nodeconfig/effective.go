package nodeconfig

import (
	"errors"
	"fmt"
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
	// loader16 is the earlier 1.6: as loader1, but a relative pattern with an
	// asterisk is looked for where the daemon was started, at /.
	loader16 loader = iota
	// loader1 is the later 1.6, and 1.7: a file's table of a plugin replaces
	// the whole table of those before.
	loader1
	// loader20 is 2.0 to 2.2: tables are merged key by key; then all of it is
	// migrated, from the version of the file that came last.
	loader20
	// loader23 is 2.3 and newer: each file is migrated, then merged.
	loader23
)

// newest is the version of the configuration this generation writes itself.
func (l loader) newest() int { return []int{2, 2, 3, 4}[l] }

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
	if !by.old() {
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
			pattern = by.pattern(name, pattern)
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
	// Before 2.3 only the version that is left in the end is looked at.
	if e.version > by.newest() {
		return nil, e.tooNew(main, e.version)
	}
	e.finish()
	return e, nil
}

// tooNew is why containerd refuses a configuration of a later version.
func (e *effective) tooNew(file string, version int) error {
	return &parseError{path: file, cause: fmt.Errorf("its version is %d, and this containerd knows at most %d", version, e.by.newest())}
}

// old reports whether it is a loader of 1.x.
func (l loader) old() bool { return l <= loader1 }

// pattern is where a file's import is looked for.
func (l loader) pattern(file, text string) string {
	text = filepath.Clean(text)
	switch {
	case path.IsAbs(text):
		return text
	case l == loader16 && strings.Contains(text, "*"):
		return path.Join("/", text)
	default:
		return path.Join(path.Dir(file), text)
	}
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
	case e.by == loader23 && version > e.by.newest():
		return e.tooNew(file.name, version)
	case e.by == loader20 && version < 2:
		plugins = nameV1(plugins)
		version = e.version
	case e.by == loader23:
		if version < 2 {
			migrateImages(plugins)
			plugins = nameV1(plugins)
		}
		if version < 4 {
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
	if e.by.old() {
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
	case e.by.old() && e.version < 2:
		name = pluginV1
	case e.by.old():
		name = pluginV2
	case e.by == loader20 && e.version < 3:
		migrateImages(plugins)
	}
	e.images, _ = plugins[name].(map[string]any)
	if e.by.old() {
		e.images = imagesV2(e.images)
	}
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
