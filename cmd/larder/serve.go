package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/larder-registry/larder/internal/config"
	"github.com/larder-registry/larder/internal/ociserver"
	"github.com/larder-registry/larder/internal/rungroup"
)

// linger is how long each part may take to end once the drain is over.
const linger = 2 * time.Second

// servers are the listening sockets and who answers there.
type servers struct {
	clients []server
	admin   []server
}

type server struct {
	listener net.Listener
	http     *http.Server
}

// listenAll opens every address, or none.
func (n *node) listenAll(ctx context.Context, f mirrorFlags, clients, operators http.Handler) (all servers, err error) {
	defer func() {
		if err != nil {
			for _, s := range append(all.clients, all.admin...) {
				s.listener.Close()
			}
		}
	}()
	for _, addr := range f.listen {
		l, err := listen(ctx, addr)
		if err != nil {
			return all, err
		}
		all.clients = append(all.clients, server{l, ociserver.NewServer(clients, n.log)})
	}
	for _, addr := range f.adminListen {
		l, err := listen(ctx, addr)
		if err != nil {
			return all, err
		}
		all.admin = append(all.admin, server{l, ociserver.NewServer(operators, n.log)})
	}
	n.log.WithFields(logrus.Fields{
		"listen": addresses(all.clients), "admin": addresses(all.admin), "allow": f.allow,
	}).Info("larder mirror serves")
	if err := n.store.Degraded(); err != nil {
		n.log.WithError(err).Warn("the data directory cannot be used as it should; what cannot be kept passes through")
	}
	return all, nil
}

func addresses(all []server) string {
	list := make([]string, len(all))
	for i := range all {
		list[i] = all[i].listener.Addr().String()
	}
	return strings.Join(list, ",")
}

// serve answers until stop or now is done, and then takes the node apart, in
// the tiers below from the last to the first: it is not ready, lets requests
// finish for as long as drain, stops the fills, and closes the store. Operators
// can look on until the end.
func (n *node) serve(stop, now context.Context, drain time.Duration, all servers, cfg config.RegistryProxies) error {
	var clients []rungroup.Service
	for _, s := range all.clients {
		clients = append(clients, rungroup.Service{Name: "server " + s.listener.Addr().String(), Run: s.run, Stop: s.drain})
	}
	if len(cfg.Warm) > 0 {
		clients = append(clients, warmer{mirror: n.mirror, log: n.log}.service(cfg))
	}
	beside := []rungroup.Service{{Name: "upstream client", Stop: n.closeUpstream}, memory(), n.requests.service()}
	if len(all.admin) > 0 {
		beside = append(beside, n.observer.service())
	}
	for _, s := range all.admin {
		beside = append(beside, rungroup.Service{Name: "admin server " + s.listener.Addr().String(), Run: s.run, Stop: s.close})
	}
	return rungroup.Group{Grace: drain, Linger: linger, Log: n.log}.Run(stop, now,
		[]rungroup.Service{{Name: "store", Stop: n.closeStore}},
		beside,
		[]rungroup.Service{{Name: "mirror", Stop: n.closeMirror}},
		clients,
		[]rungroup.Service{{Name: "readiness", Stop: n.unready}},
	)
}

// unready makes probes fail before anything is stopped.
func (n *node) unready(context.Context) error {
	n.stopping.Store(true)
	return nil
}

func (s server) run() error {
	if err := s.http.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// drain accepts nothing new and lets requests finish until ctx is done; what is
// left then is broken off, and its client resumes elsewhere.
func (s server) drain(ctx context.Context) error {
	if s.http.Shutdown(ctx) != nil {
		return s.http.Close()
	}
	return nil
}

// close breaks off everything. A profile being taken is not waited for.
func (s server) close(context.Context) error { return s.http.Close() }
