package e2e

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/larder-registry/larder/test/leak"
)

var (
	binFlag      = flag.String("bin", "../../.cache/bin", "directory that holds larder, and containerd, ctr and crane as test/tools pins them")
	dirFlag      = flag.String("dir", "/tmp", "directory for everything that is running; its path must be short")
	releasesFlag = flag.String("releases", "", "directory with older containerds, as test/e2e/releases builds them, for larder init to configure")
	fullFlag     = flag.Bool("full", false, "every client with every fault, instead of one fault for each client; every client at the central registry, and sizes as they can be")
)

// pullPatience bounds a pull, in which some clients wait 30 s for each object of a
// silent mirror.
const pullPatience = 5 * time.Minute

func TestMain(m *testing.M) {
	flag.Parse()
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "test/e2e: containerd mounts what it unpacks, so these tests run as root")
		os.Exit(1)
	}
	leak.Main(m)
}

// bin is the path of a program that was built for these tests.
func bin(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join(*binFlag, name))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%v; test/e2e/run builds it", err)
	}
	return path
}

// scratch is a directory for one client, mirror or registry. Its path is short,
// because the paths of unix sockets are at most 107 bytes. It is unmounted and
// removed after every process that was started later has ended.
func scratch(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp(*dirFlag, "e2e-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		unmount(t, dir)
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("clean up: %v", err)
		}
	})
	return dir
}

// write makes a file below dir, and the directories it stands in.
func write(t *testing.T, dir, name, content string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}
