package mirror

import (
	"context"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/internal/oci"
	"github.com/larder-registry/larder/internal/tracing"
)

// startSpan starts the span of what the mirror does for a request and for others
// that come meanwhile, and may go on after it: it is below the span of the one
// that began it, and the others link to it.
func startSpan(parent tracing.Span, what string, name oci.Name, dgst digest.Digest, more ...tracing.Attr) tracing.Span {
	if !parent.Exists() {
		return tracing.Span{}
	}
	_, span := tracing.Start(parent.With(context.Background()), what, append(more,
		tracing.String("larder.registry", name.Registry),
		tracing.String("larder.repository", name.Repository),
		tracing.String("larder.digest", dgst.String()),
	)...)
	return span
}

// endSpan ends a span with what came of it.
func endSpan(span tracing.Span, err error) {
	if err != nil {
		span.Fail(oci.Reason(err))
	}
	span.End()
}

// endSpan says in the fill's span how it went. A fill whose disk failed is
// marked so, although those who follow it do not notice.
func (f *fill) endSpan() {
	if !f.span.Exists() {
		return
	}
	f.mu.Lock()
	err, held, resumes, spilled := f.err, f.held.total(), f.resumes, f.spill != nil
	f.mu.Unlock()
	f.span.Set(
		tracing.Int("larder.size", f.size),
		tracing.Int("larder.held", held),
		tracing.Int("larder.resumes", int64(resumes)),
		tracing.Bool("larder.resumed", f.resumed),
	)
	if spilled {
		f.span.Fail("disk")
	}
	endSpan(f.span, err)
}
