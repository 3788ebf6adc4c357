package ociserver_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/sirupsen/logrus"

	"github.com/larder-registry/larder/internal/oci"
	"github.com/larder-registry/larder/internal/ociserver"
)

func TestAccessLog(t *testing.T) {
	g := newRegistry()
	content := pattern(1000)
	dgst := g.addFile(t, content, -1)
	g.addManifest(app, "v1", oci.MediaTypeManifest, []byte("{}"))
	g.touch = func(ctx context.Context) {
		a := oci.AccessOf(ctx)
		a.Outcome, a.Upstream, a.Reason = oci.OutcomePass, 1500*time.Millisecond, "disk"
	}
	s := start(t, g, nil, nil)
	tests := map[string]struct {
		method, target string
		headers        []string
		level          string
		want           logrus.Fields
		absent         []string
	}{
		"manifest": {
			"GET", "/v2/org/app/manifests/v1?ns=ghcr.io", nil, "info",
			logrus.Fields{
				"kind": "manifest", "registry": "ghcr.io", "repository": "org/app", "tag": "v1", "method": "GET", "status": 200,
				"bytes": int64(2), "outcome": "pass", "reason": "disk", "upstream_ms": 1500.0,
			},
			[]string{"digest", "range", "error", "left"},
		},
		"blob range": {
			"GET", "/v2/f/ghcr.io/org/app/blobs/" + dgst.String(),
			[]string{"Range", "bytes=10-19"},
			"info",
			logrus.Fields{"kind": "blob", "digest": dgst.String(), "status": 206, "bytes": int64(10), "range": "10-19"},
			[]string{"tag", "error"},
		},
		"blob suffix": {
			"GET", "/v2/f/ghcr.io/org/app/blobs/" + dgst.String(),
			[]string{"Range", "bytes=-7"},
			"info",
			logrus.Fields{"range": "-7", "bytes": int64(7)},
			nil,
		},
		"blob open range": {
			"GET", "/v2/f/ghcr.io/org/app/blobs/" + dgst.String(),
			[]string{"Range", "bytes=990-"},
			"info",
			logrus.Fields{"range": "990-", "bytes": int64(10)},
			nil,
		},
		"head": {
			"HEAD", "/v2/f/ghcr.io/org/app/blobs/" + dgst.String(), nil, "info",
			logrus.Fields{"method": "HEAD", "status": 200, "bytes": int64(0)},
			nil,
		},
		"not found": {
			"GET", "/v2/f/ghcr.io/org/app/manifests/v2", nil, "info",
			logrus.Fields{"status": 404, "tag": "v2", "error": "MANIFEST_UNKNOWN: manifest unknown to registry"},
			nil,
		},
		"refused": {
			"GET", "/v2/nginx/manifests/v1?ns=https://user:hunter2@a.b",
			[]string{"Authorization", "Bearer hunter2"},
			"info",
			logrus.Fields{"status": 400, "kind": "manifest"},
			[]string{"registry", "outcome_"},
		},
		"secrets": {
			"GET", "/v2/f/ghcr.io/org/app/manifests/v1?token=hunter2",
			[]string{"Authorization", "Basic hunter2", "X-Forwarded-For", "192.0.2.1"},
			"info",
			logrus.Fields{"status": 200},
			nil,
		},
		"ping":  {"GET", "/v2/", nil, "debug", logrus.Fields{"kind": "ping", "status": 200}, []string{"registry", "outcome"}},
		"other": {"GET", "/favicon.ico", nil, "info", logrus.Fields{"kind": "other", "status": 404}, nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s.do(t, tt.method, tt.target, tt.headers...)
			e := s.line(t)
			if e.Level.String() != tt.level {
				t.Errorf("level %s, want %s", e.Level, tt.level)
			}
			for key, want := range tt.want {
				if got := e.Data[key]; fmt.Sprint(got) != fmt.Sprint(want) {
					t.Errorf("%s: %v, want %v", key, got, want)
				}
			}
			for _, key := range tt.absent {
				if got, ok := e.Data[key]; ok {
					t.Errorf("%s: %v, want none", key, got)
				}
			}
			if client, _ := e.Data["client"].(string); !strings.HasPrefix(client, "127.0.0.1:") {
				t.Errorf("client %q", client)
			}
			if ms, ok := e.Data["duration_ms"].(float64); !ok || ms < 0 || ms > float64(patience/time.Millisecond) {
				t.Errorf("duration_ms %v", e.Data["duration_ms"])
			}
			line, err := e.String()
			if err != nil || strings.Contains(line, "hunter2") || strings.Contains(line, "192.0.2.1") {
				t.Errorf("line %q, %v", line, err)
			}
		})
	}
}

