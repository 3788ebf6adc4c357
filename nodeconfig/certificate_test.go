package nodeconfig

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net/http"
	"testing"
	"time"

	remote "github.com/containerd/containerd/v2/core/remotes/docker"
)

// certificate makes a self-signed one: as a CA, as a client's, and its key.
func certificate(t *testing.T) (ca, cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Unix(0, 0), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true,
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	keyRaw, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	cert = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw}))
	return cert, cert, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyRaw}))
}

// tlsOf is how containerd would speak TLS to a host.
func tlsOf(t *testing.T, host remote.RegistryHost) *tls.Config {
	t.Helper()
	transport, ok := host.Client.Transport.(*http.Transport)
	if !ok {
		t.Fatalf("the transport is a %T", host.Client.Transport)
	}
	if transport.TLSClientConfig == nil {
		return &tls.Config{}
	}
	return transport.TLSClientConfig
}
