package certificate

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/netip"
	"slices"
	"time"
)

// backdate is how far before its making a certificate begins, so that a
// machine whose clock is behind accepts it.
const backdate = time.Hour

// authority signs serving certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// newAuthority makes an authority that ends lifetime after now.
func newAuthority(now time.Time, lifetime time.Duration) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make key of authority: %w", err)
	}
	serial, err := serialNumber()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		// The serial number makes the name its own, so that a chain is never
		// built to the authority that came before.
		Subject:               pkix.Name{CommonName: fmt.Sprintf("larder webhook authority %x", serial)},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(lifetime),
		KeyUsage:              x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make authority: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("make authority: %w", err)
	}
	return &authority{cert, key}, nil
}

// sign makes a serving certificate for names, which are DNS names or addresses.
// It ends lifetime after now, or with the authority if that is earlier.
func (a *authority) sign(now time.Time, lifetime time.Duration, names []string) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make key of certificate: %w", err)
	}
	serial, err := serialNumber()
	if err != nil {
		return nil, err
	}
	end := now.Add(lifetime)
	if a.cert.NotAfter.Before(end) {
		end = a.cert.NotAfter
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: "larder webhook"},
		NotBefore:             now.Add(-backdate),
		NotAfter:              end,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	for _, name := range names {
		if addr, err := netip.ParseAddr(name); err == nil {
			template.IPAddresses = append(template.IPAddresses, addr.AsSlice())
			continue
		}
		template.DNSNames = append(template.DNSNames, name)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		return nil, fmt.Errorf("sign certificate: %w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("sign certificate: %w", err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, nil
}

// serialNumber is random, positive and at most 16 bytes (RFC 5280 section
// 4.1.2.2 allows 20).
func serialNumber() (*big.Int, error) {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("make serial number: %w", err)
	}
	return n, nil
}

// The keys of the Secret's data.
const (
	keyAuthority  = "ca.crt"
	keyPrivate    = "ca.key"
	keyPrevious   = "previous.crt"   // what replicas may still serve, without keys
	keyUntil      = "previous.until" // when that is over, RFC 3339
	certificatePE = "CERTIFICATE"
	privatePE     = "PRIVATE KEY"
)

// trust is what the Secret holds: who signs, and who else is trusted while
// replicas change over to certificates of the current authority.
type trust struct {
	current  *authority
	previous []*x509.Certificate
	until    time.Time
}

// parseTrust reads the Secret's data. It fails when there is no usable
// authority in it, and then still returns the previous ones it could read.
func parseTrust(data map[string][]byte) (trust, error) {
	t := trust{previous: certificates(data[keyPrevious])}
	if until, err := time.Parse(time.RFC3339, string(data[keyUntil])); err == nil {
		t.until = until
	}
	if len(data[keyAuthority]) == 0 && len(data[keyPrivate]) == 0 {
		return t, errNoAuthority
	}
	pair, err := tls.X509KeyPair(data[keyAuthority], data[keyPrivate])
	if err != nil {
		return t, fmt.Errorf("read authority: %w", err)
	}
	key, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok || !pair.Leaf.IsCA {
		return t, errors.New("read authority: it is none that was made here")
	}
	t.current = &authority{pair.Leaf, key}
	return t, nil
}

// errNoAuthority is an empty Secret, as it is installed.
var errNoAuthority = errors.New("read authority: there is none")

// encode writes t into the Secret's data and leaves other keys alone.
func (t trust) encode(data map[string][]byte) error {
	private, err := x509.MarshalPKCS8PrivateKey(t.current.key)
	if err != nil {
		return fmt.Errorf("encode key of authority: %w", err)
	}
	data[keyAuthority] = encodeCertificates([]*x509.Certificate{t.current.cert})
	data[keyPrivate] = pem.EncodeToMemory(&pem.Block{Type: privatePE, Bytes: private})
	delete(data, keyPrevious)
	delete(data, keyUntil)
	if len(t.previous) > 0 {
		data[keyPrevious] = encodeCertificates(t.previous)
		data[keyUntil] = t.until.UTC().AppendFormat(nil, time.RFC3339)
	}
	return nil
}

// bundle is what the cluster is to trust, the current authority first.
func (t trust) bundle() []*x509.Certificate {
	return append([]*x509.Certificate{t.current.cert}, t.previous...)
}

func encodeCertificates(certs []*x509.Certificate) []byte {
	var b bytes.Buffer
	for _, c := range certs {
		// A buffer takes everything.
		_ = pem.Encode(&b, &pem.Block{Type: certificatePE, Bytes: c.Raw})
	}
	return b.Bytes()
}

// certificates reads PEM and passes over what is no certificate.
func certificates(text []byte) (certs []*x509.Certificate) {
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			return certs
		}
		if cert, err := x509.ParseCertificate(block.Bytes); err == nil && block.Type == certificatePE {
			certs = append(certs, cert)
		}
	}
}

// sameCertificates compares as sets.
func sameCertificates(a, b []*x509.Certificate) bool {
	return !slices.ContainsFunc(a, func(c *x509.Certificate) bool { return !holds(b, c) }) &&
		!slices.ContainsFunc(b, func(c *x509.Certificate) bool { return !holds(a, c) })
}

func holds(certs []*x509.Certificate, c *x509.Certificate) bool {
	return slices.ContainsFunc(certs, c.Equal)
}

// fingerprint names a certificate in the log.
func fingerprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return fmt.Sprintf("%x", sum[:8])
}
