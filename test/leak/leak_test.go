package leak

import (
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// leaking makes the test binary leave a goroutine behind.
const leaking = "LARDER_LEAK"

func TestMain(m *testing.M) { Main(m) }

// This test leaves a connection that http.DefaultClient keeps, and a server that
// only ends with it.
func TestKeptConnection(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() { // ends when Main closes the connection
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		if _, err := conn.Read(make([]byte, 4096)); err != nil {
			return
		}
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		_, _ = io.Copy(io.Discard, conn)
	}()
	resp, err := http.DefaultClient.Get("http://" + l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
}

// A suite of which all tests pass fails when one has left a goroutine.
func TestLeak(t *testing.T) {
	if os.Getenv(leaking) != "" {
		go func() { select {} }() // never ends
		return
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, "-test.run=^TestLeak$")
	cmd.Env = append(os.Environ(), leaking+"=1")
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "PASS") || !strings.Contains(string(out), "TestLeak") {
		t.Errorf("%v:\n%s", err, out)
	}
}
