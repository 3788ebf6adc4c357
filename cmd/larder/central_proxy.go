package main

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/larder-registry/larder/internal/rungroup"
	"github.com/larder-registry/larder/mirror"
)

// proxiedDir is where in the data directory what is fetched for others is kept.
const proxiedDir = "proxied"

// openForeign opens the engine of larder mirror for other registries' content,
// if it is asked for, so that a cluster asks each of them once. What is pushed
// and what is fetched never meet: the engine has a directory, a store and an
// index of its own, only reads, and is only asked for names that no push can
// have.
//
// Who may pull is decided before it is asked, by the registry's own rules, and it
// never sees what a caller logged in with. So there is nobody to ask for an
// upstream's credentials: what the configured ones do not fetch is not there.
func (c *central) openForeign(ctx context.Context, s *service, opened *[]func() error) (http.Handler, error) {
	if !c.cfg.Central.PullThrough {
		return nil, nil
	}
	cfg := *c.cfg
	cfg.RegistryProxies.PrivateImages = mirror.PrivateBypass
	n, err := openNode(ctx, c.log, filepath.Join(c.flags.registry.dataDir, proxiedDir), cfg.RegistryProxies, prometheus.NewRegistry())
	if err != nil {
		return nil, err
	}
	*opened = append(*opened, func() error { n.close(); return nil })
	n.tracer = c.tracer
	clients, _, err := n.handlers(&cfg, false, nil)
	if err != nil {
		return nil, err
	}
	if err := prometheus.WrapRegistererWithPrefix("proxied_", c.metrics).Register(n.metrics); err != nil {
		return nil, fmt.Errorf("add metrics: %w", err)
	}
	s.tiers = append(s.tiers,
		[]rungroup.Service{{Name: "proxied content", Stop: n.closeStore}},
		[]rungroup.Service{{Name: "upstream client", Stop: n.closeUpstream}},
		[]rungroup.Service{{Name: "mirror", Stop: n.closeMirror}},
	)
	return clients, nil
}
