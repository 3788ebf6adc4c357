package house

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/larder-registry/larder"

func TestTheHouseStandsOnItsFloors(t *testing.T) {
	violations, err := Check(filepath.Join("..", ".."), module)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range violations {
		t.Error(v)
	}
}

// TestPlantedViolationsAreFound keeps the checks themselves honest: each breaks
// one rule, and exactly that is reported.
func TestPlantedViolationsAreFound(t *testing.T) {
	for _, c := range []struct {
		name, path, source string
		want               string // empty: nothing is wrong
	}{
		{"clean", "store/a.go", "import \"larder/internal/oci\"", ""},
		{"ground floor looks up", "internal/oci/a.go", "import \"larder/store\"", "internal/oci/a.go:3: internal/oci must not import store"},
		{"ground floor speaks HTTP", "internal/oci/a.go", "import \"net/http\"", "internal/oci/a.go:3: internal/oci must not import net/http"},
		{"store knows a mode", "store/a.go", "import \"larder/mirror\"", "store/a.go:3: store must not import mirror"},
		{"mirror knows its client", "mirror/a.go", "import \"larder/mirror/upstream\"", "mirror/a.go:3: mirror must not import mirror/upstream"},
		{"client keeps things", "mirror/upstream/a.go", "import \"larder/store\"", "mirror/upstream/a.go:3: mirror/upstream must not import store"},
		{"edge knows a mode", "internal/ociserver/a.go", "import \"larder/mirror\"", "internal/ociserver/a.go:3: internal/ociserver must not import mirror"},
		{"modes meet in a test", "mirror/a_test.go", "import \"larder/central\"", "mirror/a_test.go:3: mirror must not import central"},
		{"parts meet in a test", "mirror/a_test.go", "import \"larder/mirror/upstream\"", ""},
		{"a package on no floor", "internal/utils/a.go", "", "internal/utils/a.go:2: package internal/utils is on no floor; add it to test/house/floors.go"},
		{"cmd may all", "cmd/larder/a.go", "import (\n\t_ \"larder/mirror\"\n\t_ \"github.com/spf13/cobra\"\n)", ""},
		{"badger astray", "mirror/a.go", "import \"github.com/dgraph-io/badger/v4\"", "mirror/a.go:3: github.com/dgraph-io/badger/v4 must not be imported in mirror/a.go"},
		{"echo astray", "cmd/larder/a.go", "import \"github.com/labstack/echo/v4\"", "cmd/larder/a.go:3: github.com/labstack/echo/v4 must not be imported in cmd/larder/a.go"},
		{"yaml astray", "cmd/larder/a.go", "import \"go.yaml.in/yaml/v3\"", "cmd/larder/a.go:3: go.yaml.in/yaml/v3 must not be imported in cmd/larder/a.go"},
		{"prometheus at home", "mirror/metrics.go", "import \"github.com/prometheus/client_golang/prometheus\"\n\nfunc f() { prometheus.NewCounter() }", ""},
		{"prometheus astray", "mirror/a.go", "import \"github.com/prometheus/client_golang/prometheus\"\n\nfunc f() { prometheus.NewCounter() }", "mirror/a.go:3: github.com/prometheus/client_golang/prometheus must not be imported in mirror/a.go"},
		{"a registerer is passed on", "mirror/a.go", "import \"github.com/prometheus/client_golang/prometheus\"\n\ntype c struct{ r prometheus.Registerer }", ""},
		{"environment", "store/a.go", "import \"os\"\n\nfunc f() { os.Getenv(\"X\") }", "store/a.go:5: os.Getenv: only cmd reads the environment and exits"},
		{"exit", "mirror/a.go", "import \"os\"\n\nfunc f() { os.Exit(1) }", "mirror/a.go:5: os.Exit: only cmd reads the environment and exits"},
		{"exit in cmd", "cmd/larder/a.go", "import \"os\"\n\nfunc f() { os.Exit(1) }", ""},
		{"sleep", "store/a_test.go", "import \"time\"\n\nfunc f() { time.Sleep(1) }", "store/a_test.go:5: time.Sleep: wait for what is to happen, on a channel or a context"},
		{"skip", "store/a_test.go", "import \"testing\"\n\nfunc f(t *testing.T) { t.Skip() }", "store/a_test.go:5: a test must not skip itself"},
		{"init", "store/a.go", "func init() {}", "store/a.go:3: init() is not used; construct things where they are needed"},
		{"a map for everybody", "store/a.go", "var cache = map[string]int{}", "store/a.go:3: package-level variable cache can change; make it a field"},
		{"a counter for everybody", "store/a.go", "var n int", "store/a.go:3: package-level variable n can change; make it a field"},
		{"a lock for everybody", "store/a.go", "import \"sync\"\n\nvar mu = sync.Mutex{}", "store/a.go:5: package-level variable mu can change; make it a field"},
		{"made for everybody", "store/a.go", "var c = make(chan int)", "store/a.go:3: package-level variable c can change; make it a field"},
		{"a sentinel", "store/a.go", "import \"errors\"\n\nvar errX = errors.New(\"x\")\n\nvar _ error = errX", ""},
		{"an undocumented function", "store/a.go", "func F() {}", "store/a.go:3: exported F has no doc comment"},
		{"an undocumented method", "store/a.go", "// T is.\ntype T[X any] struct{}\n\nfunc (t *T[X]) M() {}", "store/a.go:6: exported M has no doc comment"},
		{"an undocumented type", "store/a.go", "type T int", "store/a.go:3: exported T has no doc comment"},
		{"an undocumented constant", "store/a.go", "const C = 1", "store/a.go:3: exported C has no doc comment"},
		{"a documented group", "store/a.go", "// The codes.\nconst (\n\tC = 1\n\tD = 2\n)", ""},
		{"a wide interface", "store/a.go", "type i interface{ a(); b(); c(); d(); e(); f(); g() }", "store/a.go:3: the interface has more than six methods"},
		{"a long file", "store/a.go", strings.Repeat("\n", 400), "store/a.go:401: the file is longer than 400 lines: split it"},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := t.TempDir()
			plant(t, root, c.path, "// Package x is documented.\npackage x\n"+strings.ReplaceAll(c.source, `"larder/`, `"`+module+`/`))
			// A module inside is not ours to judge.
			plant(t, root, "test/other/go.mod", "module other")
			plant(t, root, "test/other/a.go", "package other\n\nfunc init() {}")
			var got, want []string
			violations, err := Check(root, module)
			if err != nil {
				t.Fatal(err)
			}
			for _, v := range violations {
				got = append(got, v.String())
			}
			if c.want != "" {
				want = []string{c.want}
			}
			if !slices.Equal(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

func TestAPackageWithoutADocCommentIsFound(t *testing.T) {
	root := t.TempDir()
	plant(t, root, "store/a.go", "package store\n")
	plant(t, root, "store/b.go", "package store\n")
	violations, err := Check(root, module)
	if err != nil || len(violations) != 1 || violations[0].String() != "store/a.go:1: package store has no doc comment" {
		t.Error(violations, err)
	}
}

// plant writes a file below root.
func plant(t *testing.T, root, name, content string) {
	t.Helper()
	name = filepath.Join(root, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestLinksInTheDocsLeadSomewhere follows the relative links between Markdown
// files; anchors are not looked at.
func TestLinksInTheDocsLeadSomewhere(t *testing.T) {
	root := filepath.Join("..", "..")
	link := regexp.MustCompile(`\]\(([^)#]+)(#[^)]*)?\)`)
	files := 0
	err := filepath.WalkDir(root, func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && name != root && strings.HasPrefix(entry.Name(), "."):
			return filepath.SkipDir
		case !strings.HasSuffix(name, ".md"):
			return nil
		}
		files++
		content, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		for _, m := range link.FindAllStringSubmatch(string(content), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(name), m[1])); err != nil {
				t.Errorf("%s links to %s, which is not there", name, m[1])
			}
		}
		return nil
	})
	if err != nil || files < 5 {
		t.Errorf("%d files, %v", files, err)
	}
}
