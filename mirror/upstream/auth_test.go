package upstream

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"oras.land/oras-go/v2/registry/remote/auth"

	"github.com/larder-registry/larder/internal/oci"
)

// gate is a registry behind a token server: /token gives out t1, t2, …; only
// the newest is accepted.
type gate struct {
	mu      sync.Mutex
	issued  int
	revoked bool
	queries []string // of the token requests, with their Authorization
	fail    []int    // statuses for the token requests to come
	answer  string   // of the token server; has a %s for the token
	hold    chan struct{}
	serve   http.HandlerFunc
}

func (g *gate) current() string { return fmt.Sprintf("t%d", g.issued) }

func (g *gate) revoke() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.revoked = true
}

func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/token" {
		g.token(w, r)
		return
	}
	g.mu.Lock()
	ok := !g.revoked && g.issued > 0 && r.Header.Get("Authorization") == "Bearer "+g.current()
	g.mu.Unlock()
	if !ok {
		w.Header().Set("Www-Authenticate", `Bearer realm="http://`+r.Host+`/token",service="reg",scope="repository:team/app:pull"`)
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = io.WriteString(w, `{"errors":[{"code":"UNAUTHORIZED"}]}`)
		return
	}
	g.serve(w, r)
}

func (g *gate) token(w http.ResponseWriter, r *http.Request) {
	if g.hold != nil {
		select {
		case <-g.hold:
		case <-r.Context().Done():
			return
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.queries = append(g.queries, r.Header.Get("Authorization")+"?"+r.URL.RawQuery)
	if len(g.fail) > 0 {
		w.WriteHeader(g.fail[0])
		g.fail = g.fail[1:]
		return
	}
	g.issued++
	g.revoked = false
	if g.answer == "" {
		g.answer = `{"token":"%s","expires_in":300}`
	}
	_, _ = fmt.Fprintf(w, g.answer, g.current())
}

func (g *gate) tokenRequests() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append([]string(nil), g.queries...)
}

func newGate(t *testing.T, g *gate) *origin {
	t.Helper()
	if g.serve == nil {
		g.serve = answer(http.StatusOK, manifestHeader(manifestJSON), manifestJSON)
	}
	return newOrigin(t, g.ServeHTTP)
}

const (
	getManifest = "GET /v2/team/app/manifests/v1"
	getToken    = "GET /token"
)

func TestBearer(t *testing.T) {
	g := &gate{}
	o := newGate(t, g)
	entry := o.entry(t)
	entry.Username, entry.Password = "user", "pass"
	c := newClientOf(t, Config{Registries: []Registry{entry}})
	for range 3 {
		if _, err := c.Manifest(t.Context(), o.tag("v1")); err != nil {
			t.Fatalf("Manifest: %v", err)
		}
	}
	wantRequests(t, o, getManifest, getToken, getManifest, getManifest, getManifest)
	basic := "Basic " + base64.StdEncoding.EncodeToString([]byte("user:pass"))
	want := basic + "?scope=repository%3Ateam%2Fapp%3Apull&service=reg"
	if got := g.tokenRequests(); len(got) != 1 || got[0] != want {
		t.Errorf("token requests: %q, want %q", got, want)
	}
}

func TestBearerRenewal(t *testing.T) {
	now := newClock()
	for _, test := range []struct {
		name    string
		answer  string
		between func(*gate)
		want    []string
	}{
		{"refused midway is renewed once", "", (*gate).revoke, []string{getManifest, getToken, getManifest, getManifest, getToken, getManifest}},
		{"still good", "", func(*gate) { now.advance(4 * time.Minute) }, []string{getManifest, getToken, getManifest, getManifest}},
		{"expired is not sent", "", func(*gate) { now.advance(5 * time.Minute) }, []string{getManifest, getToken, getManifest, getManifest, getToken, getManifest}},
		{"a minute without expires_in", `{"access_token":"%s"}`, func(*gate) { now.advance(55 * time.Second) }, []string{getManifest, getToken, getManifest, getManifest, getToken, getManifest}},
		{"an hour at most", `{"token":"%s","expires_in":9999999999}`, func(*gate) { now.advance(55 * time.Minute) }, []string{getManifest, getToken, getManifest, getManifest, getToken, getManifest}},
	} {
		t.Run(test.name, func(t *testing.T) {
			g := &gate{answer: test.answer}
			o := newGate(t, g)
			c := newClientOf(t, Config{Registries: []Registry{o.entry(t)}, Now: now.now})
			for range 2 {
				if _, err := c.Manifest(t.Context(), o.tag("v1")); err != nil {
					t.Fatalf("Manifest: %v", err)
				}
				test.between(g)
			}
			wantRequests(t, o, test.want...)
		})
	}
}

// TestBearerRenewalOnResume: the token is refused between a body that broke and
// the request for the rest.
func TestBearerRenewalOnResume(t *testing.T) {
	content := pattern(10_000)
	dgst := digest.FromBytes(content)
	g := &gate{}
	g.serve = func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Range") == "" {
			w.Header().Set("Content-Length", itoa(len(content)))
			_, _ = w.Write(content[:4000])
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}
		blobServer(content)(w, r)
	}
	o := newGate(t, g)
	c := newClient(t, o)
	body, err := c.Blob(t.Context(), o.name(), dgst, oci.Span{Start: 0, End: -1})
	if err != nil {
		t.Fatalf("Blob: %v", err)
	}
	first, err := io.ReadAll(body)
	body.Close()
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatalf("read: %v", err)
	}
	g.revoke()
	body, err = c.Blob(t.Context(), o.name(), dgst, oci.Span{Start: int64(len(first)), End: -1})
	if err != nil {
		t.Fatalf("Blob, the rest: %v", err)
	}
	defer body.Close()
	rest, err := io.ReadAll(body)
	if err != nil || string(append(first, rest...)) != string(content) {
		t.Errorf("read the rest: %d bytes, %v", len(rest), err)
	}
	if got := o.last(t).Header.Get("Range"); got != "bytes="+itoa(len(first))+"-" {
		t.Errorf("Range after the renewal: %q", got)
	}
}

