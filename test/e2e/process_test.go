package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/larder-registry/larder/test/process"
)

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

// spawn starts a daemon that has environ's environment; see process.Spawn.
func spawn(t *testing.T, dir, path string, args ...string) *process.Process {
	t.Helper()
	return process.Spawn(t, dir, environ(t, dir), path, args...)
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
