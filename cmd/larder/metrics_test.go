package main

import (
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"

	"github.com/larder-registry/larder/internal/config"
	"github.com/larder-registry/larder/internal/oci"
	"github.com/larder-registry/larder/store"
)

// TestTheDocsNameEveryMetric compares docs/monitoring.md with what a mirror
// registers, whether it was counted yet or not, and with what it exposes. What
// running processes of all kinds serve is compared in test/monitoring.
func TestTheDocsNameEveryMetric(t *testing.T) {
	content, err := os.ReadFile("../../docs/monitoring.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]bool{}
	for _, row := range regexp.MustCompile("(?m)^\\| `(larder_[a-z_]+)` \\|([^|]*)\\|[^|]*\\|([^|]*)\\|").FindAllStringSubmatch(string(content), -1) {
		if !strings.Contains(row[2], "mirror") {
			continue
		}
		labels := regexp.MustCompile("[a-z]+").FindAllString(row[3], -1)
		documented[row[1]+" {"+strings.Join(labels, ",")+"}"] = true
	}
	log := logrus.New()
	log.SetOutput(io.Discard)
	cfg := config.Default().RegistryProxies
	cfg.MaxSize.Limit, cfg.MinFree.Limit = store.Bytes(10), store.Bytes(0)
	n, err := openNode(t.Context(), logrus.NewEntry(log), t.TempDir(), cfg, newMetrics())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.close)
	tracer, err := newTracer(config.Tracing{Endpoint: "http://127.0.0.1:1"}, "test", n.log, n.metrics)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeTracer(tracer, n.log) })
	// The second evicts the first.
	for _, content := range []string{"12345678", "abcdefgh"} {
		desc := oci.Descriptor{Digest: digest.FromString(content), Size: int64(len(content))}
		if err := n.store.Put(t.Context(), desc, []byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := n.handlers(config.Default(), false, nil); err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	descs := make(chan *prometheus.Desc)
	go func() { // ends when all were described
		n.metrics.Describe(descs)
		close(descs)
	}()
	form := regexp.MustCompile(`fqName: "(larder_[^"]*)".*variableLabels: \{([^}]*)\}`)
	for desc := range descs {
		if m := form.FindStringSubmatch(desc.String()); m != nil {
			known[m[1]+" {"+m[2]+"}"] = true
		}
	}
	families, err := n.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		name := family.GetName()
		if !strings.HasPrefix(name, "larder_") {
			continue
		}
		var labels []string
		for _, pair := range family.GetMetric()[0].GetLabel() {
			labels = append(labels, pair.GetName())
		}
		if !slices.ContainsFunc(keys(known), func(k string) bool { return strings.HasPrefix(k, name+" ") }) {
			known[name+" {"+strings.Join(labels, ",")+"}"] = true
		}
	}
	if len(known) < 10 {
		t.Fatalf("only %d metrics were found", len(known))
	}
	for metric := range known {
		if !documented[metric] {
			t.Errorf("docs/monitoring.md does not describe %s", metric)
		}
	}
	for metric := range documented {
		if !known[metric] {
			t.Errorf("docs/monitoring.md describes %s, which there is not", metric)
		}
	}
}

func keys(set map[string]bool) (list []string) {
	for k := range set {
		list = append(list, k)
	}
	return list
}
