package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"time"
)

// servers are the HTTP servers of a node, by listener.
type servers []served

type served struct {
	listener net.Listener
	server   *http.Server
}

// run serves until ctx is done or a server fails, then lets requests in flight
// finish within drain and breaks off what is left. draining is called before
// anything is stopped.
func (s servers) run(ctx context.Context, drain time.Duration, draining func()) error {
	failed := make(chan error, len(s))
	for _, one := range s {
		// Ends with the server, which is shut down or closed below.
		go func() {
			if err := one.server.Serve(one.listener); !errors.Is(err, http.ErrServerClosed) {
				failed <- err
			}
		}()
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	draining()
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
	defer cancel()
	for _, one := range s {
		if one.server.Shutdown(bounded) != nil {
			one.server.Close()
		}
	}
	return err
}

// close breaks off everything; it may follow run, or stand for it.
func (s servers) close() {
	for _, one := range s {
		one.server.Close()
		one.listener.Close()
	}
}
