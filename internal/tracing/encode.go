package tracing

import (
	"strconv"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// What follows is OTLP's request for traces, ExportTraceServiceRequest
// (opentelemetry-proto 1.x, collector/trace/v1 and trace/v1), in its JSON form:
// protobuf's, but that ids are hexadecimal (OTLP 1.x, "JSON Protobuf Encoding").
// Numbers of 64 bits are strings, as protobuf has them in JSON.

type request struct {
	ResourceSpans []resourceSpans `json:"resourceSpans"`
}

type resourceSpans struct {
	Resource   resourceOf   `json:"resource"`
	ScopeSpans []scopeSpans `json:"scopeSpans"`
}

type resourceOf struct {
	Attributes []keyValue `json:"attributes"`
}

type scopeSpans struct {
	Scope scope      `json:"scope"`
	Spans []spanData `json:"spans"`
}

type scope struct {
	Name string `json:"name"`
}

type spanData struct {
	TraceID      string     `json:"traceId"`
	SpanID       string     `json:"spanId"`
	TraceState   string     `json:"traceState,omitempty"`
	ParentSpanID string     `json:"parentSpanId,omitempty"`
	Flags        uint32     `json:"flags"`
	Name         string     `json:"name"`
	Kind         int        `json:"kind"`
	Start        string     `json:"startTimeUnixNano"`
	End          string     `json:"endTimeUnixNano"`
	Attributes   []keyValue `json:"attributes,omitempty"`
	Dropped      int        `json:"droppedAttributesCount,omitempty"`
	Links        []link     `json:"links,omitempty"`
	DroppedLinks int        `json:"droppedLinksCount,omitempty"`
	Status       status     `json:"status"`
}

type link struct {
	TraceID    string `json:"traceId"`
	SpanID     string `json:"spanId"`
	TraceState string `json:"traceState,omitempty"`
	Flags      uint32 `json:"flags"`
}

type status struct {
	Message string `json:"message,omitempty"`
	Code    int    `json:"code,omitempty"`
}

type keyValue struct {
	Key   string `json:"key"`
	Value value  `json:"value"`
}

// value has one field set.
type value struct {
	String *string  `json:"stringValue,omitempty"`
	Bool   *bool    `json:"boolValue,omitempty"`
	Int    *string  `json:"intValue,omitempty"`
	Double *float64 `json:"doubleValue,omitempty"`
}

// encode puts spans of one Tracer, at least one, into a request.
func encode(batch []sdk.ReadOnlySpan) request {
	spans := make([]spanData, len(batch))
	for i, s := range batch {
		spans[i] = encodeSpan(s)
	}
	return request{[]resourceSpans{{
		Resource:   resourceOf{attributes(batch[0].Resource().Attributes())},
		ScopeSpans: []scopeSpans{{scope{batch[0].InstrumentationScope().Name}, spans}},
	}}}
}

func encodeSpan(s sdk.ReadOnlySpan) spanData {
	self, parent := s.SpanContext(), s.Parent()
	d := spanData{
		TraceID: self.TraceID().String(), SpanID: self.SpanID().String(), TraceState: self.TraceState().String(),
		Flags: flags(self, parent), Name: s.Name(), Kind: kind(s.SpanKind()),
		Start: nanoseconds(s.StartTime()), End: nanoseconds(s.EndTime()),
		Attributes: attributes(s.Attributes()), Dropped: s.DroppedAttributes(), DroppedLinks: s.DroppedLinks(),
	}
	if parent.HasSpanID() {
		d.ParentSpanID = parent.SpanID().String()
	}
	for _, l := range s.Links() {
		to := l.SpanContext
		d.Links = append(d.Links, link{to.TraceID().String(), to.SpanID().String(), to.TraceState().String(), flags(to, to)})
	}
	switch s.Status().Code {
	case codes.Ok:
		d.Status.Code = 1
	case codes.Error:
		d.Status = status{Message: s.Status().Description, Code: 2}
	}
	return d
}

// flags are those of W3C, and whether other is known to be of another process.
func flags(self, other trace.SpanContext) uint32 {
	const known, remote = 0x100, 0x200
	f := uint32(self.TraceFlags()) | known
	if other.IsRemote() {
		f |= remote
	}
	return f
}

func kind(k trace.SpanKind) int {
	switch k {
	case trace.SpanKindServer:
		return 2
	case trace.SpanKindClient:
		return 3
	}
	return 1
}

func nanoseconds(t time.Time) string { return strconv.FormatInt(t.UnixNano(), 10) }

func attributes(attrs []attribute.KeyValue) []keyValue {
	list := make([]keyValue, 0, len(attrs))
	for _, a := range attrs {
		kv := keyValue{Key: string(a.Key)}
		switch a.Value.Type() {
		case attribute.BOOL:
			b := a.Value.AsBool()
			kv.Value.Bool = &b
		case attribute.INT64:
			n := strconv.FormatInt(a.Value.AsInt64(), 10)
			kv.Value.Int = &n
		case attribute.FLOAT64:
			f := a.Value.AsFloat64()
			kv.Value.Double = &f
		default:
			text := a.Value.String()
			kv.Value.String = &text
		}
		list = append(list, kv)
	}
	return list
}
