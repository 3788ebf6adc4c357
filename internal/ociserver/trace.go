package ociserver

import (
	"context"
	"net/http"

	"github.com/larder-registry/larder/internal/oci"
	"github.com/larder-registry/larder/internal/tracing"
)

// trace starts the request's span, which account ends, and returns the context
// that carries it.
func (h *handler) trace(x *exchange) context.Context {
	ctx := x.r.Context()
	if h.tracer == nil {
		return ctx
	}
	ctx, x.span = h.tracer.Receive(ctx, x.r.Header, x.r.Method, x.started)
	return ctx
}

// endSpan says in the request's span what became of it. What strangers chose,
// their addresses and queries, is not in it.
func (x *exchange) endSpan(outcome oci.Outcome) {
	if !x.span.Exists() {
		return
	}
	x.span.Rename(x.r.Method + " " + x.kind())
	attrs := []tracing.Attr{
		tracing.String("http.request.method", x.r.Method),
		tracing.Int("http.response.status_code", int64(x.w.status)),
		tracing.Int("larder.bytes", x.w.bytes),
	}
	for _, text := range []struct{ key, value string }{
		{"larder.registry", x.req.Name.Registry},
		{"larder.repository", x.req.Name.Repository},
		{"larder.tag", x.req.Reference.Tag},
		{"larder.digest", string(x.req.Digest) + string(x.req.Reference.Digest)},
		{"larder.outcome", string(outcome)},
		{"larder.reason", x.access.Reason},
	} {
		if text.value != "" {
			attrs = append(attrs, tracing.String(text.key, text.value))
		}
	}
	x.span.Set(attrs...)
	switch {
	case x.left:
		x.span.Set(tracing.Bool("larder.left", true))
	case x.w.status >= http.StatusInternalServerError:
		x.span.Fail(http.StatusText(x.w.status))
	case x.err != nil && x.w.status < http.StatusBadRequest:
		x.span.Fail("broken off")
	}
	x.span.End()
}
