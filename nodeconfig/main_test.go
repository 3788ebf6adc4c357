package nodeconfig

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/sirupsen/logrus"
	"go.uber.org/goleak"
)

// killVariable makes this binary, started again by a test, apply a plan and kill
// itself at one step of it.
const killVariable = "LARDER_TEST_KILL"

func TestMain(m *testing.M) {
	if os.Getenv(killVariable) != "" {
		os.Exit(killed())
	}
	goleak.VerifyTestMain(m)
}

// quiet is a logger for tests that look at plans only.
func quiet() *logrus.Entry {
	log := logrus.New()
	log.SetOutput(io.Discard)
	return logrus.NewEntry(log)
}

// nodeAt is a node whose file system is at root.
func nodeAt(root string) *Node { return &Node{Root: root, Log: quiet()} }

// killed is the child of a test about kill -9. Its arguments are the root, what
// to do, and the number of the step to die at. It exits with 3 when there are
// not so many.
func killed() int {
	root, what := os.Args[1], os.Args[2]
	at, err := strconv.Atoi(os.Args[3])
	if err != nil {
		return 2
	}
	n := nodeAt(root)
	n.step = func(string) {
		if at--; at < 0 {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {} // until it arrives
		}
	}
	if err := doAgain(n, what); err != nil {
		_, _ = io.WriteString(os.Stderr, err.Error())
		return 1
	}
	return 3
}

// doAgain plans and applies what tests do to whole nodes: "plan" or "undo" on
// containerd's, "k3s plan" on another.
func doAgain(n *Node, what string) error {
	ctx := context.Background()
	var target Target = newContainerd(n)
	if name, verb, ok := strings.Cut(what, " "); ok {
		var err error
		if target, err = Named(n, name); err != nil {
			return err
		}
		what = verb
	}
	plan := target.Plan
	if what == "undo" {
		plan = target.Undo
	}
	cfg := testConfig()
	if target.Name() == "crio" {
		cfg.Registries = []string{"docker.io", "quay.io"}
	}
	changes, err := plan(ctx, cfg)
	if err != nil {
		return err
	}
	return target.Apply(ctx, changes)
}

// tree is every file, directory and link below root: its mode, and what is in
// it.
func tree(t *testing.T, root string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(root, func(name string, entry os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		switch {
		case entry.IsDir():
			all[rel] = info.Mode().String()
		case info.Mode()&os.ModeSocket != 0:
			all[rel] = "socket"
		case info.Mode()&os.ModeSymlink != 0:
			target, err := os.Readlink(name)
			if err != nil {
				return err
			}
			all[rel] = "-> " + target
		default:
			raw, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			all[rel] = info.Mode().String() + " " + info.ModTime().UTC().String() + "\n" + string(raw)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// put writes files below root: names end in / for directories.
func put(t *testing.T, root string, files map[string]string) {
	t.Helper()
	for name, content := range files {
		full := filepath.Join(root, name)
		if name[len(name)-1] == '/' {
			if err := os.MkdirAll(full, 0o755); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
