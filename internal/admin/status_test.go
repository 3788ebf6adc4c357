package admin_test

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"
	"github.com/sirupsen/logrus/hooks/test"
	"golang.org/x/net/html"

	"github.com/larder-registry/larder/internal/admin"
	"github.com/larder-registry/larder/internal/status"
)

// patience bounds what takes a moment; machines may be busy.
const patience = time.Minute

// hostile is text that would be something else were it not escaped.
const hostile = `"><script>alert(1)</script> ' onload=x ` + "`" + ` </style> <!-- %s%d &amp; \u202e`

// everything has every part, with text in each.
func everything(text string) *status.Document {
	now := time.Now()
	left := int64(12)
	return &status.Document{
		Schema: 1, Mode: "mirror", Version: text, Host: text, At: now, Started: now.Add(-time.Hour),
		Checks:  []status.Check{{Name: text, Problem: text}, {Name: "fine"}, {Name: text, Problem: text, Advisory: true}},
		Disk:    &status.Disk{Bytes: 10, Limit: 5, Arriving: 1, Free: 1, Total: 10, MinFree: 2, Evictions: map[string]uint64{text: 1}, Problem: text},
		Traffic: &status.List[status.Traffic]{Total: 2, Items: []status.Traffic{{Registry: text, Requests: 10, Hits: 3, Misses: 1, Stale: 1, Denied: 1, Saved: 100, Passed: 50, Fetched: 60}}},
		History: &status.Series{Every: 300, Until: now, Counts: map[string][]int64{"requests": {4, 0, 9}, "hits": {2, 0, 9}, "saved": {0, 5, 1}, "passed": {7, 0, 0}, "served": {1}, "received": {2}, "reviews": {3}, "denied": {1}}},
		Fills:   &status.List[status.Fill]{Total: 4, Items: []status.Fill{{Registry: text, Repository: text, Digest: text, Size: 100, Bytes: 40, Rate: 10, Private: true}, {Digest: text, Size: -1}, {Digest: text, Size: 5, Ahead: true}}},
		Upstreams: &status.List[status.Upstream]{Total: 9, Items: []status.Upstream{
			{Endpoint: text, Registry: text, Breaker: "open", Until: now.Add(time.Minute), Error: text, Reason: "status", ErrorAt: now, Remaining: &left},
			{Endpoint: text, Breaker: "half-open"},
			{Endpoint: text, Breaker: "closed", QuietUntil: now.Add(time.Hour)},
			{Endpoint: text, Failures: 2},
			{Endpoint: text},
		}},
		Images: &status.List[status.Image]{Total: 7, At: now, Items: []status.Image{
			{Registry: text, Repository: text, Tag: text, Digest: text, Kind: text, Platforms: []string{text}, Listed: 3, Size: 10, Used: now, Pinned: true, Warm: true, Partial: true, Private: true, Referrers: 2},
			{Repository: text, Digest: "sha256:0123456789abcdef", Kind: "index", Listed: 2, Referrers: 1},
		}},
		Repositories: &status.List[status.Repository]{Total: 2, Items: []status.Repository{{Name: text, Size: 5, Tags: 1, Manifests: 3, Referrers: 1, Pushed: now, Private: true}}},
		Reviews: &status.Reviews{
			Counts: map[string]int64{text: 3, "denied": 1}, Revision: text,
			Denied:  []status.Verdict{{At: now, Namespace: text, Object: text, Operation: text, Resource: text, Decision: "denied", Mode: text, Image: text, Images: 3, Rule: text, DryRun: true}, {At: now, Decision: "would_deny"}},
			Allowed: []status.Verdict{{At: now, Resource: text, Decision: text}},
		},
		Errors: &status.List[status.Event]{Total: 60, Items: []status.Event{{At: now, Level: text, Message: text, Error: text, Subject: text, Count: 3}}},
	}
}

// nothing is a process that has just been started.
func nothing() *status.Document {
	now := time.Now()
	return &status.Document{
		Schema: 1, Mode: "mirror", At: now, Started: now, Ready: true,
		Disk: &status.Disk{Free: -1, Total: -1}, Traffic: &status.List[status.Traffic]{}, History: &status.Series{Every: 300, Until: now, Counts: map[string][]int64{"requests": {0}, "hits": {0}, "saved": {0}, "passed": {0}}},
		Fills: &status.List[status.Fill]{}, Upstreams: &status.List[status.Upstream]{}, Images: &status.List[status.Image]{}, Repositories: &status.List[status.Repository]{},
		Reviews: &status.Reviews{}, Errors: &status.List[status.Event]{},
	}
}

