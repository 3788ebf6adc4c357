package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// lockPoll is how often a lock that another process holds is tried again.
const lockPoll = 50 * time.Millisecond

// dirLock is the right to use a data directory: a flock on the directory
// itself, which needs no file and so works on a full or read-only disk. The
// file LOCK in it only says who has it.
type dirLock struct{ dir *os.File }

// lockDir takes the lock, waiting up to wait for another process to end.
func lockDir(ctx context.Context, dir string, wait time.Duration) (*dirLock, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("open data directory: %w", err)
	}
	deadline := time.NewTimer(wait)
	defer deadline.Stop()
	poll := time.NewTicker(lockPoll)
	defer poll.Stop()
	for {
		err := unix.Flock(int(d.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			// Who holds the lock is a courtesy; a full disk may refuse it.
			_ = os.WriteFile(filepath.Join(dir, "LOCK"), fmt.Appendf(nil, "%d\n", os.Getpid()), 0o644)
			return &dirLock{dir: d}, nil
		case !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR):
			d.Close()
			return nil, fmt.Errorf("lock data directory: %w", err)
		}
		select {
		case <-poll.C:
		case <-deadline.C:
			d.Close()
			return nil, fmt.Errorf("%w: %s is held by %s", ErrLocked, dir, lockHolder(dir))
		case <-ctx.Done():
			d.Close()
			return nil, fmt.Errorf("lock data directory: %w", ctx.Err())
		}
	}
}

// lockHolder names the process in LOCK.
func lockHolder(dir string) string {
	f, err := os.Open(filepath.Join(dir, "LOCK"))
	if err != nil {
		return "another process"
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, 32))
	pid := strings.TrimSpace(string(text))
	if err != nil || pid == "" {
		return "another process"
	}
	return "process " + pid
}

// release gives the directory up. Closing alone would not do while a process
// that is just being started has a copy of the descriptor.
func (l *dirLock) release() error {
	return errors.Join(unix.Flock(int(l.dir.Fd()), unix.LOCK_UN), l.dir.Close())
}
