package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/larder-registry/larder/internal/oci"
)

// program writes a shell script to a directory that is put first in the search
// path, and returns its path.
func program(t *testing.T, name, script string) string {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, name)
	if err := os.WriteFile(file, []byte("#!/bin/sh\n"+script), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	return file
}

func TestRunProgram(t *testing.T) {
	t.Setenv("LARDER_TEST_INHERITED", "inherited")
	file := program(t, "prog", `read line; printf '%s|%s|%s|%s' "$line" "$1" "$ADDED" "$LARDER_TEST_INHERITED"; echo MARKERstderr >&2`)
	out, err := runProgram(t.Context(), []byte("question\n"), []string{"ADDED=added"}, file, "get")
	if err != nil || string(out) != "question|get|added|inherited" {
		t.Errorf("%q, %v", out, err)
	}
	for _, test := range []struct{ name, script, err string }{
		{"exits non-zero", `echo MARKERstdout; exit 3`, "run prog: exit status 3"},
		{"killed", `kill -9 $$`, "run prog: signal: killed"},
		{"prints without end", `while :; do echo MARKERMARKERMARKERMARKERMARKERMARKERMARKER; done`, "run prog: it printed too much"},
		{"prints a little too much", fmt.Sprintf(`head -c %d /dev/zero`, maxProgramAnswer+1), "run prog: it printed too much"},
	} {
		t.Run(test.name, func(t *testing.T) {
			file := program(t, "prog", test.script)
			if out, err := runProgram(t.Context(), nil, nil, file); err == nil || err.Error() != test.err {
				t.Errorf("%q, %v", out, err)
			}
		})
	}
	out, err = runProgram(t.Context(), nil, nil, program(t, "most", fmt.Sprintf(`head -c %d /dev/zero`, maxProgramAnswer)))
	if err != nil || len(out) != maxProgramAnswer {
		t.Errorf("as much as is allowed: %d bytes, %v", len(out), err)
	}
	if _, err := runProgram(t.Context(), nil, nil, "larder-no-such-program"); err == nil || err.Error() != "run larder-no-such-program: executable file not found in $PATH" {
		t.Errorf("missing: %v", err)
	}
}

// TestProgramsDieWithTheirChildren: one that hangs, and has started others that
// hold its output open. All of them hold a pipe that ends with the last.
func TestProgramsDieWithTheirChildren(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	file := program(t, "prog", `exec 3>`+fifo+`; sleep 1000 & sh -c 'sleep 1000; true' & echo started >&3; wait`)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { // ends with the program, which cancel ends
		_, err := runProgram(ctx, nil, nil, file)
		done <- err
	}()
	alive, err := os.Open(fifo)
	if err != nil {
		t.Fatal(err)
	}
	defer alive.Close()
	if _, err := io.ReadFull(alive, make([]byte, len("started\n"))); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("the program: %v", err)
	}
	if rest, err := io.ReadAll(alive); err != nil || len(rest) != 0 {
		t.Errorf("its children wrote %q, %v", rest, err)
	}
	// One that exits and leaves a child behind has answered, and the child
	// goes, too.
	file = program(t, "prog", `exec 3>`+fifo+`; sleep 1000 & echo answer`)
	go func() { // ends with the program
		out, err := runProgram(t.Context(), nil, nil, file)
		if string(out) != "answer\n" {
			err = fmt.Errorf("printed %q: %w", out, err)
		}
		done <- err
	}()
	again, err := os.Open(fifo)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if err := <-done; err != nil {
		t.Errorf("one that leaves a child behind: %v", err)
	}
	if rest, err := io.ReadAll(again); err != nil || len(rest) != 0 {
		t.Errorf("the child wrote %q, %v", rest, err)
	}
}

