package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"syscall"
	"testing"
)

// TestInterrupted: what was cut short says so, and no more, and has failed.
func TestInterrupted(t *testing.T) {
	dir := t.TempDir()
	node := filepath.Join(dir, "node")
	if err := os.MkdirAll(filepath.Join(node, "etc/containerd"), 0o755); err != nil {
		t.Fatal(err)
	}
	writeFile(t, node, "etc/containerd/config.toml", "version = 3\n[plugins.\"io.containerd.cri.v1.images\".registry]\n  config_path = \"/etc/containerd/certs.d\"\n")
	done, cancel := context.WithCancel(t.Context())
	cancel()
	for _, args := range [][]string{
		{"init", "--root", node, "--address", "loopback"},
		{"doctor", "--root", node, "--admin", ""},
		{"status", "--admin", "127.0.0.1:1"},
		{"pull", "--mirror", "http://127.0.0.1:1", "docker.io/library/nginx"},
	} {
		root := newRoot()
		root.SetArgs(args)
		root.SetOut(io.Discard)
		root.SetErr(io.Discard)
		if err := root.ExecuteContext(done); !errors.Is(err, errInterrupted) {
			t.Errorf("%s: %v", args[0], err)
		}
	}
	if names, err := os.ReadDir(filepath.Join(node, "etc/containerd")); err != nil || len(names) != 1 {
		t.Errorf("left behind: %v, %v", names, err)
	}
}

// TestServicesOutliveTheReaderOfTheirLog: larder mirror 2>&1 | head -1.
func TestServicesOutliveTheReaderOfTheirLog(t *testing.T) {
	for _, args := range [][]string{
		{"mirror", "--admin-listen", ""}, {"central", "--plain-http", "--admin-listen", ""},
	} {
		read, write, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer read.Close()
		p := &mirrorProcess{cmd: exec.Command(os.Args[0], append(args, "--listen", "127.0.0.1:0", "--data-dir", t.TempDir())...), exited: make(chan struct{})}
		p.cmd.Env = append(os.Environ(), asLarder+"=1")
		p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		p.cmd.Stderr = write
		if err := p.cmd.Start(); err != nil {
			t.Fatal(err)
		}
		write.Close()
		// Ends with the process, which the cleanup sees to.
		go func() {
			defer close(p.exited)
			_ = p.cmd.Wait()
		}()
		t.Cleanup(func() {
			_ = p.cmd.Process.Kill()
			<-p.exited
		})
		serves := regexp.MustCompile(`serves.* listen="?(?:registry=)?(127[0-9.:]+)`)
		for lines := bufio.NewScanner(read); p.addr == "" && lines.Scan(); {
			if m := serves.FindStringSubmatch(lines.Text()); m != nil {
				p.addr = m[1]
			}
		}
		read.Close()
		for range 2 { // each is logged
			if status, _, err := p.get(t.Context(), "/v2/library/none/manifests/none?ns=127.0.0.1:1"); err != nil || status == http.StatusOK {
				t.Fatalf("%s: %d, %v", args[0], status, err)
			}
		}
		p.signal(t, syscall.SIGTERM)
		if code := p.exit(t); code != 0 {
			t.Errorf("%s: exit code %d", args[0], code)
		}
	}
}
