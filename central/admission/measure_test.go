package admission_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/larder-registry/larder/test/process"
)

// measure holds the binary to the bounds.
func measure(t *testing.T, span time.Duration) {
	t.Helper()
	dir := t.TempDir()
	file := func(name string, content []byte) string {
		t.Helper()
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	addr, err := process.FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	admin, err := process.FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	cert, key, trusted := certify(t)
	p, err := process.Start(dir, "larder", *larderFlag, "central", "--serve", "webhook", "--shutdown-delay", "0s", "--log-format", "json",
		"--config", file("larder.yaml", []byte("webhook: {certificate: files}\nimage_validation: {default: Deny, allow: [ghcr.io/org, docker.io/library], deny: [ghcr.io/org/secret]}\n")),
		"--webhook-listen", addr, "--admin-listen", admin, "--tls-cert", file("tls.crt", cert), "--tls-key", file("tls.key", key))
	if err != nil {
		t.Fatal(err)
	}
	defer p.End(syscall.SIGTERM)
	if err := p.Ready(t.Context(), "http://"+admin+"/readyz"); err != nil {
		t.Fatal(err)
	}
	clients := newLoad("https://"+addr, trusted)
	defer clients.client.CloseIdleConnections()
	t.Logf("%d bytes a review, %d reviews a second", len(clients.reviews[0]), loadRate)
	clients.send(t, loadRate, span/5) // warms up
	resident := func() int64 {
		t.Helper()
		n, err := p.Resident()
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	low, before := resident(), readHistogram(t, admin)
	used, err := p.CPU()
	if err != nil {
		t.Fatal(err)
	}
	took := clients.send(t, loadRate, span)
	after, err := p.CPU()
	if err != nil {
		t.Fatal(err)
	}
	inside, high := readHistogram(t, admin).since(before), resident()

	at := func(q float64) time.Duration { return took[int(q*float64(len(took)-1))].Round(time.Microsecond) }
	t.Logf("%d reviews in %s, %s of processor time each", len(took), span, (after-used)/time.Duration(len(took)))
	t.Logf("in the handler: %s", inside)
	t.Logf("as the client sees it, from when it was due: p50 %s, p99 %s, p99.9 %s, most %s", at(.5), at(.99), at(.999), at(1))
	t.Logf("resident memory %.1f MiB, then %.1f MiB", float64(low)/(1<<20), float64(high)/(1<<20))
	if got := float64(len(took)) / span.Seconds(); got < loadRate*0.95 {
		t.Errorf("%.0f reviews a second, want %d", got, loadRate)
	}
	if inside.within(loadP99) < .99 {
		t.Errorf("only %.2f %% of reviews took at most %s in the handler, want 99 %%", 100*inside.within(loadP99), loadP99)
	}
	if high > low+loadGrowth {
		t.Errorf("memory grew from %d to %d bytes", low, high)
	}
}

// certify makes a certificate for 127.0.0.1 that signs itself.
func certify(t *testing.T) (certPEM, keyPEM []byte, cert *x509.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	if cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), cert
}
