package upstream

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/larder-registry/larder/internal/oci"
)

func TestOwnBase(t *testing.T) {
	for _, test := range []struct {
		registry string
		insecure bool
		want     string
	}{
		{"docker.io", false, "https://registry-1.docker.io/v2"},
		{"ghcr.io", false, "https://ghcr.io/v2"},
		{"registry.test:5000", false, "https://registry.test:5000/v2"},
		{"registry.test:5000", true, "http://registry.test:5000/v2"},
		{"[2001:db8::1]:5000", false, "https://[2001:db8::1]:5000/v2"},
		{"[2001:db8::1]", false, "https://[2001:db8::1]/v2"},
	} {
		if got := ownBase(test.registry, test.insecure).String(); got != test.want {
			t.Errorf("ownBase(%s): %s, want %s", test.registry, got, test.want)
		}
	}
}

func TestParseEndpoint(t *testing.T) {
	for _, test := range []struct {
		raw, want string
	}{
		{"https://mirror.test", "https://mirror.test/v2"},
		{"https://mirror.test/", "https://mirror.test/v2"},
		{"https://Mirror.test/v2/hub/", "https://mirror.test/v2/hub"},
		{"http://mirror.test:5000/artifactory/api", "http://mirror.test:5000/artifactory/api"},
		{"https://[::1]:5000/v2", "https://[::1]:5000/v2"},
	} {
		u, err := parseEndpoint(test.raw)
		if err != nil || u.String() != test.want {
			t.Errorf("parseEndpoint(%s): %v, %v; want %s", test.raw, u, err, test.want)
		}
	}
	for _, raw := range []string{
		"", "mirror.test", "ftp://mirror.test", "https://", "https://user:MARKER@mirror.test", "https://mirror.test/?a=MARKER",
		"https://mirror.test/#MARKER", "https://user:MARKER@mirror.test/%zz",
	} {
		if u, err := parseEndpoint(raw); err == nil || strings.Contains(err.Error(), "MARKER") {
			t.Errorf("parseEndpoint(%s): %v, %v; want an error that tells no secret", raw, u, err)
		}
	}
}

func TestConfigErrors(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, []byte("nothing\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name       string
		registries []Registry
		want       string
	}{
		{"no host", []Registry{{}}, "registry is empty"},
		{"scheme in host", []Registry{{Host: "https://a.test"}}, "without a scheme"},
		{"two for one host", []Registry{{Host: "docker.io"}, {Host: "index.docker.io"}}, "two entries"},
		{"two for one prefix", []Registry{{Host: "a.test", PathPrefix: "x"}, {Host: "a.test", PathPrefix: "/x/"}}, "two entries"},
		{"no such CA file", []Registry{{Host: "a.test", CAFile: "/does/not/exist"}}, "/does/not/exist"},
		{"no certificate in CA file", []Registry{{Host: "a.test", CAFile: empty}}, "no PEM certificate"},
		{"client key alone", []Registry{{Host: "a.test", ClientKeyFile: empty}}, "go together"},
		{"no certificate in client certificate", []Registry{{Host: "a.test", ClientCertFile: empty, ClientKeyFile: empty}}, empty},
		{"endpoint", []Registry{{Host: "a.test", Endpoints: []string{"b.test"}}}, "http:// or https://"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if _, err := New(Config{Registries: test.registries}); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("New: %v, want it to say %q", err, test.want)
			}
		})
	}
}

func TestRegistryStringHasNoSecret(t *testing.T) {
	r := Registry{Host: "a.test", PathPrefix: "team", Username: "user", Password: "MARKER"}
	if got := r.String(); got != "a.test/team" {
		t.Errorf("String: %s", got)
	}
}

