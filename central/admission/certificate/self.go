package certificate

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"
)

// SelfConfig is what a [Self] is made of. Cluster, Namespace, Secret,
// Registration and Log are required.
type SelfConfig struct {
	Cluster *Cluster
	// Namespace and Secret name the Secret that the replicas share.
	Namespace, Secret string
	// Registration names the ValidatingWebhookConfiguration. The names and
	// addresses in it are what certificates are made for.
	Registration string
	// AuthorityLifetime and Lifetime are how long an authority and a serving
	// certificate last. Both are replaced when a third of it is left. Zero
	// means ten years and 90 days.
	AuthorityLifetime, Lifetime time.Duration
	// Interval is how often the Secret and the registration are looked at.
	// Zero means 30 s.
	Interval time.Duration
	// Settle is how long a new authority is in the registration before
	// certificates of it are served: API servers hear of it one by one. Zero
	// means 10 s.
	Settle time.Duration
	// Overlap is how long an authority that was replaced stays trusted. Zero
	// means one hour.
	Overlap time.Duration
	Log     *logrus.Entry
	// Registerer gets the metrics; nil keeps them unseen.
	Registerer prometheus.Registerer
}

// Self makes the webhook's certificate and has the cluster trust it. GetCertificate,
// Ready and Refused are safe for concurrent use.
type Self struct {
	cfg     SelfConfig
	metrics *metrics
	served  atomic.Pointer[tls.Certificate]
	check   chan struct{}

	// These belong to Run.
	issuer  *x509.Certificate // of what is served
	names   []string          // what that is for
	renewAt time.Time
	since   map[string]time.Time // when an authority was first seen in the registration
	told    string               // the failure that was last logged

	mu    sync.Mutex
	ready error
}

// NewSelf makes a Self, which has no certificate until Run runs.
func NewSelf(cfg SelfConfig) (*Self, error) {
	if cfg.Cluster == nil || cfg.Namespace == "" || cfg.Secret == "" || cfg.Registration == "" || cfg.Log == nil {
		return nil, errors.New("make certificate: cluster, namespace, secret, registration and log are required")
	}
	orDefault(&cfg.AuthorityLifetime, 10*365*24*time.Hour)
	orDefault(&cfg.Lifetime, 90*24*time.Hour)
	orDefault(&cfg.Interval, 30*time.Second)
	orDefault(&cfg.Settle, 10*time.Second)
	orDefault(&cfg.Overlap, time.Hour)
	return &Self{
		cfg:     cfg,
		metrics: newMetrics(cfg.Registerer),
		check:   make(chan struct{}, 1),
		since:   map[string]time.Time{},
		ready:   errNone,
	}, nil
}

func orDefault(d *time.Duration, v time.Duration) {
	if *d <= 0 {
		*d = v
	}
}

// GetCertificate implements the function of that name in [tls.Config].
func (s *Self) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	if cert := s.served.Load(); cert != nil {
		return cert, nil
	}
	return nil, errNone
}

// Ready says why the API server cannot be expected to trust this replica, or
// nil. While the API server cannot be asked, what was last known holds.
func (s *Self) Ready() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ready != nil {
		return s.ready
	}
	return inDate(s.served.Load(), time.Now())
}

// Refused notes that a client did not take the certificate, and has the
// registration looked at before the interval is over.
func (s *Self) Refused() {
	s.metrics.refused.Inc()
	select {
	case s.check <- struct{}{}:
	default:
	}
}

// minPause keeps strangers who break handshakes from making this replica ask
// the API server all the time.
const minPause = time.Second

// Run keeps everything as it should be until ctx is done. It returns nil.
func (s *Self) Run(ctx context.Context) error {
	defer s.cfg.Cluster.close()
	for {
		next, err := s.reconcile(ctx)
		if ctx.Err() != nil {
			return nil
		}
		s.report(err)
		least := min(minPause, s.cfg.Interval)
		if !pause(ctx, least, nil) || !pause(ctx, next-least, s.check) {
			return nil
		}
	}
}

// pause waits for d or until hurry has something; false means ctx is done.
func pause(ctx context.Context, d time.Duration, hurry <-chan struct{}) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-hurry:
		return true
	case <-ctx.Done():
		return false
	}
}

