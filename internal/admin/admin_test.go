package admin_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"
	"github.com/sirupsen/logrus/hooks/test"
	"go.uber.org/goleak"

	"github.com/larder-registry/larder/internal/admin"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start serves an admin port until the test ends.
func start(t *testing.T, checks admin.Checks, reg *prometheus.Registry) (get func(method, path string) (int, http.Header, string), logged *test.Hook) {
	t.Helper()
	logger, logged := test.NewNullLogger()
	h, err := admin.New(admin.Config{Checks: checks, Gatherer: reg, Log: logrus.NewEntry(logger)})
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return func(method, path string) (int, http.Header, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, s.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := s.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, resp.Header, string(body)
	}, logged
}

func TestReadyz(t *testing.T) {
	var open, degraded atomic.Bool
	checks := admin.Checks{
		{Name: "store", Ready: func() error {
			if !open.Load() {
				return errors.New("opening")
			}
			return nil
		}},
		{Name: "stopping", Ready: func() error {
			if degraded.Load() {
				return errors.New("asked to stop")
			}
			return nil
		}},
	}
	get, _ := start(t, checks, prometheus.NewRegistry())
	expect := func(wantStatus int, want, wantErr string) {
		t.Helper()
		status, header, body := get("GET", "/readyz")
		if status != wantStatus || strings.TrimSpace(body) != want || header.Get("Content-Type") != "application/json" || header.Get("Cache-Control") != "no-store" {
			t.Errorf("got %d %s %v, want %d %s", status, body, header, wantStatus, want)
		}
		err := checks.Ready()
		if wantErr == "" && err != nil || wantErr != "" && (err == nil || err.Error() != wantErr) {
			t.Errorf("Ready: %v, want %q", err, wantErr)
		}
		if status, _, body := get("GET", "/healthz"); status != 200 || body != "ok\n" {
			t.Errorf("healthz: %d %q", status, body)
		}
	}
	expect(503, `{"ready":false,"checks":{"stopping":"ok","store":"opening"}}`, "store: opening")
	open.Store(true)
	expect(200, `{"ready":true,"checks":{"stopping":"ok","store":"ok"}}`, "")
	degraded.Store(true)
	expect(503, `{"ready":false,"checks":{"stopping":"asked to stop","store":"ok"}}`, "stopping: asked to stop")
	open.Store(false)
	expect(503, `{"ready":false,"checks":{"stopping":"asked to stop","store":"opening"}}`, "store: opening\nstopping: asked to stop")
	if status, _, body := get("HEAD", "/readyz"); status != 503 || body != "" {
		t.Errorf("HEAD: %d %q", status, body)
	}
}

func TestAnAdvisoryCheckIsToldOfOnly(t *testing.T) {
	checks := admin.Checks{{Name: "disk", Advisory: true, Ready: func() error { return errors.New("full") }}}
	get, _ := start(t, checks, prometheus.NewRegistry())
	if status, _, body := get("GET", "/readyz"); status != 200 || strings.TrimSpace(body) != `{"ready":true,"checks":{"disk":"full"}}` {
		t.Errorf("got %d %s", status, body)
	}
	if err := checks.Ready(); err != nil {
		t.Error(err)
	}
}

func TestNoChecksIsReady(t *testing.T) {
	get, _ := start(t, nil, prometheus.NewRegistry())
	if status, _, body := get("GET", "/readyz"); status != 200 || strings.TrimSpace(body) != `{"ready":true,"checks":{}}` {
		t.Errorf("got %d %s", status, body)
	}
}

// brokenCollector fails at every scrape.
type brokenCollector struct{ desc *prometheus.Desc }

func (c brokenCollector) Describe(ch chan<- *prometheus.Desc) { ch <- c.desc }
func (c brokenCollector) Collect(ch chan<- prometheus.Metric) {
	ch <- prometheus.NewInvalidMetric(c.desc, errors.New("cannot count"))
}

func TestMetrics(t *testing.T) {
	reg := prometheus.NewRegistry()
	counter := prometheus.NewCounter(prometheus.CounterOpts{Name: "larder_test_total", Help: "Of this test."})
	reg.MustRegister(counter, brokenCollector{prometheus.NewDesc("larder_broken", "Never works.", nil, nil)})
	counter.Add(3)
	get, logged := start(t, nil, reg)
	status, header, body := get("GET", "/metrics")
	if status != 200 || !strings.Contains(body, "larder_test_total 3\n") || !strings.HasPrefix(header.Get("Content-Type"), "text/plain") {
		t.Errorf("got %d %v %s", status, header, body)
	}
	if e := logged.LastEntry(); e == nil || e.Level.String() != "warning" || !strings.Contains(e.Message, "cannot count") {
		t.Errorf("logged %v, want the collector's failure", e)
	}
}

func TestRoutes(t *testing.T) {
	get, _ := start(t, nil, prometheus.NewRegistry())
	tests := map[string]struct {
		method, path string
		status       int
		body         string
	}{
		"profiles":    {"GET", "/debug/pprof/", 200, "goroutine"},
		"goroutines":  {"GET", "/debug/pprof/goroutine?debug=1", 200, "TestRoutes"},
		"heap":        {"GET", "/debug/pprof/heap?debug=1", 200, "heap profile"},
		"cmdline":     {"GET", "/debug/pprof/cmdline", 200, "test"},
		"no such":     {"GET", "/debug/pprof/nothing", 404, ""},
		"post":        {"POST", "/readyz", 405, ""},
		"root":        {"GET", "/", 404, ""},
		"no registry": {"GET", "/v2/", 404, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if status, _, body := get(tt.method, tt.path); status != tt.status || !strings.Contains(body, tt.body) {
				t.Errorf("got %d %.300s, want %d with %q", status, body, tt.status, tt.body)
			}
		})
	}
}

func TestNewNeedsItsParts(t *testing.T) {
	logger, _ := test.NewNullLogger()
	for name, cfg := range map[string]admin.Config{
		"gatherer": {Log: logrus.NewEntry(logger)},
		"log":      {Gatherer: prometheus.NewRegistry()},
	} {
		if h, err := admin.New(cfg); err == nil || h != nil {
			t.Errorf("without %s: got %v, %v", name, h, err)
		}
	}
}
