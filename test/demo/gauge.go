package main

import (
	"context"
	"io"
	"maps"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// gauge stands between the mirror and the registry: it counts what is asked and
// what is sent, and makes the upstream as far away as a real one by capping
// every connection and delaying every answer.
type gauge struct {
	target  string // host:port of the registry
	rate    int64  // bytes a second on one connection
	latency time.Duration

	requests, bytes atomic.Int64

	addr string
	srv  *http.Server
	http http.Transport
	done sync.WaitGroup
}

// start listens on a free port of loopback, or on addr when it is set. The
// serving goroutine ends with stop.
func (g *gauge) start(addr string) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	g.addr = l.Addr().String()
	g.srv = &http.Server{Handler: g}
	g.http.DisableCompression = true
	g.http.MaxIdleConnsPerHost = 64
	g.done.Go(func() { g.srv.Serve(l) })
	return nil
}

// stop refuses connections from now on and breaks those there are.
func (g *gauge) stop() {
	if g.srv != nil {
		g.srv.Close()
		g.done.Wait()
		g.http.CloseIdleConnections()
	}
}

func (g *gauge) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.requests.Add(1)
	out := r.Clone(r.Context())
	out.URL.Scheme, out.URL.Host, out.RequestURI = "http", g.target, ""
	if !sleep(r.Context(), g.latency) {
		return
	}
	resp, err := g.http.RoundTrip(out)
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	defer resp.Body.Close()
	maps.Copy(w.Header(), resp.Header)
	w.WriteHeader(resp.StatusCode)
	if err := g.copy(r.Context(), w, resp.Body); err != nil {
		panic(http.ErrAbortHandler)
	}
}

// copy sends body at g.rate. HTTP/1.1 answers one request at a time, so a cap
// for each answer is a cap for each connection.
func (g *gauge) copy(ctx context.Context, w io.Writer, body io.Reader) error {
	buf := make([]byte, 64<<10)
	start, sent := time.Now(), int64(0)
	for {
		n, err := body.Read(buf)
		if n > 0 {
			// Counted before they are sent, so that no client is done before
			// its bytes are counted.
			g.bytes.Add(int64(n))
			if _, err := w.Write(buf[:n]); err != nil {
				return err
			}
			sent += int64(n)
			due := start.Add(time.Duration(float64(sent) / float64(g.rate) * float64(time.Second)))
			if !sleep(ctx, time.Until(due)) {
				return ctx.Err()
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// sleep waits for d, and reports whether ctx lived that long.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
