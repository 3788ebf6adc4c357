package docs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"time"
)

// authority signs certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func newAuthority(name string) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	cert := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(48 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, key.Public(), key)
	if err != nil {
		return nil, err
	}
	return &authority{cert: cert, key: key, pem: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}, nil
}

// sign makes a certificate for every name of the world, and its key, as PEM.
func (a *authority) sign(until time.Time) (cert, key []byte, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "registry.example"},
		NotBefore: a.cert.NotBefore, NotAfter: until,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
	}
	for _, s := range sites() {
		leaf.DNSNames = append(leaf.DNSNames, s.dns...)
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, a.cert, private.Public(), a.key)
	if err != nil {
		return nil, nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), nil
}

// certificates makes the authority that the sandbox's machine trusts and one that it
// does not know, and gives what each kind of site shows, see site.certificate.
func (w *world) certificates() (map[string]tls.Certificate, error) {
	trusted, err := newAuthority("the sandbox's authority")
	if err != nil {
		return nil, err
	}
	stranger, err := newAuthority("a stranger")
	if err != nil {
		return nil, err
	}
	w.ca = trusted.pem
	now := time.Now()
	pairs := map[string]tls.Certificate{}
	for kind, made := range map[string]struct {
		by    *authority
		until time.Time
	}{
		"":         {trusted, now.Add(24 * time.Hour)},
		"stranger": {stranger, now.Add(24 * time.Hour)},
		"expired":  {trusted, now.Add(-24 * time.Hour)},
	} {
		cert, key, err := made.by.sign(made.until)
		if err != nil {
			return nil, err
		}
		if pairs[kind], err = tls.X509KeyPair(cert, key); err != nil {
			return nil, err
		}
		if kind == "" {
			w.cert, w.key = cert, key
		}
	}
	return pairs, nil
}
