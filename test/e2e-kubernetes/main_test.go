package kubernetes

import (
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/larder-registry/larder/test/leak"
)

var (
	binFlag    = flag.String("bin", "../../.cache/kubernetes/1.37", "directory that holds kube-apiserver, kube-controller-manager and kubectl")
	larderFlag = flag.String("larder", "../../.cache/bin/larder", "the binary under test")
	docFlag    = flag.String("doc", "../../docs/admission.md", "holds the manifests to install")
)

func TestMain(m *testing.M) { leak.Main(m) }

// path makes a flag's value absolute, and fails where nothing is there.
func path(t testing.TB, elem ...string) string {
	t.Helper()
	p, err := filepath.Abs(filepath.Join(elem...))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(p); err != nil {
		t.Fatalf("%v; test/e2e-kubernetes/run builds it", err)
	}
	return p
}

// write makes a file below dir.
func write(t testing.TB, dir, name, content string) string {
	t.Helper()
	p := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}