func TestTokenServerFailures(t *testing.T) {
	for _, test := range []struct {
		name   string
		fail   []int
		answer string
		err    error
		reason string
		want   []string
	}{
		{"503 once", []int{503}, "", nil, "", []string{getManifest, getToken, getManifest, getToken, getManifest}},
		{"503 ever", []int{503, 503, 503, 503}, "", oci.ErrUnavailable, "status", []string{getManifest, getToken, getManifest, getToken, getManifest, getToken}},
		{"401", []int{401}, "", oci.ErrUnauthorized, "error", []string{getManifest, getToken}},
		{"403", []int{403}, "", oci.ErrUnauthorized, "error", []string{getManifest, getToken}},
		{"429", []int{429}, "", oci.ErrTooManyRequests, "ratelimit", []string{getManifest, getToken}},
		{"no token in it", nil, `{"no":"%s"}`, oci.ErrUnavailable, "token", []string{getManifest, getToken, getManifest, getToken, getManifest, getToken}},
	} {
		t.Run(test.name, func(t *testing.T) {
			g := &gate{fail: test.fail, answer: test.answer}
			o := newGate(t, g)
			c := newClient(t, o)
			_, err := c.Manifest(t.Context(), o.tag("v1"))
			if !errors.Is(err, test.err) || err != nil && oci.Reason(err) != test.reason {
				t.Errorf("Manifest: %v (%s), want %v", err, oci.Reason(err), test.err)
			}
			wantRequests(t, o, test.want...)
			if test.reason == "ratelimit" {
				if _, err := c.Manifest(t.Context(), o.tag("v1")); !errors.Is(err, test.err) {
					t.Errorf("Manifest while limited: %v", err)
				}
				wantRequests(t, o, test.want...)
			}
			if test.err == nil || test.answer != "" {
				return
			}
			// The failure is not kept: once the breaker lets requests pass,
			// the token server is asked again.
			g.mu.Lock()
			g.fail = nil
			g.mu.Unlock()
			fresh := newClient(t, o)
			if _, err := fresh.Manifest(t.Context(), o.tag("v1")); err != nil {
				t.Errorf("Manifest after the token server recovered: %v", err)
			}
		})
	}
}

