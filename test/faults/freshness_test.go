package faults

import (
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/larder-registry/larder/test/registry"
)

// newUpstream starts a registry that holds one image.
func newUpstream(t *testing.T, opts registry.Options, layers ...registry.Layer) *upstream {
	t.Helper()
	if opts.Addr == "" && !opts.IPv6 {
		// An address of its own: while it is stopped another's server must not
		// come to listen there.
		host := ownHost(started.Add(1) - 1)
		opts.Addr, opts.Names = host+":0", append(opts.Names, host)
	}
	up := &upstream{Server: registry.Start(t, opts)}
	if layers == nil {
		layers = []registry.Layer{registry.NewLayer(1, layerSize)}
	}
	up.image = up.AddImage(repo, tag, layers...)
	up.moved = up.image
	return up
}

func TestTagThatMovedIsServedAnew(t *testing.T) {
	t.Parallel()
	up := newUpstream(t, registry.Options{})
	l := startLarder(t, settings{servers: []*registry.Server{up.Server}})
	l.mustGet(t, right, tagAsk(up))
	up.moved = up.AddImage(repo, tag, registry.NewLayer(2, 100))
	l.mustGet(t, right, tagAsk(up))
	l.mustGet(t, right, digestAsk(up))
}

func TestTagThatIsGoneIsForgotten(t *testing.T) {
	t.Parallel()
	up := newUpstream(t, registry.Options{})
	l := startLarder(t, settings{servers: []*registry.Server{up.Server}})
	l.mustGet(t, right, tagAsk(up))
	up.DeleteTag(repo, tag)
	l.mustGet(t, "404", tagAsk(up))
	l.stop()
	l.start() // what is remembered about failures is in memory only
	up.Stop()
	if s := l.get(t, tagAsk(up)); s.word != "502" && s.word != "503" {
		t.Errorf("a tag that was gone, while the upstream is down: %v", s)
	}
	l.mustGet(t, right, digestAsk(up))
}

func TestMissingChildOfAnIndex(t *testing.T) {
	t.Parallel()
	up := &upstream{Server: registry.Start(t, registry.Options{})}
	amd := up.AddPlatform(repo, "", "amd64", registry.NewLayer(1, 100))
	arm := up.AddPlatform(repo, "", "arm64", registry.NewLayer(2, 100))
	index := up.AddIndex(repo, tag, amd, arm)
	up.Delete(repo, arm.Digest)
	l := startLarder(t, settings{servers: []*registry.Server{up.Server}})
	of := func(img registry.Image) ask {
		return ask{server: up.Server, repo: repo, kind: registry.Manifests, blob: img.Blob}
	}
	byTag := of(index)
	byTag.tag = tag
	l.mustGet(t, right, byTag)
	l.mustGet(t, right, of(amd))
	up.Forget()
	for range 5 {
		l.mustGet(t, "404", of(arm))
	}
	if all := up.Requests(); len(all) > 1 {
		t.Errorf("the missing child was asked for more than once:%s", list(all))
	}
}

// TestRetryAfterIsObeyed asks for manifests while the upstream wants to be left
// alone about those. Registries count blobs apart, and so does the mirror.
func TestRetryAfterIsObeyed(t *testing.T) {
	t.Parallel()
	up := newUpstream(t, registry.Options{})
	other := up.AddImage("other", tag, registry.NewLayer(2, 1000))
	l := startLarder(t, settings{servers: []*registry.Server{up.Server}})
	l.mustGet(t, right, tagAsk(up))
	up.Forget()

	const wait = 3 * time.Second
	up.Set(registry.Fault{On: registry.Manifests, Status: http.StatusTooManyRequests, RetryAfter: "3", Times: 1})
	l.mustGet(t, stale, tagAsk(up))
	cold := ask{server: up.Server, repo: "other", kind: registry.Manifests, tag: tag, blob: other.Blob}
	if s := l.get(t, cold); s.word != "502" && s.word != "503" {
		t.Errorf("a tag that is not held, meanwhile: %v", s)
	}
	l.mustGet(t, right, blobAsk(up))
	l.awaitWord(t, right, tagAsk(up))
	l.mustGet(t, right, cold)
	asked := slices.DeleteFunc(up.Requests(), func(r registry.Request) bool { return r.Kind != registry.Manifests })
	if len(asked) != 3 || asked[0].Status != http.StatusTooManyRequests {
		t.Fatalf("upstream saw, want one refusal and two answers:%s", list(asked))
	}
	// Seconds in Retry-After are whole, and the answer took its time.
	if gap := asked[1].Time.Sub(asked[0].Time); gap < wait {
		t.Errorf("the upstream was asked again after %v, having asked for %v of quiet", gap, wait)
	}
}

// awaitWord asks again and again until it sees word, and fails the test when
// that takes too long. It returns how often it asked.
func (l *larder) awaitWord(t *testing.T, word string, a ask) int {
	t.Helper()
	deadline := time.After(2 * patience)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for n := 1; ; n++ {
		s := l.get(t, a)
		if s.word == word {
			return n
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("after %d tries: %v, want %s", n, s, word)
		}
	}
}

