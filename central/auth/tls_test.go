package auth

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"
	"time"
)

// pair is a certificate and its key in PEM.
type pair struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  string
	priv string
}

// certify makes a certificate signed by authority, or an authority when that is
// nil.
func certify(t *testing.T, serial int64, name string, authority *pair) *pair {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, BasicConstraintsValid: true, IsCA: authority == nil,
	}
	parent, signer := template, key
	if authority != nil {
		parent, signer = authority.cert, authority.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return &pair{
		cert: cert, key: key,
		pem:  string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		priv: string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})),
	}
}

func TestTLSFilesAreReadAgain(t *testing.T) {
	ca := certify(t, 1, "authority", nil)
	clients := certify(t, 2, "clients", nil)
	first, second := certify(t, 10, "first", ca), certify(t, 11, "second", ca)
	dir := t.TempDir()
	cert, key, clientCA := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key"), filepath.Join(dir, "ca.crt")
	replaceFile(t, cert, first.pem)
	replaceFile(t, key, first.priv)
	replaceFile(t, clientCA, clients.pem)
	log, _ := logs()
	c := newClock()
	config, err := ServerTLS(TLSConfig{CertFile: cert, KeyFile: key, ClientCAFile: clientCA, Protocols: []string{"h2", "http/1.1"}, Log: log, Now: c.Now})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := "nobody"
		if from := callerOf(r); from.Certificate != nil {
			name = from.Certificate.Subject.CommonName
		}
		_, _ = io.WriteString(w, r.Proto+" "+name)
	}))
	server.EnableHTTP2 = true
	server.TLS = config
	server.StartTLS()
	defer server.Close()
	roots := x509.NewCertPool()
	roots.AddCert(ca.cert)
	// get gives the serving certificate's name and the answer.
	get := func(by *pair, h2 bool) (string, string) {
		transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: h2}
		defer transport.CloseIdleConnections()
		if by != nil {
			// Sent whatever authorities the server names.
			transport.TLSClientConfig.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				return &tls.Certificate{Certificate: [][]byte{by.cert.Raw}, PrivateKey: by.key}, nil
			}
		}
		res, err := (&http.Client{Transport: transport}).Get(server.URL)
		if err != nil {
			return "", "refused"
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil {
			return "", "refused"
		}
		return res.TLS.PeerCertificates[0].Subject.CommonName, string(body)
	}
	expect := func(name, wantName, wantBody string, by *pair, h2 bool) {
		t.Helper()
		if gotName, gotBody := get(by, h2); gotName != wantName || gotBody != wantBody {
			t.Errorf("%s: %q by %q, want %q by %q", name, gotBody, gotName, wantBody, wantName)
		}
	}
	build := certify(t, 20, "build", clients)
	expect("HTTP/2", "first", "HTTP/2.0 nobody", nil, true)
	expect("HTTP/1.1", "first", "HTTP/1.1 nobody", nil, false)
	expect("a client's certificate", "first", "HTTP/2.0 build", build, true)
	expect("a stranger's certificate", "", "refused", certify(t, 21, "build", ca), true)
	replaceFile(t, cert, second.pem) // not with this key
	c.advance(lookEvery)
	expect("half changed", "first", "HTTP/1.1 nobody", nil, false)
	replaceFile(t, key, second.priv)
	c.advance(lookEvery)
	expect("changed", "second", "HTTP/1.1 nobody", nil, false)
	others := certify(t, 3, "others", nil)
	replaceFile(t, clientCA, others.pem)
	c.advance(lookEvery)
	expect("a certificate of an authority that is gone", "", "refused", build, false)
	expect("one of the new", "second", "HTTP/1.1 deploy", certify(t, 22, "deploy", others), false)
}

func TestTLSThatCannotBeMeant(t *testing.T) {
	log, _ := logs()
	ca := certify(t, 1, "authority", nil)
	leaf := certify(t, 2, "leaf", ca)
	dir := t.TempDir()
	cert, key, junk := filepath.Join(dir, "c"), filepath.Join(dir, "k"), filepath.Join(dir, "j")
	replaceFile(t, cert, leaf.pem)
	replaceFile(t, key, leaf.priv)
	replaceFile(t, junk, "junk")
	for name, cfg := range map[string]TLSConfig{
		"no file":                          {CertFile: filepath.Join(dir, "none"), KeyFile: key},
		"not a certificate":                {CertFile: junk, KeyFile: key},
		"a directory":                      {CertFile: dir, KeyFile: key},
		"authorities that are none":        {CertFile: cert, KeyFile: key, ClientCAFile: junk},
		"certificates of nobody, required": {CertFile: cert, KeyFile: key, RequireClient: true},
	} {
		cfg.Log = log
		if _, err := ServerTLS(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
