package upstream

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/internal/oci"
)

// failing answers the first n requests with status, the others well.
func failing(n int64, status int) http.HandlerFunc {
	var asked atomic.Int64
	return func(w http.ResponseWriter, r *http.Request) {
		if asked.Add(1) <= n {
			w.WriteHeader(status)
			return
		}
		answer(http.StatusOK, manifestHeader(manifestJSON), manifestJSON)(w, r)
	}
}

func TestRetry(t *testing.T) {
	for _, test := range []struct {
		name   string
		serve  http.HandlerFunc
		err    error
		asked  int
		health Health
	}{
		{"503 once", failing(1, 503), nil, 2, Closed},
		{"503 twice", failing(2, 503), nil, 3, Closed},
		{"503 ever", answer(503, nil, ""), oci.ErrUnavailable, 3, Open},
		{"404 is final", failing(1, 404), oci.ErrManifestUnknown, 1, Closed},
		{"401 is final", failing(1, 401), oci.ErrUnauthorized, 1, Closed},
		{"403 is final", failing(1, 403), oci.ErrDenied, 1, Closed},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := newOrigin(t, test.serve)
			c := newClient(t, o)
			if _, err := c.Manifest(t.Context(), o.tag("v1")); !errors.Is(err, test.err) {
				t.Errorf("Manifest: %v, want %v", err, test.err)
			}
			if got := len(o.requests()); got != test.asked {
				t.Errorf("asked %d times, want %d", got, test.asked)
			}
			if got := c.State()[o.URL].Health; got != test.health {
				t.Errorf("breaker is %s, want %s", got, test.health)
			}
		})
	}
}

// TestBreakerAnswersAtOnce: while it is open nobody is asked; a probe that
// succeeds closes it.
func TestBreakerAnswersAtOnce(t *testing.T) {
	now := newClock()
	o := newOrigin(t, failing(3, 500))
	c := newClientOf(t, Config{Registries: []Registry{o.entry(t)}, Now: now.now})
	if _, err := c.Manifest(t.Context(), o.tag("v1")); oci.Reason(err) != "status" {
		t.Fatalf("Manifest: %v (%s)", err, oci.Reason(err))
	}
	for range 5 {
		if _, err := c.Manifest(t.Context(), o.tag("v1")); !errors.Is(err, oci.ErrUnavailable) || oci.Reason(err) != "breaker" {
			t.Errorf("Manifest with the breaker open: %v (%s)", err, oci.Reason(err))
		}
	}
	if got := len(o.requests()); got != 3 {
		t.Errorf("asked %d times, want 3", got)
	}
	now.advance(10 * time.Second)
	if _, err := c.Manifest(t.Context(), o.tag("v1")); err != nil {
		t.Errorf("Manifest by the probe: %v", err)
	}
	if state := c.State()[o.URL]; state.Health != Closed || state.Failures != 0 {
		t.Errorf("state: %+v", state)
	}
}

func TestRefused(t *testing.T) {
	o := newOrigin(t, answer(200, nil, ""))
	o.Close()
	c := newClient(t, o)
	_, err := c.Manifest(t.Context(), o.tag("v1"))
	if !errors.Is(err, oci.ErrUnavailable) || oci.Reason(err) != "refused" {
		t.Errorf("Manifest: %v (%s)", err, oci.Reason(err))
	}
	if got := c.State()[o.URL].Health; got != Open {
		t.Errorf("breaker is %s after three refusals", got)
	}
}

// TestSilence: a server that accepts and says nothing costs one header timeout,
// and nothing after that.
func TestSilence(t *testing.T) {
	hang := make(chan struct{})
	o := newOrigin(t, func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-hang:
		case <-r.Context().Done():
		}
	})
	defer close(hang)
	c := newClientOf(t, Config{Registries: []Registry{o.entry(t)}, Timeouts: Timeouts{Header: 100 * time.Millisecond}})
	for _, reason := range []string{"timeout", "breaker"} {
		if _, err := c.Manifest(t.Context(), o.tag("v1")); !errors.Is(err, oci.ErrUnavailable) || oci.Reason(err) != reason {
			t.Errorf("Manifest: %v (%s), want %s", err, oci.Reason(err), reason)
		}
	}
	if got := len(o.requests()); got != 1 {
		t.Errorf("asked %d times, want 1", got)
	}
}

