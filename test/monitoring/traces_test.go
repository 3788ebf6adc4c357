package monitoring

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/collector/pdata/ptrace/ptraceotlp"

	"github.com/larder-registry/larder/test/process"
	"github.com/larder-registry/larder/test/registry"
)

// collector takes spans as OpenTelemetry's collector does: with its decoder.
type collector struct {
	*httptest.Server
	mu    sync.Mutex
	spans []ptrace.Span
	raw   strings.Builder
}

func startCollector(t *testing.T) *collector {
	t.Helper()
	c := &collector{}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		request := ptraceotlp.NewExportRequest()
		if err == nil {
			err = request.UnmarshalJSON(body)
		}
		if err != nil || r.URL.Path != "/v1/traces" {
			t.Errorf("%s: %v", r.URL, err)
			http.Error(w, "no", http.StatusBadRequest)
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.raw.Write(body)
		for _, rs := range request.Traces().ResourceSpans().All() {
			if name, _ := rs.Resource().Attributes().Get("service.name"); name.Str() != "larder-mirror" {
				t.Errorf("service.name is %q", name.Str())
			}
			for _, ss := range rs.ScopeSpans().All() {
				for _, s := range ss.Spans().All() {
					c.spans = append(c.spans, s)
				}
			}
		}
		answer, err := ptraceotlp.NewExportResponse().MarshalJSON()
		if err != nil {
			t.Error(err)
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(answer)
	}))
	t.Cleanup(c.Close)
	return c
}

// named returns the spans of a name that have arrived.
func (c *collector) named(name string) (spans []ptrace.Span) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.spans {
		if s.Name() == name {
			spans = append(spans, s)
		}
	}
	return spans
}

func attribute(s ptrace.Span, key string) string {
	v, ok := s.Attributes().Get(key)
	if !ok {
		return ""
	}
	return v.AsString()
}

// traceparent is what a client sends along, and the ids in it.
func traceparent(n byte) (header string, trace pcommon.TraceID, parent pcommon.SpanID) {
	trace[0], trace[15], parent[7] = 0xab, n, n
	return fmt.Sprintf("00-%s-%s-01", trace, parent), trace, parent
}

const tracedMirror = "tracing: {endpoint: %q, sample: 0}\nregistry_proxies:\n  max_size: 1GiB\n  min_free: 1\n  registries:\n" +
	"    - {host: %q, insecure: true, username: %s, password: %s}\n"

