package ociserver

import (
	"errors"
	"io"
	"net/http"
	"time"
)

// body is a request's body that may take as long as it likes, as long as
// something comes: it pushes the connection's read deadline ahead as it is read.
// It remembers how it ended. It is used by one goroutine.
type body struct {
	inner   io.Reader
	control *http.ResponseController
	stall   time.Duration
	pushed  time.Time
	n       int64
	// err is why the body broke off; nil while it did not.
	err error
}

func newBody(inner io.Reader, control *http.ResponseController, stall time.Duration) *body {
	return &body{inner: inner, control: control, stall: stall}
}

// The bounds on what is read of a body only so that its sender, who reads no
// answer before everything is sent, gets to know that it is refused.
const (
	maxDrain    = 32 << 20
	drainWithin = 5 * time.Second
)

// drain reads and drops the rest of a body of length bytes (-1: unknown), if
// that is not too much. What is left is cut off with the connection.
func (b *body) drain(length int64) {
	if length-b.n > maxDrain {
		return
	}
	_ = b.control.SetReadDeadline(time.Now().Add(drainWithin))
	_, _ = io.CopyN(io.Discard, b.inner, maxDrain) // as far as it goes
}

// Read reads on.
func (b *body) Read(p []byte) (int, error) {
	if now := time.Now(); now.Sub(b.pushed) >= b.stall/8 {
		b.pushed = now
		_ = b.control.SetReadDeadline(now.Add(b.stall)) // a recorder in a test has none
	}
	n, err := b.inner.Read(p)
	b.n += int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		b.err = err
	}
	return n, err
}
