package tracing_test

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"
	"github.com/sirupsen/logrus/hooks/test"
	"go.uber.org/goleak"

	"github.com/larder-registry/larder/internal/tracing"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is longer than anything here takes on a busy machine.
const patience = time.Minute

// span is what a collector reads of a span.
type span struct {
	TraceID, SpanID, ParentSpanID, Name string
	TraceState                          string
	Kind                                int
	StartTimeUnixNano, EndTimeUnixNano  string
	Attributes                          []struct {
		Key   string
		Value struct{ StringValue, IntValue string }
	}
	Links  []struct{ TraceID, SpanID string }
	Status struct {
		Code    int
		Message string
	}
}

func (s span) text(key string) string {
	for _, a := range s.Attributes {
		if a.Key == key {
			return a.Value.StringValue + a.Value.IntValue
		}
	}
	return ""
}

// collector takes spans, until the test ends.
type collector struct {
	*httptest.Server
	spans chan span
}

func startCollector(t *testing.T) *collector {
	t.Helper()
	c := &collector{spans: make(chan span, 10000)}
	c.Server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost || r.URL.Path != "/v1/traces" || r.Header.Get("Content-Type") != "application/json" {
			t.Errorf("got %s %s with %v", r.Method, r.URL, r.Header)
		}
		var body struct {
			ResourceSpans []struct {
				ScopeSpans []struct{ Spans []span }
			}
		}
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			t.Error(err)
		}
		for _, rs := range body.ResourceSpans {
			for _, ss := range rs.ScopeSpans {
				for _, s := range ss.Spans {
					c.spans <- s
				}
			}
		}
	}))
	t.Cleanup(c.Close)
	return c
}

// named returns the spans that have arrived, by name.
func (c *collector) named() map[string]span {
	all := map[string]span{}
	for {
		select {
		case s := <-c.spans:
			all[s.Name] = s
		default:
			return all
		}
	}
}

// traced is a tracer with what it counts and logs.
type traced struct {
	*tracing.Tracer
	reg    *prometheus.Registry
	logged *test.Hook
}

func newTracer(t *testing.T, endpoint string, sample float64) traced {
	t.Helper()
	logger, logged := test.NewNullLogger()
	reg := prometheus.NewRegistry()
	tr, err := tracing.New(tracing.Config{
		Endpoint: endpoint, Sample: sample, Service: "larder-test", Version: "v0", Host: "here",
		Log: logrus.NewEntry(logger), Registerer: reg,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tr.Close(context.Background()) })
	return traced{tr, reg, logged}
}

// close has everything sent.
func (tr traced) close(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := tr.Close(ctx); err != nil {
		t.Error(err)
	}
}

// count is how many spans had that result.
func (tr traced) count(t *testing.T, result string) float64 {
	t.Helper()
	families, err := tr.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == "larder_trace_spans_total" && m.GetLabel()[0].GetValue() == result {
				return m.GetCounter().GetValue()
			}
		}
	}
	return -1
}