// TestTraces has three clients with traces of their own pull one blob at once,
// from a registry that wants a token and redirects to signed URLs.
func TestTraces(t *testing.T) {
	c := startCollector(t)
	up := registry.Start(t, registry.Options{Storage: true, Users: map[string]string{puller: secret}})
	img := up.AddImage("app", "v1", registry.NewLayer(1, 300<<10))
	layer := img.Blobs()[len(img.Blobs())-1]
	gate := registry.NewGate()
	up.Set(registry.Fault{On: registry.Storage, Gate: gate, At: 100})
	l := startLarder(t, fmt.Sprintf(tracedMirror, c.URL, up.Host(), puller, strings.ReplaceAll(fmt.Sprintf("%q", secret), `"`, "'")), "mirror")

	get := func(n byte, path string) (int, error) {
		header, _, _ := traceparent(n)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+l.addr+"/v2/"+path+"?ns="+url.QueryEscape(up.Host()), nil)
		if err != nil {
			return 0, err
		}
		req.Header.Set("Traceparent", header)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return 0, err
		}
		defer resp.Body.Close()
		_, err = io.Copy(io.Discard, resp.Body)
		return resp.StatusCode, err
	}
	var readers sync.WaitGroup
	for n := range byte(3) {
		readers.Go(func() {
			if status, err := get(n+1, "app/blobs/"+layer.Digest.String()); err != nil || status != http.StatusOK {
				t.Errorf("reader %d: %d, %v", n, status, err)
			}
		})
	}
	process.Await(t, "three readers", func(context.Context) error {
		if !strings.Contains(l.metrics(t), "larder_followers 3\n") {
			return errors.New("not yet")
		}
		return nil
	})
	gate.Open()
	readers.Wait()
	if status, err := get(9, "app/manifests/v1"); err != nil || status != http.StatusOK {
		t.Errorf("manifest: %d, %v", status, err)
	}
	// Nobody asked for this one to be traced, and the share of such is 0.
	do(t, http.MethodGet, "http://"+l.addr+"/v2/app/tags/list?ns="+url.QueryEscape(up.Host()), nil, nil)
	process.Await(t, "the spans", func(context.Context) error {
		if got := len(c.named("GET blob")); got != 3 || len(c.named("fill")) == 0 || len(c.named("GET manifest")) == 0 {
			return fmt.Errorf("%d of the blob", got)
		}
		return nil
	})
	var fill ptrace.Span
	fills := 0
	for _, s := range c.named("fill") {
		if attribute(s, "larder.digest") == layer.Digest.String() {
			fill = s
			fills++
		}
	}
	if fills != 1 {
		t.Fatalf("%d fills of one blob", fills)
	}
	began, links := 0, 0
	for _, s := range c.named("GET blob") {
		var n byte
		for i := range byte(3) {
			if _, trace, parent := traceparent(i + 1); s.TraceID() == trace && s.ParentSpanID() == parent {
				n = i + 1
			}
		}
		if n == 0 || s.Kind() != ptrace.SpanKindServer {
			t.Errorf("a request is in trace %s below %s", s.TraceID(), s.ParentSpanID())
		}
		if fill.ParentSpanID() == s.SpanID() && fill.TraceID() == s.TraceID() {
			began++
			continue
		}
		for _, link := range s.Links().All() {
			if link.TraceID() == fill.TraceID() && link.SpanID() == fill.SpanID() {
				links++
			}
		}
	}
	if began != 1 || links != 2 {
		t.Errorf("%d requests began the fill, %d link to it", began, links)
	}
	if attribute(fill, "larder.held") != fmt.Sprint(layer.Size()) || attribute(fill, "larder.registry") != up.Host() {
		t.Errorf("the fill says %v", fill.Attributes().AsRaw())
	}
	wire := map[string]bool{} // who was asked on the fill's behalf
	for _, ask := range c.named("ask upstream") {
		if ask.ParentSpanID() != fill.SpanID() {
			continue
		}
		for _, name := range []string{"HTTP GET", "HTTP token"} {
			for _, s := range c.named(name) {
				if s.ParentSpanID() == ask.SpanID() && s.Kind() == ptrace.SpanKindClient {
					wire[name+" "+attribute(s, "server.address")] = true
				}
			}
		}
	}
	if !wire["HTTP GET "+up.Host()] || !wire["HTTP GET "+up.StorageHost()] || len(wire) < 3 {
		t.Errorf("asked were %v, want the registry, its token server and its storage", wire)
	}
	if n := len(c.named("GET tags")); n != 0 {
		t.Errorf("%d requests were traced that nobody wanted to be", n)
	}
	c.mu.Lock()
	said := c.raw.String()
	c.mu.Unlock()
	for _, never := range []string{secret, "?", "Bearer", "Basic", "Authorization", "signature", "127.0.0.1:1\""} {
		if strings.Contains(said, never) {
			t.Errorf("a span has %q", never)
		}
	}
	for _, r := range up.Requests() {
		if r.Header.Get("Traceparent") != "" {
			t.Error("a traceparent went upstream")
		}
	}
	_, trace, _ := traceparent(9)
	if !strings.Contains(l.Output(), `"trace":"`+trace.String()+`"`) {
		t.Error("the access log does not name the trace")
	}
	l.Stop(t)
}

// TestASilentCollector: it takes connections and never answers. Every pull is
// answered all the same, spans are lost, and the mirror stops when it is told to.
func TestASilentCollector(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	up := registry.Start(t, registry.Options{})
	img := up.AddImage("app", "v1", registry.NewLayer(1, 10<<10))
	config := strings.Replace(fmt.Sprintf(tracedMirror, "http://"+silent.Addr().String(), up.Host(), puller, "x"), "sample: 0", "sample: 1", 1)
	l := startLarder(t, config, "mirror")
	w := &world{}
	for range 400 {
		w.pull(t, l, up.Host(), "app", "v1", img)
	}
	process.Await(t, "spans to be lost", func(context.Context) error {
		if lost := sums(t, l.metrics(t), "larder_trace_spans_total", "result")["lost"]; lost < 100 {
			return fmt.Errorf("%v are", lost)
		}
		return nil
	})
	l.Stop(t)
}

// TestTracesByEnvironment: OpenTelemetry's own variables turn traces on and name
// what made them.
func TestTracesByEnvironment(t *testing.T) {
	got := make(chan map[string]any, 100)
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var body struct {
			ResourceSpans []struct {
				Resource struct {
					Attributes []struct {
						Key   string
						Value struct{ StringValue string }
					}
				}
			}
		}
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			t.Error(err)
			return
		}
		named := map[string]any{}
		for _, a := range body.ResourceSpans[0].Resource.Attributes {
			named[a.Key] = a.Value.StringValue
		}
		got <- named
	}))
	defer s.Close()
	l := startLarderWith(t, []string{"OTEL_EXPORTER_OTLP_ENDPOINT=" + s.URL, "OTEL_SERVICE_NAME=cache", "OTEL_RESOURCE_ATTRIBUTES=k8s.node.name=n1"},
		"registry_proxies: {min_free: 1}\n", "mirror")
	do(t, http.MethodGet, "http://"+l.addr+"/v2/", nil, nil)
	ctx, cancel := context.WithTimeout(t.Context(), process.Patience)
	defer cancel()
	select {
	case named := <-got:
		if named["service.name"] != "cache" || named["k8s.node.name"] != "n1" || named["host.name"] == "" {
			t.Errorf("named %v", named)
		}
	case <-ctx.Done():
		t.Fatal("no spans")
	}
}
