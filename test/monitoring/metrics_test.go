package monitoring

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/larder-registry/larder/test/process"
)

// described is a row of the table in docs/monitoring.md, or what a page shows of
// a metric: both come to the same text.
type described struct {
	kind   string
	labels string // sorted
}

// documented reads the table: by metric, for one kind of process.
func documented(t *testing.T, from string) map[string]described {
	t.Helper()
	content, err := os.ReadFile("../../docs/monitoring.md")
	if err != nil {
		t.Fatal(err)
	}
	table := map[string]described{}
	for _, row := range regexp.MustCompile("(?m)^\\| `(larder_[a-z_]+)` \\| ([^|]*) \\| ([^|]*) \\|([^|]*)\\| [^|]").FindAllStringSubmatch(string(content), -1) {
		if slices.Contains(strings.Split(row[2], ", "), from) {
			labels := regexp.MustCompile("[a-z]+").FindAllString(row[4], -1)
			slices.Sort(labels)
			table[row[1]] = described{row[3], strings.Join(labels, ",")}
		}
	}
	return table
}

// families parses a page of metrics.
func families(t *testing.T, page string) map[string]*dto.MetricFamily {
	t.Helper()
	parser := expfmt.NewTextParser(model.LegacyValidation)
	all, err := parser.TextToMetricFamilies(strings.NewReader(page))
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// shown is what a page says of each metric of Larder's own.
func shown(t *testing.T, page string) map[string]described {
	t.Helper()
	all := map[string]described{}
	for name, f := range families(t, page) {
		if !strings.HasPrefix(name, "larder_") {
			continue
		}
		if f.GetHelp() == "" {
			t.Errorf("%s has no help", name)
		}
		labels := map[string]bool{}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = true
			}
		}
		all[name] = described{strings.ToLower(f.GetType().String()), strings.Join(slices.Sorted(maps.Keys(labels)), ",")}
	}
	return all
}

// testMetrics compares what all processes showed with the table, both ways.
func testMetrics(t *testing.T, w *world) {
	for from, l := range map[string]*larder{"mirror": w.mirror, "central": w.central, "webhook": w.webhooks[0]} {
		t.Run(from, func(t *testing.T) {
			page := l.metrics(t)
			got, want := shown(t, page), documented(t, from)
			if len(want) < 9 {
				t.Errorf("the table has %d rows about this", len(want))
			}
			for _, name := range slices.Sorted(maps.Keys(got)) {
				if want[name] != got[name] {
					t.Errorf("%s is %+v, and documented as %+v", name, got[name], want[name])
				}
			}
			for _, name := range slices.Sorted(maps.Keys(want)) {
				if _, ok := got[name]; !ok {
					t.Errorf("%s is documented, and nobody saw it", name)
				}
			}
			all := families(t, page)
			for _, name := range []string{"go_goroutines", "go_memstats_heap_alloc_bytes", "process_resident_memory_bytes", "process_open_fds"} {
				if all[name] == nil {
					t.Errorf("%s is not there", name)
				}
			}
			bounded(t, all)
			lint := exec.CommandContext(t.Context(), "promtool", "check", "metrics")
			lint.Stdin = strings.NewReader(page)
			if out, err := lint.CombinedOutput(); err != nil || len(out) > 0 {
				t.Errorf("promtool check metrics: %v\n%s", err, out)
			}
		})
	}
}

// bounded refuses labels with more values than somebody has written down, and
// secrets.
func bounded(t *testing.T, all map[string]*dto.MetricFamily) {
	t.Helper()
	values := map[string]map[string]bool{}
	for name, f := range all {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				key := name + "." + l.GetName()
				if values[key] == nil {
					values[key] = map[string]bool{}
				}
				values[key][l.GetValue()] = true
				for _, never := range []string{secret, password, "wrong", puller + ":", "?", "Bearer", "sha256:"} {
					if strings.Contains(l.GetValue(), never) {
						t.Errorf("%s has %q", key, l.GetValue())
					}
				}
			}
		}
	}
	for key, of := range values {
		if len(of) > 25 {
			t.Errorf("%s has %d values: %v", key, len(of), slices.Sorted(maps.Keys(of)))
		}
	}
}

// sums adds up a metric's values by one of its labels.
func sums(t *testing.T, page, name, label string) map[string]float64 {
	t.Helper()
	by := map[string]float64{}
	for _, m := range families(t, page)[name].GetMetric() {
		for _, l := range m.GetLabel() {
			if l.GetName() == label {
				by[l.GetValue()] += cmp.Or(m.GetCounter().GetValue(), m.GetGauge().GetValue())
			}
		}
	}
	return by
}

// testItHappened makes sure that the traffic was what the tests take it for.
func testItHappened(t *testing.T, w *world) {
	process.Await(t, "an image to count as bypassed, a minute later", func(context.Context) error {
		if len(sums(t, w.mirror.metrics(t), "larder_bypassed", "registry")) == 0 {
			return errors.New("none does")
		}
		return nil
	})
	page := w.mirror.metrics(t)
	for _, c := range []struct {
		name, label string
		values      []string
	}{
		{"larder_requests_total", "outcome", []string{"hit", "fill", "join", "stale", "miss", "none"}},
		{"larder_served_bytes_total", "source", []string{"disk", "upstream"}},
		{"larder_private_denied_total", "reason", []string{"challenge", "refused"}},
		{"larder_policy_denied_total", "mode", []string{"enforce"}},
		{"larder_evictions_total", "reason", []string{"size"}},
		{"larder_upstream_ratelimit_remaining", "registry", []string{w.metered}},
		{"larder_breaker_state", "endpoint", []string{"http://" + w.broken.Host()}},
		{"larder_bypassed", "registry", []string{w.open.Host()}},
		{"larder_trace_spans_total", "result", []string{"lost"}},
	} {
		got := sums(t, page, c.name, c.label)
		for _, value := range c.values {
			if got[value] <= 0 {
				t.Errorf("%s{%s=%q} is %v: %v", c.name, c.label, value, got[value], got)
			}
		}
	}
	if got := sums(t, w.full.metrics(t), "larder_requests_total", "outcome"); got["pass"] <= 0 {
		t.Errorf("nothing passed through: %v", got)
	}
	if !strings.Contains(page, "larder_digest_mismatch_total ") || strings.Contains(page, "larder_digest_mismatch_total 0\n") {
		t.Error("no digest was wrong")
	}
	if got := sums(t, w.central.metrics(t), "larder_central_logins_total", "result"); got["ok"] <= 0 || got["refused"] <= 0 || got["limited"] <= 0 {
		t.Errorf("logins: %v", got)
	}
	if got := sums(t, w.webhooks[0].metrics(t), "larder_admission_reviews_total", "decision"); got["denied"] <= 0 || got["error"] <= 0 {
		t.Errorf("reviews: %v", got)
	}
	if got := fmt.Sprint(sums(t, w.webhooks[1].metrics(t), "larder_admission_reviews_total", "decision")["allowed"]); got == "0" {
		t.Errorf("nothing was allowed")
	}
}
