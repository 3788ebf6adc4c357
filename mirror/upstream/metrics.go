package upstream

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics counts what goes over the wire. Requests to token servers and to
// where a registry redirects count for the registry.
type metrics struct {
	requests  *prometheus.CounterVec
	bytes     *prometheus.CounterVec
	remaining *prometheus.GaugeVec
	reg       prometheus.Registerer
}

func newMetrics(reg prometheus.Registerer) *metrics {
	if reg == nil {
		reg = prometheus.NewRegistry()
	}
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "larder_upstream_requests_total",
			Help: "Requests sent to upstreams, by the status code of the answer or what went wrong.",
		}, []string{"registry", "code"}),
		bytes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "larder_upstream_bytes_total",
			Help: "Bytes of manifests and blobs received from upstreams.",
		}, []string{"registry"}),
		remaining: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "larder_upstream_ratelimit_remaining",
			Help: "Requests left in the upstream's rate limit, as it said last.",
		}, []string{"registry"}),
		reg: reg,
	}
	reg.MustRegister(m.requests, m.bytes, m.remaining)
	return m
}

// watch has every breaker shown as state tells of it. It is called once.
func (m *metrics) watch(state func() map[string]EndpointState) {
	m.reg.MustRegister(breakerStates{state, prometheus.NewDesc("larder_breaker_state",
		"Circuit breaker of an upstream endpoint: 0 closed, 1 half-open, 2 open.", []string{"endpoint"}, nil)})
}

// breakerStates asks for the states at each scrape: a pause ends by itself, and
// when nobody asks the endpoint any more there is nobody to note it.
type breakerStates struct {
	state func() map[string]EndpointState
	desc  *prometheus.Desc
}

// Describe implements prometheus.Collector.
func (b breakerStates) Describe(to chan<- *prometheus.Desc) { to <- b.desc }

// Collect implements prometheus.Collector.
func (b breakerStates) Collect(to chan<- prometheus.Metric) {
	for endpoint, s := range b.state() {
		to <- prometheus.MustNewConstMetric(b.desc, prometheus.GaugeValue, float64(s.Health), endpoint)
	}
}

func (m *metrics) request(registry, code string) {
	m.requests.WithLabelValues(registry, code).Inc()
}

func (m *metrics) response(registry string, resp *http.Response) {
	m.request(registry, strconv.Itoa(resp.StatusCode))
	// Docker Hub: "ratelimit-remaining: 99;w=21600".
	remaining, _, _ := strings.Cut(resp.Header.Get("Ratelimit-Remaining"), ";")
	if n, err := strconv.ParseUint(strings.TrimSpace(remaining), 10, 32); err == nil {
		m.remaining.WithLabelValues(registry).Set(float64(n))
	}
}

// received gives what counts the bytes of one body.
func (m *metrics) received(registry string) func(n int) {
	counter := m.bytes.WithLabelValues(registry)
	return func(n int) { counter.Add(float64(n)) }
}
