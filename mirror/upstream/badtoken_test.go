package upstream

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/larder-registry/larder/internal/oci"
)

// TestTokenLives: a token's life is what its server says it is from now on;
// what clock the server goes by does not matter. Where it says nothing of use,
// a minute is taken (distribution token specification, field expires_in).
func TestTokenLives(t *testing.T) {
	for _, test := range []struct {
		name, fields string
		used         time.Duration // without another token
		renewed      time.Duration // for certain
	}{
		{"nothing said", ``, 53 * time.Second, time.Minute},
		{"five minutes", `,"expires_in":300`, 4 * time.Minute, 5 * time.Minute},
		{"zero", `,"expires_in":0`, 53 * time.Second, time.Minute},
		{"negative", `,"expires_in":-300`, 53 * time.Second, time.Minute},
		{"text", `,"expires_in":"300"`, 53 * time.Second, time.Minute},
		{"no number", `,"expires_in":1e400`, 53 * time.Second, time.Minute},
		{"for ever", `,"expires_in":9223372036854775807`, 53 * time.Minute, time.Hour},
		{"issued years ago", `,"expires_in":300,"issued_at":"1999-01-01T00:00:00Z"`, 4 * time.Minute, 5 * time.Minute},
		{"issued years ahead", `,"expires_in":300,"issued_at":"2099-01-01T00:00:00Z"`, 4 * time.Minute, 5 * time.Minute},
		{"issued at no time", `,"expires_in":300,"issued_at":"yesterday"`, 4 * time.Minute, 5 * time.Minute},
	} {
		t.Run(test.name, func(t *testing.T) {
			now := newClock()
			g := &gate{answer: `{"token":"%s"` + test.fields + `}`}
			o := newGate(t, g)
			c := newClientOf(t, Config{Registries: []Registry{o.entry(t)}, Now: now.now})
			for i, want := range []int{1, 1, 2} {
				if _, err := c.Manifest(t.Context(), o.tag("v1")); err != nil {
					t.Fatal(err)
				}
				if got := len(g.tokenRequests()); got != want {
					t.Errorf("request %d: %d tokens were asked for, want %d", i, got, want)
				}
				now.advance([]time.Duration{test.used, test.renewed - test.used, 0}[i])
			}
		})
	}
}

// TestOversizedTokenAnswers are read up to a bound, and are no token.
func TestOversizedTokenAnswers(t *testing.T) {
	flood := func(w http.ResponseWriter, sent *atomic.Int64, head, filling string) {
		n, err := io.WriteString(w, head)
		for block := strings.Repeat(filling, 32<<10/len(filling)); err == nil && sent.Load() < 1<<30; {
			sent.Add(int64(n))
			n, err = io.WriteString(w, block)
		}
	}
	for _, test := range []struct {
		name   string
		answer func(http.ResponseWriter, *atomic.Int64)
	}{
		{"a token without end", func(w http.ResponseWriter, sent *atomic.Int64) { flood(w, sent, `{"token":"`, "MARKER") }},
		{"fields without end", func(w http.ResponseWriter, sent *atomic.Int64) { flood(w, sent, `{`, `"a":"MARKER",`) }},
		{"white space without end", func(w http.ResponseWriter, sent *atomic.Int64) { flood(w, sent, ` `, " ") }},
		{"depth without end", func(w http.ResponseWriter, sent *atomic.Int64) { flood(w, sent, `{"a":`, "[") }},
		{"headers without end", func(w http.ResponseWriter, _ *atomic.Int64) {
			hijack(w, "HTTP/1.1 200 OK\r\n"+strings.Repeat("X-Filling: MARKER\r\n", 20_000)+"\r\n")
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var sent atomic.Int64
			o := newOrigin(t, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/token" {
					test.answer(w, &sent)
					return
				}
				w.Header().Set("Www-Authenticate", `Bearer realm="http://`+r.Host+`/token",service="s"`)
				w.WriteHeader(http.StatusUnauthorized)
			})
			entry := o.entry(t)
			entry.Username, entry.Password = "u", "MARKERpassword"
			err := ask(t, o, Config{Registries: []Registry{entry}}, "team/app")
			if !errors.Is(err, oci.ErrUnavailable) {
				t.Errorf("Manifest: %v", err)
			}
			// What lies in the sockets' buffers was sent, too; three tries.
			if n := sent.Load(); n > 64<<20 {
				t.Errorf("the token server could send %d bytes", n)
			}
		})
	}
}

// TestUnknownHosts: credentials of an entry are of use to nobody else, also if
// its host cannot be found.
func TestUnknownHosts(t *testing.T) {
	o := basicOrigin(t, "u", "MARKERpassword")
	leaks := newLeaks(t)
	c := newClientOf(t, Config{Log: leaks.log, Resolver: resolver(t, nil), Registries: []Registry{
		o.entry(t), {Host: "gone.example", Username: "u", Password: "MARKERpassword", Insecure: true},
	}})
	_, err := c.Manifest(t.Context(), oci.Reference{Name: oci.Name{Registry: "gone.example", Repository: "team/app"}, Tag: "v1"})
	leaks.note(err)
	if !errors.Is(err, oci.ErrUnavailable) || oci.Reason(err) != "dns" {
		t.Errorf("the host that cannot be found: %v", err)
	}
	_, err = c.Manifest(t.Context(), o.tag("v1"))
	leaks.note(err)
	if !errors.Is(err, oci.ErrUnauthorized) {
		t.Errorf("another host: %v", err)
	}
	o.mu.Lock()
	sent := slices.ContainsFunc(o.seen, func(r *http.Request) bool { return r.Header.Get("Authorization") != "" })
	o.mu.Unlock()
	if sent {
		t.Error("another host was sent the credential")
	}
	leaks.mu.Lock()
	defer leaks.mu.Unlock()
	if strings.Contains(leaks.text.String(), "MARKER") {
		t.Errorf("a secret leaks:\n%s", leaks.text.String())
	}
}

// TestRateLimitIsExported: whatever form it comes in, and nothing of what does
// not look like one (Docker Hub: "ratelimit-remaining: 99;w=21600").
func TestRateLimitIsExported(t *testing.T) {
	var header atomic.Value
	o := newOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		if value := fmt.Sprint(header.Load()); value != "none" {
			w.Header().Set("ratelimit-remaining", value)
		}
		answer(http.StatusOK, manifestHeader(manifestJSON), manifestJSON)(w, r)
	})
	leaks := newLeaks(t)
	c, reg := leaks.client(t, o)
	series1 := "larder_upstream_ratelimit_remaining{registry=" + o.host() + "}"
	for _, test := range []struct {
		header string
		want   float64
		set    bool
	}{
		{"none", 0, false},
		{"99;w=21600", 99, true},
		{"98", 98, true},
		{" 97 ;w=1", 97, true},
		{"none", 97, true},
		{"many", 97, true},
		{"-1", 97, true},
		{"99999999999999999999", 97, true},
		{"0;w=21600", 0, true},
	} {
		header.Store(test.header)
		if _, err := c.Manifest(t.Context(), o.tag("v1")); err != nil {
			t.Fatal(err)
		}
		got, ok := series(t, reg)[series1]
		if ok != test.set || got != test.want {
			t.Errorf("after %q: %v, %t, want %v", test.header, got, ok, test.want)
		}
	}
}
