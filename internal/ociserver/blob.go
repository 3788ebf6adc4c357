package ociserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"golang.org/x/time/rate"

	"github.com/larder-registry/larder/internal/oci"
)

// sender is a blob that knows a better way to send itself than Read: parts that
// lie in a file go out by sendfile while the rest is still arriving. SendTo
// writes n bytes from where the blob stands, to w.Write and w.ReadFrom, and
// returns how many it wrote; fewer than n only with an error.
type sender interface {
	SendTo(w io.Writer, n int64) (int64, error)
}

// blob answers GET and HEAD for a blob.
func (h *handler) blob(ctx context.Context, x *exchange) error {
	name, dgst := x.req.Name, x.req.Digest
	if x.r.Method == http.MethodHead || notModified(x.r, dgst) {
		desc, err := h.reader.StatBlob(ctx, name, dgst)
		if err != nil {
			return err
		}
		desc.MediaType = oci.MediaTypeOctetStream
		x.describe(desc)
		if notModified(x.r, dgst) {
			x.sendNotModified()
		}
		return nil
	}
	asked := askedRange(x.r, dgst)
	x.access.Range = oci.AskedRange(asked)
	blob, err := h.reader.Blob(ctx, name, dgst)
	if err != nil {
		return err
	}
	defer blob.Close()
	desc := blob.Descriptor()
	desc.MediaType = oci.MediaTypeOctetStream
	span, err := x.announce(desc, asked)
	if err != nil {
		return err
	}
	if span.Start > 0 {
		if _, err := blob.Seek(span.Start, io.SeekStart); err != nil {
			return fmt.Errorf("seek to %d: %w", span.Start, err)
		}
		if x.access.Outcome == oci.OutcomeJoin {
			// One of containerd's parallel chunks: it never takes the later
			// ones to another host unless their answer breaks after its head,
			// so the head must not wait for the bytes.
			x.w.WriteHeader(x.w.status)
			_ = x.w.control().Flush() //nolint:errcheck // the body's first byte says the same
		}
	}
	turn, done := h.rates.take(x.r.RemoteAddr)
	defer done()
	return x.sendPaced(ctx, blob, span.Len(), turn)
}

// sendPaced sends n bytes of content, a piece each time turn lets it; all at
// once when there is no turn to wait for.
func (x *exchange) sendPaced(ctx context.Context, content io.Reader, n int64, turn *rate.Limiter) error {
	if turn == nil {
		return x.send(content, n)
	}
	for n > 0 {
		piece := min(n, paceStep)
		if err := turn.WaitN(ctx, int(piece)); err != nil {
			return fmt.Errorf("wait for the client's turn: %w", err)
		}
		if err := x.send(content, piece); err != nil {
			return err
		}
		n -= piece
	}
	return nil
}

// send sends exactly n bytes of content, or fails. The status goes out with the
// first byte and not before, so that content which fails until then still gets
// an honest one.
func (x *exchange) send(content io.Reader, n int64) error {
	var sent int64
	var err error
	if s, ok := content.(sender); ok {
		sent, err = s.SendTo(&x.w, n)
	} else {
		// io.CopyN hands the content itself to response.ReadFrom, which sends
		// a file by sendfile. Any wrapper around it here would end that.
		sent, err = io.CopyN(&x.w, content, n)
	}
	if errors.Is(err, io.EOF) || err == nil && sent < n {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return fmt.Errorf("send content: %d of %d bytes: %w", sent, n, err)
	}
	return nil
}
