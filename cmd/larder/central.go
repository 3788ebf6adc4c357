package main

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"

	"github.com/larder-registry/larder/internal/admin"
	"github.com/larder-registry/larder/internal/config"
	"github.com/larder-registry/larder/internal/ociserver"
	"github.com/larder-registry/larder/internal/rungroup"
	"github.com/larder-registry/larder/internal/status"
	"github.com/larder-registry/larder/internal/tracing"
)

// centralFlags is what larder central is told on the command line. The flags of
// one service are checked where it is opened.
type centralFlags struct {
	serve         []string
	config        string
	webhookListen string
	tlsCert       string
	tlsKey        string
	access        accessFlags
	registry      registryFlags
	adminListen   string
	drainTimeout  time.Duration
	shutdownDelay time.Duration
	logLevel      string
	logFormat     string
}

func newCentral() *cobra.Command {
	var f centralFlags
	cmd := &cobra.Command{
		Use:   "central",
		Short: "Run the central services of a cluster: registry and admission webhook",
		Long: `Runs the services that a cluster has one of, as --serve names them:

  registry  a registry to push to and pull from, with its content in --data-dir.
            Who may do what is said in the configuration file (central), or by
            --user and --password-file for a single user.

  webhook   a validating admission webhook that holds pods to the image policy
            (image_validation in the configuration file). It keeps no state, so
            that several replicas can run.

SIGTERM or SIGINT stops it in order: not ready, then for --shutdown-delay what
still comes is answered, requests in flight are finished within --drain-timeout.
A second signal stops it at once.

With 'webhook: {certificate: self}', the default, the webhook makes its own
certificate authority and registers it with the cluster; KUBERNETES_SERVICE_HOST
and KUBERNETES_SERVICE_PORT say where the cluster is. With 'certificate: files'
it serves --tls-cert and --tls-key, and reads them again when they change.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runCentral(cmd, f) },
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringSliceVar(&f.serve, "serve", []string{"registry"}, "`SERVICES` to run, a comma list: registry, webhook")
	flags.StringVar(&f.config, "config", "", "configuration `FILE`; none means the defaults")
	flags.StringVar(&f.webhookListen, "webhook-listen", "[::]:8443", "`ADDRESS` to serve the webhook on, host:port, with TLS")
	flags.StringVar(&f.tlsCert, "tls-cert", "", "PEM `FILE` with the serving certificate and those it needs, leaf first")
	flags.StringVar(&f.tlsKey, "tls-key", "", "PEM `FILE` with the serving certificate's key")
	f.registry.add(flags)
	f.access.add(flags)
	flags.StringVar(&f.adminListen, "admin-listen", "127.0.0.1:8001", "`ADDRESS` for /status, /healthz, /readyz, /metrics and /debug/pprof; empty for none")
	flags.DurationVar(&f.drainTimeout, "drain-timeout", 25*time.Second, "how long requests in flight may take to finish at a stop")
	flags.DurationVar(&f.shutdownDelay, "shutdown-delay", 5*time.Second, "how long services still answer at a stop, until the cluster has heard of it; part of the drain")
	flags.StringVar(&f.logLevel, "log-level", "info", "`LEVEL`: error, warn, info or debug")
	flags.StringVar(&f.logFormat, "log-format", "text", "`FORMAT`: text or json")
	cmd.AddCommand(newCentralGC(), newCentralBackup(), newCentralRestore())
	return cmd
}

// central is what its services are opened with.
type central struct {
	flags    centralFlags
	cfg      *config.Config
	log      *logrus.Entry
	metrics  *prometheus.Registry
	observer *observer
	tracer   *tracing.Tracer // nil for no traces
	// access and webhook are what the services' checks have made ready.
	access  *access
	webhook webhookParts
	// stopping is set before anything is stopped.
	stopping atomic.Bool
}

// service is one of the things central serves, opened: its port listens, and
// nobody answers yet.
type service struct {
	// checks are what must hold for it to be ready.
	checks admin.Checks
	// servers answer its clients.
	servers []server
	// tiers run below the servers; they are stopped after them, the first
	// tier last.
	tiers [][]rungroup.Service
	// notice is how long the servers go on after probes began to fail.
	notice time.Duration
	// status adds what the service has to say of itself; nil for nothing.
	status func(doc *status.Document, t *tally, view status.View)
	// close takes apart what never ran, listeners included.
	close func()
}

// opener is one of the services there are.
type opener struct {
	// check reads what the service was told, refuses what cannot be meant, and
	// touches nothing.
	check func(*central) error
	// open opens what was checked, or nothing.
	open func(context.Context, *central) (service, error)
}

// openers are the services there are. One file has each: central_webhook.go.
func openers() map[string]opener {
	return map[string]opener{
		"registry": {checkRegistry, openRegistry},
		"webhook":  {checkWebhook, openWebhook},
	}
}

// runCentral checks everything it was told before it touches anything, then
// serves until a signal.
func runCentral(cmd *cobra.Command, f centralFlags) error {
	if err := f.check(); err != nil {
		return err
	}
	log, err := newLogger(cmd.ErrOrStderr(), f.logLevel, f.logFormat)
	if err != nil {
		return err
	}
	cfg, warnings, err := loadConfig(f.config)
	for _, warning := range warnings {
		log.Warn(warning.String())
	}
	if err != nil {
		return err
	}
	c := &central{flags: f, cfg: cfg, log: log, metrics: newMetrics()}
	for _, name := range f.serve {
		if err := openers()[name].check(c); err != nil {
			return err
		}
	}
	outliveReaders()
	stop, now, release := signals(cmd.Context())
	defer release()
	log.WithFields(logrus.Fields{
		"version": versionText(), "serve": strings.Join(f.serve, ","), "file": cmp.Or(f.config, "none"),
	}).Info("larder central starts")
	if c.tracer, err = newTracer(cfg.Tracing, "larder-central", log, c.metrics); err != nil {
		return err
	}
	defer closeTracer(c.tracer, log)
	c.observer = newObserver(log, c.metrics, f.serve...)
	services, err := c.open(stop)
	switch {
	case err != nil && stop.Err() != nil:
		log.Info("larder central was stopped before it served")
		return nil
	case err != nil:
		return err
	}
	err = c.serve(stop, now, services)
	if err == nil && now.Err() != nil {
		return errors.New("a second signal: stopped at once")
	}
	log.Info("larder central has stopped")
	return err
}

// check refuses what cannot be meant, whatever the services.
func (f centralFlags) check() error {
	known := openers()
	if len(f.serve) == 0 {
		return usageErrorf("--serve: name a service")
	}
	for i, name := range f.serve {
		if _, ok := known[name]; !ok {
			return usageErrorf("--serve %q: there is no such service", name)
		}
		if slices.Contains(f.serve[:i], name) {
			return usageErrorf("--serve: %s is there twice", name)
		}
	}
	if err := f.access.check(); err != nil {
		return err
	}
	if f.adminListen != "" {
		if err := checkAddress("admin-listen", f.adminListen); err != nil {
			return err
		}
	}
	if f.drainTimeout < 0 {
		return usageErrorf("--drain-timeout %s: it cannot be negative", f.drainTimeout)
	}
	if f.shutdownDelay < 0 {
		return usageErrorf("--shutdown-delay %s: it cannot be negative", f.shutdownDelay)
	}
	return nil
}

// open opens all services and the admin port, or none. The admin port comes
// last in the list.
func (c *central) open(ctx context.Context) (services []service, err error) {
	defer func() {
		if err != nil {
			for _, s := range slices.Backward(services) {
				s.close()
			}
		}
	}()
	known, checks := openers(), admin.Checks{{Name: "running", Ready: c.running}}
	var where []string
	for _, name := range c.flags.serve {
		s, err := known[name].open(ctx, c)
		if err != nil {
			return services, err
		}
		services = append(services, s)
		checks = append(checks, s.checks...)
		where = append(where, name+"="+addresses(s.servers))
	}
	if c.flags.adminListen == "" {
		c.log.WithField("listen", strings.Join(where, ",")).Info("larder central serves")
		return services, nil
	}
	operators, err := admin.New(admin.Config{Checks: checks, Gatherer: c.metrics, Log: c.log, Status: c.status(checks, services)})
	if err != nil {
		return services, err
	}
	l, err := listen(ctx, c.flags.adminListen)
	if err != nil {
		return services, err
	}
	s := server{l, ociserver.NewServer(operators, c.log)}
	services = append(services, service{
		// Below every server: operators can look on until the end.
		tiers: [][]rungroup.Service{nil, {{Name: "admin server", Run: s.run, Stop: s.close}, c.observer.service()}},
		close: func() { l.Close() },
	})
	c.log.WithFields(logrus.Fields{
		"listen": strings.Join(where, ","), "admin": l.Addr().String(),
	}).Info("larder central serves")
	return services, nil
}

// running is the first check of every service.
func (c *central) running() error {
	if c.stopping.Load() {
		return errors.New("stopping")
	}
	return nil
}

// serve answers until stop or now is done, and then stops: not ready, a notice
// for those who have not heard of it, the servers, what is below them.
func (c *central) serve(stop, now context.Context, services []service) error {
	var (
		tiers   [][]rungroup.Service
		servers []rungroup.Service
		notice  time.Duration
	)
	for _, s := range services {
		for i, tier := range s.tiers {
			if i == len(tiers) {
				tiers = append(tiers, nil)
			}
			tiers[i] = append(tiers[i], tier...)
		}
		for _, srv := range s.servers {
			servers = append(servers, rungroup.Service{Name: "server " + srv.listener.Addr().String(), Run: srv.run, Stop: srv.drain})
		}
		notice = max(notice, s.notice)
	}
	tiers = append(tiers,
		servers,
		[]rungroup.Service{{Name: "notice", Stop: func(ctx context.Context) error { wait(ctx, notice); return nil }}},
		[]rungroup.Service{{Name: "readiness", Stop: func(context.Context) error { c.stopping.Store(true); return nil }}},
	)
	return rungroup.Group{Grace: c.flags.drainTimeout, Linger: linger, Log: c.log}.Run(stop, now, tiers...)
}

// wait returns after d, or when ctx is done.
func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
