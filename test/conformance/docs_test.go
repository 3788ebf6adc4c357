package conformance

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestTheDocsNameTestsThatAreThere holds docs/conformance.md to the tests: each
// it names exists, and each here is named.
func TestTheDocsNameTestsThatAreThere(t *testing.T) {
	root := filepath.Join("..", "..")
	page, err := os.ReadFile(filepath.Join(root, "docs", "conformance.md"))
	if err != nil {
		t.Fatal(err)
	}
	functions := func(dir string) map[string]bool {
		t.Helper()
		files, err := filepath.Glob(filepath.Join(root, dir, "*_test.go"))
		if err != nil || len(files) == 0 {
			t.Fatalf("tests of %s: %v", dir, err)
		}
		found := map[string]bool{}
		for _, file := range files {
			source, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range regexp.MustCompile(`(?m)^func (Test\w+)\(`).FindAllSubmatch(source, -1) {
				found[string(m[1])] = true
			}
		}
		return found
	}
	here := functions(filepath.Join("test", "conformance"))
	named := map[string]bool{}
	for _, m := range regexp.MustCompile("`(?:([a-z/]+): )?(Test[A-Za-z0-9]+)`").FindAllStringSubmatch(string(page), -1) {
		dir, name := m[1], m[2]
		if dir == "" {
			named[name] = true
			if !here[name] {
				t.Errorf("there is no %s", name)
			}
		} else if !functions(filepath.FromSlash(dir))[name] {
			t.Errorf("there is no %s in %s", name, dir)
		}
	}
	for name := range here {
		if !named[name] && name != "TestMain" && !strings.HasPrefix(name, "TestTheDocs") {
			t.Errorf("docs/conformance.md does not name %s", name)
		}
	}
}
