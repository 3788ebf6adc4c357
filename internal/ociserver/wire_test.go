package ociserver_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/larder-registry/larder/internal/oci"
	"github.com/larder-registry/larder/internal/ociserver"
)

// raw sends bytes on a connection of their own and gives the status of the
// answer; 0 when the server closes the connection without one.
func (s *server) raw(t *testing.T, request string) int {
	t.Helper()
	conn, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	// The server may stop reading, and answer, before all is sent.
	go func() { _, _ = io.WriteString(conn, request) }() // ends with conn.Close
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("no answer to %.100q", request)
		}
		return 0
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Errorf("%.100q: body: %v", request, err)
	}
	return resp.StatusCode
}

// TestRawRequests: requests no client library would send.
func TestRawRequests(t *testing.T) {
	g := newRegistry()
	g.addManifest(oci.Name{Registry: "[::1]:5000", Repository: "a"}, "v1", oci.MediaTypeManifest, []byte("{}"))
	s := start(t, g, nil, nil)
	tests := map[string]struct {
		line    string
		headers string
		status  int
	}{
		"fine":               {"GET /v2/ HTTP/1.1", "", 200},
		"HTTP/1.0":           {"GET /v2/ HTTP/1.0", "", 200},
		"brackets":           {"GET /v2/f/[::1]:5000/a/manifests/v1 HTTP/1.1", "", 200},
		"encoded brackets":   {"GET /v2/f/%5B::1%5D:5000/a/manifests/v1 HTTP/1.1", "", 200},
		"brackets in ns":     {"GET /v2/a/manifests/v1?ns=[::1]:5000 HTTP/1.1", "", 200},
		"absolute form":      {"GET http://elsewhere/v2/ HTTP/1.1", "", 200},
		"traversal":          {"GET /v2/../../../etc/passwd HTTP/1.1", "", 400},
		"traversal, encoded": {"GET /v2/%2e%2e/%2e%2e/blobs/x HTTP/1.1", "", 400},
		"traversal, slashes": {"GET /v2/..%2f..%2fetc/manifests/v1 HTTP/1.1", "", 400},
		"traversal, digest":  {"GET /v2/a/blobs/sha256:../../../../etc/passwd HTTP/1.1", "", 400},
		"backslash":          {`GET /v2/..\..\etc/manifests/v1 HTTP/1.1`, "", 400},
		"double slash":       {"GET //v2//a/manifests/v1 HTTP/1.1", "", 404},
		"nul":                {"GET /v2/a%00/manifests/v1 HTTP/1.1", "", 400},
		"newline":            {"GET /v2/a%0d%0aX-Evil:%201/manifests/v1 HTTP/1.1", "", 400},
		"newline in ns":      {"GET /v2/a/manifests/v1?ns=a.b%0d%0aX-Evil:%201 HTTP/1.1", "", 400},
		"not UTF-8":          {"GET /v2/%ff%fe/manifests/v1 HTTP/1.1", "", 400},
		"connect":            {"CONNECT 127.0.0.1:1 HTTP/1.1", "", 404},
		"connect to a path":  {"CONNECT /v2/ HTTP/1.1", "", 405},
		"asterisk":           {"OPTIONS * HTTP/1.1", "", 200},
		"no path":            {"GET  HTTP/1.1", "", 400},
		"lower case":         {"get /v2/ HTTP/1.1", "", 405},
		"HTTP/2 preface":     {"PRI * HTTP/2.0", "", 404},
		"two lengths":        {"GET /v2/ HTTP/1.1", "Content-Length: 1\r\nContent-Length: 2\r\n", 400},
		"both lengths":       {"GET /v2/a/b/c HTTP/1.1", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", 404},
		"body never sent":    {"POST /v2/a/manifests/v1 HTTP/1.1", "Content-Length: 1000000\r\n", 405},
		"expects to send":    {"PUT /v2/a/manifests/v1 HTTP/1.1", "Content-Length: 10\r\nExpect: 100-continue\r\n", 405},
		"huge header":        {"GET /v2/ HTTP/1.1", "X: " + strings.Repeat("y", 1<<20) + "\r\n", 431},
		"many headers":       {"GET /v2/ HTTP/1.1", strings.Repeat("X: y\r\n", 1<<16), 431},
		"huge path":          {"GET /v2/" + strings.Repeat("a/", 1<<19) + " HTTP/1.1", "", 431},
		"long path":          {"GET /v2/" + strings.Repeat("a/", 1<<14) + "tags/list HTTP/1.1", "", 400},
		"many ranges":        {"GET /v2/f/[::1]:5000/a/manifests/v1 HTTP/1.1", "Range: bytes=" + strings.Repeat("0-1,", 1<<13) + "0-1\r\n", 200},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := s.raw(t, tt.line+"\r\nHost: larder\r\n"+tt.headers+"\r\n"); got != tt.status {
				t.Errorf("status %d, want %d", got, tt.status)
			}
		})
	}
	s.do(t, "GET", "/v2/").want(t, 200) // still there
}

