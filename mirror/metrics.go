package mirror

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/larder-registry/larder/store"
)

// metrics counts what only the mirror knows. What requests came to is counted
// at the HTTP edge, what upstreams said in mirror/upstream.
type metrics struct {
	label       func(string) string
	fills       prometheus.Gauge
	followers   prometheus.Gauge
	mismatches  prometheus.Counter
	staleServed *prometheus.CounterVec
	denied      *prometheus.CounterVec
	// privateDenied counts by why: "challenge" (asked for credentials),
	// "refused" (the upstream refused those that came), "unproven" (it could
	// not be asked), "bypass".
	privateDenied *prometheus.CounterVec
}

// newMetrics registers the mirror's metrics and those of the store behind it;
// with a nil registerer they are counted for nobody.
func newMetrics(reg prometheus.Registerer, label func(string) string, s *store.Store, bypassed func() map[string]int) *metrics {
	if label == nil {
		label = func(registry string) string { return registry }
	}
	if reg == nil {
		reg = prometheus.NewRegistry()
	}
	m := &metrics{
		label: label,
		fills: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "larder_fills_in_flight", Help: "Blobs being brought in.",
		}),
		followers: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "larder_followers", Help: "Requests reading blobs that are being brought in.",
		}),
		mismatches: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "larder_digest_mismatch_total", Help: "Blobs from upstream or from disk that did not match their digest.",
		}),
		staleServed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "larder_stale_served_total", Help: "Answers from disk that the upstream could not confirm.",
		}, []string{"registry", "reason"}),
		denied: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "larder_policy_denied_total",
			Help: "Requests that the image policy denies: refused in mode enforce, answered all the same in modes warn and audit.",
		}, []string{"registry", "mode"}),
		privateDenied: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "larder_private_denied_total", Help: "Requests for private content that were not let in, by reason.",
		}, []string{"registry", "reason"}),
	}
	reg.MustRegister(m.fills, m.followers, m.mismatches, m.staleServed, m.denied, m.privateDenied, storeMetrics{s}, bypassedMetrics{label, bypassed})
	return m
}

func (m *metrics) stale(registry, reason string) {
	m.staleServed.WithLabelValues(m.label(registry), reason).Inc()
}

func (m *metrics) policyDenied(registry, mode string) {
	m.denied.WithLabelValues(m.label(registry), mode).Inc()
}

// bypassedMetrics counts images that were bypassed when somebody asks for it.
type bypassedMetrics struct {
	label func(string) string
	count func() map[string]int
}

// Describe implements prometheus.Collector.
func (c bypassedMetrics) Describe(out chan<- *prometheus.Desc) { out <- c.desc() }

func (bypassedMetrics) desc() *prometheus.Desc {
	return prometheus.NewDesc("larder_bypassed", "Images whose manifest was taken in the last hour, and none of whose layers was asked for: a hint that they were fetched past the mirror.", []string{"registry"}, nil)
}

// Collect implements prometheus.Collector. Registries that share a label are
// added up.
func (c bypassedMetrics) Collect(out chan<- prometheus.Metric) {
	sums := map[string]int{}
	for registry, n := range c.count() {
		sums[c.label(registry)] += n
	}
	desc := c.desc()
	for registry, n := range sums {
		out <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, float64(n), registry)
	}
}

// storeMetrics reads the store's figures when somebody asks for them.
type storeMetrics struct{ s *store.Store }

// Describe sends nothing: the collector is unchecked, as the reasons for
// evictions are the store's to name.
func (storeMetrics) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c storeMetrics) Collect(out chan<- prometheus.Metric) {
	stats := c.s.Stats()
	gauge := func(name, help string, v float64) {
		out <- prometheus.MustNewConstMetric(prometheus.NewDesc(name, help, nil, nil), prometheus.GaugeValue, v)
	}
	gauge("larder_cache_bytes", "Bytes of content on disk, arriving content included.", float64(stats.CacheBytes))
	gauge("larder_cache_limit_bytes", "Most bytes of content the limits allow now.", float64(stats.LimitBytes))
	gauge("larder_cache_blobs", "Blobs on disk.", float64(stats.Blobs))
	gauge("larder_fs_free_ratio", "Free share of the data directory's file system, 0 to 1; -1 when it does not say.", stats.FreeRatio)
	degraded := 0.0
	if c.s.Degraded() != nil {
		degraded = 1
	}
	gauge("larder_cache_degraded", "1 while content cannot be kept and passes through; the reason is on the admin port's /readyz.", degraded)
	evictions := prometheus.NewDesc("larder_evictions_total", "Blobs evicted, by reason.", []string{"reason"}, nil)
	for reason, n := range stats.Evictions {
		out <- prometheus.MustNewConstMetric(evictions, prometheus.CounterValue, float64(n), reason)
	}
}