// TestAnswerTimeout bounds all tries together, and an image manifest's body.
func TestAnswerTimeout(t *testing.T) {
	for _, test := range []struct {
		name  string
		serve http.HandlerFunc
	}{
		{"header", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }},
		{"body that drips", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", oci.MediaTypeManifest)
			tick := time.NewTicker(10 * time.Millisecond)
			defer tick.Stop()
			for r.Context().Err() == nil {
				_, _ = io.WriteString(w, " ")
				w.(http.Flusher).Flush()
				<-tick.C
			}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := newOrigin(t, test.serve)
			c := newClientOf(t, Config{Registries: []Registry{o.entry(t)}, Timeouts: Timeouts{Answer: 200 * time.Millisecond}})
			if _, err := c.Manifest(t.Context(), o.tag("v1")); !errors.Is(err, oci.ErrUnavailable) || oci.Reason(err) != "timeout" {
				t.Errorf("Manifest: %v (%s)", err, oci.Reason(err))
			}
		})
	}
}

// TestAnswerTimeoutSparesBodies: a blob may take as long as it likes.
func TestAnswerTimeoutSparesBodies(t *testing.T) {
	late := make(chan struct{})
	o := newOrigin(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "2")
		_, _ = io.WriteString(w, "a")
		w.(http.Flusher).Flush()
		<-late
		_, _ = io.WriteString(w, "b")
	})
	const patience = time.Second
	c := newClientOf(t, Config{Registries: []Registry{o.entry(t)}, Timeouts: Timeouts{Answer: patience}})
	body, err := c.Blob(t.Context(), o.name(), digest.FromString("ab"), oci.Span{Start: 0, End: -1})
	if err != nil {
		close(late)
		t.Fatalf("Blob: %v", err)
	}
	defer body.Close()
	time.AfterFunc(patience*3/2, func() { close(late) })
	if got, err := io.ReadAll(body); string(got) != "ab" || err != nil {
		t.Errorf("read: %q, %v", got, err)
	}
}

func TestCancelledWhileAsking(t *testing.T) {
	for _, test := range []struct {
		name     string
		end      func(context.Context) (context.Context, context.CancelFunc)
		is       error
		failures int
	}{
		{"cancelled", context.WithCancel, context.Canceled, 0},
		{"deadline", func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, 200*time.Millisecond)
		}, context.DeadlineExceeded, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			ctx, end := test.end(t.Context())
			defer end()
			o := newOrigin(t, func(_ http.ResponseWriter, r *http.Request) {
				if test.failures == 0 {
					end()
				}
				<-r.Context().Done()
			})
			c := newClient(t, o)
			_, err := c.Manifest(ctx, o.tag("v1"))
			if !errors.Is(err, test.is) {
				t.Errorf("Manifest: %v, want %v", err, test.is)
			}
			if errors.Is(err, oci.ErrUnavailable) != (test.failures > 0) {
				t.Errorf("Manifest: %v", err)
			}
			if state := c.State()[o.URL]; state.Failures != test.failures {
				t.Errorf("state: %+v, want %d failures", state, test.failures)
			}
			if got := len(o.requests()); got > 1 {
				t.Errorf("asked %d times, want once", got)
			}
		})
	}
}

// TestCancelledBetweenTries ends the wait before the next one.
func TestCancelledBetweenTries(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	accepted := make(chan struct{})
	go func() { // ends when l is closed
		defer close(accepted)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_ = conn.Close()
			cancel()
		}
	}()
	defer func() {
		_ = l.Close()
		<-accepted
	}()
	c := newClientOf(t, Config{Registries: []Registry{{Host: l.Addr().String(), Insecure: true}}})
	ref := oci.Reference{Name: oci.Name{Registry: l.Addr().String(), Repository: "team/app"}, Tag: "v1"}
	if _, err := c.Manifest(ctx, ref); !errors.Is(err, context.Canceled) {
		t.Errorf("Manifest: %v", err)
	}
}

