package check

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestContainerd has containerd import the archive: as it is done on a node
// without network, and as a whole.
func TestContainerd(t *testing.T) {
	ctr := startContainerd(t)
	digest, err := built.set.Index.Digest()
	if err != nil {
		t.Fatal(err)
	}
	archive := filepath.Join(built.dist, "larder-image.tar")
	ctr("images", "import", archive)
	ctr("images", "import", "--all-platforms", "--digests", "--base-name", "larder", archive)
	list := ctr("images", "ls")
	var line string
	for l := range strings.Lines(list) {
		if strings.HasPrefix(l, built.ref.Name()+" ") {
			line = l
		}
	}
	for _, want := range []string{digest.String(), "application/vnd.oci.image.index.v1+json", "linux/amd64", "linux/arm64"} {
		if !strings.Contains(line, want) {
			t.Errorf("the image that was imported lacks %s:\n%s", want, list)
		}
	}
}

// startContainerd starts a containerd, and returns ctr. Both end with the test.
func startContainerd(t *testing.T) func(args ...string) string {
	t.Helper()
	dir := t.TempDir()
	socket := filepath.Join(dir, "socket")
	config := fmt.Sprintf("version = 2\nroot = %q\nstate = %q\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = %q\n[ttrpc]\naddress = %q\n",
		filepath.Join(dir, "root"), filepath.Join(dir, "state"), socket, socket+".ttrpc")
	file := filepath.Join(dir, "config.toml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/usr/bin/containerd", "-c", file)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	log, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	booted, ended := make(chan struct{}), make(chan struct{})
	var lines []string
	go func() { // ends with containerd
		defer close(ended)
		for s := bufio.NewScanner(log); s.Scan(); {
			lines = append(lines, s.Text())
			if strings.Contains(s.Text(), "containerd successfully booted") {
				close(booted)
			}
		}
		cmd.Wait()
	}()
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		<-ended
	})
	select {
	case <-booted:
	case <-ended:
		t.Fatalf("containerd ended:\n%s", strings.Join(lines, "\n"))
	}
	return func(args ...string) string {
		t.Helper()
		return output(t, "/usr/bin/ctr", append([]string{"-a", socket}, args...)...)
	}
}
