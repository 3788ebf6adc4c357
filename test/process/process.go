// Package process runs the programs that demo and benchmarks are about, and
// looks at their memory. A program started here dies with the one that started
// it, even if that is killed.
//
// It is for Linux: memory is read from /proc. What the programs are told, and
// when, is in test/demo and test/bench.
package process

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Process is a running program. End it before its directory is removed.
type Process struct {
	name string
	cmd  *exec.Cmd
	log  string
	done chan struct{} // closed when it has ended
}

// Start runs the program at path, with its output in dir/name.log. It gets a
// process group of its own, so that Ctrl-C reaches it through its parent only.
// The goroutine that waits for it ends with it.
func Start(dir, name, path string, args ...string) (*Process, error) {
	p := &Process{name: name, log: filepath.Join(dir, name+".log"), done: make(chan struct{})}
	out, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open log of %s: %w", name, err)
	}
	defer out.Close()
	p.cmd = exec.Command(path, args...)
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		defer close(p.done)
		p.cmd.Wait()
	}()
	return p, nil
}

// Ready waits until a GET of url answers 200, for at most 20 seconds.
func (p *Process) Ready(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return fmt.Errorf("make request: %w", err)
		}
		if resp, err := http.DefaultClient.Do(req); err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-p.done:
			return fmt.Errorf("%s ended at its start:\n%s", p.name, p.Tail())
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w\n%s", p.name, context.Cause(ctx), p.Tail())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Done is closed when the process has ended, of itself or by End.
func (p *Process) Done() <-chan struct{} { return p.done }

// End sends sig and waits until the process is gone; after 10 seconds it kills.
// On a nil Process, and on one that has ended, it does nothing.
func (p *Process) End(sig syscall.Signal) {
	if p == nil {
		return
	}
	p.cmd.Process.Signal(sig)
	select {
	case <-p.done:
	case <-time.After(10 * time.Second):
		p.cmd.Process.Kill()
		<-p.done
	}
}

// Tail gives the last lines of the process's output.
func (p *Process) Tail() string {
	b, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-2000):])
}

// Peak is the most resident memory the process ever had, or had since ResetPeak,
// in bytes: VmHWM of proc_pid_status(5).
func (p *Process) Peak() (int64, error) { return p.memory("VmHWM:") }

// Resident is the process's resident memory now, in bytes: VmRSS of
// proc_pid_status(5).
func (p *Process) Resident() (int64, error) { return p.memory("VmRSS:") }

func (p *Process) memory(field string) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0, fmt.Errorf("read memory of %s: %w", p.name, err)
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, field); ok {
			kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			if err != nil {
				return 0, fmt.Errorf("parse memory of %s: %w", p.name, err)
			}
			return kib << 10, nil
		}
	}
	return 0, fmt.Errorf("no %s for %s", field, p.name)
}

// CPU is how much processor time the process has used so far, its workers'
// included, which are its children that live: utime and stime of proc_pid_stat(5).
func (p *Process) CPU() (time.Duration, error) {
	sum, _, err := processorTime(p.cmd.Process.Pid)
	if err != nil {
		return 0, fmt.Errorf("read processor time of %s: %w", p.name, err)
	}
	all, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return 0, fmt.Errorf("list processes: %w", err)
	}
	for _, dir := range all {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		// One that ended meanwhile is none of ours: workers live as long as
		// their parent.
		if used, parent, err := processorTime(pid); err == nil && parent == p.cmd.Process.Pid {
			sum += used
		}
	}
	return sum, nil
}

// tick is the unit of times in proc_pid_stat(5): USER_HZ, which is 100 on every
// architecture that Go runs on.
const tick = time.Second / 100

// processorTime reads what one process has used, and who its parent is.
func processorTime(pid int) (used time.Duration, parent int, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, err
	}
	// The name, in brackets, may hold anything; state, the third field, follows.
	_, rest, _ := strings.Cut(string(b[max(0, strings.LastIndexByte(string(b), ')')):]), " ")
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0, 0, fmt.Errorf("%q is no stat of a process", b)
	}
	var values [3]int64
	for i, field := range []int{1, 11, 12} { // ppid, utime, stime
		if values[i], err = strconv.ParseInt(fields[field], 10, 64); err != nil {
			return 0, 0, fmt.Errorf("parse stat: %w", err)
		}
	}
	return time.Duration(values[1]+values[2]) * tick, int(values[0]), nil
}

// ResetPeak makes Peak count from now; see proc_pid_clear_refs(5).
func (p *Process) ResetPeak() error {
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", p.cmd.Process.Pid), []byte("5"), 0); err != nil {
		return fmt.Errorf("reset peak memory of %s: %w", p.name, err)
	}
	return nil
}

// FreeAddr finds an address of 127.0.0.1 that nobody listens on just now.
func FreeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	defer l.Close()
	return l.Addr().String(), nil
}
