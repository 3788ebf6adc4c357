package main

import (
	"bufio"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"syscall"
	"testing"
)

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
