package main

import (
	"bufio"
	"encoding/json"
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
	args = append([]string{"mirror", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--data-dir", ts.MkAbs("mirror-data"), "--log-format", "json"}, args...)
	cmd := exec.Command(os.Args[0], args...)
	cmd.Dir = ts.MkAbs(".")
	cmd.Env = append(os.Environ(), asLarder+"=1")
	log, err := cmd.StderrPipe()
	ts.Check(err)
	ts.Check(cmd.Start())
	said := make(chan struct{})
	ts.Defer(func() {
		_ = cmd.Process.Kill()
		<-said
		_ = cmd.Wait()
	})
	type line struct{ Msg, Listen, Admin string }
	serves := make(chan line, 1)
	// Ends with the mirror, which the script ends.
	go func() {
		defer close(said)
		for lines := bufio.NewScanner(log); lines.Scan(); {
			var l line
			if json.Unmarshal(lines.Bytes(), &l) == nil && l.Msg == "larder mirror serves" {
				serves <- l
			}
		}
	}()
	var at line
	select {
	case at = <-serves:
	case <-said:
		ts.Fatalf("the mirror ended before it served")
	case <-time.After(time.Minute):
		ts.Fatalf("the mirror does not serve")
	}
	_, port, err := net.SplitHostPort(at.Listen)
	ts.Check(err)
	ts.Setenv("MIRROR_PORT", port)
	ts.Setenv("ADMIN", at.Admin)
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
