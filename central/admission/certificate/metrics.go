package certificate

import "github.com/prometheus/client_golang/prometheus"

// metrics counts what happens to the certificate.
type metrics struct {
	notAfter prometheus.Gauge
	failures prometheus.Counter
	patches  prometheus.Counter
	refused  prometheus.Counter
}

// newMetrics registers with reg, or with nobody when it is nil.
func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		notAfter: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "larder_webhook_cert_not_after_seconds",
			Help: "When the webhook's serving certificate ends, in seconds since 1970.",
		}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "larder_webhook_cert_failures_total",
			Help: "Rounds in which the webhook's certificate could not be looked after or read.",
		}),
		patches: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "larder_webhook_ca_bundle_patches_total",
			Help: "Times the caBundle of the webhook's registration was not as it should be and was written.",
		}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "larder_webhook_handshakes_refused_total",
			Help: "Connections that a client broke off because it does not trust the webhook's certificate.",
		}),
	}
	if reg != nil {
		reg.MustRegister(m.notAfter, m.failures, m.patches, m.refused)
	}
	return m
}
