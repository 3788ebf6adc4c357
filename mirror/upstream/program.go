package upstream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

const (
	// maxProgramAnswer bounds what a program may print, in bytes; the
	// longest real answer, ECR's, is about 4 KiB.
	maxProgramAnswer = 128 << 10
	// programGrace is how long a program that was killed is waited for: its
	// children may hold its pipes open.
	programGrace = 500 * time.Millisecond
)

// errTooLong: a program printed more than maxProgramAnswer.
var errTooLong = errors.New("printed too much")

// runProgram runs a program that answers stdin on its standard output, in a
// process group of its own that is killed whole when ctx ends or when it prints
// too much. What it prints to standard error is thrown away, since it may hold
// secrets. env adds to the environment of this process.
//
// A program that runs and exits with another status than 0 gives an
// *exec.ExitError beside what it printed.
func runProgram(ctx context.Context, stdin []byte, env []string, name string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	cmd := exec.CommandContext(ctx, name, args...) //nolint:gosec // the configuration names it
	if len(env) > 0 {
		cmd.Env = slices.Concat(cmd.Environ(), env)
	}
	out := &boundedBuffer{left: maxProgramAnswer, full: func() { cancel(errTooLong) }}
	cmd.Stdin, cmd.Stdout = bytes.NewReader(stdin), out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = programGrace
	err := cmd.Run()
	base := filepath.Base(name)
	switch {
	case errors.Is(context.Cause(ctx), errTooLong):
		return nil, fmt.Errorf("run %s: it %w", base, errTooLong)
	case ctx.Err() != nil:
		return nil, fmt.Errorf("run %s: %w", base, context.Cause(ctx))
	case errors.Is(err, exec.ErrWaitDelay):
		// It has exited; something it left behind holds its output open.
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) //nolint:errcheck // it may be gone
	case err != nil:
		return out.content, fmt.Errorf("run %s: %w", base, programError(err))
	}
	return out.content, nil
}

// programError keeps what is worth telling of an error to run a program.
func programError(err error) error {
	if lookup, ok := errors.AsType[*exec.Error](err); ok {
		return lookup.Err
	}
	return err
}

// boundedBuffer keeps what is written to it up to a bound, and tells when there
// is more. It embeds no bytes.Buffer, whose ReadFrom knows no bound.
type boundedBuffer struct {
	content []byte
	left    int
	full    func()
}

func (b *boundedBuffer) Write(p []byte) (int, error) {
	if len(p) > b.left {
		b.full()
		return 0, errTooLong
	}
	b.left -= len(p)
	b.content = append(b.content, p...)
	return len(p), nil
}