// TestTokenFetchIsShared: requests that need the same token wait for one fetch,
// which lives on when the request that started it is cancelled.
func TestTokenFetchIsShared(t *testing.T) {
	g := &gate{hold: make(chan struct{})}
	o := newGate(t, g)
	c := newClient(t, o)
	ctx, cancel := context.WithCancel(t.Context())
	results := make(chan error, 9)
	var all sync.WaitGroup
	ask := func(ctx context.Context) {
		all.Go(func() {
			_, err := c.Manifest(ctx, o.tag("v1"))
			results <- err
		})
	}
	ask(ctx)
	waitFor(t, func() bool { return waiters(c) == 1 })
	for range 8 {
		ask(t.Context())
	}
	waitFor(t, func() bool { return waiters(c) == 9 })
	cancel()
	if err := <-results; !errors.Is(err, context.Canceled) {
		t.Errorf("the one that was cancelled: %v", err)
	}
	close(g.hold)
	all.Wait()
	for range 8 {
		if err := <-results; err != nil {
			t.Errorf("one that waited: %v", err)
		}
	}
	if got := g.tokenRequests(); len(got) != 1 {
		t.Errorf("%d token requests, want 1", len(got))
	}
}

// TestRenewedMeanwhile: a request whose token was refused takes the one that
// another request has brought since.
func TestRenewedMeanwhile(t *testing.T) {
	tokens := newTokens(time.Minute, time.Now)
	key := tokenKey{endpoint: "e", repository: "r"}
	tokens.keep(key, token{scheme: auth.SchemeBearer, value: "new"})
	fetched := 0
	for _, test := range []struct {
		refused, want string
		fetches       int
	}{{"old", "new", 0}, {"", "new", 0}, {"new", "newer", 1}} {
		got, err := tokens.renew(t.Context(), key, test.refused, func(context.Context) (token, error) {
			fetched++
			return token{scheme: auth.SchemeBearer, value: "newer"}, nil
		})
		if err != nil || got.value != test.want || fetched != test.fetches {
			t.Errorf("renew after %q was refused: %q, %v, %d fetches; want %q, %d", test.refused, got.value, err, fetched, test.want, test.fetches)
		}
	}
}

func TestTokensAreBounded(t *testing.T) {
	tokens := newTokens(time.Minute, time.Now)
	for i := range 3 * maxTokens {
		tokens.keep(tokenKey{endpoint: "e", repository: itoa(i)}, token{value: itoa(i)})
		tokens.get(tokenKey{endpoint: "e", repository: "0"}) // stays in use
	}
	if got := len(tokens.kept.places); got != maxTokens {
		t.Errorf("%d tokens kept, want %d", got, maxTokens)
	}
	for repository, want := range map[string]bool{"0": true, "1": false, itoa(3*maxTokens - 1): true} {
		if _, ok := tokens.get(tokenKey{endpoint: "e", repository: repository}); ok != want {
			t.Errorf("token of %s kept: %t, want %t", repository, ok, want)
		}
	}
}

// TestTokenFetchIsGivenUp: nobody waits any more.
func TestTokenFetchIsGivenUp(t *testing.T) {
	g := &gate{hold: make(chan struct{})}
	o := newGate(t, g)
	c := newClient(t, o)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { // ends with the call, which cancel ends
		_, err := c.Manifest(ctx, o.tag("v1"))
		done <- err
	}()
	waitFor(t, func() bool { return waiters(c) == 1 })
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("Manifest: %v", err)
	}
	if n := waiters(c); n != 0 {
		t.Errorf("%d still wait", n)
	}
	// The next one starts afresh.
	close(g.hold)
	if _, err := c.Manifest(t.Context(), o.tag("v1")); err != nil {
		t.Errorf("Manifest: %v", err)
	}
}

// waiters counts the requests that wait for a token.
func waiters(c *Client) int {
	c.tokens.mu.Lock()
	defer c.tokens.mu.Unlock()
	n := 0
	for _, f := range c.tokens.flights {
		n += f.waiters
	}
	return n
}