// serveStatus serves what ask says until the test ends.
func serveStatus(t *testing.T, ask admin.Status) *httptest.Server {
	t.Helper()
	logger, _ := test.NewNullLogger()
	h, err := admin.New(admin.Config{Gatherer: prometheus.NewRegistry(), Log: logrus.NewEntry(logger), Status: ask})
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s
}

// fetch asks for path.
func fetch(t *testing.T, s *httptest.Server, method, path string, change func(*http.Request)) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, s.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(req)
	}
	client := &http.Client{Transport: s.Client().Transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var b strings.Builder
	if _, err := bufio.NewReader(resp.Body).WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	return resp, b.String()
}

// elements parses a page and gives how often each element and attribute is
// there; what is opened and not closed is an error.
func elements(t *testing.T, page string) map[string]int {
	t.Helper()
	void := []string{"meta", "link", "input", "br", "!doctype"}
	found, open := map[string]int{}, []string{}
	z := html.NewTokenizer(strings.NewReader(page))
	for {
		kind := z.Next()
		token := z.Token()
		switch kind {
		case html.ErrorToken:
			if len(open) > 0 {
				t.Errorf("not closed: %v", open)
			}
			return found
		case html.StartTagToken, html.SelfClosingTagToken:
			found[token.Data]++
			seen := map[string]bool{}
			for _, a := range token.Attr {
				found["@"+a.Key]++
				if seen[a.Key] {
					t.Errorf("%s has %s twice", token, a.Key)
				}
				seen[a.Key] = true
			}
			if kind == html.StartTagToken && !slices.Contains(void, token.Data) {
				open = append(open, token.Data)
			}
		case html.EndTagToken:
			if len(open) == 0 || open[len(open)-1] != token.Data {
				t.Fatalf("%s closes %v", token, open)
			}
			open = open[:len(open)-1]
		}
	}
}

// TestTextsAreEscaped compares the page of a node whose every text is hostile with
// one whose texts are harmless: they have the same elements and attributes.
func TestTextsAreEscaped(t *testing.T) {
	for _, mode := range []string{"mirror", "central"} {
		pages := make([]map[string]int, 0, 2)
		for _, text := range []string{hostile, "harmless"} {
			s := serveStatus(t, func(status.View) *status.Document {
				d := everything(text)
				d.Mode = mode
				return d
			})
			_, page := fetch(t, s, "GET", "/status?find="+url.QueryEscape(text[:8]), nil)
			if n := strings.Count(page, html.EscapeString(text)); n < 40 {
				t.Errorf("%s: %q is there %d times", mode, text, n)
			}
			pages = append(pages, elements(t, page))
		}
		if !reflect.DeepEqual(pages[0], pages[1]) {
			t.Errorf("%s: %v\nwant %v", mode, pages[0], pages[1])
		}
	}
}

func TestAnEmptyPageIsWhole(t *testing.T) {
	for _, mode := range []string{"mirror", "central"} {
		d := nothing()
		d.Mode = mode
		_, page := fetch(t, serveStatus(t, func(status.View) *status.Document { return d }), "GET", "/status", nil)
		if found := elements(t, page); found["table"] != 1 || found["script"] != 1 {
			t.Errorf("%s: %v", mode, found)
		}
	}
	bare := &status.Document{Mode: "central"}
	_, page := fetch(t, serveStatus(t, func(status.View) *status.Document { return bare }), "GET", "/status", nil)
	if found := elements(t, page); found["section"] != 2 {
		t.Errorf("a bare one: %v", found)
	}
}

func TestThePolicyOfThePage(t *testing.T) {
	s := serveStatus(t, func(status.View) *status.Document { return everything("x") })
	resp, page := fetch(t, s, "GET", "/status", nil)
	policy := map[string]string{}
	for part := range strings.SplitSeq(resp.Header.Get("Content-Security-Policy"), "; ") {
		name, value, _ := strings.Cut(part, " ")
		policy[name] = value
	}
	hash := func(element string) string {
		m := regexp.MustCompile(`(?s)<` + element + `>(.*?)</` + element + `>`).FindStringSubmatch(page)
		sum := sha256.Sum256([]byte(m[1]))
		return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
	}
	want := map[string]string{
		"default-src": "'none'", "style-src": hash("style"), "script-src": hash("script"), "img-src": "data:",
		"connect-src": "'self'", "form-action": "'self'", "base-uri": "'none'", "frame-ancestors": "'none'",
	}
	if !reflect.DeepEqual(policy, want) {
		t.Errorf("%v, want %v", policy, want)
	}
	if strings.Contains(page, "style=") || regexp.MustCompile(`\son[a-z]+=`).MatchString(page) || regexp.MustCompile(`(src|href|action)="?(https?:)?//`).MatchString(page) {
		t.Error("the page has what its policy forbids, or an address elsewhere")
	}
	for _, path := range []string{"/status", "/status.json", "/status?sort=x"} {
		resp, _ := fetch(t, s, "GET", path, nil)
		for name, want := range map[string]string{
			"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store",
			"Cross-Origin-Resource-Policy": "same-origin", "X-Frame-Options": "DENY", "Access-Control-Allow-Origin": "",
		} {
			if got := resp.Header.Get(name); got != want {
				t.Errorf("%s: %s is %q, want %q", path, name, got, want)
			}
		}
	}
}