// TestOutageCostsMilliseconds holds each kind of dead upstream against a cached
// tag: the first answer may take a moment, the others not, and none asks the
// upstream each time.
func TestOutageCostsMilliseconds(t *testing.T) {
	const asks = 60
	for name, die := range map[string]func(*registry.Server){
		"refused":    (*registry.Server).Stop,
		"503":        func(s *registry.Server) { s.Set(registry.Fault{Status: 503}) },
		"black hole": (*registry.Server).Silence,
		"hang":       func(s *registry.Server) { s.Set(registry.Fault{Hang: true}) },
		"noise":      (*registry.Server).Garble,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			up := newUpstream(t, registry.Options{})
			l := startLarder(t, settings{servers: []*registry.Server{up.Server}, impatient: true})
			l.awaitWord(t, right, tagAsk(up))
			die(up.Server)
			up.Forget()
			before := up.Stats().Accepted
			tr := client(t)
			if s := l.getWith(t.Context(), tr, tagAsk(up)); s.word != stale || s.took > 2*time.Second {
				t.Errorf("first: %v, want stale within 2 s", s)
			}
			var times []time.Duration
			for range asks {
				s := l.getWith(t.Context(), tr, tagAsk(up))
				if s.word != stale || s.took > 2*time.Second {
					t.Fatalf("later: %v, want stale at once", s)
				}
				times = append(times, s.took)
			}
			slices.Sort(times)
			if median := times[asks/2]; median > 100*time.Millisecond {
				t.Errorf("half of the later answers took more than %v", median)
			}
			if n := len(up.Requests()) + up.Stats().Accepted - before; n > asks/2 {
				t.Errorf("%d requests and connections for %d answers", n, asks+1)
			}
			up.Set()
			if err := up.Resume(); err != nil {
				t.Fatal(err)
			}
			l.awaitWord(t, right, tagAsk(up))
			if !strings.Contains(l.metrics(t), "larder_stale_served_total{") {
				t.Error("stale answers are not counted")
			}
		})
	}
}

// metrics reads the admin port.
func (l *larder) metrics(t *testing.T) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, l.admin+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client(t).RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("metrics: %s, %v", resp.Status, err)
	}
	return string(body)
}

func TestStaleIfErrorOff(t *testing.T) {
	t.Parallel()
	up := newUpstream(t, registry.Options{})
	l := startLarder(t, settings{servers: []*registry.Server{up.Server}, extra: []string{"stale_if_error: 0s"}})
	l.mustGet(t, right, tagAsk(up))
	up.Stop()
	if s := l.get(t, tagAsk(up)); s.word != "502" && s.word != "503" || s.took > 5*time.Second {
		t.Errorf("%v, want an error at once", s)
	}
	l.mustGet(t, right, digestAsk(up))
}

func TestRevalidateAfter(t *testing.T) {
	t.Parallel()
	up := newUpstream(t, registry.Options{})
	l := startLarder(t, settings{servers: []*registry.Server{up.Server}, extra: []string{"revalidate_after: 1h"}})
	l.mustGet(t, right, tagAsk(up))
	up.Forget()
	for range 3 {
		l.mustGet(t, right, tagAsk(up))
	}
	if all := up.Requests(); len(all) > 0 {
		t.Errorf("a tag confirmed within the hour was asked for:%s", list(all))
	}
}

func TestOffline(t *testing.T) {
	t.Parallel()
	up := newUpstream(t, registry.Options{})
	other := up.AddImage("other", tag, registry.NewLayer(5, 1000))
	first := startLarder(t, settings{servers: []*registry.Server{up.Server}})
	l := newLarder(t, settings{servers: []*registry.Server{up.Server}, extra: []string{"offline: true"}, dir: first.dir})
	first.mustGet(t, right, tagAsk(up))
	first.mustGet(t, right, blobAsk(up))
	first.stop()
	before := up.Stats().Accepted
	l.start()
	if s := l.get(t, tagAsk(up)); s.word != stale && s.word != right {
		t.Errorf("tag: %v", s)
	}
	l.mustGet(t, right, digestAsk(up))
	l.mustGet(t, right, blobAsk(up))
	for _, a := range []ask{
		{server: up.Server, repo: "other", kind: registry.Manifests, tag: tag, blob: other.Blob},
		{server: up.Server, repo: "other", kind: registry.Manifests, blob: other.Blob},
		{server: up.Server, repo: "other", kind: registry.Blobs, blob: other.Layers[0]},
	} {
		l.mustGet(t, "404", a)
	}
	if n := up.Stats().Accepted - before; n != 0 {
		t.Errorf("%d connections to an upstream while offline", n)
	}
}

func TestManyAskForOneTag(t *testing.T) {
	t.Parallel()
	up := newUpstream(t, registry.Options{})
	l := startLarder(t, settings{servers: []*registry.Server{up.Server}})
	for _, method := range []string{http.MethodGet, http.MethodHead} { // cold, then cached
		up.Forget()
		gate := registry.NewGate()
		up.Set(registry.Fault{Hold: gate})
		var all sync.WaitGroup
		ask := func() {
			if s := l.get(t, tagAsk(up)); s.word != right {
				t.Errorf("%v", s)
			}
		}
		all.Go(ask)
		<-gate.Reached()
		for range 20 {
			all.Go(ask)
		}
		l.awaitInFlight(t, 21)
		// What was read has yet to join: some round trips' worth of time, and
		// less than the mirror waits for the upstream.
		for begin, n := time.Now(), 0; n < 50 && time.Since(begin) < 5*time.Second; n++ {
			l.mustPing(t)
		}
		gate.Open()
		all.Wait()
		// On a busy machine some may still have come too late to join.
		if all := up.Requests(); len(all) > 10 || all[0].Method != method {
			t.Errorf("upstream saw, want one %s:%s", method, list(all))
		}
		up.Set()
	}
}

// mustPing asks the mirror for nothing, and waits for the answer.
func (l *larder) mustPing(t *testing.T) {
	t.Helper()
	if status := l.send(t, "GET /v2/ HTTP/1.1\r\nHost: m\r\nConnection: close\r\n\r\n"); status != http.StatusOK {
		t.Fatalf("ping: status %d", status)
	}
}
