package central

import "github.com/prometheus/client_golang/prometheus"

// metrics count what comes in and what is cleared away.
type metrics struct {
	received  prometheus.Counter
	collected *prometheus.CounterVec
	freed     prometheus.Counter
	seconds   prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	if reg == nil {
		reg = prometheus.NewRegistry()
	}
	m := &metrics{
		received: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "larder_central_received_bytes_total",
			Help: "Bytes of blobs that were pushed and kept.",
		}),
		collected: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "larder_central_collected_total",
			Help: "What garbage collection removed, by kind: upload, tag, manifest, blob (from a repository), content (from disk).",
		}, []string{"kind"}),
		freed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "larder_central_freed_bytes_total",
			Help: "Bytes of content that garbage collection removed from disk.",
		}),
		seconds: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "larder_central_collect_seconds",
			Help: "How long the last garbage collection took.",
		}),
	}
	reg.MustRegister(m.received, m.collected, m.freed, m.seconds)
	return m
}
