package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// process is a daemon that a test started. It heads a process group of its own
// and ends with the test, even when the test binary is killed.
type process struct {
	cmd    *exec.Cmd
	log    string        // path of its output
	exited chan struct{} // closed when it has ended and err is set
	err    error
}

// environ is all a started program sees: no proxy, no configuration of the
// machine, and everything temporary below dir.
func environ(t *testing.T, dir string, more ...string) []string {
	t.Helper()
	tmp := filepath.Join(dir, "tmp")
	if err := os.MkdirAll(tmp, 0o755); err != nil {
		t.Fatal(err)
	}
	return append([]string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "TMPDIR=" + tmp, "XDG_RUNTIME_DIR=" + tmp,
	}, more...)
}

// spawn starts a daemon whose files are in dir. It is killed when the test
// ends; if the test failed, its last words are shown.
func spawn(t *testing.T, dir, path string, args ...string) *process {
	t.Helper()
	return spawnWith(t, dir, environ(t, dir), path, args...)
}

// spawnWith is spawn with an environment.
func spawnWith(t *testing.T, dir string, env []string, path string, args ...string) *process {
	t.Helper()
	log, err := os.CreateTemp(dir, filepath.Base(path)+"-*.log")
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	p := &process{cmd: exec.Command(path, args...), log: log.Name(), exited: make(chan struct{})}
	p.cmd.Env = env
	p.cmd.Dir = dir
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// Ends with the process, which the cleanup below sees to.
	go func() {
		p.err = p.cmd.Wait()
		close(p.exited)
	}()
	t.Cleanup(func() {
		if err := p.alive(); err != nil && t.Failed() {
			t.Logf("%s ended by itself: %v", filepath.Base(path), p.err)
		}
		p.kill()
		if t.Failed() {
			t.Logf("%s said last:\n%s", filepath.Base(path), tail(p.output()))
		}
	})
	return p
}

// kill ends the process and its children at once, and waits for that.
func (p *process) kill() {
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // it may be gone already
	<-p.exited
}

// alive returns an error once the process has ended.
func (p *process) alive() error {
	select {
	case <-p.exited:
		return fmt.Errorf("%s ended: %v\n%s", filepath.Base(p.cmd.Path), p.err, tail(p.output()))
	default:
		return nil
	}
}

func (p *process) output() string {
	raw, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(raw)
}

// tail is the end of a log.
func tail(log string) string {
	const most = 1500
	return log[max(0, len(log)-most):]
}

// run runs a program to its end, with its temporary files below dir. The error
// holds what it said.
func run(ctx context.Context, env []string, path string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 10 * time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s %s: %w: %s", filepath.Base(path), strings.Join(args, " "), err, tail(out.String()))
	}
	return out.String(), nil
}

// freeAddr is a loopback address nobody listens on. The port is below those
// that the kernel gives to outgoing connections, so that no client takes it
// before the program it is meant for does.
func freeAddr(t *testing.T) string {
	t.Helper()
	for range 100 {
		addr := fmt.Sprintf("127.0.0.1:%d", 20000+rand.IntN(12000))
		l, err := net.Listen("tcp", addr)
		if err == nil {
			l.Close()
			return addr
		}
		if !errors.Is(err, syscall.EADDRINUSE) {
			t.Fatal(err)
		}
	}
	t.Fatal("found no free port in 100 tries")
	return ""
}

// unmount releases what was mounted at or below dir, the newest first.
func unmount(t *testing.T, dir string) {
	t.Helper()
	raw, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Error(err)
		return
	}
	lines := strings.Split(strings.TrimSpace(string(raw)), "\n")
	slices.Reverse(lines)
	for _, line := range lines {
		// The fifth field is the mount point (proc_pid_mountinfo(5)).
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4]+"/", dir+"/") {
			if err := syscall.Unmount(f[4], syscall.MNT_DETACH); err != nil {
				t.Errorf("unmount %s: %v", f[4], err)
			}
		}
	}
}
