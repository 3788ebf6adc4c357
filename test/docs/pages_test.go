package docs

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// pages gives every page of the repository.
func pages(t *testing.T) []Page {
	t.Helper()
	all, err := readPages()
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 40 {
		t.Fatalf("only %d pages were found", len(all))
	}
	return all
}

// readPages reads them, once.
var readPages = sync.OnceValues(func() ([]Page, error) {
	var all []Page
	err := filepath.WalkDir(root, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		base := entry.Name()
		if entry.IsDir() && name != root && (strings.HasPrefix(base, ".") || slices.Contains([]string{"testdata", "bin", "dist", "node_modules"}, base)) {
			return filepath.SkipDir
		}
		if entry.IsDir() || !strings.HasSuffix(base, ".md") {
			return nil
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		p, err := Parse(filepath.ToSlash(rel), string(text))
		all = append(all, p)
		return err
	})
	return all, err
})

// record reports whether a page tells what was, and is left as it is.
func record(p Page) bool {
	return strings.HasPrefix(p.Name, "docs/adr/") || p.Name == "CHANGELOG.md"
}

// TestMarks holds every block to a language, and to marks that mean something.
func TestMarks(t *testing.T) {
	for _, p := range pages(t) {
		if record(p) {
			continue
		}
		for _, b := range p.Blocks {
			if err := b.Check(); err != nil {
				t.Errorf("%s:%d: %v", p.Name, b.Line, err)
			}
			if file, ok := b.Find("tested"); ok {
				tested(t, p, b, file)
			}
		}
	}
}

// tested holds a block to the file that is said to run it: it has every line.
func tested(t *testing.T, p Page, b Block, file string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, file))
	if err != nil {
		t.Errorf("%s:%d: %v", p.Name, b.Line, err)
		return
	}
	for _, words := range Commands(b.Text) {
		if command := strings.Join(words, " "); !strings.Contains(string(text), command) {
			t.Errorf("%s:%d: %s does not run %q", p.Name, b.Line, file, command)
		}
	}
}
