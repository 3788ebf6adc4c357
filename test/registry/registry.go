// Package registry is a small OCI registry that misbehaves on request: the
// upstream of Larder's tests, of its benchmark and of its end-to-end runs.
//
// It listens on loopback with real sockets, holds content that is generated
// rather than stored (a 1 GiB layer costs no memory), records every request,
// and can be told at run time to break in any of the ways registries, token
// servers, object storage and networks break: see [Fault] and [Named]. Tests
// wait for what it has seen ([Server.WaitFor]) and hold answers back at a
// chosen byte ([Gate]), so they need no sleeps.
//
// It refuses pushes, keeps nothing on disk and never leaves loopback. Content
// is in content.go, the answers in serve.go, what goes wrong in fault.go and
// body.go, tokens in auth.go, the record in record.go, speed limits and dead
// networks in conn.go. cmd/quirky runs it as a program of its own.
package registry

import (
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/larder-registry/larder/test/authority"
)

// Options say what kind of registry to be. The zero value is a public one, on
// plain HTTP, on a free port of 127.0.0.1, that serves its blobs itself.
type Options struct {
	// Addr is the address to listen on; "127.0.0.1:0" when empty, or "[::1]:0"
	// with IPv6. Token server and storage are on the same host.
	Addr string
	// IPv6 makes the default address ::1.
	IPv6 bool
	// TLS serves HTTPS with a certificate of the server's own CA, see CAPEM.
	// Token server and object storage speak the same scheme.
	TLS bool
	// Names are the host names and addresses that the certificate is good for,
	// besides localhost and those of loopback.
	Names []string
	// HTTP2 offers HTTP/2 to TLS clients. Off by default, because speed limits
	// count by connection.
	HTTP2 bool
	// Users turn authentication on: by bearer token, or Basic if Basic is set.
	Users map[string]string
	// Basic asks for Basic credentials instead of tokens.
	Basic bool
	// Tokens asks for a bearer token. Without Users everyone gets one.
	Tokens bool
	// Anonymous names the repositories that may be pulled with a token given
	// to nobody in particular; nil means all when Users is empty, none
	// otherwise.
	Anonymous []string
	// Rights names the repositories each user may pull; a user who is not in it
	// may pull all.
	Rights map[string][]string
	// TokenUses is how many requests one token is good for; zero means any
	// number. It makes tokens expire midway without a clock.
	TokenUses int
	// TokenOnHost puts the token server on the registry's own host and port
	// instead of a port of its own.
	TokenOnHost bool
	// ECR behaves as Amazon's private registries do: Basic with a token as the
	// password, 403 and not 401 for one that is not in force (any more), no
	// digest on what is fetched by GET.
	ECR bool
	// ECRPublic behaves as ECR Public does: bearer tokens from the registry's
	// own host, 400 and not 401 for one that is not in force (any more).
	ECRPublic bool
	// Storage redirects blobs (307) to a second server with a signed URL, the
	// way registries in the cloud do. That server answers 400 to a request
	// that brings an Authorization header, as S3 does, and records it.
	Storage bool
	// Latency delays the head of every answer: one round trip.
	Latency time.Duration
	// BytesPerSecond caps what each connection sends; zero means no cap.
	BytesPerSecond int64
}

// Server is a running registry. Make one with New or Start. All methods may be
// called at any time from any goroutine.
type Server struct {
	opts   Options
	secret string          // signs storage URLs
	ca     []byte          // PEM; nil without TLS
	leaf   tls.Certificate // that it signed
	shape  *shape
	record record

	mu      sync.Mutex
	content content
	faults  []*armed
	healed  chan struct{} // closed when faults are replaced
	tokens  tokens
	users   map[string]string // name and password
	closed  bool

	main, token, storage *site
}

// site is one listening address of a Server.
type site struct {
	addr    string
	handler http.Handler
	srv     *http.Server
	lis     *listener
	served  chan struct{} // closed when srv's Serve has returned
}

// New starts a registry. The caller calls Close.
func New(opts Options) (*Server, error) {
	key := make([]byte, 16)
	if _, err := rand.Read(key); err != nil {
		return nil, fmt.Errorf("make signing key: %w", err)
	}
	s := &Server{
		opts:    opts,
		secret:  hex.EncodeToString(key),
		shape:   newShape(opts.Latency, opts.BytesPerSecond),
		content: newContent(),
		healed:  make(chan struct{}),
		tokens:  tokens{},
	}
	s.users = maps.Clone(opts.Users)
	s.opts.Basic = opts.Basic || opts.ECR
	s.opts.TokenOnHost = opts.TokenOnHost || opts.ECRPublic
	s.opts.Tokens = opts.Tokens || opts.ECRPublic
	s.record.init()
	if opts.TLS {
		var err error
		if s.ca, s.leaf, err = certify(opts.Names); err != nil {
			return nil, fmt.Errorf("make certificate: %w", err)
		}
	}
	free := "127.0.0.1:0"
	if opts.IPv6 {
		free = "[::1]:0"
	}
	addr := opts.Addr
	if host, _, err := net.SplitHostPort(addr); err == nil && host != "" {
		free = net.JoinHostPort(host, "0")
	}
	if addr == "" {
		addr = free
	}
	s.main = &site{addr: addr, handler: http.HandlerFunc(s.serveRegistry)}
	s.token = &site{addr: free, handler: http.HandlerFunc(s.serveToken)}
	s.storage = &site{addr: free, handler: http.HandlerFunc(s.serveStorage)}
	if err := s.Resume(); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// Start is New for tests: it fails the test when it cannot listen, and the
// server is closed when the test ends.
func Start(tb testing.TB, opts Options) *Server {
	tb.Helper()
	s, err := New(opts)
	if err != nil {
		tb.Fatalf("start registry: %v", err)
	}
	tb.Cleanup(s.Close)
	return s
}

// Host is the registry's address as it stands in an image reference. It stays
// the same over Stop and Resume.
func (s *Server) Host() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.main.addr
}

