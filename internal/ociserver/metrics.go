package ociserver

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/larder-registry/larder/internal/oci"
)

// metrics count what was asked and what was sent.
type metrics struct {
	requests  *prometheus.CounterVec
	served    *prometheus.CounterVec
	firstByte *prometheus.HistogramVec
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
