// Package tracing makes spans of what Larder does and sends them to an
// OpenTelemetry collector, by OTLP over HTTP.
//
// It is off unless a [Tracer] is made: without one [Tracer.Receive] returns a
// [Span] that is nothing, and everything done with that costs a comparison. Who
// is answered for carries its span in the context (span.go), so only the HTTP
// edge is given a Tracer; what asks upstreams finds its parent there. Spans that
// have ended wait in a short queue for their batch to be sent (export.go); when
// the collector is slow or gone they are lost and counted, and nothing waits.
//
// The parts of a span and their identity are those of OpenTelemetry's own SDK.
// Its exporters are not used: they bring gRPC and protobuf along, for half of
// the memory an idle mirror takes (docs/adr/0030). What goes out is OTLP's JSON
// form (encode.go, protocol version 1).
//
// A span never holds a credential, a query string or an address of a client, and
// its texts are cut at 256 characters. Nothing is sent along to upstreams: who pulls
// what is not theirs to join.
package tracing

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// Config says where spans go. Endpoint, Service and Log are required.
type Config struct {
	// Endpoint is the collector's address, http or https; below it /v1/traces
	// takes spans (OTLP 1.x, "OTLP/HTTP").
	Endpoint string
	// Sample is the share, 0 to 1, of the requests that come without a decision
	// of their client's which is traced. A client's own decision goes before.
	Sample float64
	// Service and Version name what made the spans, and Host where. The
	// variables OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES go before them,
	// and add to them; the SDK reads them.
	Service, Version, Host string
	// Log gets a line when the collector stops taking spans, and when it takes
	// them again.
	Log *logrus.Entry
	// Registerer gets the metrics; nil keeps them unseen.
	Registerer prometheus.Registerer
}

// What a span may hold: 256 characters of any text, 32 attributes and 32 links,
// and of what a client has to say to its own tracing (tracestate) the 512 bytes
// that W3C Trace Context wants kept ("tracestate Limits"); more is left out whole.
const (
	maxText  = 256
	maxParts = 32
	maxState = 512
)

// Tracer makes the first span of each request. A nil Tracer makes none.
type Tracer struct {
	tracer   trace.Tracer
	exporter *exporter
}

// New makes a Tracer, which the caller closes. It contacts nobody. It fails on an
// endpoint that cannot be one.
func New(cfg Config) (*Tracer, error) {
	if cfg.Service == "" || cfg.Log == nil {
		return nil, errors.New("make tracer: a service and a log are required")
	}
	address, err := tracesURL(cfg.Endpoint)
	if err != nil {
		return nil, fmt.Errorf("make tracer: %w", err)
	}
	named, err := resource.New(context.Background(), resource.WithAttributes(
		attribute.String("service.name", cfg.Service),
		attribute.String("service.version", cfg.Version),
		attribute.String("host.name", cfg.Host),
	), resource.WithFromEnv())
	if err != nil {
		cfg.Log.WithError(err).Warn("OTEL_RESOURCE_ATTRIBUTES is not as it should be")
	}
	t := &Tracer{exporter: newExporter(address, cfg.Log, newMetrics(cfg.Registerer))}
	t.tracer = sdk.NewTracerProvider(
		sdk.WithSpanProcessor(t.exporter),
		sdk.WithSampler(sdk.ParentBased(sdk.TraceIDRatioBased(cfg.Sample))),
		sdk.WithResource(named),
		sdk.WithRawSpanLimits(sdk.SpanLimits{
			AttributeValueLengthLimit: maxText, AttributeCountLimit: maxParts, LinkCountLimit: maxParts,
		}),
	).Tracer("larder")
	t.exporter.start()
	return t, nil
}

// Close sends what waits to be sent, until ctx is done, and ends what New
// started. Spans that end later are lost.
func (t *Tracer) Close(ctx context.Context) error {
	if t == nil {
		return nil
	}
	// The provider would leave it running when ctx is done already.
	return t.exporter.Shutdown(ctx)
}

// Receive starts the span of a request that came at that time with that header;
// a traceparent in it (W3C Trace Context) is its parent. The caller ends the
// span. The context carries it.
func (t *Tracer) Receive(ctx context.Context, header http.Header, name string, at time.Time) (context.Context, Span) {
	if t == nil {
		return ctx, Span{}
	}
	parent := propagation.TraceContext{}.Extract(ctx, propagation.HeaderCarrier(header))
	if client := trace.SpanContextFromContext(parent); len(client.TraceState().String()) > maxState {
		parent = trace.ContextWithRemoteSpanContext(parent, client.WithTraceState(trace.TraceState{}))
	}
	inner, span := t.tracer.Start(parent, name, trace.WithSpanKind(trace.SpanKindServer), trace.WithTimestamp(at))
	if !span.IsRecording() {
		return ctx, Span{}
	}
	return inner, Span{span}
}

// tracesURL is where below a collector's address spans go.
func tracesURL(endpoint string) (string, error) {
	u, err := url.Parse(endpoint)
	if err != nil {
		return "", errors.New("the endpoint is no URL") // which may hold a password
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return "", errors.New("the endpoint has to be http:// or https://, a host, and perhaps a port and a path")
	}
	return strings.TrimRight(u.String(), "/") + "/v1/traces", nil
}
