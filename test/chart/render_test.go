package chart

import (
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// rendered are the directories that are made from the chart.
func rendered() []string {
	return []string{"mirror", "central", "all", "overlays/eks", "overlays/bottlerocket", "overlays/undo", "overlays/undo-eks"}
}

// TestManifestsAreInSync renders everything again and compares it, to the byte.
func TestManifestsAreInSync(t *testing.T) {
	dir := t.TempDir()
	helm, err := filepath.Abs(*helmFlag)
	if err != nil {
		t.Fatal(err)
	}
	larder, err := filepath.Abs(*larderFlag)
	if err != nil {
		t.Fatal(err)
	}
	if out := program(t, filepath.Join(root, "manifests/render"), helm, larder, dir); out.code != 0 {
		t.Fatal(out.stderr)
	}
	made := map[string]bool{}
	err = filepath.WalkDir(dir, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, name)
		if err != nil {
			return err
		}
		made[rel] = true
		want, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		got, err := os.ReadFile(filepath.Join(root, "manifests", rel))
		if err != nil {
			return err
		}
		if string(got) != string(want) {
			t.Errorf("manifests/%s is not what the chart gives: run make manifests", rel)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(made) < 3*len(rendered()) {
		t.Errorf("only %d files are made", len(made))
	}
	// Nothing else lies about in their directories.
	for _, base := range rendered() {
		entries, err := os.ReadDir(filepath.Join(root, "manifests", base))
		if err != nil {
			t.Fatal(err)
		}
		for _, entry := range entries {
			if name := filepath.Join(base, entry.Name()); !made[name] {
				t.Errorf("manifests/%s is not made from the chart", name)
			}
		}
	}
}

// TestRenderingIsRepeatable: nothing is random, nothing depends on a cluster.
func TestRenderingIsRepeatable(t *testing.T) {
	for _, set := range valueSets(t) {
		t.Run(set.name, func(t *testing.T) {
			first, again := template(t, release, set.args...), template(t, release, set.args...)
			if first.code != 0 || first.stdout != again.stdout {
				t.Errorf("two renderings differ (%s)", first.stderr)
			}
			upgrade := template(t, release, append(set.args, "--is-upgrade")...)
			if upgrade.stdout != first.stdout {
				t.Error("an upgrade renders something else than an install")
			}
		})
	}
}

// TestNoHooksNoLookups: tools that render without a cluster, as Argo CD does, give
// the same as helm install.
func TestNoHooksNoLookups(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(root, "manifests/chart/templates/*"))
	if err != nil || len(files) == 0 {
		t.Fatal("no templates", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, word := range []string{"helm.sh/hook", "lookup ", "genSelfSigned", "genCA", "genSigned", "rand", "uuidv4", "(now", "{ now", "Release.Revision", ".Capabilities"} {
			if strings.Contains(string(text), word) {
				t.Errorf("%s has %q", file, word)
			}
		}
	}
}

// TestLint is helm's own opinion, for every set of values.
func TestLint(t *testing.T) {
	for _, set := range valueSets(t) {
		t.Run(set.name, func(t *testing.T) {
			args := append([]string{"lint", "--strict", "--kube-version", "1.34.0", "--namespace", namespace, filepath.Join(root, "manifests/chart")}, set.args...)
			if out := program(t, *helmFlag, args...); out.code != 0 {
				t.Errorf("%s%s", out.stdout, out.stderr)
			}
		})
	}
}

// TestKustomize builds every base and overlay as a kustomization does that names
// it, and finds the very objects the chart gives.
func TestKustomize(t *testing.T) {
	for _, base := range rendered() {
		t.Run(base, func(t *testing.T) {
			dir := filepath.Join(root, "manifests", base)
			out := program(t, *kustomizeFlag, "build", dir)
			if out.code != 0 || out.stderr != "" {
				t.Fatalf("kustomize build: exit code %d: %s", out.code, out.stderr)
			}
			built := byID(t, parse(t, out.stdout))
			var files []object
			for _, name := range []string{"namespace.yaml", "larder.yaml"} {
				text, err := os.ReadFile(filepath.Join(dir, name))
				if err != nil {
					t.Fatal(err)
				}
				files = append(files, parse(t, string(text))...)
			}
			want := byID(t, files)
			if len(built) != len(want) {
				t.Errorf("kustomize builds %d objects of %d", len(built), len(want))
			}
			for id := range want {
				if !reflect.DeepEqual(built[id], want[id]) {
					t.Errorf("%s is built as %v, and lies there as %v", id, built[id], want[id])
				}
			}
		})
	}
}

// TestKustomizeOnTop changes what people change: the image, by a kustomization of
// their own on a base of ours.
func TestKustomizeOnTop(t *testing.T) {
	dir := t.TempDir()
	base, err := filepath.Abs(filepath.Join(root, "manifests/all"))
	if err != nil {
		t.Fatal(err)
	}
	// A kustomization names its bases by relative paths.
	from, err := filepath.EvalSymlinks(dir)
	if err != nil {
		t.Fatal(err)
	}
	rel, err := filepath.Rel(from, base)
	if err != nil {
		t.Fatal(err)
	}
	content := "resources: [" + rel + "]\nimages: [{name: ghcr.io/larder-registry/larder, newName: registry.example/larder, newTag: v9}]\n"
	if err := os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	out := program(t, *kustomizeFlag, "build", dir)
	if out.code != 0 {
		t.Fatal(out.stderr)
	}
	images := 0
	for _, w := range workloads(parse(t, out.stdout)) {
		for _, c := range w.containers() {
			images++
			if c.text("image") != "registry.example/larder:v9" {
				t.Errorf("%s has image %s", w.id(), c.text("image"))
			}
		}
	}
	if images != 4 {
		t.Errorf("%d images were looked at", images)
	}
}

// TestBottlerocketMountsNoFiles: its overlay mounts the cache and nothing else,
// and brings the user data that `larder init` prints.
func TestBottlerocketMountsNoFiles(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "manifests/overlays/bottlerocket/larder.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	mirror := one(t, parse(t, string(text)), "DaemonSet", "larder-mirror")
	var paths []string
	for _, v := range mirror.list("spec", "template", "spec", "volumes") {
		if p := v.text("hostPath", "path"); p != "" {
			paths = append(paths, p)
		}
	}
	if !slices.Equal(paths, []string{"/var/lib/larder"}) {
		t.Errorf("it mounts %v", paths)
	}
	data, err := os.ReadFile(filepath.Join(root, "manifests/overlays/bottlerocket/user-data.toml"))
	if err != nil {
		t.Fatal(err)
	}
	port := mirror.containers()[1].flag("listen")
	if !strings.Contains(string(data), `endpoint = ["http://`+port+`"]`) {
		t.Errorf("the user data does not name %s:\n%s", port, data)
	}
}

// byID is the objects by kind, namespace and name. One that is there twice fails
// the test.
func byID(t *testing.T, objects []object) map[string]object {
	t.Helper()
	all := map[string]object{}
	for _, o := range objects {
		if all[o.id()] != nil {
			t.Errorf("%s is there twice", o.id())
		}
		all[o.id()] = o
	}
	return all
}
