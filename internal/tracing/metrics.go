package tracing

import "github.com/prometheus/client_golang/prometheus"

// metrics count what became of spans.
type metrics struct{ sent, lost prometheus.Counter }

// newMetrics registers the collectors; without a registerer nobody sees them.
func newMetrics(reg prometheus.Registerer) *metrics {
	if reg == nil {
		reg = prometheus.NewRegistry()
	}
	spans := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "larder_trace_spans_total",
		Help: "Spans of traces, by what became of them: sent to the collector, or lost.",
	}, []string{"result"})
	reg.MustRegister(spans)
	return &metrics{sent: spans.WithLabelValues("sent"), lost: spans.WithLabelValues("lost")}
}
