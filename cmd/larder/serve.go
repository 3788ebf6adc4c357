package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"

	"github.com/larder-registry/larder/internal/config"
	"github.com/larder-registry/larder/mirror"
	"github.com/larder-registry/larder/mirror/upstream"
	"github.com/larder-registry/larder/store"
)

// node is a mirror with everything around it, put together by newNode and taken
// apart by close.
type node struct {
	log      *logrus.Entry
	metrics  *prometheus.Registry
	label    func(string) string
	store    *store.Store
	upstream *upstream.Client
	mirror   *mirror.Mirror
	// reason is why requests should go elsewhere: while it starts and once it
	// is to stop. Empty between.
	reason atomic.Pointer[string]
}

// newNode opens the store and makes the mirror over it. When it fails nothing
// is left open.
func newNode(ctx context.Context, log *logrus.Entry, dataDir string, cfg config.RegistryProxies) (_ *node, err error) {
	n := &node{log: log, metrics: prometheus.NewRegistry()}
	n.setReady("starting")
	defer func() {
		if err != nil {
			n.close(ctx)
		}
	}()
	registries, hosts, err := upstreamRegistries(cfg.Registries)
	if err != nil {
		return nil, err
	}
	n.label = newLabels(hosts).of
	n.store, err = store.Open(ctx, store.Config{
		Dir:      dataDir,
		MaxSize:  cfg.MaxSize.Limit,
		MinFree:  cfg.MinFree.Limit,
		LockWait: time.Duration(cfg.LockWait),
		Pin:      cfg.Pin,
		Log:      log,
	})
	if err != nil {
		return nil, fmt.Errorf("open data directory: %w", err)
	}
	n.upstream, err = upstream.New(upstream.Config{
		Registries: registries,
		UserAgent:  "larder/" + versionText(),
		Log:        log,
		Registerer: n.metrics,
		Label:      n.label,
		Timeouts:   upstream.Timeouts{Stall: time.Duration(cfg.StallTimeout)},
		Proxy:      http.ProxyFromEnvironment,
	})
	if err != nil {
		return nil, fmt.Errorf("configure upstreams: %w", err)
	}
	n.mirror, err = mirror.New(mirror.Config{
		Store:             n.store,
		Upstream:          n.upstream,
		Offline:           cfg.Offline,
		RevalidateAfter:   time.Duration(cfg.RevalidateAfter),
		RevalidateTimeout: time.Duration(cfg.RevalidateTimeout),
		StaleIfError:      orNever(cfg.StaleIfError),
		FinishTimeout:     time.Duration(cfg.FinishTimeout),
		Log:               log,
		Registerer:        n.metrics,
		Label:             n.label,
	})
	if err != nil {
		return nil, fmt.Errorf("make mirror: %w", err)
	}
	return n, nil
}

// setReady says why requests should go elsewhere; "" for no reason.
func (n *node) setReady(reason string) { n.reason.Store(&reason) }

// ready is what /readyz answers: nil while the mirror serves.
func (n *node) ready() error {
	if reason := *n.reason.Load(); reason != "" {
		return errors.New(reason)
	}
	return nil
}

// close stops the fills, whose partial files are resumed by the next start, and
// closes the store.
func (n *node) close(ctx context.Context) {
	if n.mirror != nil {
		if err := n.mirror.Close(ctx); err != nil {
			n.log.WithError(err).Warn("fills did not stop in time")
		}
	}
	if n.upstream != nil {
		n.upstream.Close()
	}
	if n.store != nil {
		if err := n.store.Close(); err != nil {
			n.log.WithError(err).Error("the index could not be closed")
		}
	}
}

// upstreamRegistries turns the configuration's entries into the upstream
// client's, passwords read, and names their hosts.
func upstreamRegistries(entries []config.Registry) (registries []upstream.Registry, hosts []string, err error) {
	for _, e := range entries {
		password, err := e.ReadPassword()
		if err != nil {
			return nil, nil, err
		}
		registries = append(registries, upstream.Registry{
			Host:           e.Host,
			PathPrefix:     e.PathPrefix,
			Username:       e.Username,
			Password:       string(password),
			Insecure:       e.Insecure,
			CAFile:         e.CAFile,
			ClientCertFile: e.ClientCertFile,
			ClientKeyFile:  e.ClientKeyFile,
			Endpoints:      e.Endpoints,
		})
		hosts = append(hosts, e.Host)
	}
	return registries, hosts, nil
}

// orNever turns "0s" into the mirror's word for never; its zero means the
// default.
func orNever(d config.Duration) time.Duration {
	if d == 0 {
		return -1
	}
	return time.Duration(d)
}
