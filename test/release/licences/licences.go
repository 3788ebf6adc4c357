// Package licences finds the licences of everything that is in the binary and
// beside it in the image, and writes them as the file that has to go with both.
//
// It looks at what is linked, not at what go.mod lists: the texts in each linked
// package's directory and in those above it, up to its module's, and Go's own.
// What it does not recognise is an error, so that nothing is shipped whose
// licence nobody has looked at: [Identify] is the list.
package licences

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/larder-registry/larder/test/release/compile"
)

// Module is something written by others that is shipped.
type Module struct {
	Path    string // "std" is Go's own library
	Version string
	// IDs are the SPDX identifiers of its licences, in order.
	IDs []string
	// Texts are its licences and notices as they are, in the order of their names.
	Texts []Text
}

// Text is one file.
type Text struct {
	Name    string // below the module's directory, with slashes
	Content string
}

// roots is the package that the image's roots of trust come from.
const roots = "golang.org/x/crypto/x509roots/fallback/bundle"

// Of returns what is shipped of others by the project at root, in the order of
// paths, for all architectures. Modules that are not there are downloaded.
func Of(ctx context.Context, root string) ([]Module, error) {
	found := map[string]*listed{}
	for _, arch := range compile.Arches() {
		if err := list(ctx, found, root, arch, "./cmd/larder"); err != nil {
			return nil, err
		}
	}
	if err := list(ctx, found, filepath.Join(root, "test", "release"), compile.Arches()[0], roots); err != nil {
		return nil, err
	}
	goroot, err := output(ctx, root, compile.Arches()[0], "env", "GOROOT", "GOVERSION")
	if err != nil {
		return nil, err
	}
	dir, version, _ := strings.Cut(strings.TrimSpace(string(goroot)), "\n")
	found["std"] = &listed{version: version, root: dir, dirs: map[string]bool{dir: true}}

	var modules []Module
	for path, l := range found {
		m, err := l.read(path)
		if err != nil {
			return nil, err
		}
		modules = append(modules, m)
	}
	slices.SortFunc(modules, func(a, b Module) int { return cmp.Compare(a.Path, b.Path) })
	return modules, nil
}

// listed is a module of which packages are linked.
type listed struct {
	version string
	root    string
	dirs    map[string]bool // those packages' and the ones above, up to root
}

// list adds what the package linked, as seen from the directory dir, is made of.
func list(ctx context.Context, found map[string]*listed, dir, arch, linked string) error {
	out, err := output(ctx, dir, arch, "list", "-deps", "-json=Dir,Module", linked)
	if err != nil {
		return err
	}
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p struct {
			Dir    string
			Module *struct {
				Path, Version, Dir string
				Main               bool
				Replace            *struct{ Path string }
			}
		}
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("read list of packages: %w", err)
		}
		if p.Module == nil || p.Module.Main {
			continue
		}
		if p.Module.Replace != nil {
			return fmt.Errorf("module %s is replaced by %s: its licence is not looked for", p.Module.Path, p.Module.Replace.Path)
		}
		l := found[p.Module.Path]
		if l == nil {
			l = &listed{version: p.Module.Version, root: p.Module.Dir, dirs: map[string]bool{}}
			found[p.Module.Path] = l
		}
		if l.version != p.Module.Version {
			return fmt.Errorf("module %s is shipped as %s and as %s", p.Module.Path, l.version, p.Module.Version)
		}
		for at := p.Dir; ; at = filepath.Dir(at) {
			l.dirs[at] = true
			if at == l.root || at == filepath.Dir(at) {
				break
			}
		}
	}
}

// output runs the go command.
func output(ctx context.Context, dir, arch string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir, cmd.Env, cmd.Stderr = dir, compile.Env(arch), os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go %s: %w", strings.Join(args, " "), err)
	}
	return out, nil
}

