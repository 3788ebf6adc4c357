package cloud

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// Metadata stands in for the metadata servers of Google and Azure, and for
// Azure's token endpoint. Its methods may be called at any time from any
// goroutine.
type Metadata struct {
	server *httptest.Server

	mu       sync.Mutex
	requests []string // path and query
	answer   string
	status   int
	issued   int
	foreign  bool
}

// StartMetadata starts the stand-in; it is closed when the test ends.
func StartMetadata(tb testing.TB) *Metadata {
	tb.Helper()
	m := &Metadata{}
	m.server = httptest.NewServer(m)
	tb.Cleanup(m.server.Close)
	return m
}

// URL is the stand-in's address, Host the same without the scheme.
func (m *Metadata) URL() string { return m.server.URL }

// Host is the stand-in's host and port.
func (m *Metadata) Host() string { return strings.TrimPrefix(m.server.URL, "http://") }

// Answer makes it answer with that status and body; status 0 ends it.
func (m *Metadata) Answer(status int, body string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.status, m.answer = status, body
}

// Foreign makes it leave out the header by which Google's is known.
func (m *Metadata) Foreign() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.foreign = true
}

// Requests are the paths and queries asked for so far.
func (m *Metadata) Requests() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]string(nil), m.requests...)
}

// ServeHTTP implements http.Handler.
func (m *Metadata) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.requests = append(m.requests, r.URL.RequestURI())
	google := r.Header.Get("Metadata-Flavor") == "Google" && strings.HasPrefix(r.URL.Path, "/computeMetadata/v1/instance/service-accounts/default/token")
	if google && !m.foreign {
		w.Header().Set("Metadata-Flavor", "Google")
	}
	azure := r.Header.Get("Metadata") == "true" && r.URL.Path == "/metadata/identity/oauth2/token" && r.URL.Query().Get("api-version") != ""
	federated := strings.HasSuffix(r.URL.Path, "/oauth2/v2.0/token") && r.FormValue("client_assertion") != "" && r.FormValue("grant_type") == "client_credentials"
	switch {
	case m.status != 0:
		w.WriteHeader(m.status)
		_, _ = fmt.Fprint(w, m.answer)
	case google || azure || federated:
		m.issued++
		_ = json.NewEncoder(w).Encode(map[string]any{
			"access_token": fmt.Sprintf("MARKERcloud-%d", m.issued), "expires_in": 3600, "token_type": "Bearer",
		})
	default:
		w.WriteHeader(http.StatusForbidden)
	}
}
