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

// account writes the request's line in the access log and counts it.
func (h *handler) account(x *exchange) {
	now := time.Now()
	outcome := x.outcome()
	h.count(x, outcome)

	fields := logrus.Fields{
		"method":      x.r.Method,
		"kind":        x.kind(),
		"status":      x.w.status,
		"bytes":       x.w.bytes,
		"duration_ms": milliseconds(now.Sub(x.started)),
		"client":      x.r.RemoteAddr,
	}
	set := func(key, value string) {
		if value != "" {
			fields[key] = value
		}
	}
	set("user", x.user)
	set("registry", x.req.Name.Registry)
	set("repository", x.req.Name.Repository)
	set("tag", x.req.Reference.Tag)
	set("digest", string(x.req.Digest)+string(x.req.Reference.Digest)) // at most one is set
	set("outcome", string(outcome))
	set("reason", x.access.Reason)
	if asked := x.access.Range; asked != nil {
		fields["range"] = rangeText(*asked)
	}
	if x.w.committed {
		fields["ttfb_ms"] = milliseconds(x.w.first.Sub(x.started))
	}
	if x.access.Upstream > 0 {
		fields["upstream_ms"] = milliseconds(x.access.Upstream)
	}
	if x.left {
		fields["left"] = true
	}
	if x.err != nil {
		fields["error"] = x.err.Error()
	}
	// What needs looking at stands out, and what happens all the time does not
	// drown it. A client that hangs up is such a thing: containerd's parallel
	// download does so on most of its requests.
	line := logrus.NewEntry(h.log.Logger) // WithFields would copy them
	maps.Copy(fields, h.log.Data)
	line.Data = fields
	switch {
	case x.left, x.req.Kind == oci.KindPing:
		line.Debug("request")
	case x.err != nil && (x.w.status >= http.StatusInternalServerError || x.w.status < http.StatusBadRequest):
		line.Warn("request") // failed, before or after the status was sent
	default:
		line.Info("request")
	}
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
	h.metrics.requests.WithLabelValues(registry, x.kind(), word, strconv.Itoa(x.w.status)).Inc()
	if !x.content() || !x.w.committed || x.w.status >= http.StatusBadRequest {
		return
	}
	h.metrics.served.WithLabelValues(registry, sourceOf(outcome)).Add(float64(x.w.bytes))
	h.metrics.firstByte.WithLabelValues(word).Observe(x.w.first.Sub(x.started).Seconds())
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
