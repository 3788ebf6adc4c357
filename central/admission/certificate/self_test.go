package certificate

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// run runs s until the test ends or stop is called.
func run(t *testing.T, s *Self) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { // ends with ctx
		defer close(done)
		if err := s.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return stop
}

// trusted holds what s serves to what the registration trusts, as an API server
// does. The certificate is looked at first: what is served now has to be trusted
// from now on, but nothing was promised of what was trusted before.
func (a *apiServer) trusted(s *Self) error {
	cert, err := s.GetCertificate(nil)
	if err != nil {
		return err
	}
	a.mu.Lock()
	bundles := slices.Clone(a.bundles)
	a.mu.Unlock()
	for i, bundle := range bundles {
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(bundle)
		name := []string{"webhook.larder.svc", "127.0.0.1"}[i]
		if _, err := cert.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: name}); err != nil {
			return fmt.Errorf("bundle %d: %w", i, err)
		}
	}
	return nil
}

func TestAnEmptySecretIsEnough(t *testing.T) {
	a := startAPI(t)
	reg := prometheus.NewRegistry()
	s, hook := a.self(t, func(c *SelfConfig) { c.Registerer = reg })
	if err := s.Ready(); err == nil {
		t.Error("ready before it runs")
	}
	if cert, err := s.GetCertificate(nil); cert != nil || err == nil {
		t.Error(cert, err)
	}
	run(t, s)
	a.await(t, "readiness", s.Ready)
	if err := a.trusted(s); err != nil {
		t.Error(err)
	}
	cert, err := s.GetCertificate(nil)
	if err != nil {
		t.Fatal(err)
	}
	if want := float64(cert.Leaf.NotAfter.Unix()); testutil.ToFloat64(s.metrics.notAfter) != want {
		t.Errorf("the metric says %f, want %f", testutil.ToFloat64(s.metrics.notAfter), want)
	}
	if left := time.Until(cert.Leaf.NotAfter); left > 90*24*time.Hour || left < 89*24*time.Hour {
		t.Errorf("it lasts for %s", left)
	}

	rounds := a.count("GET " + regURL)
	a.await(t, "more rounds", func() error {
		if a.count("GET "+regURL) < rounds+5 {
			return errors.New("not yet")
		}
		return nil
	})
	if puts, patches := a.count("PUT "+secretURL), a.count("PATCH "+regURL); puts != 1 || patches != 1 {
		t.Errorf("%d writes of the Secret and %d of the registration, want one each", puts, patches)
	}
	if again, err := s.GetCertificate(nil); again != cert || err != nil {
		t.Error("it was replaced before it had to be")
	}
	for _, e := range hook.AllEntries() {
		if e.Level < 4 {
			t.Errorf("logged %v %v", e.Message, e.Data)
		}
	}
}

