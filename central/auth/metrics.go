package auth

import "github.com/prometheus/client_golang/prometheus"

// metrics are what the authority counts.
type metrics struct {
	logins *prometheus.CounterVec
}

// newMetrics registers the collectors; without a registerer nobody sees them.
func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{logins: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "larder_central_logins_total",
		Help: "Credentials that were checked, by kind (password, token) and result (ok, refused, limited, error). Those known from the last minutes are not checked again.",
	}, []string{"kind", "result"})}
	// A counter that is seen for the first time has not risen: all begin at 0.
	for _, kind := range []string{"password", "token"} {
		for _, result := range []string{"ok", "refused", "limited", "error"} {
			m.logins.WithLabelValues(kind, result)
		}
	}
	if reg == nil {
		reg = prometheus.NewRegistry()
	}
	reg.MustRegister(m.logins)
	return m
}

func (m *metrics) login(kind, result string) { m.logins.WithLabelValues(kind, result).Inc() }
