// Package ociserver is the HTTP edge of a registry: it speaks the OCI
// distribution API over an [oci.Reader] and an [oci.Lister], whoever they are.
//
// It owns what is on the wire and nothing else: routes, headers, conditional
// requests and ranges, error bodies, the access log and the request metrics.
// It knows no upstream, no disk and no cache. It never compresses, never
// redirects, and never trusts X-Forwarded-For.
//
// What it says is chosen for containerd, which leaves a mirror on a status and
// never on bad content: an answer is honest before its first byte (error.go),
// and a body that cannot be finished breaks the connection instead of ending
// early (blob.go). How a request is taken apart is in internal/oci; who
// answers is in package mirror.
package ociserver

import (
	"errors"
	"log"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"

	"github.com/larder-registry/larder/internal/oci"
	"github.com/larder-registry/larder/internal/tracing"
)

// Config is what a Handler is made of. Reader, Lister and Log are required.
type Config struct {
	Reader oci.Reader
	Lister oci.Lister
	// DefaultRegistry is meant by requests that name no registry; empty
	// refuses them.
	DefaultRegistry string
	// Local and Allow say who may connect: with Local, peers whose address is
	// this host's own; with Allow, peers within one of the prefixes. With
	// neither, anybody. Health checks are for everybody.
	Local bool
	Allow []netip.Prefix
	// Callers: what clients log in with (Basic) is handed to Reader and Lister
	// as Access.Credential, and their refusals may challenge clients, see
	// callers.go. Without it nobody learns what a client sent.
	Callers bool
	// ClientRate bounds what is sent of blobs to one client, which is one
	// address, in bytes a second over all its connections; zero for no bound.
	ClientRate int64
	// Ready says why requests should go elsewhere, or nil. A nil func is
	// always ready.
	Ready func() error
	// StallTimeout is how long a client may take no byte of an answer before
	// its connection is broken. Zero means 60 s.
	StallTimeout time.Duration
	// Log gets one line for each request.
	Log *logrus.Entry
	// Lines, if not nil, gets those in Log's stead that need no looking at.
	Lines Lines
	// Registerer gets the metrics; nil keeps them unseen.
	Registerer prometheus.Registerer
	// Tracer makes a span of each request; nil makes none.
	Tracer *tracing.Tracer
	// Label bounds the values of the metrics' registry label. Nil takes each
	// registry as it is, which is for tests only: clients choose the names.
	Label func(registry string) string
}

// handler answers one registry's requests.
type handler struct {
	reader          oci.Reader
	lister          oci.Lister
	defaultRegistry string
	peers           peers
	callers         bool
	rates           *rates
	ready           func() error
	stallTimeout    time.Duration
	log             *logrus.Entry
	lines           Lines
	fields          sync.Pool // of *[]Field
	known           known
	metrics         *metrics
	tracer          *tracing.Tracer
	label           func(string) string
	status          func(oci.Code) int // for an error code
}

// New makes the handler for a registry's port: /v2/, /healthz and /readyz. Serve
// it with a server made by [NewServer].
func New(cfg Config) (http.Handler, error) {
	if cfg.Reader == nil || cfg.Lister == nil || cfg.Log == nil {
		return nil, errors.New("make registry handler: reader, lister and log are required")
	}
	h := newHandler(cfg)
	return h.routes(h.serve), nil
}

// newHandler makes what answers requests, whatever they are about.
func newHandler(cfg Config) *handler {
	h := &handler{
		reader:          cfg.Reader,
		lister:          cfg.Lister,
		defaultRegistry: cfg.DefaultRegistry,
		peers:           peers{local: cfg.Local, allow: cfg.Allow},
		callers:         cfg.Callers,
		rates:           newRates(cfg.ClientRate),
		ready:           cfg.Ready,
		stallTimeout:    cfg.StallTimeout,
		log:             cfg.Log,
		lines:           cfg.Lines,
		metrics:         newMetrics(cfg.Registerer),
		tracer:          cfg.Tracer,
		label:           cfg.Label,
		status:          statusOf,
	}
	if h.stallTimeout <= 0 {
		h.stallTimeout = time.Minute
	}
	if h.ready == nil {
		h.ready = func() error { return nil }
	}
	if h.label == nil {
		h.label = func(registry string) string { return registry }
	}
	return h
}

// Bounds on what a client may send before it is answered. There is no timeout
// on a whole answer: a layer may take an hour. A client that stops taking
// bytes is found by Config.StallTimeout.
const (
	readHeaderTimeout = 10 * time.Second
	// idleTimeout is longer than the 90 s for which Go's clients keep an idle
	// connection, so that it is the client who closes it and no request meets
	// a closing connection.
	idleTimeout = 2 * time.Minute
	// maxHeaderBytes leaves room for the largest bearer tokens in use.
	maxHeaderBytes = 64 << 10
	// maxQuery bounds ?ns=, last and artifactType together.
	maxQuery = 4 << 10
)

// NewServer makes the server to serve a registry handler with: HTTP/1.1 only,
// since HTTP/2 cannot use sendfile and halves the throughput of large blobs,
// and with bounds on headers and idle connections. The caller listens, serves
// and shuts down. What net/http itself has to say goes to log at debug level.
func NewServer(h http.Handler, l *logrus.Entry) *http.Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Server{
		Handler:           h,
		Protocols:         protocols,
		ReadHeaderTimeout: readHeaderTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ConnContext:       remember,
		ErrorLog:          log.New(debugWriter{l}, "", 0),
	}
}

// debugWriter takes net/http's log lines: scans, broken TLS handshakes and the
// like, which are nobody's failure here.
type debugWriter struct{ log *logrus.Entry }

func (w debugWriter) Write(p []byte) (int, error) {
	w.log.Debug(string(p))
	return len(p), nil
}
