package allocations

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/internal/oci"
)

// BenchmarkHotBlob pulls a blob that the mirror holds.
func BenchmarkHotBlob(b *testing.B) {
	const size = 32 * mib
	o := newOrigin(b)
	c := dial(b, "127.0.0.2", startMirror(b, o))
	target := o.target(o.add(b, size))
	c.pull(b, o, target, size)
	b.SetBytes(size)
	b.ReportAllocs()
	for b.Loop() {
		c.pull(b, o, target, size)
	}
}

// BenchmarkColdBlob pulls blobs that the mirror does not hold: fetched, written,
// hashed, and read by a follower. The upstream's part is in it.
func BenchmarkColdBlob(b *testing.B) {
	const size = 32 * mib
	o := newOrigin(b)
	c := dial(b, "127.0.0.2", startMirror(b, o))
	b.SetBytes(size)
	b.ReportAllocs()
	for next := int64(1); b.Loop(); next++ {
		b.StopTimer()
		target := o.target(o.add(b, size+next)) // another size is another blob
		b.StartTimer()
		c.pull(b, o, target, size+next)
	}
}

// BenchmarkFollower pulls a blob that stops arriving just before its end: what
// there is was written before, so only the follower's way is measured.
func BenchmarkFollower(b *testing.B) {
	const size = 32 * mib
	o := newOrigin(b)
	o.gate = make(chan struct{})
	defer close(o.gate)
	addr := startMirror(b, o)
	target := o.target(o.add(b, size))
	// One of them keeps the fill going.
	read := func() io.Closer {
		c := dial(b, "127.0.0.2", addr)
		if err := c.conn.SetDeadline(time.Now().Add(patience)); err != nil {
			b.Fatal(err)
		}
		if _, err := io.WriteString(c.conn, "GET "+target+" HTTP/1.1\r\nHost: larder\r\n\r\n"); err != nil {
			b.Fatal(err)
		}
		res, err := http.ReadResponse(bufio.NewReaderSize(c.conn, 256<<10), nil)
		if err != nil {
			b.Fatal(err)
		}
		n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, io.LimitReader(res.Body, size-mib), c.buf)
		if err != nil || n != size-mib {
			b.Fatalf("status %d, %d bytes, %v", res.StatusCode, n, err)
		}
		return c.conn
	}
	defer read().Close()
	b.SetBytes(size - mib)
	b.ReportAllocs()
	for b.Loop() {
		read().Close()
	}
}

// BenchmarkHotManifest has the mirror's handler answer with an image manifest it
// holds, without a socket.
func BenchmarkHotManifest(b *testing.B) {
	o := newOrigin(b)
	content := []byte(`{"schemaVersion":2,"mediaType":"` + oci.MediaTypeManifest + `","config":{},"layers":[]}`)
	o.manifest = content
	h := mirrorHandler(b, o)
	r := httptest.NewRequest(http.MethodGet, "/v2/f/"+o.host()+"/"+repo+"/manifests/"+digest.FromBytes(content).String(), nil)
	first := httptest.NewRecorder()
	h.ServeHTTP(first, r)
	if first.Code != http.StatusOK || !bytes.Equal(first.Body.Bytes(), content) {
		b.Fatalf("status %d, %q", first.Code, first.Body)
	}
	w := &discard{header: http.Header{}}
	b.ReportAllocs()
	for b.Loop() {
		clear(w.header)
		w.n = 0
		h.ServeHTTP(w, r)
		if w.n != len(content) {
			b.Fatalf("%d bytes, want %d", w.n, len(content))
		}
	}
}

// discard is an answer nobody reads.
type discard struct {
	header http.Header
	n      int
}

func (d *discard) Header() http.Header              { return d.header }
func (d *discard) WriteHeader(int)                  {}
func (d *discard) Write(p []byte) (int, error)      { d.n += len(p); return len(p), nil }
func (d *discard) SetWriteDeadline(time.Time) error { return nil }
func (d *discard) SetReadDeadline(time.Time) error  { return nil }
func (d *discard) EnableFullDuplex() error          { return os.ErrInvalid }
