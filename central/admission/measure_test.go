package admission_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/larder-registry/larder/test/authority"
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
	roots := authority.Write(t, dir, "127.0.0.1").Pool()
	p, err := process.Start(dir, "larder", *larderFlag, "central", "--serve", "webhook", "--shutdown-delay", "0s", "--log-format", "json",
		"--config", file("larder.yaml", []byte("webhook: {certificate: files}\nimage_validation: {default: Deny, allow: [ghcr.io/org, docker.io/library], deny: [ghcr.io/org/secret]}\n")),
		"--webhook-listen", addr, "--admin-listen", admin, "--tls-cert", filepath.Join(dir, "tls.crt"), "--tls-key", filepath.Join(dir, "tls.key"))
	if err != nil {
		t.Fatal(err)
	}
	defer p.End(syscall.SIGTERM)
	if err := p.Ready(t.Context(), "http://"+admin+"/readyz"); err != nil {
		t.Fatal(err)
	}
	clients := newLoad("https://"+addr, roots)
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
