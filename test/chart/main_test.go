package chart

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/larder-registry/larder/test/leak"
)

var (
	helmFlag      = flag.String("helm", "../../.cache/chart/helm", "helm")
	kustomizeFlag = flag.String("kustomize", "../../.cache/chart/kustomize", "kustomize")
	larderFlag    = flag.String("larder", "../../.cache/chart/larder", "larder")
	binFlag       = flag.String("bin", "../../.cache/kubernetes/1.37", "directory that holds kube-apiserver")
	updateFlag    = flag.Bool("update", false, "write the table of values in docs/kubernetes.md anew")
)

// root is the repository, seen from this directory.
const root = "../.."

func TestMain(m *testing.M) { leak.Main(m) }

// output is what a program printed, and its exit code.
type output struct {
	stdout, stderr string
	code           int
}

// program runs a program to its end. One that cannot be started fails the test.
func program(t testing.TB, name string, args ...string) output {
	t.Helper()
	file, err := filepath.Abs(name)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), file, args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir()}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err = cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return output{stdout.String(), stderr.String(), exit.ExitCode()}
	}
	if err != nil {
		t.Fatalf("%v; test/chart/run builds it", err)
	}
	return output{stdout.String(), stderr.String(), 0}
}

// valueSet is a way in which the chart is installed.
type valueSet struct {
	name string
	args []string // of helm template
}

// valueSets are those that manifests/ is rendered with, and those that turn on
// what the others leave off.
func valueSets(t testing.TB) []valueSet {
	t.Helper()
	var sets []valueSet
	for _, dir := range []string{"manifests/values", "test/chart/testdata/values"} {
		files, err := filepath.Glob(filepath.Join(root, dir, "*.yaml"))
		if err != nil || len(files) == 0 {
			t.Fatalf("no values in %s (%v)", dir, err)
		}
		for _, file := range files {
			sets = append(sets, valueSet{name: strings.TrimSuffix(filepath.Base(file), ".yaml"), args: []string{"--values", file}})
		}
	}
	return sets
}

// The names that releases have here.
const (
	release   = "larder"
	namespace = "larder"
)

// template renders the chart and returns what helm printed.
func template(t testing.TB, name string, args ...string) output {
	t.Helper()
	return program(t, *helmFlag, append([]string{"template", name, filepath.Join(root, "manifests/chart"), "--namespace", namespace, "--kube-version", "1.34.0"}, args...)...)
}

// render renders the chart, which has to succeed, and returns its objects.
func render(t testing.TB, name string, args ...string) []object {
	t.Helper()
	out := template(t, name, args...)
	if out.code != 0 {
		t.Fatalf("helm template %s: %s", strings.Join(args, " "), out.stderr)
	}
	return parse(t, out.stdout)
}

// object is a Kubernetes object as its manifest has it.
type object map[string]any

// parse reads a stream of manifests. Keys that are there twice fail the test.
func parse(t testing.TB, stream string) []object {
	t.Helper()
	var objects []object
	for i, doc := range strings.Split("\n"+stream, "\n---") {
		var o object
		if err := yaml.UnmarshalStrict([]byte(doc+"\n"), &o); err != nil {
			t.Fatalf("document %d: %v:\n%s", i, err, doc)
		}
		if len(o) > 0 {
			objects = append(objects, o)
		}
	}
	return objects
}

// at is the value below o that a path leads to, of keys and of indices in lists;
// nil when it leads nowhere.
func (o object) at(path ...any) any {
	var v any = map[string]any(o)
	for _, step := range path {
		switch step := step.(type) {
		case string:
			m, _ := v.(map[string]any)
			v = m[step]
		case int:
			l, _ := v.([]any)
			if step >= len(l) {
				return nil
			}
			v = l[step]
		}
	}
	return v
}

func (o object) text(path ...any) string { s, _ := o.at(path...).(string); return s }

// list is the objects in the list at path.
func (o object) list(path ...any) []object {
	l, _ := o.at(path...).([]any)
	objects := make([]object, 0, len(l))
	for _, v := range l {
		if m, ok := v.(map[string]any); ok {
			objects = append(objects, m)
		}
	}
	return objects
}

func (o object) kind() string { return o.text("kind") }
func (o object) name() string { return o.text("metadata", "name") }
func (o object) id() string   { return o.kind() + " " + o.text("metadata", "namespace") + "/" + o.name() }

// of returns the objects of a kind.
func of(objects []object, kind string) []object {
	return slices.DeleteFunc(slices.Clone(objects), func(o object) bool { return o.kind() != kind })
}

// one returns the object of a kind and name, which has to be there.
func one(t testing.TB, objects []object, kind, name string) object {
	t.Helper()
	for _, o := range objects {
		if o.kind() == kind && o.name() == name {
			return o
		}
	}
	t.Fatalf("there is no %s %s", kind, name)
	return nil
}

// workloads are the objects that have a pod's template.
func workloads(objects []object) []object {
	return slices.DeleteFunc(slices.Clone(objects), func(o object) bool { return o.at("spec", "template", "spec") == nil })
}

// containers are a workload's, init containers first.
func (o object) containers() []object {
	return append(o.list("spec", "template", "spec", "initContainers"), o.list("spec", "template", "spec", "containers")...)
}

// args are a container's.
func (o object) args() []string {
	var args []string
	l, _ := o.at("args").([]any)
	for _, v := range l {
		args = append(args, fmt.Sprint(v))
	}
	return args
}

// flag is the value of a container's flag --name=value; "" when it is not there.
func (o object) flag(name string) string {
	for _, arg := range o.args() {
		if value, ok := strings.CutPrefix(arg, "--"+name+"="); ok {
			return value
		}
	}
	return ""
}
