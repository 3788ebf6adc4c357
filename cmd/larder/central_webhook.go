package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	stdlog "log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"

	"github.com/larder-registry/larder/central/admission"
	"github.com/larder-registry/larder/central/admission/certificate"
	"github.com/larder-registry/larder/internal/admin"
	"github.com/larder-registry/larder/internal/config"
	"github.com/larder-registry/larder/internal/policy"
	"github.com/larder-registry/larder/internal/rungroup"
)

// certificateSource is where the webhook's certificate comes from.
type certificateSource interface {
	GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error)
	Ready() error
}

// webhookParts is what the webhook stands on.
type webhookParts struct {
	rules  admission.Rules
	source certificateSource
	run    func(context.Context) error // beside the server, for its certificate
}

// checkWebhook refuses what the webhook cannot be told.
func checkWebhook(c *central) (err error) {
	if err := checkAddress("webhook-listen", c.flags.webhookListen); err != nil {
		return err
	}
	if c.webhook.rules, err = rulesOf(c.cfg); err != nil {
		return err
	}
	c.webhook.source, c.webhook.run, err = c.certificate()
	return err
}

// openWebhook states the policy that is in force, and listens.
func openWebhook(ctx context.Context, c *central) (service, error) {
	rules, source, run := c.webhook.rules, c.webhook.source, c.webhook.run
	// What is looked at again and again while the webhook runs.
	var watched []func()
	refused := func() {}
	switch source := source.(type) {
	case *certificate.Files:
		watched = append(watched, source.Reload)
	case *certificate.Self:
		refused = source.Refused
	}
	ready := func() error { return errors.Join(c.running(), source.Ready()) }
	handler, err := admission.New(admission.Config{Rules: rules, Ready: ready, Log: c.log, Registerer: c.metrics})
	if err != nil {
		return service{}, err
	}
	tell(c.log, rules)
	watched = append(watched, newReloader(c, handler, rules).look)
	l, err := listen(ctx, c.flags.webhookListen)
	if err != nil {
		return service{}, err
	}
	return service{
		checks:  admin.Checks{{Name: "certificate", Ready: source.Ready}},
		servers: []server{webhookServer(l, c.parting(handler), source, refused, c.log)},
		tiers: [][]rungroup.Service{nil, {
			until("certificate", run),
			until("files", func(ctx context.Context) error { watch(ctx, watched); return nil }),
		}},
		notice: c.flags.shutdownDelay,
		status: webhookStatus(handler),
		close:  func() { l.Close() },
	}, nil
}

// rulesOf makes what the configuration says into what reviews are held to.
func rulesOf(cfg *config.Config) (admission.Rules, error) {
	if cfg.ImageValidation == nil {
		return admission.Rules{}, usageErrorf("the webhook has no policy: write image_validation into the configuration file, as in docs/admission.md")
	}
	p, err := policy.New(*cfg.ImageValidation)
	return admission.Rules{Policy: p, Workloads: admission.Workloads(cfg.Webhook.Workloads)}, err
}

// tell states the policy in force.
func tell(log *logrus.Entry, rules admission.Rules) {
	log.WithFields(policyFields(rules.Policy)).WithField("workloads", string(rules.Workloads)).Info("image policy in force")
}

// certificate makes the source the configuration asks for, and what it runs
// beside the server.
func (c *central) certificate() (certificateSource, func(context.Context) error, error) {
	idle := func(ctx context.Context) error { <-ctx.Done(); return nil }
	w, given := c.cfg.Webhook, c.flags.tlsCert != "" || c.flags.tlsKey != ""
	if w.Certificate == "files" {
		if c.flags.tlsCert == "" || c.flags.tlsKey == "" {
			return nil, nil, usageErrorf("webhook.certificate is files: give --tls-cert and --tls-key")
		}
		source, err := certificate.NewFiles(certificate.FilesConfig{
			CertFile: c.flags.tlsCert, KeyFile: c.flags.tlsKey, Log: c.log, Registerer: c.metrics,
		})
		return source, idle, err
	}
	if given && len(c.flags.serve) == 1 {
		return nil, nil, usageErrorf("--tls-cert and --tls-key are not served, since webhook.certificate is self: write 'certificate: files'")
	}
	host, port := os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT")
	if host == "" || port == "" {
		return nil, nil, usageErrorf("this is no pod, as KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set: write 'webhook: {certificate: files}', and give --tls-cert and --tls-key")
	}
	namespace := w.Namespace
	if namespace == "" {
		content, err := os.ReadFile(filepath.Join(w.ServiceAccountDir, "namespace"))
		if err != nil {
			return nil, nil, fmt.Errorf("find out namespace: %w", err)
		}
		namespace = strings.TrimSpace(string(content))
	}
	cluster, err := certificate.NewCluster(certificate.ClusterConfig{
		Server:    net.JoinHostPort(host, port),
		TokenFile: filepath.Join(w.ServiceAccountDir, "token"),
		CAFile:    filepath.Join(w.ServiceAccountDir, "ca.crt"),
	})
	if err != nil {
		return nil, nil, err
	}
	lifetime := time.Duration(w.AuthorityLifetime)
	source, err := certificate.NewSelf(certificate.SelfConfig{
		Cluster:           cluster,
		Namespace:         namespace,
		Secret:            w.SecretName,
		Registration:      w.Registration,
		AuthorityLifetime: lifetime,
		Lifetime:          time.Duration(w.CertificateLifetime),
		// An authority that lasts minutes is changed in seconds.
		Interval:   min(30*time.Second, lifetime/20),
		Settle:     min(10*time.Second, lifetime/20),
		Overlap:    min(time.Hour, lifetime/4),
		Log:        c.log,
		Registerer: c.metrics,
	})
	if err != nil {
		return nil, nil, err
	}
	return source, source.Run, nil
}

