package allocations

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"testing"
	"time"
)

// patience is how long an answer may take; only one that hangs takes it.
const patience = 2 * time.Minute

// client pulls over one connection and allocates nothing for what it is sent.
type client struct {
	conn net.Conn
	buf  []byte
}

// dial connects from an address of this host. From the one the server listens on
// the client is nearby; from any other it is as remote as one across a network.
func dial(t testing.TB, from, addr string) *client {
	t.Helper()
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	conn, err := dialer.DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &client{conn: conn, buf: make([]byte, 256<<10)}
}

// pull gets a blob of size bytes and compares them with o's.
func (c *client) pull(t testing.TB, o *origin, target string, size int64) {
	t.Helper()
	if err := c.conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c.conn, "GET "+target+" HTTP/1.1\r\nHost: larder\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	held, head := 0, -1
	for head < 0 {
		n, err := c.conn.Read(c.buf[held:])
		if err != nil {
			t.Fatalf("read the head: %v", err)
		}
		held += n
		head = bytes.Index(c.buf[:held], []byte("\r\n\r\n"))
	}
	length := fmt.Appendf(nil, "\r\nContent-Length: %d\r\n", size)
	if !bytes.HasPrefix(c.buf, []byte("HTTP/1.1 200 ")) || !bytes.Contains(c.buf[:head+2], length) {
		t.Fatalf("head is %q, want a blob of %d bytes", c.buf[:head], size)
	}
	part := c.buf[head+4 : held]
	for off := int64(0); ; {
		if off+int64(len(part)) > size || !o.same(part, off) {
			t.Fatalf("wrong bytes after the first %d of %d", off, size)
		}
		if off += int64(len(part)); off == size {
			return
		}
		n, err := c.conn.Read(c.buf)
		if err != nil {
			t.Fatalf("read at byte %d of %d: %v", off, size, err)
		}
		part = c.buf[:n]
	}
}
