package release

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"flag"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/larder-registry/larder/test/release/compile"
	"github.com/larder-registry/larder/test/release/snapshot"
)

var (
	fresh = flag.Bool("fresh", false, "compile everything anew for the second release, instead of linking it only")
	// root is the repository, seen from this directory.
	root = flag.String("root", "../../..", "the project's `directory`")
)

// repository is a copy of the source, committed.
func repository(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "source")
	if err := snapshot.Take(t.Context(), *root, dir); err != nil {
		t.Fatal(err)
	}
	if err := snapshot.Commit(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestMake makes a release and uses everything that is in it.
func TestMake(t *testing.T) {
	const version = "v1.2.3"
	source := repository(t)
	out := filepath.Join(t.TempDir(), "dist", version)
	t.Setenv("GOPROXY", "off") // all is there, or it fails
	if err := Make(t.Context(), Config{Root: source, Version: version, Out: out}); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"CHANGELOG.md", "SHA256SUMS", "larder-1.2.3.tgz", "larder-v1.2.3-all.yaml", "larder-v1.2.3-central.yaml",
		"larder-v1.2.3-image.tar", "larder-v1.2.3-linux-amd64.cdx.json", "larder-v1.2.3-linux-amd64.tar.gz",
		"larder-v1.2.3-linux-arm64.cdx.json", "larder-v1.2.3-linux-arm64.tar.gz", "larder-v1.2.3-manifests.tar.gz",
		"larder-v1.2.3-mirror.yaml",
	}
	if got := names(t, out); !slices.Equal(got, want) {
		t.Fatalf("the release has\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if list := tool(t, out, "sha256sum", "--check", "--strict", "SHA256SUMS"); strings.Count(list, ": OK") != len(want)-1 {
		t.Errorf("sha256sum:\n%s", list)
	}

	for _, arch := range compile.Arches() {
		dir := "larder-v1.2.3-linux-" + arch
		files := archive(t, filepath.Join(out, dir+".tar.gz"))
		for _, name := range []string{"larder", "LICENSE", "README.md", "THIRD_PARTY_LICENSES"} {
			if len(files[dir+"/"+name]) < 1000 {
				t.Errorf("%s has %d bytes of %s", dir, len(files[dir+"/"+name]), name)
			}
		}
		for _, name := range []string{"github.com/dgraph-io/badger/v4 v4", "Apache License", "Redistribution and use", "std go1."} {
			if !bytes.Contains(files[dir+"/THIRD_PARTY_LICENSES"], []byte(name)) {
				t.Errorf("%s: THIRD_PARTY_LICENSES lacks %q", dir, name)
			}
		}
		if arch == runtime.GOARCH {
			binary := filepath.Join(t.TempDir(), "larder")
			if err := os.WriteFile(binary, files[dir+"/larder"], 0o755); err != nil {
				t.Fatal(err)
			}
			if got := tool(t, out, binary, "version"); !strings.HasPrefix(got, "larder v1.2.3 go1.") {
				t.Errorf("larder version: %s", got)
			}
		}
	}

	layers := archive(t, filepath.Join(out, "larder-v1.2.3-image.tar"))
	if !bytes.Contains(layers["index.json"], []byte(`"ghcr.io/larder-registry/larder:v1.2.3"`)) {
		t.Errorf("the image's archive says\n%s", layers["index.json"])
	}

	// The chart and what is rendered from it start this release's image.
	helm := filepath.Join(t.TempDir(), "helm")
	if err := buildHelm(t.Context(), source, helm); err != nil {
		t.Fatal(err)
	}
	chart := filepath.Join(out, "larder-1.2.3.tgz")
	if shown := tool(t, out, helm, "show", "chart", chart); !strings.Contains(shown, "\nversion: 1.2.3\n") || !strings.Contains(shown, "appVersion: v1.2.3\n") {
		t.Errorf("helm show chart:\n%s", shown)
	}
	tool(t, out, helm, "lint", "--strict", chart)
	const started = "image: ghcr.io/larder-registry/larder:v1.2.3\n"
	rendered := tool(t, out, helm, "template", "larder", chart, "--kube-version", "1.34.0")
	mirror, err := os.ReadFile(filepath.Join(out, "larder-v1.2.3-mirror.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	bases := archive(t, filepath.Join(out, "larder-v1.2.3-manifests.tar.gz"))
	for name, text := range map[string]string{
		"helm template": rendered, "mirror.yaml": string(mirror),
		"mirror": string(bases["larder-v1.2.3-manifests/mirror/larder.yaml"]),
	} {
		if !strings.Contains(text, started) || strings.Count(text, "image: ") != strings.Count(text, started) {
			t.Errorf("%s starts another image than %s:\n%s", name, started, text)
		}
	}

	changes, err := os.ReadFile(filepath.Join(out, "CHANGELOG.md"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(changes, []byte("# Larder v1.2.3\n\n### Added\n")) {
		t.Errorf("the changes are\n%s", changes)
	}

	again(t, version, out)
}

// again makes the release elsewhere, and compares it.
func again(t *testing.T, version, first string) {
	t.Helper()
	if *fresh {
		t.Setenv("GOCACHE", t.TempDir())
	}
	second := filepath.Join(t.TempDir(), version)
	if err := Make(t.Context(), Config{Root: repository(t), Version: version, Out: second}); err != nil {
		t.Fatal(err)
	}
	for _, name := range names(t, first) {
		a, err := os.ReadFile(filepath.Join(first, name))
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(filepath.Join(second, name))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(a, b) {
			t.Errorf("%s differs between two releases of one commit", name)
		}
	}
}

// TestRefused: what is no release is said to be none before anything is built.
func TestRefused(t *testing.T) {
	for _, tt := range []struct {
		name, version, want string
		change              func(t *testing.T, dir string)
	}{
		{name: "no version", version: "", want: "a version is needed"},
		{name: "no v", version: "1.2.3", want: `"1.2.3" is no version`},
		{name: "a word", version: "latest", want: `"latest" is no version`},
		{name: "a way out", version: "v1/../../../etc", want: "is no version"},
		{name: "short", version: "v1.2", want: "is short for v1.2.0"},
		{name: "leading zero", version: "v01.2.3", want: "is no version"},
		{name: "build metadata", version: "v1.2.3+dirty", want: "build metadata"},
		{name: "a new file", version: "v1.2.3", want: "in no commit; commit or remove them:\n?? new", change: func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, "new"), "")
		}},
		{name: "a change", version: "v1.2.3", want: " M CHANGELOG.md", change: func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, "CHANGELOG.md"), "changed")
		}},
		{name: "another commit's tag", version: "v1.2.3", want: "v1.2.3 is already the tag of another commit", change: func(t *testing.T, dir string) {
			tool(t, dir, "git", "tag", "v1.2.3")
			write(t, filepath.Join(dir, "new"), "")
			if err := snapshot.Commit(t.Context(), dir); err != nil {
				t.Fatal(err)
			}
		}},
		{name: "nothing to tell", version: "v1.2.3", want: "it says nothing of v1.2.3", change: func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, "CHANGELOG.md"), "# Changelog\n\n## Unreleased\n\n")
			if err := snapshot.Commit(t.Context(), dir); err != nil {
				t.Fatal(err)
			}
		}},
		{name: "no repository", version: "v1.2.3", want: "not a git repository", change: func(t *testing.T, dir string) {
			if err := os.RemoveAll(filepath.Join(dir, ".git")); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, filepath.Join(dir, "CHANGELOG.md"), "## Unreleased\n- something\n")
			if err := snapshot.Commit(t.Context(), dir); err != nil {
				t.Fatal(err)
			}
			if tt.change != nil {
				tt.change(t, dir)
			}
			out := filepath.Join(t.TempDir(), "dist")
			err := Make(t.Context(), Config{Root: dir, Version: tt.version, Out: out})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one that says %q", err, tt.want)
			}
			if _, err := os.Stat(out); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("something was made: %v", err)
			}
		})
	}
}

