package docs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// inside is the argument by which the test binary knows that it is the first
// process of a sandbox.
const inside = "inside-the-sandbox"

// patience bounds one sandbox, on a machine that is busy.
const patience = 3 * time.Minute

// sandbox is what happens in one: a machine with a network and a file system of its
// own, on which the reader of a page is root. Documented ports and paths are used
// as they are.
type sandbox struct {
	Dir    string   // becomes the root directory
	Binary string   // becomes /usr/local/bin/larder
	Curl   string   // becomes /usr/local/bin/curl, if there is one
	Path   []string // further directories with programs
	Script string   // run by bash in /root
	// Expect is what the script has to leave in /out/0, /out/1 …, as matches has it.
	Expect []expectation
}

// expectation is the output that a page says a command has.
type expectation struct{ Where, Text string }

// run runs the sandbox to its end and gives its output. An error has it, too.
func (s sandbox) run(t *testing.T) (string, error) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	s.Dir, s.Binary = t.TempDir(), binary(t)
	if *clients == "" {
		s.Curl = self
	}
	spec, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "sandbox.json")
	if err := os.WriteFile(file, spec, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, self, inside, file)
	cmd.Env = []string{"GORACE=atexit_sleep_ms=0"}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS,
		Pdeathsig:  syscall.SIGKILL,
	}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	// Everything in it dies with its first process, which holds the output open
	// for no longer.
	cmd.WaitDelay = 10 * time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("%w\n%s", err, out)
	}
	return string(out), nil
}

// runInside is the first process of a sandbox. It gives its exit code.
func runInside(file string) int {
	code, err := enter(file)
	if err != nil {
		fmt.Fprintln(os.Stderr, "sandbox:", err)
		return 1
	}
	return code
}

func enter(file string) (int, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	var s sandbox
	if err := json.Unmarshal(content, &s); err != nil {
		return 0, err
	}
	if err := s.network(); err != nil {
		return 0, err
	}
	world, err := newWorld()
	if err != nil {
		return 0, err
	}
	defer world.close()
	if err := s.files(world); err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience-15*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/bin/bash", "/script")
	cmd.Dir = "/root"
	path := "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	if len(s.Path) > 0 {
		path += ":/clients" // bound there, see files
	}
	cmd.Env = []string{"HOME=/root", "USER=root", "PATH=" + path, "LANG=C.UTF-8", "TMPDIR=/tmp", "XDG_RUNTIME_DIR=/run"}
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stdout
	err = cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		if ctx.Err() != nil {
			return 0, fmt.Errorf("it takes too long")
		}
		return max(exit.ExitCode(), 1), nil
	}
	if err != nil {
		return 0, err
	}
	for i, e := range s.Expect {
		got, err := os.ReadFile(fmt.Sprintf("/out/%d", i))
		if err != nil {
			return 0, err
		}
		if !matches(string(got), e.Text) {
			return 0, fmt.Errorf("%s: the output is\n%s\nand should be\n%s", e.Where, got, e.Text)
		}
	}
	return 0, nil
}

// matches compares output with what a page shows: line by line, where … stands for
// anything in a line, and alone in a line for any lines.
func matches(got, want string) bool {
	return matchLines(strings.Split(strings.TrimRight(got, "\n"), "\n"), strings.Split(strings.TrimRight(want, "\n"), "\n"))
}

func matchLines(got, want []string) bool {
	for i, line := range want {
		if strings.TrimSpace(line) == "…" {
			for skip := i; skip <= len(got); skip++ {
				if matchLines(got[skip:], want[i+1:]) {
					return true
				}
			}
			return false
		}
		if i >= len(got) || !matchLine(strings.TrimRight(got[i], " "), strings.TrimRight(line, " ")) {
			return false
		}
	}
	return len(got) == len(want)
}

func matchLine(got, want string) bool {
	parts := strings.Split(want, "…")
	rest, ok := strings.CutPrefix(got, parts[0])
	if !ok || len(parts) == 1 {
		return ok && rest == ""
	}
	for _, part := range parts[1 : len(parts)-1] {
		_, after, found := strings.Cut(rest, part)
		if !found {
			return false
		}
		rest = after
	}
	return strings.HasSuffix(rest, parts[len(parts)-1])
}

// network brings loopback up and gives it the addresses of world.
func (s sandbox) network() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open socket: %w", err)
	}
	defer unix.Close(fd)
	up, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	up.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, up); err != nil {
		return fmt.Errorf("bring loopback up: %w", err)
	}
	for i := range sites() {
		alias, err := unix.NewIfreq(fmt.Sprintf("lo:%d", i+1))
		if err != nil {
			return err
		}
		if err := alias.SetInet4Addr(address(i).AsSlice()); err != nil {
			return err
		}
		if err := unix.IoctlIfreq(fd, unix.SIOCSIFADDR, alias); err != nil {
			return fmt.Errorf("add %v: %w", address(i), err)
		}
	}
	return nil
}