// waitFor polls a condition that another goroutine brings about.
func waitFor(t *testing.T, condition func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !condition() {
		if time.Now().After(deadline) {
			t.Fatal("waited for a minute in vain")
		}
		tick := time.NewTimer(time.Millisecond)
		<-tick.C
	}
}

func TestBasic(t *testing.T) {
	basic := func(user, password string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if u, p, _ := r.BasicAuth(); u != user || p != password {
				w.Header().Add("Www-Authenticate", "Negotiate")
				w.Header().Add("Www-Authenticate", `Basic realm="registry"`)
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			answer(http.StatusOK, manifestHeader(manifestJSON), manifestJSON)(w, r)
		}
	}
	for _, test := range []struct {
		name     string
		password string
		err      error
		first    int // requests of the first call
		second   int // and of the second
	}{
		{"right", "pass", nil, 2, 1},
		{"wrong", "other", oci.ErrUnauthorized, 3, 2}, // the last without
		{"none", "", oci.ErrUnauthorized, 1, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := newOrigin(t, basic("user", "pass"))
			entry := o.entry(t)
			if test.password != "" {
				entry.Username, entry.Password = "user", test.password
			}
			c := newClientOf(t, Config{Registries: []Registry{entry}})
			for _, want := range []int{test.first, test.second} {
				before := len(o.requests())
				if _, err := c.Manifest(t.Context(), o.tag("v1")); !errors.Is(err, test.err) {
					t.Errorf("Manifest: %v, want %v", err, test.err)
				}
				if got := len(o.requests()) - before; got != want {
					t.Errorf("%d requests, want %d", got, want)
				}
			}
		})
	}
}