// watchedConn tells what net/http does with a connection.
type watchedConn struct {
	*net.TCPConn
	log *watchLog
}

type watchLog struct {
	mu       sync.Mutex
	written  int64 // by Write: through memory
	sent     int64 // by ReadFrom of a file: by sendfile
	deadline time.Time
	late     int   // ReadFroms under an old deadline
	largest  int64 // ReadFrom
	// begun is told when a file begins to be sent, if it is not nil.
	begun chan<- struct{}
}

func (c *watchedConn) Write(p []byte) (int, error) {
	n, err := c.TCPConn.Write(p)
	c.log.mu.Lock()
	defer c.log.mu.Unlock()
	c.log.written += int64(n)
	return n, err
}

func (c *watchedConn) SetWriteDeadline(at time.Time) error {
	c.log.mu.Lock()
	defer c.log.mu.Unlock()
	c.log.deadline = at
	return c.TCPConn.SetWriteDeadline(at)
}

// ReadFrom counts what net.TCPConn will use sendfile for: a file, or a limited
// part of one, that shows its descriptor.
func (c *watchedConn) ReadFrom(src io.Reader) (int64, error) {
	file := false
	if limited, ok := src.(*io.LimitedReader); ok {
		_, conn := limited.R.(syscall.Conn)
		_, stat := limited.R.(interface{ Stat() (os.FileInfo, error) })
		file = conn && stat
	}
	c.log.mu.Lock()
	if time.Until(c.log.deadline) < patience { // of a minute
		c.log.late++
	}
	if file && c.log.begun != nil {
		select {
		case c.log.begun <- struct{}{}:
		default:
		}
	}
	c.log.mu.Unlock()
	n, err := c.TCPConn.ReadFrom(src)
	c.log.mu.Lock()
	defer c.log.mu.Unlock()
	if file {
		c.log.sent += n
	} else {
		c.log.written += n
	}
	c.log.largest = max(c.log.largest, n)
	return n, err
}

type watchedListener struct {
	net.Listener
	log *watchLog
}

func (l watchedListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &watchedConn{conn.(*net.TCPConn), l.log}, nil
}

// mixedBlob sends itself from a file, in one piece, the way a download in
// progress does with what it holds.
type mixedBlob struct{ fileBlob }

func (b *mixedBlob) SendTo(w io.Writer, n int64) (int64, error) {
	return io.CopyN(w, b.File, n)
}

// TestSendfile: but for the headers and the first half KiB, which net/http
// sends with them, a file's bytes never pass through this process; they go in
// sections, each under a deadline that is far enough away.
func TestSendfile(t *testing.T) {
	content := pattern(5<<20 + 4711)
	g := newRegistry()
	stored := g.addFile(t, content, -1)
	fill := g.addFile(t, content[1:], -1)
	open := g.blobs[fill]
	g.blobs[fill] = func() (oci.Blob, error) {
		blob, err := open()
		if err != nil {
			return nil, err
		}
		return &mixedBlob{*blob.(*fileBlob)}, nil
	}
	tests := map[string]struct {
		target, header string
		want           []byte
	}{
		"stored":               {stored.String(), "", content},
		"stored, a range":      {stored.String(), "bytes=1000-3000000", content[1000:3000001]},
		"sends itself":         {fill.String(), "", content[1:]},
		"sends itself, a tail": {fill.String(), "bytes=70000-", content[70001:]},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			log := &watchLog{}
			s := start(t, g, nil, func(l net.Listener) net.Listener { return watchedListener{l, log} })
			a := s.do(t, "GET", "/v2/f/a.b/c/blobs/"+tt.target, "Range", tt.header)
			if a.err != nil || !bytes.Equal(a.body, tt.want) {
				t.Fatalf("%d bytes, want %d; %v", len(a.body), len(tt.want), a.err)
			}
			s.line(t)
			log.mu.Lock()
			defer log.mu.Unlock()
			if least := int64(len(tt.want)) - 512; log.sent < least || log.written > 2048 {
				t.Errorf("%d bytes by sendfile, want %d; %d through memory, want at most 2048", log.sent, least, log.written)
			}
			if log.late > 0 || log.largest > 1<<20 {
				t.Errorf("%d sections under an old deadline; the largest of %d bytes", log.late, log.largest)
			}
		})
	}
}