func TestSpans(t *testing.T) {
	c := startCollector(t)
	tr := newTracer(t, c.URL, 1)
	began := time.Now()
	ctx, first := tr.Receive(t.Context(), http.Header{"Traceparent": {"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}}, "GET", began)
	child, fill := tracing.Start(ctx, "fill", tracing.String("digest", strings.Repeat("d", 1000)), tracing.Int("size", 1<<40))
	_, wire := tracing.StartClient(child, "HTTP GET")
	_, second := tr.Receive(t.Context(), http.Header{}, "GET follower", began)
	second.Link(fill)
	wire.Fail("timeout")
	wire.End()
	second.End()
	first.Rename("GET blob")
	first.End()
	// It goes on after what began it, and so do its children.
	_, late := tracing.Start(fill.With(context.Background()), "late")
	late.End()
	fill.End()
	tr.close(t)

	got := c.named()
	if len(got) != 5 || tr.count(t, "sent") != 5 || tr.count(t, "lost") != 0 {
		t.Fatalf("got %v, %v sent", got, tr.count(t, "sent"))
	}
	const trace = "0af7651916cd43dd8448eb211c80319c"
	for name, parent := range map[string]string{
		"GET blob": "b7ad6b7169203331", "fill": got["GET blob"].SpanID, "HTTP GET": got["fill"].SpanID, "late": got["fill"].SpanID,
	} {
		if s := got[name]; s.TraceID != trace || s.ParentSpanID != parent {
			t.Errorf("%s is %s below %s", name, s.TraceID, s.ParentSpanID)
		}
	}
	if first.TraceID() != trace {
		t.Errorf("trace %s", first.TraceID())
	}
	follower := got["GET follower"]
	if follower.ParentSpanID != "" || follower.TraceID == trace || len(follower.Links) != 1 ||
		follower.Links[0].TraceID != trace || follower.Links[0].SpanID != got["fill"].SpanID {
		t.Errorf("the follower is %+v", follower)
	}
	if s := got["fill"]; s.text("digest") != strings.Repeat("d", 256) || s.text("size") != "1099511627776" || s.Kind != 1 || s.Status.Code != 0 {
		t.Errorf("the fill is %+v", s)
	}
	if s := got["HTTP GET"]; s.Kind != 3 || s.Status.Code != 2 || s.Status.Message != "timeout" || s.text("error.type") != "timeout" {
		t.Errorf("the request is %+v", s)
	}
	if s := got["GET blob"]; s.Kind != 2 || s.EndTimeUnixNano < s.StartTimeUnixNano {
		t.Errorf("the first is %+v", s)
	}
}

// TestSampling: a client's decision goes before ours.
func TestSampling(t *testing.T) {
	const id = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-"
	tests := map[string]struct {
		sample float64
		parent string
		want   bool
	}{
		"all":                  {1, "", true},
		"none":                 {0, "", false},
		"client wants one":     {0, id + "01", true},
		"client wants none":    {1, id + "00", false},
		"no traceparent":       {1, "00-zz-zz-01", true},
		"no traceparent, none": {0, "00-zz-zz-01", false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			tr := newTracer(t, "http://127.0.0.1:1", tt.sample)
			header := http.Header{}
			if tt.parent != "" {
				header.Set("Traceparent", tt.parent)
			}
			ctx, s := tr.Receive(t.Context(), header, "GET", time.Now())
			_, child := tracing.Start(ctx, "child")
			if s.Exists() != tt.want || child.Exists() != tt.want {
				t.Errorf("traced: %v, its child: %v", s.Exists(), child.Exists())
			}
		})
	}
}

// TestOff: without a tracer everything can be done, and costs nothing.
// TestWhatAClientTellsItsTracing is kept up to a bound, and joining its trace does
// not depend on it.
func TestWhatAClientTellsItsTracing(t *testing.T) {
	c := startCollector(t)
	tr := newTracer(t, c.URL, 1)
	long := make([]string, 4)
	for i := range long {
		long[i] = string('a'+rune(i)) + "=" + strings.Repeat("x", 200)
	}
	for name, state := range map[string]string{"short": "a=b", "long": strings.Join(long, ",")} {
		_, span := tr.Receive(t.Context(), http.Header{
			"Traceparent": {"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}, "Tracestate": {state},
		}, name, time.Now())
		span.End()
	}
	tr.close(t)
	got := c.named()
	for name, want := range map[string]string{"short": "a=b", "long": ""} {
		if s := got[name]; s.TraceState != want || s.ParentSpanID != "b7ad6b7169203331" {
			t.Errorf("%s: %+v", name, s)
		}
	}
}

func TestOff(t *testing.T) {
	var off *tracing.Tracer
	header := http.Header{"Traceparent": {"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}}
	ctx := t.Context()
	allocated := testing.AllocsPerRun(100, func() {
		received, s := off.Receive(ctx, header, "GET", time.Time{})
		_, child := tracing.Start(received, "child")
		s.Link(child)
		s.Rename("x")
		s.Fail("x")
		s.End()
		if received != ctx || s.Exists() || child.Exists() || s.TraceID() != "" || tracing.SpanOf(child.With(ctx)).Exists() {
			t.Error("there is a span")
		}
	})
	if allocated != 0 {
		t.Errorf("%v allocations", allocated)
	}
	if err := off.Close(ctx); err != nil {
		t.Error(err)
	}
}

// TestASilentCollectorHoldsNobodyUp: it takes connections and says nothing. More
// spans than the queue holds end at once all the same, and stopping takes no
// longer than it may.
func TestASilentCollectorHoldsNobodyUp(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	tr := newTracer(t, "http://"+l.Addr().String(), 1)
	const spans = 5000
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for range spans {
			_, s := tr.Receive(context.Background(), http.Header{}, "GET", time.Now())
			s.End()
		}
	}()
	select {
	case <-ended:
	case <-time.After(patience):
		t.Fatal("spans do not end")
	}
	if lost := tr.count(t, "lost"); lost < spans-1000 {
		t.Errorf("%v spans of %d are lost, and no more than some hundreds have a place", lost, spans)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := tr.Close(ctx); err == nil {
		t.Error("closed as if all had been sent")
	}
	if sent := tr.count(t, "sent"); sent != 0 {
		t.Errorf("%v were sent", sent)
	}
}

// TestWhatACollectorSays: what it does not take is lost, and told of once.
func TestWhatACollectorSays(t *testing.T) {
	tests := map[string]struct {
		status     int
		body       string
		sent, lost float64
		logged     string
	}{
		"empty":         {200, "", 2, 0, ""},
		"no text":       {200, "{}", 2, 0, ""},
		"one rejected":  {200, `{"partialSuccess":{"rejectedSpans":"1","errorMessage":"old"}}`, 1, 1, ""},
		"number":        {200, `{"partialSuccess":{"rejectedSpans":2}}`, 0, 2, ""},
		"more than all": {200, `{"partialSuccess":{"rejectedSpans":"99"}}`, 0, 2, ""},
		"negative":      {200, `{"partialSuccess":{"rejectedSpans":"-1"}}`, 2, 0, ""},
		"nonsense":      {200, `{"partialSuccess":{"rejectedSpans":"x"}}`, 2, 0, ""},
		"no JSON":       {202, "thank you", 2, 0, ""},
		"busy":          {503, "later", 0, 2, "answered 503"},
		"not found":     {404, "", 0, 2, "answered 404"},
		"elsewhere":     {307, "", 0, 2, "answered 307"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/elsewhere" {
					t.Error("spans went elsewhere")
				}
				w.Header().Set("Location", "/elsewhere")
				w.WriteHeader(tt.status)
				io.WriteString(w, tt.body)
			}))
			defer s.Close()
			tr := newTracer(t, s.URL+"/", 1)
			for range 2 {
				_, span := tr.Receive(t.Context(), http.Header{}, "GET", time.Now())
				span.End()
			}
			tr.close(t)
			if sent, lost := tr.count(t, "sent"), tr.count(t, "lost"); sent != tt.sent || lost != tt.lost {
				t.Errorf("sent %v, lost %v", sent, lost)
			}
			var said string
			for _, e := range tr.logged.AllEntries() {
				line, err := e.String()
				if err != nil {
					t.Fatal(err)
				}
				said += line
			}
			if tt.logged == "" && said != "" || !strings.Contains(said, tt.logged) {
				t.Errorf("logged %q", said)
			}
		})
	}
}

