package process

import (
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestProcessLife(t *testing.T) {
	p, err := Start(t.TempDir(), "cat", "cat")
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer srv.Close()
	defer http.DefaultClient.CloseIdleConnections()
	if err := p.Ready(t.Context(), srv.URL); err != nil {
		t.Errorf("ready: %v", err)
	}
	p.End(syscall.SIGTERM)
	select {
	case <-p.Done():
	default:
		t.Error("End returned before the process was gone")
	}
	p.End(syscall.SIGTERM)
}

func TestProcessMemory(t *testing.T) {
	p, err := Start(t.TempDir(), "sleep", "sleep", "60")
	if err != nil {
		t.Fatal(err)
	}
	defer p.End(syscall.SIGKILL)
	if err := p.ResetPeak(); err != nil {
		t.Error(err)
	}
	if n, err := p.Resident(); err != nil || n <= 0 {
		t.Errorf("resident is %d, %v", n, err)
	}
	if n, err := p.Peak(); err != nil || n <= 0 {
		t.Errorf("peak is %d, %v", n, err)
	}
}

// A process is charged with what it uses, and with what its children do.
func TestProcessCPU(t *testing.T) {
	for name, script := range map[string]string{
		"itself":  "while :; do :; done",
		"a child": "(while :; do :; done) & wait",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, err := Start(t.TempDir(), "sh", "sh", "-c", "trap 'kill 0' TERM; "+script)
			if err != nil {
				t.Fatal(err)
			}
			defer p.End(syscall.SIGTERM)
			for {
				used, err := p.CPU()
				if err != nil {
					t.Fatal(err)
				}
				if used > 0 {
					return
				}
				if t.Context().Err() != nil {
					t.Fatal("no processor time was counted")
				}
				runtime.Gosched()
			}
		})
	}
}

// A program that fails at its start is reported with what it said.
func TestReadyOfDead(t *testing.T) {
	p, err := Start(t.TempDir(), "ls", "ls", "/nonexistent-directory")
	if err != nil {
		t.Fatal(err)
	}
	defer p.End(syscall.SIGKILL)
	addr, err := FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Ready(t.Context(), "http://"+addr); err == nil || !strings.Contains(err.Error(), "nonexistent-directory") {
		t.Errorf("got %v, want the program's own words", err)
	}
}
