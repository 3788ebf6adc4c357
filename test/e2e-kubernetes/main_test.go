package kubernetes

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"
)

var (
	binFlag    = flag.String("bin", "../../.cache/kubernetes/1.37", "directory that holds kube-apiserver, kube-controller-manager and kubectl")
	larderFlag = flag.String("larder", "../../.cache/bin/larder", "the binary under test")
	docFlag    = flag.String("doc", "../../docs/admission.md", "holds the manifests to install")
)

// patience bounds what takes a moment on an idle machine.
const patience = 3 * time.Minute

func TestMain(m *testing.M) {
	flag.Parse()
	code := m.Run()
	http.DefaultClient.CloseIdleConnections()
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

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

// await calls ready until it returns nil, and fails the test when that takes
// longer than patience.
func await(t testing.TB, what string, ready func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ready(ctx)
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waited in vain for %s: %v", what, err)
		}
	}
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
