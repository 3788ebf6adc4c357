package upstream

import (
	"context"
	"errors"
	"io"
	"math"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/larder-registry/larder/internal/oci"
	"github.com/larder-registry/larder/internal/tracing"
)

const (
	// drainMost is how much of a body is read on Close to save its
	// connection, in bytes, and drainTime how long that may take.
	drainMost = 16 << 10
	drainTime = 100 * time.Millisecond
)

// body is the content of an answer on its way. It never ends cleanly before the
// length announced, gives no byte past it, and fails when no byte comes for the
// stall timeout while someone reads. It buffers nothing.
type body struct {
	src     io.ReadCloser
	conn    net.Conn // that src reads from; nil if nobody told
	host    string
	left    int64 // bytes still to come; -1 if none were announced
	framed  bool  // net/http knows the length and ends the body there
	attempt *attempt
	count   func(n int) // for the metrics
	got     int64       // bytes so far
	span    tracing.Span
	stall   time.Duration
	timer   *time.Timer // cancels the exchange when it runs out
	cancel  context.CancelCauseFunc
	ended   func() *failure // why the exchange's context ended, nil while it lives
	release func()          // called on Close; may be nil

	mu     sync.Mutex // held while reading; Close does not wait for it
	err    error      // what the body ended with
	closed sync.Once
}

// newBody wraps resp.Body; cancel ends the exchange that ctx belongs to.
func (c *Client) newBody(ctx context.Context, cancel context.CancelCauseFunc, a *attempt, resp *http.Response) *body {
	host := resp.Request.URL.Host
	b := &body{
		span: tracing.SpanOf(ctx),
		src:  resp.Body, host: host, left: resp.ContentLength, framed: resp.ContentLength >= 0,
		attempt: a, count: c.metrics.received(a.label), stall: c.timeouts.Stall, cancel: cancel,
		ended: func() *failure { return contextFailure(ctx, host) },
	}
	b.timer = time.AfterFunc(c.timeouts.Stall, func() { cancel(errStalled) })
	b.timer.Stop()
	return b
}

// announce sets how many bytes are to come where Content-Range says so.
func (b *body) announce(length int64) {
	b.framed = b.framed && b.left == length
	b.left = length
}

// Read implements io.Reader. It fails with ErrUnavailable and
// io.ErrUnexpectedEOF when the body breaks off or stalls, with ErrSizeInvalid
// when it does not end where it should.
func (b *body) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err != nil || len(p) == 0 {
		return 0, b.err
	}
	if b.left == 0 && !b.framed {
		return 0, b.end(b.checkEnd())
	}
	if b.left >= 0 && int64(len(p)) > b.left {
		p = p[:b.left]
	}
	n, err := b.read(p)
	if b.left >= 0 {
		b.left -= int64(n)
	}
	switch {
	case err == nil && b.left == 0 && b.framed, errors.Is(err, io.EOF) && b.left <= 0:
		return n, b.end(io.EOF)
	case errors.Is(err, io.EOF):
		return n, b.end(b.cut())
	case err != nil:
		if f := b.ended(); f != nil {
			// How long a body may take is the caller's to know.
			f.ours = f.ours || errors.Is(f, context.DeadlineExceeded)
			return n, b.end(f)
		}
		return n, b.end(b.cut())
	}
	return n, nil
}

// read reads once, under the stall timeout.
func (b *body) read(p []byte) (int, error) {
	b.timer.Reset(b.stall)
	n, err := b.src.Read(p)
	b.timer.Stop()
	b.got += int64(n)
	b.count(n)
	return n, err
}

// Waiting is how many bytes have arrived on the body's connection and wait in the
// kernel to be read, encryption included; math.MaxInt when that cannot be told.
func (b *body) Waiting() int {
	conn := b.conn
	if secure, ok := conn.(interface{ NetConn() net.Conn }); ok {
		conn = secure.NetConn()
	}
	socket, ok := conn.(syscall.Conn)
	if !ok {
		return math.MaxInt
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return math.MaxInt
	}
	n := math.MaxInt
	err = raw.Control(func(fd uintptr) {
		if queued, err := unix.IoctlGetInt(int(fd), unix.SIOCINQ); err == nil {
			n = queued
		}
	})
	if err != nil {
		return math.MaxInt
	}
	return n
}

// checkEnd makes sure that nothing follows the bytes announced. All of them
// have arrived, so a connection that breaks here does no harm.
func (b *body) checkEnd() error {
	if n, _ := b.read(make([]byte, 1)); n > 0 { //nolint:errcheck // see above
		return &failure{err: oci.Errorf(oci.ErrSizeInvalid, "%s: sent more than it announced", b.host), weight: 1}
	}
	return io.EOF
}

func (b *body) cut() *failure {
	return &failure{err: unavailable(b.host, "cut", "the body broke off"), cause: io.ErrUnexpectedEOF, weight: 1, again: true}
}

// end notes what the body ended with and tells the breaker.
func (b *body) end(err error) error {
	b.err = err
	f, failed := errors.AsType[*failure](err)
	switch {
	case !failed:
		b.attempt.ticket.success()
	case f.ours:
		b.attempt.ticket.release()
	default:
		b.attempt.ticket.broke(b.got > 0)
	}
	return err
}

// Close ends the exchange; a Read under way fails. It may be called more than
// once and from any goroutine.
func (b *body) Close() error {
	b.closed.Do(func() {
		if b.mu.TryLock() { // else it is being read still
			b.drain()
			b.span.Set(tracing.Int("larder.bytes", b.got))
			if f, failed := errors.AsType[*failure](b.err); failed {
				b.span.Fail(f.reason())
			}
			b.mu.Unlock()
		}
		b.span.End()
		b.attempt.ticket.release()
		b.cancel(nil)
		_ = b.src.Close() //nolint:errcheck // nothing can be done about it
		b.timer.Stop()
		if b.release != nil {
			b.release()
		}
	})
	return nil
}

// drain reads a small rest, so that the connection can be used again.
func (b *body) drain() {
	if b.err != nil || b.left < 0 || b.left > drainMost {
		return
	}
	b.err = errClosed
	b.timer.Reset(drainTime)
	_, _ = io.CopyN(io.Discard, b.src, b.left+1) //nolint:errcheck // only the connection is at stake
	b.timer.Stop()
}

var errClosed = errors.New("read on closed body")