// Bounds on what a client of the webhook may take. An API server waits for 30
// seconds at most.
const (
	webhookHeaderTimeout = 5 * time.Second
	webhookTimeout       = 10 * time.Second
	webhookIdleTimeout   = 2 * time.Minute
)

// parting ends connections with their next answer once the webhook is to stop,
// while the cluster is given notice. An API server keeps connections, and a
// review that it sends on one that is just being closed has failed.
func (c *central) parting(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c.stopping.Load() {
			w.Header().Set("Connection", "close")
		}
		h.ServeHTTP(w, r)
	})
}

// webhookServer serves h with TLS. refused is called
// when a client does not take the certificate.
func webhookServer(l net.Listener, h http.Handler, source certificateSource, refused func(), log *logrus.Entry) server {
	return server{
		tls.NewListener(l, &tls.Config{
			GetCertificate: source.GetCertificate,
			MinVersion:     tls.VersionTLS12,
			// API servers ask Services for nothing else, so that reviews are
			// spread over replicas (apiserver's util/webhook/client.go).
			NextProtos: []string{"http/1.1"},
		}),
		&http.Server{
			Handler:           h,
			ReadHeaderTimeout: webhookHeaderTimeout,
			ReadTimeout:       webhookTimeout,
			WriteTimeout:      2 * webhookTimeout,
			IdleTimeout:       webhookIdleTimeout,
			ErrorLog:          stdlog.New(&handshakes{log: log, refused: refused}, "", 0),
		},
	}
}

// handshakes reads net/http's log lines for the one that matters: an API server
// that does not trust the certificate says so by an alert, and nobody else can
// see that its reviews fail.
type handshakes struct {
	log     *logrus.Entry
	refused func()
	// told is when that was last logged, in seconds: every review may fail.
	told atomic.Int64
}

// quiet is how long, in seconds, one line stands for all that follow.
const quiet = 10

func (w *handshakes) Write(p []byte) (int, error) {
	line := string(bytes.TrimSpace(p))
	if !strings.Contains(line, "TLS handshake error") || !strings.Contains(line, "remote error: tls:") || !strings.Contains(line, "certificate") {
		w.log.Debug(line)
		return len(p), nil
	}
	w.refused()
	now, told := time.Now().Unix(), w.told.Load()
	if now-told >= quiet && w.told.CompareAndSwap(told, now) {
		w.log.WithField("error", line).Warn("a client does not trust the webhook's certificate")
	}
	return len(p), nil
}

// until makes a service of what runs until its context is done.
func until(name string, run func(context.Context) error) rungroup.Service {
	ctx, cancel := context.WithCancel(context.Background())
	return rungroup.Service{
		Name: name,
		Run:  func() error { defer cancel(); return run(ctx) },
		Stop: func(context.Context) error { cancel(); return nil },
	}
}

// watchInterval is how often files are read again. What changes them, the
// kubelet, takes up to a minute to do so.
const watchInterval = 2 * time.Second

// watch looks again and again, until ctx is done. Reading a small file costs
// less than being told of changes through links that are swapped.
func watch(ctx context.Context, look []func()) {
	ticker := time.NewTicker(watchInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			for _, f := range look {
				f()
			}
		case <-ctx.Done():
			return
		}
	}
}

// reloader takes the policy from the configuration file when that has changed.
type reloader struct {
	file    string
	seen    []byte
	handler *admission.Handler
	rules   admission.Rules // in force
	log     *logrus.Entry
	failed  prometheus.Counter
}

func newReloader(c *central, h *admission.Handler, rules admission.Rules) *reloader {
	r := &reloader{file: c.flags.config, handler: h, rules: rules, log: c.log, failed: prometheus.NewCounter(prometheus.CounterOpts{
		Name: "larder_policy_reload_errors_total",
		Help: "Changes of the configuration file that could not be taken over.",
	})}
	c.metrics.MustRegister(r.failed)
	return r
}

// look takes over the policy of the file if it is another one. A file that
// cannot be used changes nothing, and is told of once.
func (r *reloader) look() {
	content, err := os.ReadFile(r.file)
	if err != nil {
		content = []byte(err.Error())
	}
	if bytes.Equal(content, r.seen) {
		return
	}
	r.seen = content
	if err == nil {
		err = r.take(content)
	}
	if err != nil {
		r.failed.Inc()
		r.log.WithError(err).WithField("file", r.file).Error("the changed configuration is refused; the policy that was in force stays")
	}
}

// take puts the policy in content into force, if it says something else.
func (r *reloader) take(content []byte) error {
	cfg, _, err := config.Parse(r.file, content)
	if err != nil {
		return err
	}
	rules, err := rulesOf(cfg)
	if err != nil {
		return err
	}
	if rules.Workloads == r.rules.Workloads && rules.Policy.Revision() == r.rules.Policy.Revision() {
		return nil
	}
	r.rules = rules
	r.handler.Use(rules)
	tell(r.log, rules)
	return nil
}
