package cluster

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/larder-registry/larder/test/leak"
)

var (
	binFlag        = flag.String("bin", "", "directory that holds containerd, helm and pause")
	kubernetesFlag = flag.String("kubernetes", "", "directory that holds the programs of Kubernetes")
	imageFlag      = flag.String("image", "", "the image under test, an OCI archive")
	logsFlag       = flag.String("logs", "", "directory for what the programs say")
)

func TestMain(m *testing.M) {
	flag.Parse()
	if _, err := os.Stat("/node/upper"); err != nil {
		fmt.Fprintln(os.Stderr, "this is not a node that test/e2e-cluster/run made:", err)
		os.Exit(1)
	}
	leak.Main(m)
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
