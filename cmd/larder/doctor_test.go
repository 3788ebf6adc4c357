package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	api "github.com/larder-registry/larder/test/bottlerocket"
)

// scriptMirror runs larder mirror beside a script, which finds it at
// $MIRROR_PORT and its port for operators at $ADMIN.
func scriptMirror(ts *testscript.TestScript, _ bool, args []string) {
	clients, admin := freePort(ts), freePort(ts)
	args = append([]string{"mirror", "--listen", "127.0.0.1:" + clients, "--admin-listen", "127.0.0.1:" + admin, "--data-dir", ts.MkAbs("mirror-data")}, args...)
	cmd := exec.Command(os.Args[0], args...)
	cmd.Dir = ts.MkAbs(".")
	cmd.Env = append(os.Environ(), asLarder+"=1")
	ts.Check(cmd.Start())
	ts.Defer(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); ; <-tick.C {
		resp, err := client.Get("http://127.0.0.1:" + admin + "/readyz")
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				break
			}
		}
		if time.Now().After(deadline) {
			ts.Fatalf("the mirror is not ready: %v", err)
		}
	}
	ts.Setenv("MIRROR_PORT", clients)
	ts.Setenv("ADMIN", "127.0.0.1:"+admin)
}

// freePort is a port of loopback that was free a moment ago.
func freePort(ts *testscript.TestScript) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	ts.Check(err)
	return port
}

// scriptBottlerocket serves Bottlerocket's API below a directory, with the
// registry settings in a file: bottlerocket DIR [FILE]. With settings FILE the
// script gets them back, and ! bottlerocket stops it.
func scriptBottlerocket(ts *testscript.TestScript, neg bool, args []string) {
	if neg {
		apiOf(ts).Close()
		return
	}
	settings := ""
	if len(args) > 1 {
		settings = ts.ReadFile(args[1])
	}
	a, err := startSettings(ts.MkAbs(args[0]), settings)
	ts.Check(err)
	ts.Defer(a.Close)
	ts.Value("bottlerocket").(map[string]*api.API)["api"] = a //nolint:forcetypeassert // Setup made it
}

func apiOf(ts *testscript.TestScript) *api.API {
	return ts.Value("bottlerocket").(map[string]*api.API)["api"] //nolint:forcetypeassert // Setup made it
}

// scriptSettings writes the live settings and the number of commits to a file.
func scriptSettings(ts *testscript.TestScript, _ bool, args []string) {
	a := apiOf(ts)
	text := fmt.Sprintf("%s\n%d commits\n", a.Registry(), a.Commits())
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(text), 0o644))
}

// startSettings serves the API in dir, however long the path is: a socket's must
// be short.
func startSettings(dir, settings string) (*api.API, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	opened, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer opened.Close()
	return api.Start(fmt.Sprintf("/proc/self/fd/%d", opened.Fd()), settings)
}

// TestKilledOnBottlerocket kills larder init, really, at each of its requests to
// the API, before and after the API has acted on it. Whenever that is, the
// settings are the old or the new ones, and the next run completes.
func TestKilledOnBottlerocket(t *testing.T) {
	t.Parallel()
	const before = `{"mirrors":[{"endpoint":["https://m.test"],"registry":"*"}]}`
	const after = `{"mirrors":[{"endpoint":["http://127.0.0.1:999","https://m.test"],"registry":"*"}]}`
	for _, served := range []bool{false, true} {
		for at := 0; ; at++ {
			root := t.TempDir()
			writeFile(t, root, "os-release", "ID=bottlerocket\n")
			if err := os.Mkdir(filepath.Join(root, "etc"), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(filepath.Join(root, "os-release"), filepath.Join(root, "etc/os-release")); err != nil {
				t.Fatal(err)
			}
			a, err := startSettings(filepath.Join(root, "run"), before)
			if err != nil {
				t.Fatal(err)
			}
			initNode := func() *exec.Cmd {
				cmd := exec.CommandContext(t.Context(), os.Args[0], "init", "--root", ".", "--target", "bottlerocket", "--address", "loopback", "--port", "999", "--require")
				cmd.Dir = root
				cmd.Env = append(os.Environ(), asLarder+"=1")
				return cmd
			}
			cmd := initNode()
			started := make(chan struct{})
			requests := 0
			a.Break(func(w http.ResponseWriter, r *http.Request) bool {
				<-started
				requests++
				if requests-1 != at {
					return false
				}
				_ = cmd.Process.Kill() // SIGKILL
				return !served
			})
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			close(started)
			failed := cmd.Wait()
			a.Break(nil)
			if failed == nil {
				if at < 4 {
					t.Errorf("there were only %d requests to be killed at", at)
				}
				a.Close()
				break
			}
			if !strings.Contains(failed.Error(), "killed") {
				t.Fatalf("request %d: %v", at, failed)
			}
			if got := a.Registry(); got != before && got != after {
				t.Errorf("killed at request %d, settings are %s", at, got)
			}
			if out, err := initNode().CombinedOutput(); err != nil {
				t.Errorf("run again after it was killed at request %d: %v: %s", at, err, out)
			}
			if got := a.Registry(); got != after {
				t.Errorf("run again after it was killed at request %d, settings are %s", at, got)
			}
			if left := a.Pending(); len(left) > 0 || a.Commits() > 2 {
				t.Errorf("killed at request %d: pending are %q, after %d commits", at, left, a.Commits())
			}
			a.Close()
		}
	}
}