// TestWithoutSendfile: a writer that cannot take files gets them all the same.
func TestWithoutSendfile(t *testing.T) {
	content := pattern(100_000)
	g := newRegistry()
	dgst := g.addFile(t, content, -1)
	logger := logrus.New()
	logger.Out = io.Discard
	h, err := ociserver.New(ociserver.Config{Reader: g, Lister: g, Log: logrus.NewEntry(logger)})
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "/v2/f/a.b/c/blobs/"+dgst.String(), nil))
	if w.Code != 200 || !bytes.Equal(w.Body.Bytes(), content) {
		t.Errorf("status %d, %d bytes", w.Code, w.Body.Len())
	}
}

// TestStuckClientIsDropped: a client that takes no bytes does not keep a
// connection, a file and a goroutine for ever.
func TestStuckClientIsDropped(t *testing.T) {
	const size = 1 << 30 // sparse: more than any socket buffers
	g := newRegistry()
	file := g.addFile(t, nil, size)
	open := g.blobs[file]
	g.blobs[file] = func() (oci.Blob, error) {
		blob, err := open()
		if err == nil {
			err = os.Truncate(blob.(*fileBlob).Name(), size)
		}
		return blob, err
	}
	read := g.addMemory(pattern(64<<20), 64<<20, nil, false)
	for name, target := range map[string]string{"file": file.String(), "read": read.String()} {
		t.Run(name, func(t *testing.T) {
			s := start(t, g, func(cfg *ociserver.Config) { cfg.StallTimeout = 200 * time.Millisecond }, nil)
			conn, err := net.Dial("tcp", s.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := io.WriteString(conn, "GET /v2/f/a.b/c/blobs/"+target+" HTTP/1.1\r\nHost: larder\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			e := s.line(t) // although nothing is read
			if e.Data["left"] != true || e.Data["status"] != 200 || e.Level.String() != "debug" {
				t.Errorf("logged %s %v", e.Level, e.Data)
			}
			if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
				t.Fatal(err)
			}
			if n, err := io.Copy(io.Discard, conn); err != nil && !strings.Contains(err.Error(), "reset") || n >= size {
				t.Errorf("read %d bytes, then %v; want the connection broken", n, err)
			}
		})
	}
}

// TestLeavingClient: hanging up is no failure, before the first byte or after.
func TestLeavingClient(t *testing.T) {
	t.Run("midway", func(t *testing.T) {
		g := newRegistry()
		dgst := g.addMemory(pattern(64<<20), 64<<20, nil, false)
		s := start(t, g, nil, nil)
		resp, err := s.client.Get(s.url + "/v2/f/a.b/c/blobs/" + dgst.String())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.CopyN(io.Discard, resp.Body, 1000); err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if e := s.line(t); e.Data["left"] != true || e.Level.String() != "debug" {
			t.Errorf("logged %s %v", e.Level, e.Data)
		}
	})
	t.Run("before", func(t *testing.T) {
		g := newRegistry()
		called := make(chan struct{})
		g.touch = func(ctx context.Context) {
			close(called)
			<-ctx.Done()
		}
		g.err = fmt.Errorf("wait for content: %w", context.Canceled)
		s := start(t, g, nil, nil)
		conn, err := net.Dial("tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, "GET /v2/f/a.b/c/manifests/v1 HTTP/1.1\r\nHost: larder\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		<-called
		conn.Close()
		if e := s.line(t); e.Data["left"] != true || e.Data["status"] != 499 || e.Level.String() != "debug" {
			t.Errorf("logged %s %v", e.Level, e.Data)
		}
	})
}
