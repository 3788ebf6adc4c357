package upstream

import (
	"bytes"
	"context"
	"encoding/pem"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/sirupsen/logrus"
	"go.uber.org/goleak"

	"github.com/larder-registry/larder/internal/oci"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const manifestJSON = `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"digest":"sha256:0000000000000000000000000000000000000000000000000000000000000000"},"layers":[]}`

// origin is a registry on loopback that does what its handler says and
// remembers what it was asked.
type origin struct {
	*httptest.Server
	mu   sync.Mutex
	seen []*http.Request
}

// newOrigin starts one over plain HTTP, newTLSOrigin one over TLS.
func newOrigin(t *testing.T, handler http.HandlerFunc) *origin {
	t.Helper()
	o := unstarted(handler)
	o.Start()
	t.Cleanup(o.Close)
	return o
}

func newTLSOrigin(t *testing.T, handler http.HandlerFunc) *origin {
	t.Helper()
	o := unstarted(handler)
	o.StartTLS()
	t.Cleanup(o.Close)
	return o
}

func unstarted(handler http.HandlerFunc) *origin {
	o := &origin{}
	o.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		o.mu.Lock()
		o.seen = append(o.seen, r.Clone(r.Context()))
		o.mu.Unlock()
		handler(w, r)
	}))
	o.Config.ErrorLog = log.New(io.Discard, "", 0)
	return o
}

func (o *origin) host() string { return o.Listener.Addr().String() }

// requests gives what was asked so far as "METHOD /path".
func (o *origin) requests() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	var lines []string
	for _, r := range o.seen {
		lines = append(lines, r.Method+" "+r.URL.Path)
	}
	return lines
}

func (o *origin) last(t *testing.T) *http.Request {
	t.Helper()
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.seen) == 0 {
		t.Fatal("the origin was asked nothing")
	}
	return o.seen[len(o.seen)-1]
}

// entry is an entry for the origin.
func (o *origin) entry(t *testing.T) Registry {
	t.Helper()
	if strings.HasPrefix(o.URL, "https://") {
		return Registry{Host: o.host(), CAFile: o.caFile(t)}
	}
	return Registry{Host: o.host(), Insecure: true}
}

// caFile writes the certificate of a TLS origin to a file.
func (o *origin) caFile(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: o.Certificate().Raw})
	if err := os.WriteFile(file, block, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func (o *origin) name() oci.Name { return oci.Name{Registry: o.host(), Repository: "team/app"} }

func (o *origin) tag(tag string) oci.Reference { return oci.Reference{Name: o.name(), Tag: tag} }

// newClient makes a client for the origins, each with an entry of its own.
func newClient(t *testing.T, origins ...*origin) *Client {
	t.Helper()
	cfg := Config{}
	for _, o := range origins {
		cfg.Registries = append(cfg.Registries, o.entry(t))
	}
	return newClientOf(t, cfg)
}

func newClientOf(t *testing.T, cfg Config) *Client {
	t.Helper()
	if cfg.Log == nil {
		logger := logrus.New()
		logger.SetOutput(io.Discard)
		logger.SetLevel(logrus.TraceLevel)
		cfg.Log = logrus.NewEntry(logger)
	}
	c, err := New(cfg)
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	t.Cleanup(c.Close)
	return c
}

// clock is a clock that is set by hand.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func newClock() *clock { return &clock{at: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// answer is a handler that gives status and body for everything.
func answer(status int, header http.Header, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for key, values := range header {
			w.Header()[http.CanonicalHeaderKey(key)] = values
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// manifestHeader is the header a good registry sends with content.
func manifestHeader(content string) http.Header {
	return http.Header{
		"Content-Type":          {oci.MediaTypeManifest},
		"Docker-Content-Digest": {digest.FromString(content).String()},
	}
}

// blobServer serves content as a blob, ranges included.
func blobServer(content []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
	}
}

// pattern makes n bytes in which no two stretches look alike.
func pattern(n int) []byte {
	content := make([]byte, n)
	state := uint32(2463534242)
	for i := range content {
		state ^= state << 13
		state ^= state >> 17
		state ^= state << 5
		content[i] = byte(state)
	}
	return content
}

func mustURL(t *testing.T, raw string) *url.URL {
	t.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// listen6 moves an unstarted origin to ::1.
func listen6(t *testing.T, o *origin) {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "[::1]:0")
	if err != nil {
		t.Fatalf("listen on ::1: %v", err)
	}
	_ = o.Listener.Close()
	o.Listener = l
}

func wantRequests(t *testing.T, o *origin, want ...string) {
	t.Helper()
	if got := o.requests(); !slices.Equal(got, want) {
		t.Errorf("requests:\n got %q\nwant %q", got, want)
	}
}

// roundTrip is a transport made of a function.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// refuseToDial is for transports that must not connect.
func refuseToDial(context.Context, string, string) (net.Conn, error) {
	return nil, &blockedError{addr: "everything"}
}
