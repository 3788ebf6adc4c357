package tracing

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// Span is a part of a trace under way. The zero Span is none: everything can be
// done with it and does nothing. It may be used from any goroutine.
type Span struct{ span trace.Span }

// Attr is something a span says of itself.
type Attr = attribute.KeyValue

// String is an attribute with a text; what is beyond 256 characters is cut.
func String(key, value string) Attr { return attribute.String(key, value) }

// Int is an attribute with a number.
func Int(key string, value int64) Attr { return attribute.Int64(key, value) }

// Bool is an attribute that is so or not.
func Bool(key string, value bool) Attr { return attribute.Bool(key, value) }

// SpanOf returns the span that ctx carries, which may have ended already.
func SpanOf(ctx context.Context) Span {
	span := trace.SpanFromContext(ctx)
	if !span.SpanContext().IsSampled() {
		return Span{}
	}
	return Span{span}
}

// Start starts a span below the one ctx carries; below none it is none. The
// context returned carries it. The caller ends it.
func Start(ctx context.Context, name string, attrs ...Attr) (context.Context, Span) {
	return start(ctx, name, trace.SpanKindInternal, attrs)
}

// StartClient is Start for a request that is sent to somebody else.
func StartClient(ctx context.Context, name string, attrs ...Attr) (context.Context, Span) {
	return start(ctx, name, trace.SpanKindClient, attrs)
}

func start(ctx context.Context, name string, kind trace.SpanKind, attrs []Attr) (context.Context, Span) {
	parent := SpanOf(ctx)
	if !parent.Exists() {
		return ctx, Span{}
	}
	ctx, span := parent.span.TracerProvider().Tracer("larder").Start(ctx, name, trace.WithSpanKind(kind), trace.WithAttributes(attrs...))
	return ctx, Span{span}
}

// Exists reports whether the span is one, so that what would be said of it has
// to be put together.
func (s Span) Exists() bool { return s.span != nil }

// With returns a context that carries the span: for work that does not end with
// the request that began it.
func (s Span) With(ctx context.Context) context.Context {
	if !s.Exists() {
		return ctx
	}
	return trace.ContextWithSpan(ctx, s.span)
}

// Rename gives the span another name, of a few there are.
func (s Span) Rename(name string) {
	if s.Exists() {
		s.span.SetName(name)
	}
}

// Set adds attributes.
func (s Span) Set(attrs ...Attr) {
	if s.Exists() {
		s.span.SetAttributes(attrs...)
	}
}

// Fail marks the span as failed; reason is a word or two.
func (s Span) Fail(reason string) {
	if s.Exists() {
		s.span.SetAttributes(attribute.String("error.type", reason))
		s.span.SetStatus(codes.Error, reason)
	}
}

// Link notes that the span has to do with another, of whatever trace.
func (s Span) Link(to Span) {
	if s.Exists() && to.Exists() {
		s.span.AddLink(trace.Link{SpanContext: to.span.SpanContext()})
	}
}

// End ends the span; what is said of it later is not kept.
func (s Span) End() {
	if s.Exists() {
		s.span.End()
	}
}

// TraceID names the trace the span is part of, in hexadecimal; empty for none.
func (s Span) TraceID() string {
	if !s.Exists() {
		return ""
	}
	return s.span.SpanContext().TraceID().String()
}