// TestReplicasAgree starts many over an empty Secret.
func TestReplicasAgree(t *testing.T) {
	a := startAPI(t)
	var replicas []*Self
	for range 6 {
		s, _ := a.self(t, nil)
		replicas = append(replicas, s)
		run(t, s)
	}
	for _, s := range replicas {
		a.await(t, "readiness", s.Ready)
	}
	for _, s := range replicas {
		if err := a.trusted(s); err != nil {
			t.Error(err)
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if certs := certificates(a.bundles[0]); len(certs) != 1 || len(certificates(a.secretData[keyAuthority])) != 1 || len(a.secretData) != 2 {
		t.Errorf("%d authorities are trusted; the Secret has %v", len(certs), slices.Collect(maps.Keys(a.secretData)))
	}
}

func TestAWipedBundleIsRestored(t *testing.T) {
	a := startAPI(t)
	s, _ := a.self(t, func(c *SelfConfig) { c.Interval = time.Hour })
	run(t, s)
	a.await(t, "readiness", s.Ready)
	a.do(func() { a.bundles = make([][]byte, 2) })
	s.Refused()
	a.await(t, "the bundle", func() error { return a.trusted(s) })
	a.do(func() { a.bundles[1] = []byte("no PEM") })
	s.Refused()
	s.Refused()
	a.await(t, "the bundle", func() error { return a.trusted(s) })
	if n := testutil.ToFloat64(s.metrics.refused); n != 3 {
		t.Errorf("%f handshakes were counted", n)
	}
}

// TestAnAuthorityIsReplacedWithoutAGap takes the authority away in every way
// there is, and holds what is served to what is trusted all the while.
func TestAnAuthorityIsReplacedWithoutAGap(t *testing.T) {
	soon, err := newAuthority(time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	other, err := newAuthority(time.Now(), 10*365*24*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	data := func(a *authority) map[string][]byte {
		d := map[string][]byte{"theirs": []byte("kept")}
		if err := (trust{current: a}).encode(d); err != nil {
			t.Fatal(err)
		}
		return d
	}
	mixed := data(other)
	mixed[keyPrivate] = data(soon)[keyPrivate]
	for name, now := range map[string]map[string][]byte{
		"emptied":       {},
		"about to end":  data(soon),
		"another one":   data(other),
		"another's key": mixed,
		"no PEM":        {keyAuthority: []byte("x"), keyPrivate: []byte("y"), keyPrevious: []byte("z"), keyUntil: []byte("tomorrow")},
		"half of it":    {keyAuthority: data(other)[keyAuthority]},
	} {
		t.Run(name, func(t *testing.T) {
			a := startAPI(t)
			first, _ := a.self(t, nil)
			second, _ := a.self(t, nil)
			run(t, first)
			run(t, second)
			a.await(t, "the first replica", first.Ready)
			a.await(t, "the second replica", second.Ready)
			before, err := first.GetCertificate(nil)
			if err != nil {
				t.Fatal(err)
			}

			watching, over := context.WithCancel(t.Context())
			var watch sync.WaitGroup
			watch.Go(func() { // ends with watching
				for watching.Err() == nil {
					for _, s := range []*Self{first, second} {
						if err := a.trusted(s); err != nil {
							t.Errorf("a review would have failed: %v", err)
							return
						}
					}
				}
			})
			a.do(func() { a.secretData = maps.Clone(now) })
			for _, s := range []*Self{first, second} {
				a.await(t, "a certificate of the new authority", func() error {
					cert, err := s.GetCertificate(nil)
					if err == nil && cert.Leaf.Issuer.String() == before.Leaf.Issuer.String() {
						err = errors.New("it is of the old one")
					}
					return err
				})
			}
			over()
			watch.Wait()
			a.mu.Lock()
			defer a.mu.Unlock()
			if len(certificates(a.bundles[0])) < 2 || len(a.secretData[keyUntil]) == 0 {
				t.Errorf("the old authority is forgotten: %q", a.secretData)
			}
			if now["theirs"] != nil && string(a.secretData["theirs"]) != "kept" {
				t.Error("what is not ours was thrown away")
			}
		})
	}
}

// TestAStrangerMakesTheNewAuthority: a replica that starts over a Secret that was
// emptied knows of the old authority by the registration alone, and the others
// still serve it.
func TestAStrangerMakesTheNewAuthority(t *testing.T) {
	a := startAPI(t)
	old, _ := a.self(t, func(c *SelfConfig) { c.Interval = time.Hour })
	run(t, old)
	a.await(t, "readiness", old.Ready)
	a.do(func() { a.secretData = map[string][]byte{} })
	fresh, _ := a.self(t, nil)
	run(t, fresh)
	a.await(t, "the new replica", fresh.Ready)
	for _, s := range []*Self{old, fresh} {
		if err := a.trusted(s); err != nil {
			t.Error(err)
		}
	}
	if old.served.Load().Leaf.Issuer.String() == fresh.served.Load().Leaf.Issuer.String() {
		t.Error("there is no new authority")
	}
}

// TestThePreviousAuthorityIsForgotten once its time is over.
func TestThePreviousAuthorityIsForgotten(t *testing.T) {
	a := startAPI(t)
	s, _ := a.self(t, func(c *SelfConfig) { c.Settle, c.Overlap = 50*time.Millisecond, 300*time.Millisecond })
	run(t, s)
	a.await(t, "readiness", s.Ready)
	first := s.served.Load().Leaf.Issuer.String()
	a.do(func() { a.secretData = map[string][]byte{} })
	a.await(t, "the new one to be alone", func() error {
		a.mu.Lock()
		defer a.mu.Unlock()
		trusted := certificates(a.bundles[0])
		if len(trusted) != 1 || trusted[0].Subject.String() == first || len(a.secretData) != 2 {
			return fmt.Errorf("%d are trusted, the Secret has %v", len(trusted), slices.Collect(maps.Keys(a.secretData)))
		}
		return nil
	})
	if err := a.trusted(s); err != nil {
		t.Error(err)
	}
	// The first, both, the second.
	if n := a.count("PATCH " + regURL); n < 3 {
		t.Errorf("the registration was written %d times", n)
	}
}

// TestACertificateIsRenewed before it ends, by the same authority.
func TestACertificateIsRenewed(t *testing.T) {
	a := startAPI(t)
	s, _ := a.self(t, func(c *SelfConfig) { c.Lifetime = 2 * time.Second })
	run(t, s)
	a.await(t, "readiness", s.Ready)
	first, err := s.GetCertificate(nil)
	if err != nil {
		t.Fatal(err)
	}
	a.await(t, "the next one", func() error {
		next, err := s.GetCertificate(nil)
		if err == nil && next == first {
			err = errors.New("it is the first one")
		}
		return err
	})
	if n := a.count("PUT " + secretURL); n != 1 {
		t.Errorf("%d authorities were made", n)
	}
}

// FuzzTrust reads anything as the Secret's data; what is usable is the same when
// it is written and read again.
func FuzzTrust(f *testing.F) {
	a, err := newAuthority(time.Now(), time.Hour)
	if err != nil {
		f.Fatal(err)
	}
	d := map[string][]byte{}
	if err := (trust{current: a, previous: []*x509.Certificate{a.cert}, until: time.Now()}).encode(d); err != nil {
		f.Fatal(err)
	}
	f.Add(d[keyAuthority], d[keyPrivate], d[keyPrevious], d[keyUntil])
	f.Add([]byte("x"), d[keyPrivate], []byte{}, []byte("2026"))
	f.Fuzz(func(t *testing.T, cert, key, previous, until []byte) {
		got, err := parseTrust(map[string][]byte{keyAuthority: cert, keyPrivate: key, keyPrevious: previous, keyUntil: until})
		if err != nil {
			if got.current != nil {
				t.Errorf("%v, and an authority", err)
			}
			return
		}
		again := map[string][]byte{}
		if err := got.encode(again); err != nil {
			t.Fatal(err)
		}
		reread, err := parseTrust(again)
		if err != nil || !sameCertificates(reread.bundle(), got.bundle()) {
			t.Errorf("%v, %v, %v", reread, got, err)
		}
	})
}
