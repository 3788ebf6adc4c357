package upstream

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"oras.land/oras-go/v2/registry/remote/auth"

	"github.com/larder-registry/larder/internal/oci"
)

// given is a source that gives what it is told to, and counts.
type given struct {
	mu    sync.Mutex
	l     login
	err   error
	apart bool
	asked []string      // repositories
	hold  chan struct{} // not nil: wait for it
}

func (g *given) scope(repository string) string {
	if g.apart {
		return repository
	}
	return ""
}

func (g *given) login(ctx context.Context, repository string) (login, error) {
	g.mu.Lock()
	g.asked = append(g.asked, repository)
	l, err, hold := g.l, g.err, g.hold
	g.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			return login{}, ctx.Err()
		}
	}
	return l, err
}

func (g *given) set(l login, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.l, g.err = l, err
}

func (g *given) count() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.asked)
}

func secretLogin(secret string) login {
	return login{Credential: auth.Credential{Username: "u", Password: secret}}
}

func wantSecret(t *testing.T, c *credential, repository, want string) {
	t.Helper()
	if got, err := c.get(t.Context(), repository); err != nil || got.Password != want {
		t.Errorf("get for %s: %q, %v, want %q", repository, got.Password, err, want)
	}
}

// TestLoginsAreShared: by all repositories, and by all that ask at once.
func TestLoginsAreShared(t *testing.T) {
	src := &given{l: secretLogin("one"), hold: make(chan struct{})}
	c := newClientOf(t, Config{}).newCredential("test", src, time.Minute)
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() { wantSecret(t, c, "team/"+itoa(i), "one") })
	}
	waitFor(t, func() bool { return src.count() == 1 })
	close(src.hold)
	all.Wait()
	wantSecret(t, c, "team/other", "one")
	if n := src.count(); n != 1 {
		t.Errorf("the source was asked %d times, want once", n)
	}
	if got := c.secrets(); len(got) == 0 || got[0] != "one" {
		t.Errorf("secrets: %q", got)
	}
}

