package docs

import (
	"flag"
	"fmt"
	"os"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/larder-registry/larder/test/process"
)

// clients is where skopeo and its like are found, for the blocks that need them.
var clients = flag.String("clients", "", "a list of directories with skopeo, crane and regctl: run the blocks that need them, too")

// root is the repository, seen from here.
const root = "../.."

// scratch is where the binary is built; TestMain makes and removes it.
var scratch string

// build makes the larder that is documented, once and only for tests that run it.
var build = sync.OnceValues(func() (string, error) { return process.Build(scratch) })

func binary(t *testing.T) string {
	t.Helper()
	name, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return name
}

func TestMain(m *testing.M) {
	if isCurl() {
		os.Exit(curl(os.Args[1:]))
	}
	if len(os.Args) > 2 && os.Args[1] == inside {
		os.Exit(runInside(os.Args[2]))
	}
	flag.Parse()
	dir, err := os.MkdirTemp("", "larder-docs-")
	if err != nil {
		panic(err)
	}
	scratch = dir
	code := m.Run()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	_ = os.RemoveAll(dir)
	os.Exit(code)
}
