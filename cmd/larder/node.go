package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"

	"github.com/larder-registry/larder/internal/admin"
	"github.com/larder-registry/larder/internal/config"
	"github.com/larder-registry/larder/internal/ociserver"
	"github.com/larder-registry/larder/internal/tracing"
	"github.com/larder-registry/larder/mirror"
	"github.com/larder-registry/larder/mirror/upstream"
	"github.com/larder-registry/larder/store"
)

// node is a mirror and what it stands on, opened by openNode and taken apart by
// serve.
type node struct {
	log      *logrus.Entry
	requests *requestLog
	metrics  *prometheus.Registry
	label    func(string) string
	store    *store.Store
	upstream *upstream.Client
	mirror   *mirror.Mirror
	observer *observer       // nil for a node that nobody looks at
	tracer   *tracing.Tracer // nil for no traces
	stopping atomic.Bool
}

// openNode opens the store and makes the mirror over it; its metrics are
// registered with metrics. When it fails nothing is left open.
func openNode(ctx context.Context, log *logrus.Entry, dataDir string, cfg config.RegistryProxies, metrics *prometheus.Registry) (_ *node, err error) {
	n := &node{log: log, metrics: metrics}
	defer func() {
		if err != nil {
			n.close()
		}
	}()
	registries, hosts := upstreamRegistries(cfg.Registries)
	n.label = admin.NewRegistryLabels(hosts).Label
	err = waiting(log, time.Duration(cfg.LockWait), func(wait time.Duration) error {
		n.store, err = store.Open(ctx, store.Config{
			Dir:      dataDir,
			MaxSize:  cfg.MaxSize.Limit,
			MinFree:  cfg.MinFree.Limit,
			LockWait: wait,
			Pin:      cfg.Pin,
			Log:      log,
		})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open data directory: %w", err)
	}
	n.upstream, err = upstream.New(upstream.Config{
		Registries:   registries,
		DockerConfig: cfg.DockerConfig,
		Env:          cloudEnv(cfg),
		UserAgent:    "larder/" + versionText(),
		Log:          log,
		Registerer:   n.metrics,
		Label:        n.label,
		Timeouts:     upstream.Timeouts{Stall: time.Duration(cfg.StallTimeout)},
		Proxy:        http.ProxyFromEnvironment,
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
		BlobStreams:       cfg.BlobStreams,
		FillRate:          int64(cfg.FillRate),
		PrefetchWait:      time.Duration(cfg.PrefetchWait),
		PrivateImages:     cfg.PrivateImages,
		ProofTTL:          time.Duration(cfg.ProofTTL),
		ProofGrace:        orNever(cfg.ProofGrace),
		NodeAccess:        n.upstream.NodeAccess,
		Log:               log,
		Registerer:        n.metrics,
		Label:             n.label,
	})
	if err != nil {
		return nil, fmt.Errorf("make mirror: %w", err)
	}
	return n, nil
}

// waiting has a data directory opened at once, and when another process has it,
// says so before it waits.
func waiting(log *logrus.Entry, wait time.Duration, open func(wait time.Duration) error) error {
	err := open(0)
	if wait > 0 && errors.Is(err, store.ErrLocked) {
		log.WithError(err).WithField("lock_wait", wait.String()).Warn("waiting for the data directory")
		err = open(wait)
	}
	return err
}

// checks are what /readyz looks at. A store that cannot keep content is told
// of, but a mirror that passes everything through is still of use.
func (n *node) checks() admin.Checks {
	return admin.Checks{
		{Name: "running", Ready: func() error {
			if n.stopping.Load() {
				return errors.New("stopping")
			}
			return nil
		}},
		{Name: "keeping content", Ready: n.store.Degraded, Advisory: true},
	}
}

// handlers are what clients and what operators talk to.
func (n *node) handlers(cfg *config.Config, local bool, allow []netip.Prefix) (clients, operators http.Handler, err error) {
	content, err := gated(n.mirror, cfg.ImageValidation, n.log)
	if err != nil {
		return nil, nil, err
	}
	clients, err = ociserver.New(ociserver.Config{
		Reader:          content,
		Lister:          content,
		DefaultRegistry: cfg.RegistryProxies.DefaultRegistry,
		Local:           local,
		Allow:           allow,
		Callers:         true,
		ClientRate:      int64(cfg.RegistryProxies.ClientRate),
		Ready:           n.checks().Ready,
		Log:             n.log,
		Lines:           n.lines(),
		Registerer:      n.metrics,
		Tracer:          n.tracer,
		Label:           n.label,
	})
	if err != nil {
		return nil, nil, err
	}
	operators, err = admin.New(admin.Config{Checks: n.checks(), Gatherer: n.metrics, Log: n.log, Status: n.status(cfg.RegistryProxies)})
	return clients, operators, err
}

// lines takes what need not go to the log one by one; nil where the node has no
// place for it.
func (n *node) lines() ociserver.Lines {
	if n.requests == nil {
		return nil
	}
	return n.requests
}

// close takes apart, in order, what there is of a node that never served.
func (n *node) close() {
	ctx := context.Background()
	if n.mirror != nil {
		n.note(n.closeMirror(ctx))
	}
	if n.upstream != nil {
		n.upstream.Close()
	}
	if n.store != nil {
		n.note(n.closeStore(ctx))
	}
}

func (n *node) note(err error) {
	if err != nil {
		n.log.WithError(err).Warn("not closed in order")
	}
}

// closeMirror stops the fills, whose partial files are resumed by the next
// start. It has its own time, however much of the drain's is left.
func (n *node) closeMirror(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), linger/2)
	defer cancel()
	return n.mirror.Close(ctx)
}

func (n *node) closeUpstream(context.Context) error {
	n.upstream.Close()
	return nil
}

// closeStore writes what is still in memory and lets go of the data directory.
func (n *node) closeStore(context.Context) error { return n.store.Close() }

// orNever turns "0s" into the mirror's word for never; its zero means the
// default.
func orNever(d config.Duration) time.Duration {
	if d == 0 {
		return -1
	}
	return time.Duration(d)
}
