package mirror

import (
	"context"
	"io"

	"github.com/opencontainers/go-digest"
	"golang.org/x/time/rate"

	"github.com/larder-registry/larder/internal/oci"
)

// paced holds what all upstreams together send of blobs to so many bytes a
// second. Image manifests are small, and somebody waits for each: they go free.
type paced struct {
	Upstream
	limiter *rate.Limiter
}

// pace wraps up; bytesPerSecond of zero or less does not.
func pace(up Upstream, bytesPerSecond int64) Upstream {
	if bytesPerSecond <= 0 {
		return up
	}
	// A burst is what one read brings, or a fifth of a second's worth.
	burst := max(bytesPerSecond/5, bufferSize)
	return &paced{Upstream: up, limiter: rate.NewLimiter(rate.Limit(bytesPerSecond), int(burst))}
}

// Blob opens a blob that is read no faster than the limit.
func (p *paced) Blob(ctx context.Context, name oci.Name, dgst digest.Digest, want oci.Span) (oci.Body, error) {
	body, err := p.Upstream.Blob(ctx, name, dgst, want)
	if err == nil && body.ReadCloser != nil {
		body.ReadCloser = &pacedBody{ReadCloser: body.ReadCloser, wait: func(n int) error { return p.limiter.WaitN(ctx, n) }}
	}
	return body, err
}

// pacedBody waits for its turn after each read, so that what was read is paid
// for before more is.
type pacedBody struct {
	io.ReadCloser
	wait func(n int) error
}

// Waiting is the body's own.
func (b *pacedBody) Waiting() int { return waiting(oci.Body{ReadCloser: b.ReadCloser}) }

func (b *pacedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p[:min(len(p), bufferSize)])
	if n > 0 {
		if e := b.wait(n); err == nil {
			err = e
		}
	}
	return n, err
}