// report logs a failure when it is a new one, and its end.
func (s *Self) report(err error) {
	switch {
	case err == nil && s.told != "":
		s.told = ""
		s.cfg.Log.Info("the webhook's certificate is in order again")
	case err != nil:
		s.metrics.failures.Inc()
		if s.told != err.Error() {
			s.told = err.Error()
			s.cfg.Log.WithError(err).Error("the webhook's certificate cannot be looked after; what is served stays")
		}
	}
}

// conflicts bounds how often one round starts again because another replica was
// faster. Each time somebody has got on.
const conflicts = 10

// reconcile makes one round and says when the next is due.
func (s *Self) reconcile(ctx context.Context) (next time.Duration, err error) {
	for range conflicts {
		if next, err = s.round(ctx); !isConflict(err) {
			break
		}
	}
	if err != nil {
		s.mu.Lock()
		if s.served.Load() == nil {
			s.ready = err
		}
		s.mu.Unlock()
		return jitter(s.cfg.Interval / 3), err
	}
	return next, nil
}

// round reads the registration before the Secret: who then writes the
// registration has seen a Secret that is at least as new as what is
// overwritten, because the write carries the registration's version.
func (s *Self) round(ctx context.Context) (next time.Duration, err error) {
	reg, err := s.cfg.Cluster.getRegistration(ctx, s.cfg.Registration)
	if err != nil {
		return 0, err
	}
	t, err := s.trust(ctx, reg)
	if err != nil {
		return 0, err
	}
	if err := s.publish(ctx, reg, t); err != nil {
		s.setReady(reg)
		return 0, err
	}
	next, err = s.adopt(reg, t)
	s.setReady(reg)
	return next, err
}

// trust reads the Secret and puts right what is wrong with it: no authority, one
// that is about to end, one that is not known to have signed what is served
// here, or a previous one whose time is over.
func (s *Self) trust(ctx context.Context, reg *registration) (trust, error) {
	sec, err := s.cfg.Cluster.getSecret(ctx, s.cfg.Namespace, s.cfg.Secret)
	if err != nil {
		return trust{}, err
	}
	now := time.Now()
	t, err := parseTrust(sec.data)
	var why string
	switch {
	case errors.Is(err, errNoAuthority):
		why = "there was none"
	case err != nil:
		why = err.Error()
	case t.current.cert.NotAfter.Sub(now) < s.cfg.AuthorityLifetime/3:
		why = "the last one ends on " + t.current.cert.NotAfter.UTC().Format(time.RFC3339)
		t.retire(t.current.cert, now.Add(s.cfg.Overlap))
	}
	if why != "" {
		// What was trusted until now may be what other replicas still serve,
		// whether or not the Secret knew of it.
		for _, w := range reg.Webhooks {
			for _, c := range certificates(w.ClientConfig.CABundle) {
				if now.Before(c.NotAfter) {
					t.retire(c, now.Add(s.cfg.Overlap))
				}
			}
		}
		if t.current, err = newAuthority(now, s.cfg.AuthorityLifetime); err != nil {
			return trust{}, err
		}
	}
	dirty := why != ""
	if s.issuer != nil && now.Before(s.issuer.NotAfter) && !holds(t.bundle(), s.issuer) {
		t.retire(s.issuer, now.Add(s.cfg.Overlap))
		dirty = true
	}
	if len(t.previous) > 0 && now.After(t.until) {
		t.previous = nil
		if s.issuer != nil && !s.issuer.Equal(t.current.cert) {
			// This replica has not changed over yet. That takes one more round.
			t.retire(s.issuer, now.Add(s.cfg.Overlap))
		}
		dirty = true
	}
	if !dirty {
		return t, nil
	}
	if err := t.encode(sec.data); err != nil {
		return trust{}, err
	}
	if err := s.cfg.Cluster.putSecret(ctx, s.cfg.Namespace, s.cfg.Secret, sec); err != nil {
		return trust{}, err
	}
	if why != "" {
		s.cfg.Log.WithFields(logrus.Fields{
			"reason": why, "authority": fingerprint(t.current.cert), "not_after": t.current.cert.NotAfter.UTC(),
		}).Info("made a new authority for the webhook's certificates")
	}
	return t, nil
}