// TestItIsTold: a warning when the collector is gone, and a word when it is back.
func TestItIsTold(t *testing.T) {
	answers := make(chan int, 4)
	for _, status := range []int{200, 503, 503, 200} {
		answers <- status
	}
	done := make(chan struct{}, 4)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(<-answers)
		done <- struct{}{}
	}))
	defer s.Close()
	tr := newTracer(t, s.URL, 1)
	for range 4 {
		_, span := tr.Receive(t.Context(), http.Header{}, "GET", time.Now())
		span.End()
		select {
		case <-done:
		case <-time.After(patience):
			t.Fatal("not sent")
		}
	}
	tr.close(t)
	var said []string
	for _, e := range tr.logged.AllEntries() {
		said = append(said, e.Level.String()+" "+e.Message)
	}
	if got := strings.Join(said, "; "); got != "warning the collector takes no traces; info the collector takes traces again" {
		t.Errorf("said %q", got)
	}
}

func TestEndpoints(t *testing.T) {
	logger, _ := test.NewNullLogger()
	for _, endpoint := range []string{"", "127.0.0.1:4318", "grpc://127.0.0.1", "http://", "http://u:geheim@127.0.0.1", "http://127.0.0.1/?k=geheim", "http://127.0.0.1/#geheim", "http://%zz"} {
		_, err := tracing.New(tracing.Config{Endpoint: endpoint, Service: "s", Log: logrus.NewEntry(logger)})
		if err == nil || strings.Contains(err.Error(), "geheim") {
			t.Errorf("%s: %v", endpoint, err)
		}
	}
}

func BenchmarkOff(b *testing.B) {
	var off *tracing.Tracer
	header := http.Header{}
	for b.Loop() {
		ctx, s := off.Receive(b.Context(), header, "GET", time.Time{})
		if tracing.SpanOf(ctx).Exists() {
			b.Fatal("a span")
		}
		s.End()
	}
}
