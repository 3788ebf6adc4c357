package central

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics count what comes in and what is cleared away.
type metrics struct {
	received  prometheus.Counter
	collected *prometheus.CounterVec
	freed     prometheus.Counter
	seconds   prometheus.Gauge
	completed prometheus.Gauge
	failures  prometheus.Counter
}

// newMetrics registers the collectors; free says how many bytes pushes may still
// take.
func newMetrics(reg prometheus.Registerer, free func() (int64, error)) *metrics {
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
		completed: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "larder_central_collect_completed_timestamp_seconds",
			Help: "When garbage was last collected to the end, in seconds since 1970; 0 if it was not since the start.",
		}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "larder_central_collect_failures_total",
			Help: "Garbage collections that failed.",
		}),
	}
	room := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "larder_central_room_bytes",
		Help: "Bytes that pushes may still take on disk: 0 refuses them. -1 when the file system does not say.",
	}, func() float64 {
		n, err := free()
		if err != nil {
			return -1
		}
		return float64(n)
	})
	reg.MustRegister(m.received, m.collected, m.freed, m.seconds, m.completed, m.failures, room)
	return m
}

// ended notes how a collection ended.
func (m *metrics) ended(at time.Time, err error) {
	if err != nil {
		m.failures.Inc()
		return
	}
	m.completed.Set(float64(at.Unix()))
}