func TestRateLimit(t *testing.T) {
	now := newClock()
	var limited atomic.Bool
	limited.Store(true)
	var header atomic.Value
	o := newOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		if limited.Load() {
			if v, _ := header.Load().(string); v != "" {
				w.Header().Set("Retry-After", v)
			}
			w.WriteHeader(http.StatusTooManyRequests)
			return
		}
		answer(http.StatusOK, manifestHeader(manifestJSON), manifestJSON)(w, r)
	})
	c := newClientOf(t, Config{Registries: []Registry{o.entry(t)}, Now: now.now})
	for _, test := range []struct {
		name, header string
		want         time.Duration
	}{
		{"seconds", "120", 2 * time.Minute},
		{"none", "", defaultPause},
		{"a day", "86400", time.Hour},
		{"no number", "soon", defaultPause},
		{"date", now.now().Add(10 * time.Hour).Format(http.TimeFormat), time.Hour},
	} {
		t.Run(test.name, func(t *testing.T) {
			limited.Store(true)
			header.Store(test.header)
			before := len(o.requests())
			for _, want := range []time.Duration{test.want, test.want, test.want / 2} {
				if want != test.want {
					now.advance(test.want / 2)
				}
				_, err := c.Manifest(t.Context(), o.tag("v1"))
				if !errors.Is(err, oci.ErrTooManyRequests) || oci.Reason(err) != "ratelimit" || oci.RetryAfter(err) != want {
					t.Errorf("Manifest: %v (%s), Retry-After %v, want %v", err, oci.Reason(err), oci.RetryAfter(err), want)
				}
			}
			if got := len(o.requests()) - before; got != 1 {
				t.Errorf("asked %d times, want 1: it wants to be left alone", got)
			}
			// Blobs have a limit of their own.
			limited.Store(false)
			if _, err := c.StatBlob(t.Context(), o.name(), digest.FromString("x")); errors.Is(err, oci.ErrTooManyRequests) {
				t.Errorf("StatBlob: %v", err)
			}
			now.advance(test.want)
			if _, err := c.Manifest(t.Context(), o.tag("v1")); err != nil {
				t.Errorf("Manifest afterwards: %v", err)
			}
		})
	}
	if state := c.State()[o.URL]; state.Failures != 0 {
		t.Errorf("state: %+v, a limit is no failure", state)
	}
}

// TestResumeGoesElsewhere: the endpoint whose body broke off is asked last.
func TestResumeGoesElsewhere(t *testing.T) {
	content := pattern(10_000)
	front := newOrigin(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", itoa(len(content)))
		_, _ = w.Write(content[:4000])
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	})
	o := newOrigin(t, blobServer(content))
	entry := o.entry(t)
	entry.Endpoints = []string{front.URL}
	c := newClientOf(t, Config{Registries: []Registry{entry}})
	dgst := digest.FromBytes(content)
	var got []byte
	for round := range 2 {
		body, err := c.Blob(t.Context(), o.name(), dgst, oci.Span{Start: int64(len(got)), End: -1})
		if err != nil {
			t.Fatalf("Blob: %v", err)
		}
		part, err := io.ReadAll(body)
		body.Close()
		if (err == nil) != (round == 1) {
			t.Errorf("round %d: %v", round, err)
		}
		got = append(got, part...)
	}
	if string(got) != string(content) {
		t.Errorf("got %d bytes, or wrong ones", len(got))
	}
	if len(front.requests()) != 1 || len(o.requests()) != 1 {
		t.Errorf("the endpoint was asked %d times, the registry %d, want 1 and 1", len(front.requests()), len(o.requests()))
	}
}

// TestConnectionsAreReused, also after challenges, errors and parts of bodies.
func TestConnectionsAreReused(t *testing.T) {
	var connections atomic.Int64
	g := &gate{}
	content := pattern(5000)
	g.serve = func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/v2/team/app/manifests/none":
			answer(404, nil, `{"errors":[{"code":"MANIFEST_UNKNOWN","message":"no"}]}`)(w, r)
		case r.URL.Path == "/v2/team/app/manifests/v1":
			answer(http.StatusOK, manifestHeader(manifestJSON), manifestJSON)(w, r)
		default:
			blobServer(content)(w, r)
		}
	}
	o := unstarted(g.ServeHTTP)
	o.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			connections.Add(1)
		}
	}
	o.Start()
	t.Cleanup(o.Close)
	c := newClient(t, o)
	for range 3 {
		if _, err := c.Manifest(t.Context(), o.tag("v1")); err != nil {
			t.Errorf("Manifest: %v", err)
		}
		if _, err := c.Manifest(t.Context(), o.tag("none")); !errors.Is(err, oci.ErrManifestUnknown) {
			t.Errorf("Manifest: %v", err)
		}
		body, err := c.Blob(t.Context(), o.name(), digest.FromBytes(content), oci.Span{Start: 0, End: -1})
		if err != nil {
			t.Fatalf("Blob: %v", err)
		}
		if _, err := io.ReadFull(body, make([]byte, 10)); err != nil {
			t.Errorf("read: %v", err)
		}
		body.Close()
		g.revoke()
	}
	// One may be lost where this machine is too slow for drainTime.
	if got := connections.Load(); got > 2 {
		t.Errorf("%d connections, want 1", got)
	}
}
