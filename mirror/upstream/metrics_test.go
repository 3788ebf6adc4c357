package upstream

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/larder-registry/larder/internal/oci"
)

// series gives the metrics of reg as name{label=value,…} → value.
func series(t *testing.T, reg prometheus.Gatherer) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatalf("gather metrics: %v", err)
	}
	found := map[string]float64{}
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			var labels []string
			for _, label := range metric.GetLabel() {
				labels = append(labels, label.GetName()+"="+label.GetValue())
			}
			found[family.GetName()+"{"+strings.Join(labels, ",")+"}"] = metric.GetCounter().GetValue() + metric.GetGauge().GetValue()
		}
	}
	return found
}

func TestMetrics(t *testing.T) {
	content := pattern(5000)
	storage := newOrigin(t, blobServer(content))
	g := &gate{}
	g.serve = func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Ratelimit-Remaining", "99;w=21600")
		if strings.Contains(r.URL.Path, "/blobs/") {
			http.Redirect(w, r, storage.URL, http.StatusTemporaryRedirect)
			return
		}
		answer(http.StatusOK, manifestHeader(manifestJSON), manifestJSON)(w, r)
	}
	o := newGate(t, g)
	reg := prometheus.NewRegistry()
	c := newClientOf(t, Config{
		Registries: []Registry{o.entry(t)}, Registerer: reg,
		Label: func(registry string) string {
			if registry == o.host() {
				return "ours"
			}
			return "other"
		},
	})
	began := time.Now()
	c.breakers.now = func() time.Time { return began } // a pause has no end here
	if _, err := c.Manifest(t.Context(), o.tag("v1")); err != nil {
		t.Fatalf("Manifest: %v", err)
	}
	body, err := c.Blob(t.Context(), o.name(), digest.FromBytes(content), oci.Span{Start: 0, End: -1})
	if err != nil {
		t.Fatalf("Blob: %v", err)
	}
	if _, err := io.Copy(io.Discard, body); err != nil {
		t.Errorf("read: %v", err)
	}
	body.Close()
	o.Close()
	if _, err := c.Manifest(t.Context(), o.tag("v1")); err == nil {
		t.Error("Manifest from a registry that is gone")
	}
	got := series(t, reg)
	for name, want := range map[string]float64{
		"larder_upstream_requests_total{code=401,registry=ours}":     1,
		"larder_upstream_requests_total{code=307,registry=ours}":     1,
		"larder_upstream_requests_total{code=200,registry=ours}":     3, // token, manifest, blob
		"larder_upstream_requests_total{code=refused,registry=ours}": 3,
		"larder_upstream_bytes_total{registry=ours}":                 float64(len(manifestJSON) + len(content)),
		"larder_upstream_ratelimit_remaining{registry=ours}":         99,
		"larder_breaker_state{endpoint=" + o.URL + "}":               float64(Open),
	} {
		if got[name] != want {
			t.Errorf("%s: %v, want %v", name, got[name], want)
		}
		delete(got, name)
	}
	for name, value := range got {
		t.Errorf("%s %v was not expected", name, value)
	}
}
