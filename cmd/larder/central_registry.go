package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"
	"github.com/spf13/pflag"

	registry "github.com/larder-registry/larder/central"
	"github.com/larder-registry/larder/internal/admin"
	"github.com/larder-registry/larder/internal/config"
	"github.com/larder-registry/larder/internal/ociserver"
	"github.com/larder-registry/larder/internal/rungroup"
	"github.com/larder-registry/larder/store"
)

// registryFlags is what larder central is told on the command line about the
// registry; the rest is in the configuration file.
type registryFlags struct {
	listen  []string
	dataDir string
}

func (f *registryFlags) add(flags *pflag.FlagSet) {
	flags.StringArrayVar(&f.listen, "listen", []string{"[::]:5000"}, "`ADDRESS` to serve the registry on, host:port; may be repeated")
	flags.StringVar(&f.dataDir, "data-dir", "./data", "`DIR` for the registry's content; made if missing")
}

// lockWait is how long a registry that starts waits for the one before it to
// let go of the data directory.
const lockWait = 30 * time.Second

// depository is the registry's data directory, opened.
type depository struct {
	*registry.Central
	depot  *store.Depot
	ledger *store.Ledger
	unlock func() error
}

// openDepository opens the data directory and the registry over it. It is this
// process's alone until close.
func openDepository(ctx context.Context, dir string, cfg config.Central, wait time.Duration, log *logrus.Entry, metrics prometheus.Registerer) (_ *depository, err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make data directory: %w", err)
	}
	d := &depository{}
	if err := waiting(log, wait, func(wait time.Duration) (err error) {
		d.unlock, err = store.LockDir(ctx, dir, wait)
		return err
	}); err != nil {
		return nil, fmt.Errorf("open data directory: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.close())
		}
	}()
	if d.depot, err = store.OpenDepot(store.DepotConfig{Dir: dir, MinFree: cfg.MinFree.Limit}); err != nil {
		return nil, fmt.Errorf("open data directory: %w", err)
	}
	if d.ledger, err = store.OpenLedger(filepath.Join(dir, "index"), log); err != nil {
		return nil, fmt.Errorf("open data directory: %w", err)
	}
	made := registry.Config{
		Ledger: d.ledger, Content: d.depot, Drafts: d.depot,
		Grace: time.Duration(cfg.GC.Grace), UploadAge: time.Duration(cfg.GC.UploadAge),
		CollectEvery: orNever(cfg.GC.Every), SparseIndexes: cfg.SparseIndexes,
		Log: log, Registerer: metrics,
	}
	for _, r := range cfg.ImmutableTags {
		made.Immutable = append(made.Immutable, r.Rule())
	}
	for _, q := range cfg.Quotas {
		made.Quotas = append(made.Quotas, q.Quota())
	}
	for _, r := range cfg.GC.Retention {
		made.Retention = append(made.Retention, r.Rule())
	}
	d.Central, err = registry.New(ctx, made)
	return d, err
}

// close lets go of the data directory.
func (d *depository) close() error {
	var err error
	if d.ledger != nil {
		err = d.ledger.Close()
	}
	return errors.Join(err, d.unlock())
}

// checkRegistry refuses what the registry cannot be told.
func checkRegistry(c *central) (err error) {
	for _, addr := range c.flags.registry.listen {
		if err := checkAddress("listen", addr); err != nil {
			return err
		}
	}
	c.access, err = c.checkAccess()
	return err
}

// openRegistry opens everything the registry stands on, and listens.
func openRegistry(ctx context.Context, c *central) (_ service, err error) {
	f, cfg, access := c.flags.registry, c.cfg.Central, c.access
	var s service
	var opened []func() error
	s.close = func() {
		for _, end := range slices.Backward(opened) {
			if err := end(); err != nil {
				c.log.WithError(err).Warn("not closed in order")
			}
		}
	}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	d, err := openDepository(ctx, f.dataDir, cfg, lockWait, c.log, c.metrics)
	if err != nil {
		return service{}, err
	}
	opened = append(opened, d.close)
	opened = append(opened, func() error { access.close(); return nil })
	if err := c.openAccess(access, f.dataDir); err != nil {
		return service{}, err
	}
	foreign, err := c.openForeign(ctx, &s, &opened)
	if err != nil {
		return service{}, err
	}
	handler, err := ociserver.NewOwn(ociserver.OwnConfig{
		Reader: d, Lister: d, Uploader: d, Writer: d, Referrals: d,
		Authorizer: access.Authority, Names: cfg.Hosts, Foreign: foreign,
		Ready: c.running, Log: c.log, Registerer: c.metrics, Tracer: c.tracer,
	})
	if err != nil {
		return service{}, err
	}
	control, err := listenControl(f.dataDir)
	if err != nil {
		return service{}, err
	}
	opened = append(opened, control.Close)
	for _, addr := range f.listen {
		l, err := listen(ctx, addr)
		if err != nil {
			return service{}, err
		}
		opened = append(opened, l.Close)
		s.servers = append(s.servers, registryServer(l, access.Handler(handler), access.tls, c.log))
	}
	s.status = registryStatus(d, access.Authority, c.log)
	s.checks = admin.Checks{{Name: "room for pushes", Ready: d.Degraded, Advisory: true}}
	controls := server{control, &http.Server{Handler: controlHandler(d.Central), ReadHeaderTimeout: lockWait}}
	s.tiers = append([][]rungroup.Service{
		{{Name: "data directory", Stop: func(context.Context) error { return d.close() }}},
		{
			until("registry", func(ctx context.Context) error { d.Run(ctx); return nil }),
			until("access", func(ctx context.Context) error { watch(ctx, []func(){access.reload}); access.close(); return nil }),
			{Name: "control", Run: controls.run, Stop: controls.close},
		},
	}, s.tiers...)
	c.log.WithFields(logrus.Fields{"data_dir": f.dataDir, "pull_through": cfg.PullThrough, "hosts": fmt.Sprint(cfg.Hosts)}).Info("registry opened")
	return s, nil
}

// registryServer serves h, with TLS and then also HTTP/2 when there is any.
func registryServer(l net.Listener, h http.Handler, secure *tls.Config, log *logrus.Entry) server {
	s := ociserver.NewServer(h, log)
	if secure != nil {
		l = tls.NewListener(l, secure)
		s.Protocols.SetHTTP2(true)
	}
	return server{l, s}
}

// controlSocket is where a running registry listens for larder central gc and
// backup, in its data directory.
const controlSocket = "control.sock"

// socketPath gives a path to the socket that is short enough for the kernel,
// however long the data directory's is. Call done once it was used.
func socketPath(dir string) (path string, done func(), err error) {
	d, err := os.Open(dir)
	if err != nil {
		return "", nil, err
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", d.Fd(), controlSocket), func() { d.Close() }, nil
}

// listenControl makes the socket, for the owner of the data directory only.
func listenControl(dir string) (net.Listener, error) {
	path, done, err := socketPath(dir)
	if err != nil {
		return nil, fmt.Errorf("listen for control: %w", err)
	}
	defer done()
	// The directory is locked, so whoever made one is gone.
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("listen for control: %w", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen for control: %w", err)
	}
	l.SetUnlinkOnClose(false) // by a path that is no more
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, fmt.Errorf("listen for control: %w", err)
	}
	return l, nil
}