// read collects the texts.
func (l *listed) read(path string) (Module, error) {
	// LICENSE.docs and the like are about what is not shipped.
	named := regexp.MustCompile(`(?i)^(licen[sc]e|copying|notice|patents)(\.(txt|md))?$`)
	licence := regexp.MustCompile(`(?i)^(licen[sc]e|copying)`)
	m := Module{Path: path, Version: l.version}
	for dir := range l.dirs {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return m, fmt.Errorf("look for licence of %s: %w", path, err)
		}
		for _, e := range entries {
			if !named.MatchString(e.Name()) || !e.Type().IsRegular() {
				continue
			}
			content, err := os.ReadFile(filepath.Join(dir, e.Name()))
			if err != nil {
				return m, fmt.Errorf("read licence of %s: %w", path, err)
			}
			name, err := filepath.Rel(l.root, filepath.Join(dir, e.Name()))
			if err != nil {
				return m, fmt.Errorf("read licence of %s: %w", path, err)
			}
			if licence.MatchString(e.Name()) {
				ids := Identify(string(content))
				if len(ids) == 0 {
					return m, fmt.Errorf("licence of %s: %s is none that is known here", path, name)
				}
				m.IDs = append(m.IDs, ids...)
			}
			m.Texts = append(m.Texts, Text{Name: filepath.ToSlash(name), Content: string(content)})
		}
	}
	if len(m.IDs) == 0 {
		return m, fmt.Errorf("licence of %s: there is none in %s", path, l.root)
	}
	slices.Sort(m.IDs)
	m.IDs = slices.Compact(m.IDs)
	slices.SortFunc(m.Texts, func(a, b Text) int { return cmp.Compare(a.Name, b.Name) })
	return m, nil
}

// Identify returns the SPDX identifiers of the licences in a text, none if it
// knows none of it. It knows those that may be shipped in a binary under
// Apache-2.0 without more than their text.
func Identify(text string) []string {
	text = strings.ToLower(strings.Join(strings.Fields(text), " "))
	has := func(phrases ...string) bool {
		return !slices.ContainsFunc(phrases, func(p string) bool { return !strings.Contains(text, p) })
	}
	var ids []string
	if has("apache license", "version 2.0") {
		ids = append(ids, "Apache-2.0")
	}
	if bsd := "redistributions of source code must retain the above copyright notice"; has(bsd, "endorse or promote products derived from") {
		ids = append(ids, "BSD-3-Clause")
	} else if has(bsd) {
		ids = append(ids, "BSD-2-Clause")
	}
	if has("permission to use, copy, modify, and/or distribute this software for any purpose") {
		ids = append(ids, "ISC")
	}
	if has("permission is hereby granted, free of charge, to any person obtaining a copy") {
		ids = append(ids, "MIT")
	}
	return ids
}

// Write writes the file that goes with the binary: who is in it, and every text
// once, with those it is from.
func Write(w io.Writer, modules []Module) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "Larder contains the following software of others, and its image also the\ncertificates of golang.org/x/crypto/x509roots, which are Mozilla's list\n(https://wiki.mozilla.org/CA, MPL-2.0).\n\n")
	type block struct {
		text string
		from []string
	}
	var blocks []*block
	at := map[string]*block{}
	for _, m := range modules {
		fmt.Fprintf(&b, "%s %s: %s\n", m.Path, m.Version, strings.Join(m.IDs, ", "))
		for _, t := range m.Texts {
			text := strings.TrimRight(strings.ReplaceAll(t.Content, "\r\n", "\n"), " \n") + "\n"
			if at[text] == nil {
				at[text] = &block{text: text}
				blocks = append(blocks, at[text])
			}
			at[text].from = append(at[text].from, m.Path+" "+t.Name)
		}
	}
	for _, block := range blocks {
		fmt.Fprintf(&b, "\n%s\n%s\n\n%s", strings.Repeat("=", 78), strings.Join(block.from, "\n"), block.text)
	}
	if _, err := w.Write(b.Bytes()); err != nil {
		return fmt.Errorf("write licences: %w", err)
	}
	return nil
}
