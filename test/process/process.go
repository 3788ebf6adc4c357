// Package process runs the programs that suites, demo and benchmarks are about,
// waits for them, and looks at their memory. A program started here dies with the
// one that started it, even if that is killed.
//
// It is for Linux: memory is read from /proc. What the programs are told, and
// when, is in the packages beside this one; etcd and Kubernetes' API server are
// started by test/kube.
package process

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
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
	out, err := os.OpenFile(filepath.Join(dir, name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open log of %s: %w", name, err)
	}
	defer out.Close()
	return start(exec.Command(path, args...), name, out)
}

func start(cmd *exec.Cmd, name string, out *os.File) (*Process, error) {
	p := &Process{name: name, cmd: cmd, log: out.Name(), done: make(chan struct{})}
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

// Done is closed when the process has ended, of itself or by End.
func (p *Process) Done() <-chan struct{} { return p.done }

// End sends sig and waits until the process is gone; after a minute it kills.
// On a nil Process, and on one that has ended, it does nothing.
func (p *Process) End(sig syscall.Signal) {
	if p == nil {
		return
	}
	p.cmd.Process.Signal(sig)
	select {
	case <-p.done:
	case <-time.After(time.Minute):
		p.cmd.Process.Kill()
		<-p.done
	}
}

// Kill ends the process and its children at once, and waits until it is gone.
func (p *Process) Kill() {
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // it may be gone already
	<-p.done
}

// Stop asks the process to end, by SIGTERM, and waits until it has. The test fails
// unless it does so within Patience, and with exit status 0.
func (p *Process) Stop(t testing.TB) {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Errorf("ask %s to end: %v", p.name, err)
	}
	select {
	case <-p.done:
	case <-time.After(Patience):
		t.Errorf("%s does not end on SIGTERM", p.name)
		p.Kill()
	}
	if !p.cmd.ProcessState.Success() {
		t.Errorf("%s ended with %v on SIGTERM, want exit status 0", p.name, p.cmd.ProcessState)
	}
}

// Ended is an error with the process's last words once it has ended, however it
// did.
func (p *Process) Ended() error {
	select {
	case <-p.done:
		return fmt.Errorf("%s ended: %v\n%s", p.name, p.cmd.ProcessState, p.Tail())
	default:
		return nil
	}
}

// Output is all that the process has said so far. Processes of one name in one
// directory share it if Start started them.
func (p *Process) Output() string {
	b, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// Tail is the end of Output.
func (p *Process) Tail() string {
	out := p.Output()
	return out[max(0, len(out)-4000):]
}