func TestFailuresStandOut(t *testing.T) {
	g := newRegistry()
	g.err = errors.New("disk on fire")
	s := start(t, g, nil, nil)
	s.do(t, "GET", "/v2/f/a.b/c/manifests/v1")
	e := s.line(t)
	if e.Level.String() != "warning" || e.Data["error"] != "disk on fire" || fmt.Sprint(e.Data["outcome"]) != "miss" {
		t.Errorf("logged %s %v", e.Level, e.Data)
	}
}

func TestMetrics(t *testing.T) {
	g := newRegistry()
	content := pattern(1000)
	dgst := g.addFile(t, content, -1)
	outcomes := []oci.Outcome{oci.OutcomeHit, oci.OutcomeStale, oci.OutcomeJoin, oci.OutcomeFill, oci.OutcomePass}
	next := 0
	g.touch = func(ctx context.Context) {
		if next < len(outcomes) {
			oci.AccessOf(ctx).Outcome = outcomes[next]
			next++
		}
	}
	reg := prometheus.NewRegistry()
	s := start(t, g, func(cfg *ociserver.Config) {
		cfg.Registerer = reg
		cfg.Label = func(registry string) string { return "label-of-" + registry }
	}, nil)
	get := func(target string) {
		s.do(t, "GET", target)
		s.line(t) // counted
	}
	for range outcomes {
		get("/v2/f/a.b/c/blobs/" + dgst.String())
	}
	get("/v2/f/a.b/c/manifests/v1") // not there, and the reader does not say what came of it
	get("/v2/")
	get("/nowhere")
	s.do(t, "GET", "/healthz")

	w := httptest.NewRecorder()
	promhttp.HandlerFor(reg, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	var got []string
	for line := range bytes.Lines(w.Body.Bytes()) {
		line := strings.TrimSpace(string(line))
		if strings.HasPrefix(line, "larder_requests_total") || strings.HasPrefix(line, "larder_served") || strings.HasPrefix(line, "larder_time_to_first_byte_seconds_count") {
			got = append(got, line)
		}
	}
	want := []string{
		`larder_requests_total{code="200",kind="blob",outcome="fill",registry="label-of-a.b"} 1`,
		`larder_requests_total{code="200",kind="blob",outcome="hit",registry="label-of-a.b"} 1`,
		`larder_requests_total{code="200",kind="blob",outcome="join",registry="label-of-a.b"} 1`,
		`larder_requests_total{code="200",kind="blob",outcome="pass",registry="label-of-a.b"} 1`,
		`larder_requests_total{code="200",kind="blob",outcome="stale",registry="label-of-a.b"} 1`,
		`larder_requests_total{code="200",kind="ping",outcome="none",registry="none"} 1`,
		`larder_requests_total{code="404",kind="manifest",outcome="miss",registry="label-of-a.b"} 1`,
		`larder_requests_total{code="404",kind="other",outcome="none",registry="none"} 1`,
		`larder_served_bytes_total{registry="label-of-a.b",source="disk"} 2000`,
		`larder_served_bytes_total{registry="label-of-a.b",source="join"} 1000`,
		`larder_served_bytes_total{registry="label-of-a.b",source="upstream"} 2000`,
		`larder_time_to_first_byte_seconds_count{outcome="fill"} 1`,
		`larder_time_to_first_byte_seconds_count{outcome="hit"} 1`,
		`larder_time_to_first_byte_seconds_count{outcome="join"} 1`,
		`larder_time_to_first_byte_seconds_count{outcome="pass"} 1`,
		`larder_time_to_first_byte_seconds_count{outcome="stale"} 1`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
