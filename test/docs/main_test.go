package docs

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"
)

// clients is where skopeo and its like are found, for the blocks that need them.
var clients = flag.String("clients", "", "a list of directories with skopeo, crane and regctl: run the blocks that need them, too")

// root is the repository, seen from here.
const root = "../.."

// binary is the larder that is documented; TestMain sets it once.
var binary string

func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == inside {
		os.Exit(runInside(os.Args[2]))
	}
	flag.Parse()
	dir, err := os.MkdirTemp("", "larder-docs-")
	if err != nil {
		panic(err)
	}
	binary = filepath.Join(dir, "larder")
	build := exec.Command("go", "build", "-buildvcs=false", "-o", binary, "github.com/larder-registry/larder/cmd/larder")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	code := 1
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "build larder:", err)
	} else if code = m.Run(); code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	_ = os.RemoveAll(dir)
	os.Exit(code)
}
