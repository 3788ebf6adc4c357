package ociserver

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"net"
	"net/http"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/larder-registry/larder/internal/oci"
)

// Field is one part of a line of the access log: a text, or a number if Text is
// empty.
type Field struct {
	Key, Text string
	Number    float64
}

// Lines takes the access log's lines of requests that were answered as they
// should be, which are nearly all of them, faster than a logrus.Entry: a line is
// a good part of what a hot image manifest costs. fields are sorted by their
// keys, and valid during the call only.
type Lines interface {
	Line(at time.Time, fields []Field)
}

// mostFields is how many fields a line has at most.
const mostFields = 17

// account writes the request's line in the access log and counts it.
func (h *handler) account(x *exchange) {
	now := time.Now()
	outcome := x.outcome()
	h.count(x, outcome)
	x.endSpan(outcome)

	room, _ := h.fields.Get().(*[]Field)
	if room == nil {
		room = new(make([]Field, 0, mostFields))
	}
	fields := x.fields((*room)[:0], now, outcome)
	defer h.fields.Put(room)
	quiet := x.left || x.req.Kind == oci.KindPing
	if h.lines != nil && x.err == nil && !quiet {
		h.lines.Line(now, fields)
		return
	}
	data := make(logrus.Fields, len(fields)+len(h.log.Data))
	for _, f := range fields {
		data[f.Key] = f.value()
	}
	maps.Copy(data, h.log.Data)
	line := logrus.NewEntry(h.log.Logger) // WithFields would copy them
	line.Data = data
	// What needs looking at stands out, and what happens all the time does not
	// drown it. A client that hangs up is such a thing: containerd's parallel
	// download does so on most of its requests.
	switch {
	case quiet:
		line.Debug("request")
	case x.err != nil && (x.w.status >= http.StatusInternalServerError || x.w.status < http.StatusBadRequest):
		line.Warn("request") // failed, before or after the status was sent
	default:
		line.Info("request")
	}
}

// fields appends what the access log says of the request, sorted by key.
func (x *exchange) fields(all []Field, now time.Time, outcome oci.Outcome) []Field {
	text := func(key, value string) {
		if value != "" {
			all = append(all, Field{Key: key, Text: value})
		}
	}
	number := func(key string, value float64) {
		all = append(all, Field{Key: key, Number: value})
	}
	number("bytes", float64(x.w.bytes))
	text("client", x.r.RemoteAddr)
	text("digest", string(x.req.Digest)+string(x.req.Reference.Digest)) // at most one is set
	number("duration_ms", milliseconds(now.Sub(x.started)))
	if x.err != nil {
		text("error", x.err.Error())
	}
	text("kind", x.kind())
	if x.left {
		text("left", "true")
	}
	text("method", x.r.Method)
	text("outcome", string(outcome))
	if asked := x.access.Range; asked != nil {
		text("range", rangeText(*asked))
	}
	text("reason", x.access.Reason)
	text("registry", x.req.Name.Registry)
	text("repository", x.req.Name.Repository)
	number("status", float64(x.w.status))
	text("tag", x.req.Reference.Tag)
	text("trace", x.span.TraceID())
	if x.w.committed {
		number("ttfb_ms", milliseconds(x.w.first.Sub(x.started)))
	}
	if x.access.Upstream > 0 {
		number("upstream_ms", milliseconds(x.access.Upstream))
	}
	text("user", x.user)
	return all
}

// value is the field's value for logrus, of the types its readers know.
func (f Field) value() any {
	switch {
	case f.Key == "left":
		return true
	case f.Text != "":
		return f.Text
	case f.Key == "status":
		return int(f.Number)
	case f.Key == "bytes":
		return int64(f.Number)
	}
	return f.Number
}

// outcome is what the answer came from; a request for content that says
// nothing of it and failed is a miss.
func (x *exchange) outcome() oci.Outcome {
	if x.access.Outcome == "" && x.err != nil && x.content() {
		return oci.OutcomeMiss
	}
	return x.access.Outcome
}

// content reports whether the request is for bytes of a registry, and not for
// a list of our own making.
func (x *exchange) content() bool {
	switch x.req.Kind {
	case oci.KindBlob, oci.KindManifest, oci.KindReferrers:
		return true
	}
	return false
}

// kind names the request's kind, also when its path is none of the API's.
func (x *exchange) kind() string {
	if x.req.Kind == "" {
		return "other"
	}
	return string(x.req.Kind)
}

// count keeps the metrics.
func (h *handler) count(x *exchange, outcome oci.Outcome) {
	registry := "none"
	if x.req.Name.Registry != "" {
		registry = h.label(x.req.Name.Registry)
	}
	word := string(outcome)
	if word == "" {
		word = "none"
	}
	content := x.content() && x.w.committed && x.w.status < http.StatusBadRequest
	c := h.metrics.count(outcomeKey{registry, x.kind(), word, x.w.status}, content)
	c.requests.Inc()
	if content {
		c.served.Add(float64(x.w.bytes))
		c.firstByte.Observe(x.w.first.Sub(x.started).Seconds())
	}
}

// rangeText writes a range as the Range header has it.
func rangeText(asked oci.Span) string {
	switch {
	case asked.Start < 0:
		return strconv.FormatInt(asked.Start, 10)
	case asked.End < 0:
		return fmt.Sprintf("%d-", asked.Start)
	}
	return fmt.Sprintf("%d-%d", asked.Start, asked.End-1)
}

// milliseconds is a duration for people and machines alike, to a microsecond.
func milliseconds(d time.Duration) float64 {
	return math.Round(float64(d)/float64(time.Microsecond)) / 1000
}

// isWriteError tells a client that is gone or stuck from a file that cannot be
// read; sendfile reports either in the same place.
func isWriteError(err error) bool {
	return errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, syscall.ETIMEDOUT)
}
