package certificate

import (
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

func TestConflictsAreSettled(t *testing.T) {
	a := startAPI(t)
	a.conflicts = 7
	s, hook := a.self(t, nil)
	run(t, s)
	a.await(t, "readiness", s.Ready)
	if e := hook.LastEntry(); e == nil || e.Message != "serving a new certificate" {
		t.Errorf("logged %v", e)
	}
}

// TestTheAPIServerIsAway, at the start and later.
func TestTheAPIServerIsAway(t *testing.T) {
	a := startAPI(t)
	a.failing = true
	s, hook := a.self(t, nil)
	run(t, s)
	a.await(t, "a reason", func() error {
		if err := s.Ready(); err == nil || !strings.Contains(err.Error(), `status 503: "\"the body of a proxy\"\n"`) {
			return fmt.Errorf("it is %v", err)
		}
		return nil
	})
	a.do(func() { a.failing = false })
	a.await(t, "readiness", s.Ready)
	failures := testutil.ToFloat64(s.metrics.failures)
	a.do(func() { a.failing = true })
	a.await(t, "failures", func() error {
		if testutil.ToFloat64(s.metrics.failures) < failures+3 {
			return errors.New("not yet")
		}
		return nil
	})
	if err := s.Ready(); err != nil {
		t.Errorf("what is served counts no more: %v", err)
	}
	told := 0
	for _, e := range hook.AllEntries() {
		if strings.Contains(e.Message, "cannot be looked after") {
			told++
		}
	}
	if told != 2 {
		t.Errorf("it was told %d times, want once for each time", told)
	}
}

// TestWhatIsMissingIsSaid holds errors to naming what to do, and to keeping the
// token to themselves.
func TestWhatIsMissingIsSaid(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*testing.T, *apiServer)
		self   func(*SelfConfig)
		want   string
	}{
		"no Secret":       {func(_ *testing.T, a *apiServer) { a.secretData = nil }, nil, `secrets "authority" not found; make it as in docs/admission.md`},
		"no registration": {func(_ *testing.T, a *apiServer) { a.bundles = nil }, nil, `validatingwebhookconfigurations "webhook" not found; make it`},
		"no webhooks":     {func(_ *testing.T, a *apiServer) { a.bundles = [][]byte{} }, nil, "it has no webhooks"},
		"no rights":       {func(*testing.T, *apiServer) {}, func(c *SelfConfig) { c.Secret = "other" }, "status 403: nobody may do that; the service account needs the rights in docs/admission.md"},
		"a wrong token":   {func(t *testing.T, a *apiServer) { a.file(t, "token", "token-2") }, nil, "status 401: Unauthorized"},
		"an empty token":  {func(t *testing.T, a *apiServer) { a.file(t, "token", "") }, nil, "status 401"},
		"a broken token":  {func(t *testing.T, a *apiServer) { a.file(t, "token", "token-2\r\nX: y") }, nil, "ask API server"},
		"another CA":      {func(t *testing.T, a *apiServer) { a.file(t, "ca.crt", otherCA(t)) }, nil, "certificate signed by unknown authority"},
		"no CA":           {func(t *testing.T, a *apiServer) { a.file(t, "ca.crt", "x") }, nil, "holds no PEM certificate"},
		"endless":         {func(_ *testing.T, a *apiServer) { a.secretData["x"] = make([]byte, maxObject) }, nil, "unexpected end of JSON input"},
	} {
		t.Run(name, func(t *testing.T) {
			a := startAPI(t)
			c.change(t, a)
			s, hook := a.self(t, c.self)
			run(t, s)
			a.await(t, "the reason", func() error {
				err := s.Ready()
				if err == nil || !strings.Contains(err.Error(), c.want) {
					return fmt.Errorf("it is %v", err)
				}
				if strings.Contains(err.Error(), "token-") {
					t.Fatalf("the token is told: %v", err)
				}
				return nil
			})
			for _, e := range hook.AllEntries() {
				if line, err := e.String(); err != nil || strings.Contains(line, "token-") {
					t.Errorf("logged %s, %v", line, err)
				}
			}
		})
	}
}

func otherCA(t *testing.T) string {
	t.Helper()
	a, err := newAuthority(time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return string(encodeCertificates([]*x509.Certificate{a.cert}))
}

// TestTheTokenIsReadAgain, since the kubelet renews it every hour.
func TestTheTokenIsReadAgain(t *testing.T) {
	a := startAPI(t)
	s, _ := a.self(t, func(c *SelfConfig) { c.Interval = time.Hour })
	run(t, s)
	a.await(t, "readiness", s.Ready)
	a.file(t, "token", "token-2")
	a.do(func() { a.token, a.bundles = "token-2", make([][]byte, 2) })
	s.Refused()
	a.await(t, "the bundle", func() error { return a.trusted(s) })
}

func TestNewSelfNeedsItsParts(t *testing.T) {
	if s, err := NewSelf(SelfConfig{}); err == nil {
		t.Error(s)
	}
	for _, cfg := range []ClusterConfig{{}, {Server: "127.0.0.1"}, {Server: "127.0.0.1:1"}, {Server: "127.0.0.1:1", TokenFile: "x"}} {
		if c, err := NewCluster(cfg); err == nil {
			t.Errorf("%+v makes %v", cfg, c)
		}
	}
}
