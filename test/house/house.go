// Package house holds the code to the rules in CONTRIBUTING.md that a reader
// should be able to rely on: which package may import which, where a third
// party's library may be used, who reads the environment, and that everything
// public is described.
//
// [Check] reads source, not builds, so that files behind build tags are held to
// the rules too. What the linter sees as well (.golangci.yml) is there for its
// message at the offending line; this package is the one that must hold. It
// judges no style. The rules about imports are in floors.go, those about
// declarations and calls in source.go.
package house

import (
	"cmp"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// Violation is a rule that is broken somewhere.
type Violation struct {
	// File is relative to the directory that was checked, with slashes.
	File string
	Line int
	Text string
}

// String gives "file:line: text".
func (v Violation) String() string { return fmt.Sprintf("%s:%d: %s", v.File, v.Line, v.Text) }

// file is one parsed Go file.
type file struct {
	path string // relative to the root, with slashes
	fset *token.FileSet
	ast  *ast.File
	// lines is how many lines the file has.
	lines int
}

// pkg is the package's directory: "internal/oci"; "." at the top.
func (f file) pkg() string { return path.Dir(f.path) }

func (f file) test() bool { return strings.HasSuffix(f.path, "_test.go") }

func (f file) at(n ast.Node, format string, args ...any) Violation {
	return Violation{File: f.path, Line: f.fset.Position(n.Pos()).Line, Text: fmt.Sprintf(format, args...)}
}

// Check reads every Go file of the module at root, but not modules inside it,
// and returns what breaks the rules, in the order of files and lines. module is
// the module's path.
func Check(root, module string) ([]Violation, error) {
	files, err := load(root)
	if err != nil {
		return nil, err
	}
	violations := packageDocs(files)
	for _, f := range files {
		violations = append(violations, floors(f, module)...)
		violations = append(violations, homes(f)...)
		violations = append(violations, declarations(f)...)
		violations = append(violations, calls(f)...)
	}
	slices.SortStableFunc(violations, func(a, b Violation) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line))
	})
	return violations, nil
}

func load(root string) ([]file, error) {
	var files []file
	fset := token.NewFileSet()
	err := filepath.WalkDir(root, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if name != root && (strings.HasPrefix(entry.Name(), ".") || entry.Name() == "testdata" || exists(filepath.Join(name, "go.mod"))) {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") {
			return nil
		}
		parsed, err := parser.ParseFile(fset, name, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		files = append(files, file{
			path: filepath.ToSlash(rel), fset: fset, ast: parsed,
			lines: fset.File(parsed.Pos()).LineCount(),
		})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read source: %w", err)
	}
	return files, nil
}

func exists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}
