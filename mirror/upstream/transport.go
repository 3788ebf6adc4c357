package upstream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/larder-registry/larder/internal/tracing"
)

// network is what all connections have in common.
type network struct {
	timeouts Timeouts
	resolver *net.Resolver
	proxy    func(*http.Request) (*url.URL, error)
	metrics  *metrics
}

// exchange is the HTTP side of one entry: its connections, its guard and its
// rules for redirects.
type exchange struct {
	guard    *guard
	insecure bool
	metrics  *metrics
	// own is for the origins the entry names; foreign is for where they
	// redirect to and for token servers, and has no client certificate. They
	// are the same transport when there is no client certificate.
	own, foreign *http.Transport
	origins      map[string]bool
	tokenServer  string // a host in another domain that may be sent credentials
}

// exchange makes the connections for one entry.
func (n network) exchange(r Registry, g *guard) (*exchange, error) {
	x := &exchange{guard: g, insecure: r.Insecure, metrics: n.metrics, origins: map[string]bool{}, tokenServer: strings.ToLower(r.TokenServer)}
	roots, err := loadRoots(r.CAFile)
	if err != nil {
		return nil, err
	}
	x.foreign = n.transport(g, &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12})
	x.own = x.foreign
	if r.ClientCertFile != "" {
		pair, err := tls.LoadX509KeyPair(r.ClientCertFile, r.ClientKeyFile)
		if err != nil {
			return nil, fmt.Errorf("load client_cert_file %s: %w", r.ClientCertFile, err)
		}
		x.own = n.transport(g, &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}})
	}
	return x, nil
}

// loadRoots gives the system's certificates and those in file; nil, which is
// the system's, without a file.
func loadRoots(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read ca_file: %w", err)
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("read ca_file %s: there is no PEM certificate in it", file)
	}
	return roots, nil
}

// transport makes a connection pool.
//
// It speaks HTTP/1.1 only: a blob is one long stream, which gets a connection
// and its flow-control window to itself. With HTTP/2 every stream of a registry
// shares one connection, is copied through frames (half the throughput, TLS
// included, when measured), and holds megabytes of window for each stream.
//
// Compression stays off: content is addressed by the digest of its bytes as
// stored, and a transport that unpacks hides the length.
func (n network) transport(g *guard, tlsConfig *tls.Config) *http.Transport {
	known := &proxies{}
	plain := net.Dialer{Timeout: n.timeouts.Dial, KeepAlive: 30 * time.Second, Resolver: n.resolver}
	guarded := plain
	guarded.ControlContext = g.control
	d := &dialer{guard: g, guarded: &guarded, open: &plain, proxies: known}

	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	t := &http.Transport{
		DialContext:            d.DialContext,
		TLSClientConfig:        tlsConfig,
		TLSHandshakeTimeout:    n.timeouts.TLS,
		ResponseHeaderTimeout:  n.timeouts.Header,
		DisableCompression:     true,
		Protocols:              protocols,
		MaxIdleConns:           64,
		MaxIdleConnsPerHost:    16,
		IdleConnTimeout:        90 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
	}
	if n.proxy != nil {
		t.Proxy = known.remember(n.proxy)
	}
	return t
}

// allow counts u as named by the entry.
func (x *exchange) allow(u *url.URL) {
	x.guard.named[dialAddress(u)] = true
	x.origins[originOf(u)] = true
}

// certified reports whether a client certificate is shown.
func (x *exchange) certified() bool { return x.own != x.foreign }

func (x *exchange) close() {
	x.own.CloseIdleConnections()
	x.foreign.CloseIdleConnections()
}

// RoundTrip sends one request over the wire and counts it, be it to the
// registry, to where it redirects, or to a token server.
func (x *exchange) RoundTrip(req *http.Request) (*http.Response, error) {
	call := callOf(req.Context())
	if call.token != nil {
		if err := x.checkRealm(req); err != nil {
			return nil, err
		}
	}
	transport := x.foreign
	if x.origins[originOf(req.URL)] {
		transport = x.own
	}
	span := wireSpan(req, call)
	var conn net.Conn
	if call.conn != nil && req.Method == http.MethodGet {
		trace := &httptrace.ClientTrace{GotConn: func(got httptrace.GotConnInfo) { conn = got.Conn }}
		req = req.WithContext(httptrace.WithClientTrace(req.Context(), trace))
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		reason := wireFailure(req.Context(), req.URL.Host, err).reason()
		x.metrics.request(call.label, reason)
		span.Fail(reason)
		span.End()
		return nil, err
	}
	if conn != nil {
		call.conn.Store(&conn)
	}
	x.metrics.response(call.label, resp)
	if span.Exists() {
		span.Set(tracing.Int("http.response.status_code", int64(resp.StatusCode)))
		span.End()
	}
	switch {
	case call.token != nil:
		call.token.capture(resp)
	case ecrExpired(req, resp):
		drain(resp)
		return x.RoundTrip(withoutToken(req))
	case resp.StatusCode == http.StatusUnauthorized:
		tidyUnauthorized(resp)
	}
	return resp, nil
}

// call is what the wire has to know of the request a RoundTrip is part of.
type call struct {
	label string       // the registry, bounded, for metrics
	token *tokenAnswer // not nil for requests to a token server
	// conn is given the connection of the last answer, if it is not nil. What asks
	// for credentials meanwhile goes its own ways, and maybe goroutines.
	conn *atomic.Pointer[net.Conn]
}

type callKey struct{}

func withCall(ctx context.Context, c call) context.Context {
	return context.WithValue(ctx, callKey{}, c)
}

func callOf(ctx context.Context) call {
	c, _ := ctx.Value(callKey{}).(call)
	return c
}

// proxies remembers the addresses of the proxies in use, which may be on this
// node although registries may not.
type proxies struct{ seen sync.Map }

func (p *proxies) remember(next func(*http.Request) (*url.URL, error)) func(*http.Request) (*url.URL, error) {
	return func(req *http.Request) (*url.URL, error) {
		u, err := next(req)
		if u != nil {
			p.seen.Store(dialAddress(u), true)
		}
		return u, err
	}
}

func (p *proxies) has(address string) bool {
	_, ok := p.seen.Load(address)
	return ok
}
