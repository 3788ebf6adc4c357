package admission

import (
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics counts reviews.
type metrics struct {
	reviews  *prometheus.CounterVec
	duration prometheus.Histogram
	revision *prometheus.GaugeVec
}

// newMetrics registers with reg, or with nobody when it is nil.
func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		reviews: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "larder_admission_reviews_total",
			Help: "Admission reviews answered, by what became of them. mode is that of the hardest rule an image broke.",
		}, []string{"operation", "resource", "decision", "mode"}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "larder_admission_review_duration_seconds",
			Help:    "Time from an admission review's head to its answer.",
			Buckets: []float64{.00005, .0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .5, 1, 5},
		}),
		revision: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "larder_policy_revision_info",
			Help: "1 for the revision of the image policy in force.",
		}, []string{"revision"}),
	}
	if reg != nil {
		reg.MustRegister(m.reviews, m.duration, m.revision)
	}
	return m
}

// answered counts a review. Every label is one of a few values.
func (m *metrics) answered(r *request, out outcome, took time.Duration) {
	resource := "other"
	if r.isKnown() && slices.Contains([]string{
		"pods", "replicationcontrollers", "deployments", "statefulsets", "daemonsets", "replicasets", "jobs", "cronjobs",
	}, r.Resource.Resource) {
		resource = r.Resource.Resource
		if r.SubResource == "ephemeralcontainers" {
			resource += "/" + r.SubResource
		}
	}
	m.reviews.WithLabelValues(r.Operation, resource, out.decision, string(out.mode)).Inc()
	m.duration.Observe(took.Seconds())
}

// failed counts what was no review.
func (m *metrics) failed(took time.Duration) {
	m.reviews.WithLabelValues("", "", "error", "").Inc()
	m.duration.Observe(took.Seconds())
}

// inForce notes the policy's revision, and forgets the one before.
func (m *metrics) inForce(revision string) {
	m.revision.Reset()
	m.revision.WithLabelValues(revision).Set(1)
}
