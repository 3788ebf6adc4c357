package nodeconfig

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestKilledAnywhere kills larder at each of its steps in turn. Whatever the
// step, every file is the old one or the new one, what containerd would do is
// what it did before or what it is to do, the next run completes, and an undo
// then restores everything.
func TestKilledAnywhere(t *testing.T) {
	nodes := map[string]map[string]string{
		"config_path to be set": {
			"etc/containerd/config.toml": "version = 2\n# theirs\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\n",
		},
		"certs.d to be made": {
			"etc/containerd/config.toml": "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\n  config_path = \"/etc/containerd/certs.d\"\n",
		},
		"a default of somebody else's": {
			"etc/containerd/config.toml":                 "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\n  config_path = \"/etc/containerd/certs.d\"\n",
			"etc/containerd/certs.d/_default/hosts.toml": "server = \"https://theirs.example\"\n",
		},
		"a list, and later roots in use": {
			"etc/containerd/config.toml":                "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\n  config_path = \"/etc/containerd/certs.d:/etc/docker/certs.d\"\n",
			"etc/docker/certs.d/reg.example/hosts.toml": "server = \"https://mirror.example\"\n",
		},
	}
	for name, files := range nodes {
		t.Run(name, func(t *testing.T) {
			fresh := func(t *testing.T) string {
				root := t.TempDir()
				put(t, root, files)
				for file := range files {
					past := time.Unix(1600000000, 0)
					if err := os.Chtimes(filepath.Join(root, file), past, past); err != nil {
						t.Fatal(err)
					}
				}
				return root
			}
			original := tree(t, fresh(t))
			done := fresh(t)
			if err := doAgain(nodeAt(done), "plan"); err != nil {
				t.Fatal(err)
			}
			configured := content(t, done)
			for _, what := range []string{"plan", "undo"} {
				steps := 0
				for ; ; steps++ {
					root := fresh(t)
					n := nodeAt(root)
					if what == "undo" {
						if err := doAgain(n, "plan"); err != nil {
							t.Fatal(err)
						}
					}
					before, meansBefore := content(t, root), n.means(t)
					if !killAt(t, root, what, steps) {
						break
					}
					after, meansAfter := configured, nodeAt(done).means(t)
					if what == "undo" {
						after, meansAfter = content(t, fresh(t)), nodeAt(fresh(t)).means(t)
					}
					now := content(t, root)
					for file, text := range now {
						if text != before[file] && text != after[file] {
							t.Fatalf("%s, killed at step %d: %s is neither old nor new:\n%s", what, steps, file, text)
						}
					}
					for i, means := range n.means(t) {
						if means != meansBefore[i] && means != meansAfter[i] {
							t.Errorf("%s, killed at step %d: containerd would %s, which is neither %s nor %s", what, steps, means, meansBefore[i], meansAfter[i])
						}
					}
					if err := doAgain(n, what); err != nil {
						t.Fatalf("%s, run again after it was killed at step %d: %v", what, steps, err)
					}
					if what == "plan" {
						if again := content(t, root); fmt.Sprint(again) != fmt.Sprint(configured) {
							t.Errorf("%s, run again after it was killed at step %d, left\n%v\nwant\n%v", what, steps, again, configured)
						}
						if err := doAgain(n, "undo"); err != nil {
							t.Fatal(err)
						}
					}
					same(t, fmt.Sprintf("%s, killed at step %d, and undone", what, steps), tree(t, root), original)
				}
				if steps < 2 {
					t.Errorf("%s has only %d steps to be killed at", what, steps)
				}
			}
		})
	}
}

// killAt runs this binary to its death at a step. It reports false when there
// are not so many steps, and everything was done.
func killAt(t *testing.T, root, what string, step int) bool {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], root, what, fmt.Sprint(step))
	cmd.Env = append(os.Environ(), killVariable+"=1", "GORACE=atexit_sleep_ms=0")
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	err := cmd.Run()
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok {
		t.Fatalf("%s at step %d ended with %v: %s", what, step, err, said.String())
	}
	status, ok := exit.Sys().(syscall.WaitStatus)
	switch {
	case ok && status.Signaled() && status.Signal() == syscall.SIGKILL:
		return true
	case exit.ExitCode() == 3:
		return false
	}
	t.Fatalf("%s at step %d ended with %v: %s", what, step, err, said.String())
	return false
}

// content is every file below root that is in force: what has a name of ours
// beside the real one is not.
func content(t *testing.T, root string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(root, func(name string, entry os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		base := entry.Name()
		if strings.HasPrefix(base, ".") && strings.Contains(base, ".larder-") {
			if entry.IsDir() {
				return filepath.SkipDir
			}
			return nil
		}
		if entry.Type().IsRegular() {
			raw, err := os.ReadFile(name)
			files[strings.TrimPrefix(name, root)] = string(raw)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// means is whom a containerd that is started now asks for images of three
// registries: the directories are looked through as containerd does.
func (n *Node) means(t *testing.T) [3]string {
	t.Helper()
	e, err := n.load("/etc/containerd/config.toml", loader1, nil)
	if err != nil {
		t.Fatal(err)
	}
	var all [3]string
	for i, registry := range []string{"docker.io", "reg.example", "third.example"} {
		all[i] = "ask the registry"
	roots:
		for _, root := range filepath.SplitList(e.configPath()) {
			for _, dir := range []string{registry, defaultDir} {
				if !n.isDir(filepath.Join(root, dir)) {
					continue
				}
				hosts, err := n.readHosts(filepath.Join(root, dir), registry)
				if err != nil {
					t.Fatal(err)
				}
				all[i] = "ask"
				for _, host := range hosts {
					all[i] += " " + host.Scheme + "://" + host.Host
				}
				break roots
			}
		}
	}
	return all
}
