// Package admission answers a Kubernetes API server that asks whether an object
// may be: AdmissionReview in, verdict out.
//
// [New] makes a handler over an image policy (internal/policy). Pods are held to
// it, whatever made them; workloads that will make pods are told early. On an
// update only images that were not there before are looked at, so that nobody
// is kept from scaling, labelling or deleting what already runs. Which images
// an object has is found by internal/policy/workload; what becomes of it is in
// decide.go, the words that people read in message.go, and the wire in review.go
// and handler.go.
//
// It keeps no state and contacts nobody, so any number of replicas answer alike.
// It refuses, with a status that is not 200, everything that is not a review it
// understands: the API server then does as the registration's failurePolicy
// says. The certificate it is served with is in admission/certificate.
package admission

import (
	"errors"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"

	"github.com/larder-registry/larder/internal/policy"
	"github.com/larder-registry/larder/internal/policy/workload"
)

// Workloads says what becomes of an object whose pods would be denied.
type Workloads string

// What can become of it.
const (
	// WorkloadsDeny refuses it.
	WorkloadsDeny Workloads = "deny"
	// WorkloadsWarn lets it through and warns whoever made it.
	WorkloadsWarn Workloads = "warn"
	// WorkloadsOff does not look at it.
	WorkloadsOff Workloads = "off"
)

// Rules is what reviews are held to.
type Rules struct {
	// Policy is required.
	Policy *policy.Policy
	// Workloads is WorkloadsWarn if empty. It can only soften what the
	// policy's mode says.
	Workloads Workloads
}

// Config is what a Handler is made of. Log and Rules are required.
type Config struct {
	Rules Rules
	// Ready says why reviews should go elsewhere, or nil, for /readyz. A nil
	// func is always ready.
	Ready func() error
	// Log gets a line for each image that is denied, or would be.
	Log *logrus.Entry
	// Registerer gets the metrics; nil keeps them unseen.
	Registerer prometheus.Registerer
}

// Handler answers reviews. It is safe for concurrent use.
type Handler struct {
	rules   atomic.Pointer[Rules]
	ready   func() error
	log     *logrus.Entry
	metrics *metrics
	mux     *http.ServeMux
	large   chan struct{}
	lean    *workload.Lean
	buffers sync.Pool // of *buffers
	// verdicts are for people who look on.
	verdicts verdicts
}

// New makes a handler.
func New(cfg Config) (*Handler, error) {
	if cfg.Log == nil || cfg.Rules.Policy == nil {
		return nil, errors.New("make admission handler: log and policy are required")
	}
	h := &Handler{
		ready: cfg.Ready, log: cfg.Log, metrics: newMetrics(cfg.Registerer),
		mux: http.NewServeMux(), large: make(chan struct{}, maxLarge),
		lean: workload.NewLean[review](),
	}
	if h.ready == nil {
		h.ready = func() error { return nil }
	}
	h.Use(cfg.Rules)
	h.routes()
	return h, nil
}

// Use holds reviews to other rules from now on. Those under way are finished by
// the rules they began with.
func (h *Handler) Use(r Rules) {
	if r.Workloads == "" {
		r.Workloads = WorkloadsWarn
	}
	h.rules.Store(&r)
	h.metrics.inForce(r.Policy.Revision())
}
