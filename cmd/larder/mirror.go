package main

import (
	"cmp"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"

	"github.com/larder-registry/larder/internal/config"
	"github.com/larder-registry/larder/internal/ociserver"
)

// mirrorFlags is what larder mirror is told on the command line; what it does
// with registries is told in the configuration file.
type mirrorFlags struct {
	config       string
	listen       []string
	adminListen  []string
	dataDir      string
	allow        string
	drainTimeout time.Duration
	logLevel     string
	logFormat    string
}

func newMirror() *cobra.Command {
	var f mirrorFlags
	cmd := &cobra.Command{
		Use:   "mirror",
		Short: "Run the node mirror, a pull-through cache for any registry",
		Long: `Runs the node mirror: answers pulls of any registry from the data directory,
and fills it from the upstream registries as it goes. No configuration file is
needed; 'larder config print' shows what is in force without one.

Clients name the registry as containerd does (?ns=docker.io) or in the path
(/v2/f/docker.io/library/nginx/...).

SIGTERM or SIGINT stops it in order: not ready, no new connections, requests in
flight are finished within --drain-timeout, the cache is flushed. A second
signal stops it at once.

By default everybody who reaches the port is served, also what the configured
credentials fetch. --allow local admits only processes of this host.

HTTPS_PROXY, HTTP_PROXY and NO_PROXY apply to upstream requests, the variables of
AWS's, Google's and Azure's SDKs to what their registries are asked with, and
GOMEMLIMIT replaces the soft memory limit of 48 MiB. OTEL_EXPORTER_OTLP_ENDPOINT
turns traces on.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runMirror(cmd, f) },
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringVar(&f.config, "config", "", "configuration `FILE`; none means the defaults")
	flags.StringArrayVar(&f.listen, "listen", []string{"[::]:8000"}, "`ADDRESS` to serve clients on, host:port; may be repeated")
	flags.StringArrayVar(&f.adminListen, "admin-listen", []string{"127.0.0.1:8001"}, "`ADDRESS` for /status, /healthz, /readyz, /metrics and /debug/pprof; may be repeated; empty for none")
	flags.StringVar(&f.dataDir, "data-dir", "./data", "`DIR` for cached content; made if missing")
	flags.StringVar(&f.allow, "allow", "", "who is served: any, local, or a comma `LIST` of addresses, CIDRs and local (default: the file's allow, which is any)")
	flags.DurationVar(&f.drainTimeout, "drain-timeout", 25*time.Second, "how long requests in flight may take to finish at a stop")
	flags.StringVar(&f.logLevel, "log-level", "info", "`LEVEL`: error, warn, info or debug")
	flags.StringVar(&f.logFormat, "log-format", "text", "`FORMAT`: text or json")
	return cmd
}

// runMirror checks everything it was told before it touches anything, then
// serves until a signal.
func runMirror(cmd *cobra.Command, f mirrorFlags) error {
	for _, addr := range f.listen {
		if err := checkAddress("listen", addr); err != nil {
			return err
		}
	}
	// An empty address stands for none.
	f.adminListen = slices.DeleteFunc(f.adminListen, func(addr string) bool { return addr == "" })
	for _, addr := range f.adminListen {
		if err := checkAddress("admin-listen", addr); err != nil {
			return err
		}
	}
	if f.drainTimeout < 0 {
		return usageErrorf("--drain-timeout %s: it cannot be negative", f.drainTimeout)
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
	if !cmd.Flags().Changed("allow") {
		f.allow = cfg.RegistryProxies.Allow
	}
	local, allow, err := ociserver.ParseAllow(f.allow)
	if err != nil {
		return usageErrorf("--allow: %v", err)
	}
	limitMemory()
	outliveReaders()
	stop, now, release := signals(cmd.Context())
	defer release()
	p := cfg.RegistryProxies
	log.WithFields(logrus.Fields{
		"version": versionText(), "data_dir": f.dataDir, "max_size": p.MaxSize.String(), "min_free": p.MinFree.String(),
	}).Info("larder mirror starts")
	log.WithFields(logrus.Fields{
		"file": cmp.Or(f.config, "none"), "registries": entries(p.Registries), "offline": p.Offline,
	}).Info("configured")
	if exposed := exposedCredentials(f, p.Registries); exposed != "" {
		log.WithField("registries", exposed).Warn("whoever reaches the port gets what the configured credentials fetch; restrict it by --allow, or listen on loopback")
	}
	metrics := newMetrics()
	tracer, err := newTracer(cfg.Tracing, "larder-mirror", log, metrics)
	if err != nil {
		return err
	}
	defer closeTracer(tracer, log)
	observer := newObserver(log, metrics, "mirror")
	n, err := openNode(stop, log, f.dataDir, p, metrics)
	switch {
	case err != nil && stop.Err() != nil:
		log.Info("larder mirror was stopped before it served")
		return nil
	case err != nil:
		return err
	}
	n.observer = observer
	n.tracer = tracer
	n.requests = newRequestLog(cmd.ErrOrStderr(), f.logLevel, f.logFormat)
	clients, operators, err := n.handlers(cfg, local, allow)
	if err != nil {
		n.close()
		return err
	}
	servers, err := n.listenAll(stop, f, clients, operators)
	if err != nil {
		n.close()
		return err
	}
	err = n.serve(stop, now, f.drainTimeout, servers, p)
	if err == nil && now.Err() != nil {
		return errors.New("a second signal: stopped at once")
	}
	log.Info("larder mirror has stopped")
	return err
}

// entries names the registries that have one, for the log.
func entries(registries []config.Registry) string {
	names := make([]string, len(registries))
	for i, r := range registries {
		names[i] = strings.TrimSuffix(r.Host+"/"+r.PathPrefix, "/")
	}
	return strings.Join(names, ",")
}

// exposedCredentials names the registries with credentials of the mirror's own
// when strangers can reach it.
func exposedCredentials(f mirrorFlags, registries []config.Registry) string {
	if f.allow != "any" || !slices.ContainsFunc(f.listen, func(addr string) bool { return !loopback(addr) }) {
		return ""
	}
	return entries(slices.DeleteFunc(slices.Clone(registries), func(r config.Registry) bool {
		return r.Username == "" && r.CredentialProvider == nil && r.AWS == nil
	}))
}