// retire keeps c trusted until then.
func (t *trust) retire(c *x509.Certificate, until time.Time) {
	t.until = until
	if !holds(t.previous, c) {
		t.previous = append(slices.Clip(t.previous), c)
	}
}

// publish puts the bundle into the registration where it is not there yet, and
// into reg.
func (s *Self) publish(ctx context.Context, reg *registration, t trust) error {
	if len(reg.Webhooks) == 0 {
		return fmt.Errorf("read ValidatingWebhookConfiguration %s: it has no webhooks", s.cfg.Registration)
	}
	var wanting []string
	for _, w := range reg.Webhooks {
		if !sameCertificates(certificates(w.ClientConfig.CABundle), t.bundle()) {
			wanting = append(wanting, w.Name)
		}
	}
	if len(wanting) == 0 {
		return nil
	}
	bundle := encodeCertificates(t.bundle())
	if err := s.cfg.Cluster.patchBundle(ctx, s.cfg.Registration, reg, bundle); err != nil {
		return err
	}
	s.metrics.patches.Inc()
	s.cfg.Log.WithFields(logrus.Fields{
		"registration": s.cfg.Registration, "webhooks": strings.Join(wanting, ","), "authority": fingerprint(t.current.cert),
	}).Info("put the authority into the webhook's registration")
	for i := range reg.Webhooks {
		reg.Webhooks[i].ClientConfig.CABundle = bundle
	}
	return nil
}

// adopt serves a certificate of the current authority once that has settled,
// and a new one when the last is about to end. The registration has the
// authority by now. It says when the next round is due.
func (s *Self) adopt(reg *registration, t trust) (time.Duration, error) {
	now, id := time.Now(), fingerprint(t.current.cert)
	if s.since[id].IsZero() {
		s.since = map[string]time.Time{id: now}
	}
	names := hosts(reg)
	cert, next := s.served.Load(), jitter(s.cfg.Interval)
	same := s.issuer != nil && s.issuer.Equal(t.current.cert)
	if cert != nil && same && slices.Equal(names, s.names) && now.Before(s.renewAt) {
		return min(next, s.renewAt.Sub(now)), nil
	}
	// Nobody waits for what has just been made the first authority of all.
	settled := s.since[id].Add(s.cfg.Settle)
	if wait := settled.Sub(now); !same && len(t.previous) > 0 && wait > 0 && (cert == nil || now.Before(cert.Leaf.NotAfter)) {
		return min(next, wait), nil
	}
	cert, err := t.current.sign(now, s.cfg.Lifetime, names)
	if err != nil {
		return 0, err
	}
	left := cert.Leaf.NotAfter.Sub(now)
	s.served.Store(cert)
	s.issuer, s.names, s.renewAt = t.current.cert, names, now.Add(left*2/3-spread(left/10))
	s.metrics.notAfter.Set(float64(cert.Leaf.NotAfter.Unix()))
	s.cfg.Log.WithFields(logrus.Fields{
		"names": strings.Join(names, ","), "not_after": cert.Leaf.NotAfter.UTC(), "authority": id,
	}).Info("serving a new certificate")
	return min(next, s.renewAt.Sub(now)), nil
}

// hosts lists what the API server takes the webhooks' certificate to be for.
func hosts(reg *registration) (names []string) {
	for _, w := range reg.Webhooks {
		if h := w.host(); h != "" && !slices.Contains(names, h) {
			names = append(names, h)
		}
	}
	slices.Sort(names)
	return names
}

// setReady notes whether every webhook in the registration trusts what is
// served.
func (s *Self) setReady(reg *registration) {
	var err error
	switch {
	case s.served.Load() == nil:
		err = errNone
	default:
		for _, w := range reg.Webhooks {
			if !holds(certificates(w.ClientConfig.CABundle), s.issuer) {
				err = fmt.Errorf("the caBundle of webhook %s in %s does not hold this replica's authority", w.Name, s.cfg.Registration)
				break
			}
		}
	}
	s.mu.Lock()
	s.ready = err
	s.mu.Unlock()
}

// jitter spreads replicas that were started together: d, up to a fifth less.
func jitter(d time.Duration) time.Duration { return d - spread(d/5) }

// spread is anything up to d.
func spread(d time.Duration) time.Duration {
	return rand.N(d + 1) //nolint:gosec // it keeps replicas apart and no secret
}
