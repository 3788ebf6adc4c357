package ociserver

import (
	"strconv"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/larder-registry/larder/internal/oci"
)

// metrics count what was asked and what was sent.
type metrics struct {
	requests  *prometheus.CounterVec
	served    *prometheus.CounterVec
	firstByte *prometheus.HistogramVec

	mu sync.RWMutex
	of map[outcomeKey]counted
}

// outcomeKey is all that requests are told apart by; the registry is bounded, and
// there are few of the rest.
type outcomeKey struct {
	registry, kind, outcome string
	status                  int
}

// counted is where requests of one key are counted. served and firstByte are
// counted for content only.
type counted struct {
	requests, served prometheus.Counter
	firstByte        prometheus.Observer
}

// count returns where requests of that key are counted: looking that up by labels
// costs as much as all else there is to counting.
func (m *metrics) count(key outcomeKey, content bool) counted {
	m.mu.RLock()
	c, ok := m.of[key]
	m.mu.RUnlock()
	if ok && (c.served != nil || !content) {
		return c
	}
	c.requests = m.requests.WithLabelValues(key.registry, key.kind, key.outcome, strconv.Itoa(key.status))
	if content {
		c.served = m.served.WithLabelValues(key.registry, sourceOf(oci.Outcome(key.outcome)))
		c.firstByte = m.firstByte.WithLabelValues(key.outcome)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.of == nil {
		m.of = make(map[outcomeKey]counted)
	}
	m.of[key] = c
	return c
}

func newMetrics(reg prometheus.Registerer) *metrics {
	if reg == nil {
		reg = prometheus.NewRegistry()
	}
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "larder_requests_total",
			Help: "Requests answered. code 499: the client left before there was a status.",
		}, []string{"registry", "kind", "outcome", "code"}),
		served: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "larder_served_bytes_total",
			Help: "Body bytes of blobs and image manifests sent, by where they came from: disk, join (a download in progress for another client), upstream.",
		}, []string{"registry", "source"}),
		firstByte: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "larder_time_to_first_byte_seconds",
			Help:    "Time from request to first byte of the answer, for blobs and image manifests that were served.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}, []string{"outcome"}),
	}
	reg.MustRegister(m.requests, m.served, m.firstByte)
	return m
}

// sourceOf tells where the bytes of an answer came from.
func sourceOf(outcome oci.Outcome) string {
	switch outcome {
	case oci.OutcomeHit, oci.OutcomeStale:
		return "disk"
	case oci.OutcomeJoin:
		return "join"
	}
	return "upstream"
}
