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