// TestCredentialsStayApart: two entries of one registry, and an endpoint.
func TestCredentialsStayApart(t *testing.T) {
	var mu sync.Mutex
	sent := map[string]string{}
	record := func(w http.ResponseWriter, r *http.Request) {
		user, _, ok := r.BasicAuth()
		if !ok {
			w.Header().Set("Www-Authenticate", `Basic realm="registry"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		mu.Lock()
		sent[r.Host+r.URL.Path] = user
		mu.Unlock()
		answer(http.StatusOK, manifestHeader(manifestJSON), manifestJSON)(w, r)
	}
	o, front := newOrigin(t, record), newOrigin(t, record)
	c := newClientOf(t, Config{Registries: []Registry{
		{Host: o.host(), Insecure: true, Username: "all", Password: "p"},
		{Host: o.host(), PathPrefix: "team", Insecure: true, Username: "team", Password: "p"},
		{Host: o.host(), PathPrefix: "team/app", Insecure: true, Username: "app", Password: "p", Endpoints: []string{front.URL + "/v2/hub"}},
		{Host: front.host(), Insecure: true, Username: "front", Password: "p"},
	}})
	for repository, want := range map[string]string{
		"other/app": "all", "team/b": "team", "team": "team", "teamwork/app": "all", "team/app": "front", "team/app/sub": "front", "team/application": "team",
	} {
		ref := oci.Reference{Name: oci.Name{Registry: o.host(), Repository: repository}, Tag: "v1"}
		if _, err := c.Manifest(t.Context(), ref); err != nil {
			t.Fatalf("Manifest %s: %v", repository, err)
		}
		at := o.host() + "/v2/" + repository + "/manifests/v1"
		if want == "front" {
			at = front.host() + "/v2/hub/" + repository + "/manifests/v1"
		}
		if sent[at] != want {
			t.Errorf("%s was sent the user %q, want %q", at, sent[at], want)
		}
	}
}

// TestEndpointGetsNoCredentials of the registry it stands in front of.
func TestEndpointGetsNoCredentials(t *testing.T) {
	front := newOrigin(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Www-Authenticate", `Basic realm="give me all you have"`)
		w.WriteHeader(http.StatusUnauthorized)
	})
	o := newOrigin(t, answer(http.StatusOK, manifestHeader(manifestJSON), manifestJSON))
	entry := o.entry(t)
	entry.Username, entry.Password, entry.Endpoints = "user", "pass", []string{front.URL}
	c := newClientOf(t, Config{Registries: []Registry{entry}})
	if _, err := c.Manifest(t.Context(), o.tag("v1")); err != nil {
		t.Fatalf("Manifest: %v", err)
	}
	front.mu.Lock()
	defer front.mu.Unlock()
	if len(front.seen) != 1 || front.seen[0].Header.Get("Authorization") != "" {
		t.Errorf("the endpoint was asked %d times, with Authorization %q", len(front.seen), front.seen[0].Header.Get("Authorization"))
	}
	if got := front.seen[0].URL.Query().Get("ns"); got != o.host() {
		t.Errorf("ns: %q, want %q", got, o.host())
	}
	if got := o.last(t).URL.RawQuery; got != "" {
		t.Errorf("the registry itself was sent the query %q", got)
	}
}

func TestPickChallenge(t *testing.T) {
	const bearer, basic = `Bearer realm="https://a/t"`, `Basic realm="r"`
	for _, test := range []struct {
		name       string
		challenges []string
		want       string
	}{
		{"none", nil, ""},
		{"bearer", []string{bearer}, bearer},
		{"bearer before basic", []string{basic, bearer}, bearer},
		{"after another", []string{"Negotiate", basic}, basic},
		{"case", []string{"BASIC realm=x"}, "BASIC realm=x"},
		{"alone", []string{"Basic"}, "Basic"},
		{"unknown only", []string{"Digest nonce=1"}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := pickChallenge(test.challenges); got != test.want {
				t.Errorf("pickChallenge: %q, want %q", got, test.want)
			}
		})
	}
}

// FuzzChallenge has a registry send any challenge: the client must answer with
// an error and go nowhere it must not.
func FuzzChallenge(f *testing.F) {
	for _, seed := range []string{
		"", "Bearer", `Bearer realm="http://127.0.0.1/t"`, `Bearer realm="file:///etc/passwd"`, `Bearer realm=`,
		`Bearer realm="https://169.254.169.254/latest"`, `Basic realm="x"`, `bearer realm="%zz"`, `Bearer realm="a\"b",service="`,
		"Basic,Bearer", `Bearer realm="http://[::1`, "\tBearer  realm = x", `Bearer scope="a b c",realm="/relative"`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, challenge string) {
		picked := pickChallenge([]string{"Negotiate", challenge})
		if picked != "" && !strings.Contains(challenge, picked) {
			t.Errorf("picked %q out of %q", picked, challenge)
		}
		// A guard that lets nothing through, so that no request leaves.
		x := &exchange{guard: &guard{}, metrics: newMetrics(nil), own: nil, foreign: &http.Transport{
			DialContext: refuseToDial,
		}}
		base := mustURL(t, "https://registry.test/v2")
		ep := newEndpoint(&entry{host: "registry.test", base: base, exchange: x}, base, true)
		c := &Client{now: time.Now, tokens: newTokens(time.Second, time.Now), userAgent: "larder"}
		client, _ := c.authorized(ep, "team/app", way{logins: nobody{}})
		client.Client.Transport = roundTrip(func(req *http.Request) (*http.Response, error) {
			if req.URL.Host != "registry.test" {
				return x.RoundTrip(req)
			}
			resp := &http.Response{StatusCode: 401, Header: http.Header{"Www-Authenticate": {challenge}}, Body: http.NoBody, Request: req}
			tidyUnauthorized(resp)
			return resp, nil
		})
		// Literal addresses only: a name in a realm would be looked up.
		literal := strings.Contains(challenge, "://127.0.0.1/") || strings.Contains(challenge, "://[::1]/")
		if strings.Contains(challenge, `\`) || strings.Contains(challenge, "//") && !literal {
			return
		}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base.String()+"/team/app/manifests/v1", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err == nil {
			if resp.StatusCode != 401 {
				t.Errorf("challenge %q: status %d", challenge, resp.StatusCode)
			}
			return
		}
		if failed := clientFailure(t.Context(), "registry.test", err); errors.Is(failed, context.Canceled) || failed.Error() == "" {
			t.Errorf("challenge %q: %v", challenge, failed)
		}
	})
}
