package cluster

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
	binFlag        = flag.String("bin", "", "directory that holds containerd, helm and pause")
	kubernetesFlag = flag.String("kubernetes", "", "directory that holds the programs of Kubernetes")
	imageFlag      = flag.String("image", "", "the image under test, an OCI archive")
	logsFlag       = flag.String("logs", "", "directory for what the programs say")
)

// patience bounds what takes a moment on an idle machine.
const patience = 5 * time.Minute

func TestMain(m *testing.M) {
	flag.Parse()
	if _, err := os.Stat("/node/upper"); err != nil {
		fmt.Fprintln(os.Stderr, "this is not a node that test/e2e-cluster/run made:", err)
		os.Exit(1)
	}
	code := m.Run()
	http.DefaultClient.CloseIdleConnections()
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// await calls ready until it returns nil, and fails the test when that takes
// longer than patience.
func await(t testing.TB, what string, ready func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ready()
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

// write makes a file and its directory.
func write(t testing.TB, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}