// URL is the registry's base URL, without a path.
func (s *Server) URL() string { return s.scheme() + "://" + s.Host() }

// StorageHost is the address of the object storage blobs are redirected to.
func (s *Server) StorageHost() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.storage.addr
}

// CAPEM is the certificate authority that signed the server's certificate, as
// PEM; nil without TLS.
func (s *Server) CAPEM() []byte { return s.ca }

// certify makes a certificate for loopback and names, and the authority that
// signed it.
func certify(names []string) (ca []byte, leaf tls.Certificate, err error) {
	a, err := authority.New("larder test registry CA")
	if err != nil {
		return nil, leaf, err
	}
	cert, key, err := a.Issue(time.Now().Add(24*time.Hour), append([]string{"localhost", "127.0.0.1", "::1"}, names...)...)
	if err != nil {
		return nil, leaf, err
	}
	leaf, err = tls.X509KeyPair(cert, key)
	return a.PEM(), leaf, err
}

func (s *Server) scheme() string {
	if s.opts.TLS {
		return "https"
	}
	return "http"
}

// Stop closes the listeners and breaks every connection: from now on
// connections are refused. Resume undoes it.
func (s *Server) Stop() {
	s.mu.Lock()
	sites := []*site{s.main, s.token, s.storage}
	s.mu.Unlock()
	for _, p := range sites {
		s.stop(p)
	}
}

// Resume listens again, on the same ports, and answers normally whatever mode
// Stop, Silence or Garble left it in.
func (s *Server) Resume() error {
	for _, p := range []*site{s.main, s.token, s.storage} {
		s.stop(p)
		if err := s.listen(p); err != nil {
			return err
		}
	}
	return nil
}

// Silence makes the server a black hole: connections are accepted and nothing
// is ever read or answered. Connections that exist are broken.
func (s *Server) Silence() { s.setMode(silent) }

// Garble makes the server answer every connection with bytes that are neither
// TLS nor HTTP. Connections that exist are broken.
func (s *Server) Garble() { s.setMode(garbled) }

func (s *Server) setMode(m mode) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range []*site{s.main, s.token, s.storage} {
		if p.lis != nil {
			p.lis.setMode(m)
		}
	}
}

// Shape changes latency and the cap by connection; both hold for connections
// that exist, too. Zero means none.
func (s *Server) Shape(latency time.Duration, bytesPerSecond int64) {
	s.shape.set(latency, bytesPerSecond)
}

// Close stops the server for good; its goroutines end as their connections break.
// It may be called more than once.
func (s *Server) Close() {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		close(s.healed)
		s.healed = nil
	}
	s.mu.Unlock()
	s.Stop()
}

// listen opens p's listener and serves it. The goroutine ends when stop
// closes the server.
func (s *Server) listen(p *site) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return net.ErrClosed
	}
	inner, err := net.Listen("tcp", p.addr)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	p.addr = inner.Addr().String()
	p.lis = newListener(inner, s.shape, &s.record)
	p.srv = &http.Server{
		Handler:           p.handler,
		ReadHeaderTimeout: time.Minute,
		MaxHeaderBytes:    1 << 20,
		ErrorLog:          log.New(io.Discard, "", 0),
	}
	var lis net.Listener = p.lis
	if s.ca != nil {
		protos := []string{"http/1.1"}
		if s.opts.HTTP2 {
			protos = []string{"h2", "http/1.1"}
		} else {
			p.srv.TLSNextProto = map[string]func(*http.Server, *tls.Conn, http.Handler){}
		}
		p.srv.TLSConfig = &tls.Config{Certificates: []tls.Certificate{s.leaf}, NextProtos: protos}
	}
	srv, served := p.srv, make(chan struct{})
	p.served = served
	go func() {
		defer close(served)
		// Serve only ends with the error of a closed listener.
		if srv.TLSConfig != nil {
			_ = srv.ServeTLS(lis, "", "")
			return
		}
		_ = srv.Serve(lis)
	}()
	return nil
}

// stop closes p's server and waits for its accept loop and its handlers.
func (s *Server) stop(p *site) {
	s.mu.Lock()
	srv, lis, served := p.srv, p.lis, p.served
	p.srv, p.lis, p.served = nil, nil, nil
	s.mu.Unlock()
	if srv == nil {
		return
	}
	_ = srv.Close() // its error is that of closing a listener
	<-served
	lis.drop() // after served, so that a connection accepted last is among them
	lis.wait()
}