func TestStatusIsReadOnly(t *testing.T) {
	s := serveStatus(t, func(status.View) *status.Document { return nothing() })
	for _, c := range []struct {
		method, path string
		status       int
	}{
		{"GET", "/", 302},
		{"GET", "/status", 200},
		{"HEAD", "/status", 200},
		{"HEAD", "/status.json", 200},
		{"HEAD", "/status/events", 200},
		{"GET", "/status?limit=0", 400},
		{"GET", "/status.json?sort=age", 400},
		{"GET", "/status/events?limit=x", 400},
		{"GET", "/status/", 404},
		{"POST", "/status", 405},
		{"DELETE", "/status.json", 405},
		{"PUT", "/status/events", 405},
	} {
		if resp, _ := fetch(t, s, c.method, c.path, nil); resp.StatusCode != c.status {
			t.Errorf("%s %s: %s, want %d", c.method, c.path, resp.Status, c.status)
		}
	}
	if resp, _ := fetch(t, s, "GET", "/", nil); resp.Header.Get("Location") != "/status" {
		t.Errorf("/ leads to %s", resp.Header.Get("Location"))
	}
}

// TestPrivateNamesAreForThisHost: who comes from elsewhere, or may, is told none.
func TestPrivateNamesAreForThisHost(t *testing.T) {
	const name = "team-secret"
	var asked atomic.Value
	s := serveStatus(t, func(v status.View) *status.Document {
		asked.Store(v.Public)
		d := everything("x")
		d.Images.Items[0].Repository, d.Fills.Items[0].Repository, d.Repositories.Items[0].Name = name, name, name
		d.Errors.Items[0].Error, d.Upstreams.Items[0].Error, d.Reviews.Denied[0].Image = name, name, name
		return d
	})
	_, port, err := net.SplitHostPort(strings.TrimPrefix(s.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	host := func(name string) func(*http.Request) { return func(r *http.Request) { r.Host = name } }
	header := func(name, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set(name, value) }
	}
	for what, c := range map[string]struct {
		change func(*http.Request)
		told   bool
	}{
		"from here":           {nil, true},
		"by name":             {host("localhost:" + port), true},
		"by another address":  {host("127.1.2.3:" + port), true},
		"by IPv6":             {host("[::1]:" + port), true},
		"without a port":      {host("[::1]"), true},
		"a name that rebinds": {host("evil.example:" + port), false},
		"a longer name":       {host("localhost.evil.example"), false},
		"an address":          {host("10.0.0.7:" + port), false},
		"by a proxy":          {header("X-Forwarded-For", "10.1.1.1"), false},
		"by another proxy":    {header("Forwarded", "for=10.1.1.1"), false},
	} {
		for _, path := range []string{"/status", "/status.json"} {
			_, text := fetch(t, s, "GET", path, c.change)
			if n := strings.Count(text, name); (n > 0) != c.told || c.told && n < 6 || asked.Load() == c.told {
				t.Errorf("%s: %s names it %d times, and asked for public: %v", what, path, n, asked.Load())
			}
		}
	}
}

// TestAConnectionFromElsewhere comes from an address that is not loopback.
func TestAConnectionFromElsewhere(t *testing.T) {
	logger, _ := test.NewNullLogger()
	h, err := admin.New(admin.Config{Gatherer: prometheus.NewRegistry(), Log: logrus.NewEntry(logger), Status: func(status.View) *status.Document { return everything("team-secret") }})
	if err != nil {
		t.Fatal(err)
	}
	for from, told := range map[string]bool{"10.1.2.3:4": false, "[2001:db8::1]:4": false, "[::ffff:127.0.0.1]:4": true, "nonsense": false} {
		w := httptest.NewRecorder()
		r := httptest.NewRequest(http.MethodGet, "http://127.0.0.1:8001/status.json", nil)
		r.RemoteAddr = from
		h.ServeHTTP(w, r)
		var doc status.Document
		if err := json.Unmarshal(w.Body.Bytes(), &doc); err != nil {
			t.Fatal(err)
		}
		if doc.Names != told || (doc.Images.Items[0].Repository != "") != told {
			t.Errorf("%s: %v", from, doc.Images.Items[0])
		}
	}
}

// watcher is a client of /status/events.
type watcher struct {
	resp  *http.Response
	lines *bufio.Scanner
	end   context.CancelFunc
}

func watch(t *testing.T, s *httptest.Server) *watcher {
	t.Helper()
	ctx, end := context.WithTimeout(t.Context(), patience)
	t.Cleanup(end)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+"/status/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := s.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	return &watcher{resp, lines, end}
}

// next gives the next part that is sent.
func (w *watcher) next(t *testing.T) (id, text string) {
	t.Helper()
	for w.lines.Scan() {
		if data, ok := strings.CutPrefix(w.lines.Text(), "data: "); ok {
			var c struct{ ID, HTML string }
			if err := json.Unmarshal([]byte(data), &c); err != nil {
				t.Fatal(err)
			}
			return c.ID, c.HTML
		}
	}
	t.Fatalf("the events end: %v", w.lines.Err())
	return "", ""
}

// TestEvents sends every part once, and then the one that changed.
func TestEvents(t *testing.T) {
	at := time.Now()
	var images atomic.Int64
	s := serveStatus(t, func(status.View) *status.Document {
		d := everything("x")
		// What does not stand still by itself.
		d.At, d.Started, d.Upstreams, d.Reviews, d.Repositories, d.Errors = at, at, nothing().Upstreams, nil, nil, nothing().Errors
		d.Images = &status.List[status.Image]{Total: int(images.Load()), Items: []status.Image{{Repository: fmt.Sprint("image-", images.Load())}}}
		d.History = nil
		return d
	})
	w := watch(t, s)
	if got := w.resp.Header.Get("Content-Type"); got != "text/event-stream" {
		t.Errorf("type %s", got)
	}
	var first []string
	for range 8 {
		id, _ := w.next(t)
		first = append(first, id)
	}
	if want := []string{"state", "figures", "fills", "disk", "upstreams", "traffic", "images", "errors"}; !slices.Equal(first, want) {
		t.Errorf("%v, want %v", first, want)
	}
	images.Store(7)
	if id, text := w.next(t); id != "figures" || !strings.Contains(text, "<dd>7<") {
		t.Errorf("%s: %s", id, text)
	}
	if id, text := w.next(t); id != "images" || !strings.Contains(text, "image-7") || strings.Contains(text, "<form") {
		t.Errorf("%s: %s", id, text)
	}
}

// TestWatchersAreBounded lets sixteen watch and, once one leaves, another.
func TestWatchersAreBounded(t *testing.T) {
	s := serveStatus(t, func(status.View) *status.Document { return nothing() })
	var all []*watcher
	for range 16 {
		w := watch(t, s)
		w.next(t)
		all = append(all, w)
	}
	if resp, text := fetch(t, s, "GET", "/status/events", nil); resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" {
		t.Errorf("the 17th: %s %s", resp.Status, text)
	}
	if resp, _ := fetch(t, s, "GET", "/status", nil); resp.StatusCode != 200 {
		t.Errorf("the page: %s", resp.Status)
	}
	all[3].end()
	deadline := time.Now().Add(patience)
	for {
		w := watch(t, s)
		if w.resp.StatusCode == 200 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(w.resp.Status)
		}
	}
}

// many are 10,000 images.
func many() []status.Image {
	images := make([]status.Image, 10_000)
	for i := range images {
		images[i] = status.Image{
			Registry: "registry.example.com", Repository: fmt.Sprintf("team-%02d/service-%03d", i%40, i%500), Tag: fmt.Sprint("v", i), Digest: fmt.Sprintf("sha256:%064d", i),
			Kind: "index", Platforms: []string{"linux/arm64"}, Listed: 2, Size: int64(i) << 20, Used: time.Unix(int64(i), 0),
		}
	}
	return images
}

// BenchmarkPage writes the page of a node with 10,000 images, a hundred of which
// are shown.
func BenchmarkPage(b *testing.B) {
	images := many()
	logger, _ := test.NewNullLogger()
	h, err := admin.New(admin.Config{Gatherer: prometheus.NewRegistry(), Log: logrus.NewEntry(logger), Status: func(v status.View) *status.Document {
		d := everything("x")
		d.Images = status.Select(images, v)
		return d
	}})
	if err != nil {
		b.Fatal(err)
	}
	for _, path := range []string{"/status", "/status.json", "/status?sort=name&limit=1000"} {
		b.Run(path, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "http://localhost"+path, nil))
			}
		})
	}
}
