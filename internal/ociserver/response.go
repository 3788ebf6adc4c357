package ociserver

import (
	"context"
	"io"
	"net"
	"net/http"
	"syscall"
	"time"
)

// section is how much of a file goes out under one deadline. A client has to
// take this much in one stall timeout: 17 KiB/s with the default of a minute.
const section = 1 << 20

// response is the http.ResponseWriter answers are written to. It
//
//   - sends the status with the first byte of the body and not before,
//   - pushes the connection's write deadline ahead as it writes, so that a long
//     answer may take hours and a client that takes nothing may not,
//   - keeps count for the access log, and
//   - hands files on to the inner writer's ReadFrom, where net/http uses
//     sendfile. A wrapper without ReadFrom copies through memory instead.
//
// It is used by one goroutine.
type response struct {
	inner        http.ResponseWriter
	stallTimeout time.Duration
	// near sends files in the place of the inner writer, if it is not nil.
	near *near

	// status is what the first write sends, or was sent once committed.
	status    int
	committed bool
	// pushed is when the connection's write deadline was last moved.
	pushed *time.Time
	// first is when the header went out.
	first time.Time
	// bytes is the number of body bytes written.
	bytes int64
	// failed: a write failed, so the client is gone or stuck.
	failed bool
}

// newResponse makes the writer for the answer to r.
func newResponse(inner http.ResponseWriter, r *http.Request, stallTimeout time.Duration) response {
	c, ok := r.Context().Value(connectionKey{}).(*connection)
	if !ok || r.ProtoMajor != 1 {
		c = &connection{} // HTTP/2 has deadlines of its own for each request
	}
	return response{
		inner:        inner,
		stallTimeout: stallTimeout,
		status:       http.StatusOK,
		pushed:       &c.pushed,
	}
}

// connection is what is remembered of a client's connection from one request to
// the next. In HTTP/1 they follow each other, so only one goroutine uses it.
type connection struct{ pushed time.Time }

type connectionKey struct{}

// remember lets the requests of a connection share a [connection].
func remember(ctx context.Context, _ net.Conn) context.Context {
	return context.WithValue(ctx, connectionKey{}, &connection{})
}

// control reaches what the inner writer can do besides.
func (w *response) control() *http.ResponseController { return http.NewResponseController(w.inner) }

// Header is the header that goes out with the first byte.
func (w *response) Header() http.Header { return w.inner.Header() }

// WriteHeader sends the header at once. A second call does nothing.
func (w *response) WriteHeader(status int) {
	if w.committed {
		return
	}
	w.status, w.committed, w.first = status, true, time.Now()
	w.inner.WriteHeader(status)
}

// Write sends p, after the header if that is still to be sent.
func (w *response) Write(p []byte) (int, error) {
	w.begin()
	n, err := w.inner.Write(p)
	w.bytes += int64(n)
	w.failed = w.failed || err != nil
	return n, err
}

// ReadFrom sends what src holds. If src is a limited part of a file, as io.CopyN
// makes it, the kernel does the copying; only files may show a descriptor.
// Anything else is read piece by piece, and the header waits for the first.
func (w *response) ReadFrom(src io.Reader) (int64, error) {
	rest, ok := src.(*io.LimitedReader)
	if !ok {
		return io.Copy(writeOnly{w}, src)
	}
	inner, ok := w.inner.(io.ReaderFrom)
	if _, file := rest.R.(syscall.Conn); !ok || !file {
		return io.Copy(writeOnly{w}, src)
	}
	var total int64
	part := &io.LimitedReader{R: rest.R}
	for rest.N > 0 {
		w.begin()
		want := min(rest.N, section)
		part.N = want
		n, done, err := w.near.send(w.inner, part)
		if !done {
			n, err = inner.ReadFrom(part)
		}
		rest.N -= n
		total += n
		w.bytes += n
		if err != nil {
			w.failed = w.failed || isWriteError(err)
			return total, err
		}
		if n < want {
			break // the file ends here
		}
	}
	return total, nil
}

// finish sends the header of an answer without a body, and leaves a deadline
// for what net/http still has buffered.
func (w *response) finish() { w.begin() }

// begin sends the header, if that is still to be sent, and moves the write
// deadline ahead, unless that was done a moment ago. Writers that know no
// deadlines (a test's recorder) do without.
func (w *response) begin() {
	var now time.Time
	if w.committed {
		now = time.Now()
	} else {
		w.WriteHeader(w.status)
		now = w.first
	}
	if now.Sub(*w.pushed) < w.stallTimeout/8 {
		return
	}
	*w.pushed = now
	_ = w.control().SetWriteDeadline(now.Add(w.stallTimeout))
}

// writeOnly hides ReadFrom from io.Copy.
type writeOnly struct{ io.Writer }