// TestEndpointsInOrder: what one lacks or cannot give, the next is asked for;
// the registry itself has the last word.
func TestEndpointsInOrder(t *testing.T) {
	good := answer(http.StatusOK, manifestHeader(manifestJSON), manifestJSON)
	gzipped := answer(http.StatusOK, http.Header{"Content-Encoding": {"gzip"}, "Content-Type": {oci.MediaTypeManifest}}, manifestJSON)
	lying := answer(http.StatusOK, http.Header{"Content-Type": {oci.MediaTypeManifest}, "Docker-Content-Digest": {"sha256:" + strings.Repeat("0", 64)}}, manifestJSON)
	for _, test := range []struct {
		name          string
		front, own    http.HandlerFunc
		err           error
		asked, asked2 int
	}{
		{"the first has it", good, nil, nil, 1, 0},
		{"404", answer(404, nil, ""), good, nil, 1, 1},
		{"401", answer(401, nil, ""), good, nil, 1, 1},
		{"429", answer(429, nil, ""), good, nil, 1, 1},
		{"500", answer(500, nil, ""), good, nil, 1, 1},
		{"gzip", gzipped, good, nil, 1, 1},
		{"wrong digest", lying, good, nil, 1, 1},
		{"404 everywhere", answer(404, nil, ""), answer(404, nil, ""), oci.ErrManifestUnknown, 1, 1},
		{"500, then 404", answer(500, nil, ""), answer(404, nil, ""), oci.ErrManifestUnknown, 2, 1},
		{"404, then 500", answer(404, nil, ""), answer(500, nil, ""), oci.ErrUnavailable, 1, 2},
		{"500 everywhere", answer(500, nil, ""), answer(500, nil, ""), oci.ErrUnavailable, 2, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			front := newOrigin(t, test.front)
			own := newOrigin(t, func(w http.ResponseWriter, r *http.Request) { test.own(w, r) })
			entry := own.entry(t)
			entry.Endpoints = []string{front.URL + "/v2/hub"}
			c := newClientOf(t, Config{Registries: []Registry{entry}})
			_, err := c.Manifest(t.Context(), own.tag("v1"))
			if !errors.Is(err, test.err) {
				t.Errorf("Manifest: %v, want %v", err, test.err)
			}
			if got := front.requests(); len(got) != test.asked || got[0] != "GET /v2/hub/team/app/manifests/v1" {
				t.Errorf("the endpoint was asked %q, want %d requests", got, test.asked)
			}
			if got := len(own.requests()); got != test.asked2 {
				t.Errorf("the registry was asked %d times, want %d", got, test.asked2)
			}
		})
	}
}

func TestTLS(t *testing.T) {
	serve := answer(http.StatusOK, manifestHeader(manifestJSON), manifestJSON)
	t.Run("private CA", func(t *testing.T) {
		o := newTLSOrigin(t, serve)
		if _, err := newClient(t, o).Manifest(t.Context(), o.tag("v1")); err != nil {
			t.Errorf("Manifest: %v", err)
		}
		if got := o.last(t).Proto; got != "HTTP/1.1" {
			t.Errorf("spoke %s", got)
		}
	})
	t.Run("unknown CA", func(t *testing.T) {
		o := newTLSOrigin(t, serve)
		c := newClientOf(t, Config{Registries: []Registry{{Host: o.host()}}})
		_, err := c.Manifest(t.Context(), o.tag("v1"))
		if !errors.Is(err, oci.ErrUnavailable) || oci.Reason(err) != "tls" || !strings.Contains(err.Error(), "unknown authority") {
			t.Errorf("Manifest: %v (%s)", err, oci.Reason(err))
		}
		if state := c.State()[o.URL]; state.Failures != 1 {
			t.Errorf("state: %+v, want one failure: a certificate is not tried again", state)
		}
	})
	t.Run("plain HTTP where TLS is expected", func(t *testing.T) {
		o := newOrigin(t, serve)
		c := newClientOf(t, Config{Registries: []Registry{{Host: o.host()}}})
		_, err := c.Manifest(t.Context(), o.tag("v1"))
		if oci.Reason(err) != "tls" || !strings.Contains(err.Error(), "insecure") {
			t.Errorf("Manifest: %v (%s), want it to name the setting", err, oci.Reason(err))
		}
	})
	t.Run("IPv6", func(t *testing.T) {
		o := unstarted(serve)
		listen6(t, o)
		o.StartTLS()
		t.Cleanup(o.Close)
		if !strings.HasPrefix(o.host(), "[::1]:") {
			t.Fatalf("listens on %s", o.host())
		}
		if _, err := newClient(t, o).Manifest(t.Context(), o.tag("v1")); err != nil {
			t.Errorf("Manifest: %v", err)
		}
	})
	t.Run("client certificate", func(t *testing.T) {
		shown := func(o *origin) bool {
			o.mu.Lock()
			defer o.mu.Unlock()
			return len(o.seen[len(o.seen)-1].TLS.PeerCertificates) > 0
		}
		demand := func(handler http.HandlerFunc) *origin {
			o := unstarted(handler)
			o.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
			o.StartTLS()
			t.Cleanup(o.Close)
			return o
		}
		storage := demand(serve)
		o := demand(func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, storage.URL, http.StatusFound)
		})
		entry := o.entry(t)
		entry.ClientCertFile, entry.ClientKeyFile = clientCertificate(t)
		c := newClientOf(t, Config{Registries: []Registry{entry}})
		if _, err := c.Manifest(t.Context(), o.tag("v1")); err != nil {
			t.Fatalf("Manifest: %v", err)
		}
		if !shown(o) || shown(storage) {
			t.Errorf("client certificate shown to the registry: %t, to where it redirects: %t", shown(o), shown(storage))
		}
	})
}

// clientCertificate writes a self-signed pair.
func clientCertificate(t *testing.T) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "node"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for file, block := range map[string]*pem.Block{
		certFile: {Type: "CERTIFICATE", Bytes: cert}, keyFile: {Type: "PRIVATE KEY", Bytes: der},
	} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certFile, keyFile
}
