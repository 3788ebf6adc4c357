package authority

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A server with the files is believed by who trusts their authority, by its
// names only, and by nobody else.
func TestWrite(t *testing.T) {
	dir := t.TempDir()
	trusted := Write(t, dir, "larder.test", "127.0.0.1")
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key"))
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "hello")
	}))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	server.StartTLS()
	defer server.Close()
	saved, err := os.ReadFile(filepath.Join(dir, "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	file := x509.NewCertPool()
	if !file.AppendCertsFromPEM(saved) {
		t.Fatalf("ca.crt is %s", saved)
	}
	stranger, err := New("a stranger")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, host string
		roots      *x509.CertPool
		ok         bool
	}{
		{"by address", "127.0.0.1", trusted.Pool(), true},
		{"by name, with the file", "larder.test", file, true},
		{"by another name", "other.test", trusted.Pool(), false},
		{"by a stranger", "larder.test", stranger.Pool(), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: tt.roots, ServerName: tt.host}}
			defer transport.CloseIdleConnections()
			resp, err := (&http.Client{Transport: transport}).Get(server.URL)
			if err == nil {
				resp.Body.Close()
			}
			if (err == nil) != tt.ok {
				t.Errorf("got %v", err)
			}
		})
	}
}

// What is issued can be expired already.
func TestIssueExpired(t *testing.T) {
	a, err := New("authority")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name  string
		until time.Time
		ok    bool
	}{{"valid", time.Now().Add(time.Hour), true}, {"expired", time.Now().Add(-time.Hour), false}} {
		t.Run(tt.name, func(t *testing.T) {
			cert, key, err := a.Issue(tt.until, "larder.test")
			if err != nil {
				t.Fatal(err)
			}
			pair, err := tls.X509KeyPair(cert, key)
			if err != nil {
				t.Fatal(err)
			}
			if _, err = pair.Leaf.Verify(x509.VerifyOptions{Roots: a.Pool(), DNSName: "larder.test"}); (err == nil) != tt.ok {
				t.Errorf("got %v", err)
			}
		})
	}
}