// basicOrigin is a registry that takes one user and password.
func basicOrigin(t *testing.T, user, password string) *origin {
	t.Helper()
	return newOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		if u, p, _ := r.BasicAuth(); u != user || p != password {
			w.Header().Set("Www-Authenticate", `Basic realm="registry"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		answer(http.StatusOK, manifestHeader(manifestJSON), manifestJSON)(w, r)
	})
}

// ask fetches an image manifest by a new client that has the origin's entry and
// what cfg says besides, and looks for secrets in what that comes to.
func ask(t *testing.T, o *origin, cfg Config, repository string) error {
	t.Helper()
	leaks := newLeaks(t)
	cfg.Log = leaks.log
	c := newClientOf(t, cfg)
	_, err := c.Manifest(t.Context(), oci.Reference{Name: oci.Name{Registry: o.host(), Repository: repository}, Tag: "v1"})
	leaks.note(err)
	leaks.mu.Lock()
	defer leaks.mu.Unlock()
	if at := strings.Index(leaks.text.String(), "MARKER"); at >= 0 {
		t.Errorf("a secret leaks: …%s", leaks.text.String()[max(0, at-100):])
	}
	return err
}

// TestHelpersAndPluginsThatMisbehave: a pull fails at once and honestly, and
// the program is not run again for the next.
func TestHelpersAndPluginsThatMisbehave(t *testing.T) {
	for _, test := range []struct {
		name, script string
		text         string
	}{
		{"hangs", `exec sleep 1000`, "context deadline exceeded"},
		{"hangs behind a child", `sleep 1000 & wait`, "context deadline exceeded"},
		{"prints garbage", `echo MARKERgarbage`, "its answer is not"},
		{"prints nothing", ``, "its answer is not"},
		{"prints JSON of another kind", `echo '{"MARKER":1}'`, "its answer is"},
		{"prints without end", `while :; do echo MARKERMARKERMARKERMARKERMARKERMARKERMARKERMARKER; done`, "it printed too much"},
		{"exits non-zero", `echo MARKERstdout; echo MARKERstderr >&2; exit 1`, "exit status 1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			count := filepath.Join(t.TempDir(), "count")
			script := "echo run >>" + count + "\n" + test.script
			file := program(t, "docker-credential-bad", script)
			config := filepath.Join(t.TempDir(), "config.json")
			if err := os.WriteFile(config, []byte(`{"credsStore":"bad"}`), 0o600); err != nil {
				t.Fatal(err)
			}
			o := basicOrigin(t, "u", "p")
			plugged := o.entry(t)
			patience := time.Minute
			if strings.Contains(test.name, "hangs") {
				patience = 300 * time.Millisecond
			}
			plugged.Provider = &Plugin{Command: file}
			for name, cfg := range map[string]Config{
				"helper": {Registries: []Registry{o.entry(t)}, DockerConfig: config},
				"plugin": {Registries: []Registry{plugged}},
			} {
				if err := os.RemoveAll(count); err != nil {
					t.Fatal(err)
				}
				leaks := newLeaks(t)
				cfg.Log, cfg.Timeouts.Program = leaks.log, patience
				c := newClientOf(t, cfg)
				for _, repository := range []string{"team/app", "team/app", "team/other"} {
					_, err := c.Manifest(t.Context(), oci.Reference{Name: oci.Name{Registry: o.host(), Repository: repository}, Tag: "v1"})
					leaks.note(err)
					if !errors.Is(err, oci.ErrUnavailable) || oci.Reason(err) != "credential" {
						t.Errorf("%s: %v", name, err)
					}
				}
				if runs, err := os.ReadFile(count); err != nil || string(runs) != "run\n" {
					t.Errorf("%s: runs %q, %v", name, runs, err)
				}
				leaks.mu.Lock()
				if !strings.Contains(leaks.text.String(), test.text) {
					t.Errorf("%s: the log does not say %q:\n%s", name, test.text, leaks.text.String())
				}
				if strings.Contains(leaks.text.String(), "MARKER") {
					t.Errorf("%s: a secret leaks:\n%s", name, leaks.text.String())
				}
				leaks.mu.Unlock()
			}
			for _, r := range o.requests() {
				if !strings.HasPrefix(r, "GET ") {
					t.Errorf("the registry was sent %s", r)
				}
			}
		})
	}
}