// TestLoginsByRepository: the source tells repositories apart, until it says
// that a login is for all.
func TestLoginsByRepository(t *testing.T) {
	src := &given{apart: true, l: secretLogin("a")}
	c := newClientOf(t, Config{}).newCredential("test", src, time.Minute)
	wantSecret(t, c, "team/a", "a")
	src.set(secretLogin("b"), nil)
	wantSecret(t, c, "team/b", "b")
	wantSecret(t, c, "team/a", "a")
	shared := secretLogin("all")
	shared.shared = true
	src.set(shared, nil)
	wantSecret(t, c, "team/c", "all")
	wantSecret(t, c, "team/d", "all")
	wantSecret(t, c, "team/b", "b")
	if n := src.count(); n != 3 {
		t.Errorf("the source was asked %d times, want 3", n)
	}
	for i := range 3 * maxLogins {
		src.set(secretLogin(itoa(i)), nil)
		if _, err := c.get(t.Context(), "many/"+itoa(i)); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(c.kept.places); n > maxLogins {
		t.Errorf("%d logins are kept, want at most %d", n, maxLogins)
	}
}

// TestLoginsEnd: how long each kind is used.
func TestLoginsEnd(t *testing.T) {
	for _, test := range []struct {
		name  string
		login func(now time.Time) login
		used  time.Duration // without the source being asked
		ahead time.Duration // asked in the background from then on; 0: not
		ends  time.Duration // not used any more from then on; 0: never
	}{
		{"says nothing", func(time.Time) login { return login{} }, 1000 * time.Hour, 0, 0},
		{"an hour", func(now time.Time) login { return login{expires: now.Add(time.Hour)} }, 44 * time.Minute, 46 * time.Minute, 61 * time.Minute},
		{"ended before it came", func(now time.Time) login { return login{expires: now.Add(-time.Hour)} }, 44 * time.Second, 46 * time.Second, 61 * time.Second},
		{"to be renewed soon", func(now time.Time) login { return login{renew: now.Add(time.Minute)} }, 59 * time.Second, 61 * time.Second, 0},
		{"to be renewed after its end", func(now time.Time) login {
			return login{renew: now.Add(2 * time.Hour), expires: now.Add(time.Hour)}
		}, 44 * time.Minute, 46 * time.Minute, 61 * time.Minute},
	} {
		t.Run(test.name, func(t *testing.T) {
			now := newClock()
			src := &given{}
			c := newClientOf(t, Config{Now: now.now}).newCredential("test", src, time.Minute)
			fill := func(secret string) {
				l := test.login(now.now())
				l.Credential = secretLogin(secret).Credential
				src.set(l, nil)
			}
			begin := now.now()
			at := func(d time.Duration) { now.advance(begin.Add(d).Sub(now.now())) }
			fill("one")
			wantSecret(t, c, "r", "one")
			fill("two")
			at(test.used)
			wantSecret(t, c, "r", "one")
			if n := src.count(); n != 1 {
				t.Fatalf("asked %d times after %s, want once", n, test.used)
			}
			if test.ahead != 0 {
				src.mu.Lock()
				src.hold = make(chan struct{})
				src.mu.Unlock()
				at(test.ahead)
				for range 5 {
					wantSecret(t, c, "r", "one")
				}
				waitFor(t, func() bool { return src.count() == 2 })
				close(src.hold)
				waitFor(t, func() bool { got, err := c.get(t.Context(), "r"); return err == nil && got.Password == "two" })
			}
			if test.ends == 0 {
				return
			}
			fill("three")
			at(test.ahead + 2*test.ends)
			wantSecret(t, c, "r", "three")
		})
	}
}

// TestOnce: an answer that must not be kept is for those who wait for it.
func TestOnce(t *testing.T) {
	src := &given{}
	c := newClientOf(t, Config{}).newCredential("test", src, time.Minute)
	for i := range 3 {
		l := secretLogin(itoa(i))
		l.once = true
		src.set(l, nil)
		wantSecret(t, c, "r", itoa(i))
	}
}

// TestFailingSources are left alone for a while, and what they gave before is
// used as long as it lasts.
func TestFailingSources(t *testing.T) {
	now := newClock()
	src := &given{err: errors.New("no luck")}
	c := newClientOf(t, Config{Now: now.now}).newCredential("test", src, time.Minute)
	for range 5 {
		_, err := c.get(t.Context(), "r")
		if !errors.Is(err, oci.ErrUnavailable) || oci.Reason(err) != "credential" || !errors.Is(err, src.err) || strings.Contains(err.Error(), "no luck") {
			t.Fatalf("get: %v", err)
		}
	}
	if n := src.count(); n != 1 {
		t.Errorf("asked %d times, want once", n)
	}
	now.advance(failedPause)
	l := secretLogin("one")
	l.expires = now.now().Add(time.Hour)
	src.set(l, nil)
	wantSecret(t, c, "r", "one")
	src.set(login{}, errors.New("no luck"))
	now.advance(50 * time.Minute)
	wantSecret(t, c, "r", "one")
	waitFor(t, func() bool { return src.count() == 3 })
	waitFor(t, func() bool { c.mu.Lock(); defer c.mu.Unlock(); return len(c.flights) == 0 })
	for range 5 {
		wantSecret(t, c, "r", "one")
	}
	if n := src.count(); n != 3 {
		t.Errorf("asked %d times, want 3", n)
	}
	now.advance(11 * time.Minute)
	if _, err := c.get(t.Context(), "r"); err == nil {
		t.Error("a login is used after its end")
	}
	// One that has nothing is no failure, and is left alone, too.
	src.set(login{}, nil)
	now.advance(failedPause)
	wantSecret(t, c, "r", "")
	n := src.count()
	wantSecret(t, c, "r", "")
	if src.count() != n {
		t.Error("a source without a login is asked for every request")
	}
}

// TestRefusals bring the source into play once.
func TestRefusals(t *testing.T) {
	now := newClock()
	src := &given{l: secretLogin("one")}
	c := newClientOf(t, Config{Now: now.now}).newCredential("test", src, time.Minute)
	one, err := c.get(t.Context(), "r")
	if err != nil {
		t.Fatal(err)
	}
	if c.refused("r", one) {
		t.Error("a fresh login is fetched anew")
	}
	now.advance(refusedPause)
	src.set(secretLogin("two"), nil)
	if !c.refused("r", one) {
		t.Error("an old login is not fetched anew")
	}
	wantSecret(t, c, "r", "two")
	if !c.refused("r", one) {
		t.Error("one renewed meanwhile is not given")
	}
	wantSecret(t, c, "r", "two")
	if n := src.count(); n != 2 {
		t.Errorf("asked %d times, want 2", n)
	}
	if c.refused("r", auth.EmptyCredential) {
		t.Error("nothing was sent, and something better is promised")
	}
	var none *credential
	if got, err := none.get(t.Context(), "r"); got != auth.EmptyCredential || err != nil || none.configured() || none.refused("r", one) || none.secrets() != nil {
		t.Errorf("no credential gives %v, %v", got, err)
	}
}

// TestNextSource is asked where the first has nothing, or fails.
func TestNextSource(t *testing.T) {
	now := newClock()
	first, second := &given{}, &given{l: secretLogin("second")}
	client := newClientOf(t, Config{Now: now.now})
	c := client.newCredential("first", first, time.Minute)
	c.next = client.newCredential("second", second, time.Minute)
	wantSecret(t, c, "r", "second")
	now.advance(refusedPause)
	second.set(secretLogin("newer"), nil)
	if !c.refused("r", secretLogin("second").Credential) {
		t.Error("the second's refusal is not heard")
	}
	wantSecret(t, c, "r", "newer")
	if got := fmt.Sprint(c.secrets()); !strings.Contains(got, "newer") {
		t.Errorf("secrets: %s", got)
	}
	first.set(login{}, errors.New("no luck"))
	now.advance(failedPause)
	wantSecret(t, c, "r", "newer")
	waitFor(t, func() bool { return first.count() == 2 })
	wantSecret(t, c, "r", "newer")
	alone := client.newCredential("first", first, time.Minute)
	alone.next = client.newCredential("empty", &given{}, time.Minute)
	if _, err := alone.get(t.Context(), "r"); err == nil || !errors.Is(err, first.err) {
		t.Errorf("one fails, the other has nothing: %v", err)
	}
	first.set(secretLogin("first"), nil)
	now.advance(failedPause)
	waitFor(t, func() bool { got, _ := c.get(t.Context(), "r"); return got.Password == "first" })
}

// TestPasswordFiles: read when needed, and again when they have changed.
func TestPasswordFiles(t *testing.T) {
	file := filepath.Join(t.TempDir(), "password")
	write := func(content string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var mu sync.Mutex
	accepted := "old: with a colon"
	o := newOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if user, password, _ := r.BasicAuth(); user != "u" || password != accepted {
			w.Header().Set("Www-Authenticate", `Basic realm="registry"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		answer(http.StatusOK, manifestHeader(manifestJSON), manifestJSON)(w, r)
	})
	now := newClock()
	entry := o.entry(t)
	entry.Username, entry.PasswordFile = "u", file
	c := newClientOf(t, Config{Registries: []Registry{entry}, Now: now.now})
	ask := func() error {
		_, err := c.Manifest(t.Context(), o.tag("v1"))
		return err
	}
	if err := ask(); !errors.Is(err, oci.ErrUnavailable) || oci.Reason(err) != "credential" {
		t.Errorf("the file is missing: %v", err)
	}
	write("old: with a colon\r\n")
	now.advance(2 * time.Minute)
	if err := ask(); err != nil {
		t.Errorf("the file is there: %v", err)
	}
	// Replaced on both sides: the refusal makes it known at once.
	write("new")
	mu.Lock()
	accepted = "new"
	mu.Unlock()
	now.advance(31 * time.Second)
	if err := ask(); err != nil {
		t.Errorf("the file was replaced: %v", err)
	}
	// Replaced here only, before the registry refuses the old one.
	write("newer")
	now.advance(2 * time.Minute)
	if err := ask(); err != nil {
		t.Errorf("while the file is read again: %v", err)
	}
	for _, bad := range []struct{ name, content string }{{"empty", "\n"}, {"too long", strings.Repeat("x", maxSecretFile+1)}} {
		write(bad.content)
		fresh := newClientOf(t, Config{Registries: []Registry{entry}})
		if _, err := fresh.Manifest(t.Context(), o.tag("v1")); oci.Reason(err) != "credential" {
			t.Errorf("%s: %v", bad.name, err)
		}
	}
	entry.PasswordFile = "/dev/zero"
	fresh := newClientOf(t, Config{Registries: []Registry{entry}})
	if _, err := fresh.Manifest(t.Context(), o.tag("v1")); oci.Reason(err) != "credential" {
		t.Errorf("a device: %v", err)
	}
}