// TestSection reads changelogs as people write them.
func TestSection(t *testing.T) {
	const head = "# Changelog\n\nThe format.\n\n"
	for _, tt := range []struct{ name, text, want string }{
		{"unreleased", head + "## Unreleased\n\n- new\n\n## v0.9.0\n- old\n", "- new\n"},
		{"its own", head + "## Unreleased\n- newer\n## v1.2.3\n- this\n### Fixed\n- that\n## v1.2.2\n- old\n", "- this\n### Fixed\n- that\n"},
		{"linked and dated", head + "## [Unreleased]\n- newer\n## [1.2.3] - 2026-11-23\n- this\n", "- this\n"},
		{"not one that begins like it", head + "## v1.2.3-rc.1\n- old\n## [Unreleased]\n- new\n", "- new\n"},
		{"the last", head + "## 1.2.3\n- this", "- this\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "CHANGELOG.md")
			write(t, file, tt.text)
			got, err := section(file, "v1.2.3")
			if err != nil || string(got) != "# Larder v1.2.3\n\n"+tt.want {
				t.Errorf("%q %v, want %q", got, err, tt.want)
			}
		})
	}
	file := filepath.Join(t.TempDir(), "CHANGELOG.md")
	write(t, file, "## v1.2.3\n- a\n## [1.2.3]\n- b\n")
	if got, err := section(file, "v1.2.3"); err == nil {
		t.Errorf("two sections of one version gave %q", got)
	}
}

// FuzzUnpack: a chart that is none is an error, and nothing else.
func FuzzUnpack(f *testing.F) {
	good, err := pack("larder", []entry{{"Chart.yaml", 0o644, []byte("name: larder\n")}}, time.Unix(0, 0))
	if err != nil {
		f.Fatal(err)
	}
	bad, err := pack("larder", []entry{{"../../etc/passwd", 0o644, []byte("root")}}, time.Unix(0, 0))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(bad)
	f.Add(good[:20])
	f.Fuzz(func(t *testing.T, packed []byte) {
		files, err := unpack(packed)
		for _, file := range files {
			if err != nil || !filepath.IsLocal(file.path) {
				t.Errorf("unpacked %q, with error %v", file.path, err)
			}
		}
	})
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// tool runs a program in a directory and returns what it printed.
func tool(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir())
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// names lists a directory.
func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

// archive reads a tar archive, compressed or not, by path.
func archive(t *testing.T, file string) map[string][]byte {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var r io.Reader = bytes.NewReader(content)
	if strings.HasSuffix(file, "gz") {
		if r, err = gzip.NewReader(r); err != nil {
			t.Fatal(err)
		}
	}
	files := map[string][]byte{}
	for packed := tar.NewReader(r); ; {
		h, err := packed.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		if files[h.Name], err = io.ReadAll(packed); err != nil {
			t.Fatal(err)
		}
	}
}
