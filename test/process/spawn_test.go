package process

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// witness is a test that hears what would have failed it.
type witness struct {
	testing.TB
	failures []string
}

func (w *witness) Helper() {}
func (w *witness) Errorf(format string, args ...any) {
	w.failures = append(w.failures, fmt.Sprintf(format, args...))
}

// A program that a test starts sees the environment it is given, works in its
// directory, and is gone after the test, with its children.
func TestSpawn(t *testing.T) {
	t.Setenv("LARDER_TEST_SECRET", "hidden")
	dir := t.TempDir()
	var p *Process
	t.Run("test", func(t *testing.T) {
		p = Spawn(t, dir, []string{"MORE=more"}, "/bin/sh", "-c", "env; pwd; sleep 1000 & echo child $!; wait")
		p.Await(t, "its child", func(context.Context) error {
			if !strings.Contains(p.Output(), "child ") {
				return errors.New("there is none")
			}
			return nil
		})
		if err := p.Ended(); err != nil {
			t.Error(err)
		}
	})
	if p.Ended() == nil {
		t.Error("it lives on")
	}
	out := p.Output()
	for _, want := range []string{"HOME=" + dir + "\n", "MORE=more\n", "PATH=" + os.Getenv("PATH") + "\n", "\n" + dir + "\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("it did not say %q:\n%s", want, out)
		}
	}
	if strings.Contains(out, "hidden") {
		t.Errorf("it saw the whole environment:\n%s", out)
	}
	_, child, _ := strings.Cut(strings.TrimSpace(out), "child ")
	Await(t, "the end of its child", func(context.Context) error {
		// Whoever inherits it may be slow to notice.
		stat, err := os.ReadFile("/proc/" + child + "/stat")
		if err == nil && !strings.Contains(string(stat), ") Z ") {
			return fmt.Errorf("it lives on: %s", stat)
		}
		return nil
	})
}

// A path is seen from where the test is, and two programs of one name in one
// directory do not share what they said.
func TestSpawnTwice(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	if err := os.WriteFile("program", []byte("#!/bin/sh\necho \"$1\"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, word := range []string{"first", "second"} {
		p := Spawn(t, t.TempDir(), nil, "./program", word)
		<-p.Done()
		if p.Output() != word+"\n" {
			t.Errorf("it said %q", p.Output())
		}
	}
}

// Who is asked to end has to end well.
func TestStop(t *testing.T) {
	for _, tt := range []struct{ name, script, want string }{
		{"well", "trap 'exit 0' TERM; echo ready; while :; do sleep 0.01; done", ""},
		{"badly", "trap 'exit 3' TERM; echo ready; while :; do sleep 0.01; done", "exit status 3"},
		{"by the signal", "echo ready; while :; do sleep 0.01; done", "signal: terminated"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := Spawn(t, t.TempDir(), nil, "/bin/sh", "-c", tt.script)
			p.Await(t, "the shell", func(context.Context) error {
				if p.Output() != "ready\n" {
					return errors.New("it is not ready")
				}
				return nil
			})
			w := &witness{TB: t}
			p.Stop(w)
			if got := strings.Join(w.failures, "; "); (got == "") != (tt.want == "") || !strings.Contains(got, tt.want) {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}

// Who waits for a program that has ended is told so, with its words, at once.
func TestAwaitOfDead(t *testing.T) {
	p, err := Start(t.TempDir(), "sh", "sh", "-c", "echo last words; exit 7")
	if err != nil {
		t.Fatal(err)
	}
	defer p.End(syscall.SIGKILL)
	err = await(t.Context(), "it", func(context.Context) error { return errors.New("not yet") }, p.Ended)
	if err == nil || !strings.Contains(err.Error(), "exit status 7") || !strings.Contains(err.Error(), "last words") {
		t.Errorf("got %v", err)
	}
}

// Who waits in vain is told for what, and what was wrong last.
func TestAwaitInVain(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	tries := 0
	err := await(ctx, "the moon", func(context.Context) error {
		if tries++; tries == 3 {
			cancel()
		}
		return errors.New("it is day")
	}, func() error { return nil })
	if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "the moon: it is day") || tries != 3 {
		t.Errorf("got %v after %d tries", err, tries)
	}
}

// A socket is ready once somebody listens.
func TestListens(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "socket")
	if err := Listens("unix", socket)(t.Context()); err == nil {
		t.Error("nobody listens, and it is ready")
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := Listens("unix", socket)(t.Context()); err != nil {
		t.Errorf("somebody listens: %v", err)
	}
}

// No address is given out twice, however many ask.
func TestFreeAddr(t *testing.T) {
	seen := make(map[string]bool)
	for range 50 {
		addr, err := FreeAddr()
		if err != nil {
			t.Fatal(err)
		}
		if seen[addr] {
			t.Fatalf("%s was given out twice", addr)
		}
		seen[addr] = true
	}
}
