package upstream

import (
	"context"
	"net/http"

	"github.com/larder-registry/larder/internal/oci"
	"github.com/larder-registry/larder/internal/tracing"
)

// askSpan starts the span of a question to one endpoint, redirects, tokens and
// the body that comes of it included.
func askSpan(ctx context.Context, a *attempt, q question) (context.Context, tracing.Span) {
	if !tracing.SpanOf(ctx).Exists() {
		return ctx, tracing.Span{}
	}
	attrs := []tracing.Attr{
		tracing.String("larder.endpoint", a.endpoint.base.Host),
		tracing.String("http.request.method", q.method),
	}
	if q.ranged != "" {
		attrs = append(attrs, tracing.String("larder.range", q.ranged))
	}
	return tracing.Start(ctx, "ask upstream", attrs...)
}

// wireSpan starts the span of one request over the wire, up to its answer's
// head. Of its URL no more than the host is told: the rest may be a signature.
func wireSpan(req *http.Request, c call) tracing.Span {
	if !tracing.SpanOf(req.Context()).Exists() {
		return tracing.Span{}
	}
	name := "HTTP " + req.Method
	if c.token != nil {
		name = "HTTP token"
	}
	_, span := tracing.StartClient(req.Context(), name,
		tracing.String("http.request.method", req.Method),
		tracing.String("server.address", req.URL.Host),
	)
	return span
}

// endSpan ends the span of a question that was not answered.
func endSpan(span tracing.Span, err error) {
	span.Fail(oci.Reason(err))
	span.End()
}
