// Package admin is the port for those who run Larder: health checks with
// reasons, metrics, profiles, and the status page.
//
// It decides nothing: what is ready is asked of the checks it is given, what is
// counted lies in the Gatherer, what the page shows is in internal/status. It has
// no access control, so it is for an address that only operators reach; names of
// private images are for those on this host alone. The registry's own port, which answers
// strangers, is in internal/ociserver.
package admin

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/pprof"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/sirupsen/logrus"
)

// Check is one condition for being ready.
type Check struct {
	// Name says what is checked, in a word.
	Name string
	// Ready says why it is not ready, or nil. It is called by every probe, from
	// any goroutine, and must answer at once. Its text reaches whoever can
	// reach the port.
	Ready func() error
	// Advisory checks are told of and keep nothing from being ready: a disk
	// that is full, where content passes through all the same.
	Advisory bool
}

// Checks are all the conditions for being ready.
type Checks []Check

// Ready joins the reasons of the checks that fail, or is nil.
func (c Checks) Ready() error {
	var reasons []error
	for _, check := range c {
		if err := check.Ready(); err != nil && !check.Advisory {
			reasons = append(reasons, fmt.Errorf("%s: %w", check.Name, err))
		}
	}
	return errors.Join(reasons...)
}

// Config is what a Handler is made of. Gatherer and Log are required.
type Config struct {
	Checks   Checks
	Gatherer prometheus.Gatherer
	Log      *logrus.Entry
	// Status has the handler serve the status page; nil for none.
	Status Status
}

// New makes the handler for the admin port:
//
//	/healthz       200 as long as the process answers at all
//	/readyz        200 or 503, with the state of each check as JSON
//	/metrics       in Prometheus' formats
//	/debug/pprof/  profiles of net/http/pprof
//	/status        the status page, and its other forms: see statusPages
func New(cfg Config) (http.Handler, error) {
	if cfg.Gatherer == nil || cfg.Log == nil {
		return nil, errors.New("make admin handler: gatherer and log are required")
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", healthz)
	mux.HandleFunc("GET /readyz", cfg.Checks.readyz)
	mux.Handle("GET /metrics", promhttp.HandlerFor(cfg.Gatherer, promhttp.HandlerOpts{
		ErrorLog: errorLog{cfg.Log},
		// A collector that fails must not hide what the others know.
		ErrorHandling: promhttp.ContinueOnError,
	}))
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	if cfg.Status != nil {
		(&statusPages{ask: cfg.Status}).register(mux)
	}
	return mux, nil
}

func healthz(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = io.WriteString(w, "ok\n")
}

// readyz answers with every check by name: "ok", or why not.
func (c Checks) readyz(w http.ResponseWriter, _ *http.Request) {
	answer := struct {
		Ready  bool              `json:"ready"`
		Checks map[string]string `json:"checks"`
	}{true, map[string]string{}}
	for _, check := range c {
		answer.Checks[check.Name] = "ok"
		if err := check.Ready(); err != nil {
			answer.Ready = answer.Ready && check.Advisory
			answer.Checks[check.Name] = err.Error()
		}
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	if !answer.Ready {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_ = json.NewEncoder(w).Encode(answer) // of strings: it fails only if the client is gone
}

// errorLog takes what promhttp has to say.
type errorLog struct{ log *logrus.Entry }

// Println implements promhttp.Logger.
func (l errorLog) Println(v ...any) { l.log.Warn(v...) }
