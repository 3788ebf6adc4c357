package auth

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/larder-registry/larder/internal/oci"
)

func TestPasswordsAndRules(t *testing.T) {
	a, _ := authority(t)
	pull, push, remove := oci.ActionPull, oci.ActionPush, oci.ActionDelete
	for _, c := range []struct {
		name string
		from oci.Caller
		want oci.Want
		is   string
	}{
		{"all of one's own", withBasic("alice", "wonder"), want("team-a/app", pull, push, remove), "ok"},
		{"the repository itself", withBasic("alice", "wonder"), want("team-a", push), "ok"},
		{"a name that only begins alike", withBasic("alice", "wonder"), want("team-abc", pull), "DENIED"},
		{"another's", withBasic("alice", "wonder"), want("team-b/app", pull), "DENIED"},
		{"pull only", withBasic("bob", "builder"), want("team-a/app", pull), "ok"},
		{"push without the right", withBasic("bob", "builder"), want("team-a/app", pull, push), "DENIED"},
		{"delete without the right", withBasic("bob", "builder"), want("team-a/app", remove), "DENIED"},
		{"no rule", withBasic("carol", "singer"), want("team-a/app", pull), "DENIED"},
		{"public, known", withBasic("carol", "singer"), want("public/x", pull), "ok"},
		{"public, unknown", oci.Caller{}, want("public/x", pull), "ok"},
		{"public, push", oci.Caller{}, want("public/x", push), "UNAUTHORIZED"},
		{"private, unknown", oci.Caller{}, want("team-a/app", pull), "UNAUTHORIZED"},
		{"wrong password", withBasic("alice", "wander"), want("public/x", pull), "UNAUTHORIZED"},
		{"wrong user", withBasic("mallory", "wonder"), want("public/x", pull), "UNAUTHORIZED"},
		{"another's password", withBasic("alice", "builder"), want("team-a", pull), "UNAUTHORIZED"},
		{"no password", withBasic("alice", ""), want("team-a", pull), "UNAUTHORIZED"},
		{"the hash for a password", withBasic("alice", a.settings.Load().users.fixed.entries["alice"].hash), want("team-a", pull), "UNAUTHORIZED"},
		{"a certificate", withCertificate("build"), want("team-a/app", push), "ok"},
		{"a certificate of a user's name", withCertificate("alice"), want("team-a/app", push), "DENIED"},
		{"a certificate without a name", withCertificate(""), want("team-a/app", push), "UNAUTHORIZED"},
		{"version check, unknown", oci.Caller{}, oci.Want{}, "UNAUTHORIZED"},
		{"version check, known", withBasic("carol", "singer"), oci.Want{}, "ok"},
		{"version check, certificate", withCertificate("build"), oci.Want{}, "ok"},
		{"version check, wrong", withBasic("carol", "x"), oci.Want{}, "UNAUTHORIZED"},
		{"another scheme", oci.Caller{Authorization: "Digest username=alice"}, want("public/x", pull), "UNAUTHORIZED"},
		{"no base64", oci.Caller{Authorization: "Basic ???"}, want("public/x", pull), "UNAUTHORIZED"},
		{"no colon", oci.Caller{Authorization: "Basic " + encode("alice")}, want("public/x", pull), "UNAUTHORIZED"},
		{"a token that is none", withToken("x"), want("public/x", pull), "UNAUTHORIZED invalid_token"},
		{"an empty token", withToken(""), want("public/x", pull), "UNAUTHORIZED invalid_token"},
		{"catalog", withBasic("carol", "singer"), want("", oci.ActionCatalog), "ok"},
		{"catalog, unknown", oci.Caller{}, want("", oci.ActionCatalog), "UNAUTHORIZED"},
		{"an empty repository", withBasic("alice", "wonder"), want("", pull), "DENIED"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := ask(t, a, c.from, c.want); got != c.is {
				t.Errorf("got %s, want %s", got, c.is)
			}
		})
	}
}

func TestAChallengeSaysWhatForAndWhere(t *testing.T) {
	a, _ := authority(t)
	challenge := func(base string, w oci.Want) string {
		_, err := a.Authorize(WithBase(t.Context(), base), oci.Caller{}, w)
		r, ok := err.(*oci.Refusal) //nolint:errorlint // it is what is promised
		if !ok || len(r.Challenges) != 1 {
			t.Fatalf("got %v", err)
		}
		return r.Challenges[0]
	}
	for _, c := range []struct{ name, base, want string }{
		{"as the client came", "https://r.test:5000", `Bearer realm="https://r.test:5000/token",service="larder",scope="repository:team-a/x:pull,push"`},
		{"a host that would break out", `https://r.test",realm="https://evil.test`, `Bearer realm="/token",service="larder",scope="repository:team-a/x:pull,push"`},
		{"a host with a line's end", "https://r.test\r\nX: y", `Bearer realm="/token",service="larder",scope="repository:team-a/x:pull,push"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := challenge(c.base, want("team-a/x", oci.ActionPull, oci.ActionPush)); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
	if got := challenge("http://r.test", oci.Want{}); got != `Bearer realm="http://r.test/token",service="larder"` {
		t.Errorf("a version check is challenged by %s", got)
	}
	a.publicURL = "https://public.test"
	if got := challenge("http://10.0.0.1", oci.Want{}); got != `Bearer realm="https://public.test/token",service="larder"` {
		t.Errorf("with a public URL the challenge is %s", got)
	}
}

func TestAVisitorsFurtherRights(t *testing.T) {
	a, _ := authority(t)
	enter := func(from oci.Caller, w oci.Want) oci.Subject {
		s, err := a.Authorize(t.Context(), from, w)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	pushOnly := tokenFor(t, a, "alice", "wonder", "repository:team-a/to:pull,push")
	both := tokenFor(t, a, "alice", "wonder", "repository:team-a/to:pull,push", "repository:team-a/from:pull")
	catalog := tokenFor(t, a, "bob", "builder", "registry:catalog:*")
	_, nobody, _, _ := getToken(t, a, "", "registry:catalog:*")
	for _, c := range []struct {
		name       string
		subject    oci.Subject
		repository string
		action     oci.Action
		may        bool
	}{
		{"mount of one's own", enter(withBasic("alice", "wonder"), want("team-a/to", oci.ActionPush)), "team-a/from", oci.ActionMount, true},
		{"mount of another's", enter(withBasic("alice", "wonder"), want("team-a/to", oci.ActionPush)), "team-b/from", oci.ActionMount, false},
		{"pull with a token for another", enter(withToken(pushOnly), want("team-a/to", oci.ActionPush)), "team-a/from", oci.ActionPull, false},
		{"mount of one's own with a token for one", enter(withToken(pushOnly), want("team-a/to", oci.ActionPush)), "team-a/from", oci.ActionMount, true},
		{"mount of another's with a token for one", enter(withToken(pushOnly), want("team-a/to", oci.ActionPush)), "team-b/from", oci.ActionMount, false},
		{"mount with a token for both", enter(withToken(both), want("team-a/to", oci.ActionPush)), "team-a/from", oci.ActionPull, true},
		{"catalog shows what may be pulled", enter(withToken(catalog), want("", oci.ActionCatalog)), "team-a/x", oci.ActionPull, true},
		{"catalog hides the rest", enter(withToken(catalog), want("", oci.ActionCatalog)), "team-b/x", oci.ActionPull, false},
		{"catalog, unknown", enter(withToken(nobody), want("", oci.ActionCatalog)), "public/x", oci.ActionPull, true},
		{"catalog, unknown, private", enter(withToken(nobody), want("", oci.ActionCatalog)), "team-a/x", oci.ActionPull, false},
		{"catalog gives no push", enter(withToken(catalog), want("", oci.ActionCatalog)), "team-a/x", oci.ActionPush, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := c.subject.May(t.Context(), c.repository, c.action); got != c.may {
				t.Errorf("got %v", got)
			}
		})
	}
	if name := enter(oci.Caller{}, want("public", oci.ActionPull)).Name(); name != "" {
		t.Errorf("an anonymous subject is called %q", name)
	}
	if name := enter(withBasic("alice", "wonder"), oci.Want{}).Name(); name != "user:alice" {
		t.Errorf("alice is called %q", name)
	}
}

func TestFailedLoginsAreLimited(t *testing.T) {
	log, said := logs()
	a, c := authority(t, func(cfg *Config) { cfg.Log = log })
	wrong, right := withBasic("alice", "guess-7"), withBasic("alice", "wonder")
	for range perUser {
		if got := ask(t, a, wrong, oci.Want{}); got != "UNAUTHORIZED" {
			t.Fatal(got)
		}
	}
	_, err := a.Authorize(t.Context(), wrong, oci.Want{})
	if got := verdict(err); got != "TOOMANYREQUESTS" || oci.RetryAfter(err) <= 0 {
		t.Fatalf("the next failure is %s after %s", got, oci.RetryAfter(err))
	}
	if got := ask(t, a, right, oci.Want{}); got != "TOOMANYREQUESTS" {
		t.Errorf("the right password among guesses is %s: it would tell which is right", got)
	}
	if got := ask(t, a, withBasic("bob", "builder"), oci.Want{}); got != "ok" {
		t.Errorf("another user is %s", got)
	}
	from := right
	from.Peer = peer.Next()
	if got := ask(t, a, from, oci.Want{}); got != "ok" {
		t.Errorf("alice from elsewhere is %s", got)
	}
	c.advance(perUser * refillUser)
	if got := ask(t, a, right, oci.Want{}); got != "ok" {
		t.Errorf("later alice is %s", got)
	}
	// Known from the last minutes, alice is not locked out by guesses.
	for range perUser + 1 {
		ask(t, a, wrong, oci.Want{})
	}
	if got := ask(t, a, right, oci.Want{}); got != "ok" {
		t.Errorf("alice, known, is %s", got)
	}
	for _, text := range []string{"login failed", "too many failed logins", "alice", "127.0.0.1"} {
		if !strings.Contains(said.String(), text) {
			t.Errorf("the log does not say %q", text)
		}
	}
	if said := said.String(); strings.Contains(said, "wonder") || strings.Contains(said, "guess-7") || strings.Contains(said, encode("alice:wonder")) {
		t.Errorf("the log tells a password: %s", said)
	}
}

func TestOnePeerIsLimitedWhateverItsUsers(t *testing.T) {
	a, _ := authority(t)
	got := map[string]int{}
	for i := range perPeer + 5 {
		got[ask(t, a, withBasic("user"+strings.Repeat("x", i), "p"), oci.Want{})]++
	}
	if got["UNAUTHORIZED"] != perPeer || got["TOOMANYREQUESTS"] != 5 {
		t.Errorf("got %v", got)
	}
}

// TestManyAtOnceAreNotLimited has more requests come at once with the same right
// password than may fail, as a client's parallel uploads do.
func TestManyAtOnceAreNotLimited(t *testing.T) {
	a, c := authority(t)
	for range 3 {
		verdicts := make(chan string, 8*perUser)
		for range cap(verdicts) {
			go func() { // ends with the request
				_, err := a.Authorize(context.Background(), withBasic("alice", "wonder"), oci.Want{})
				verdicts <- verdict(err)
			}()
		}
		for range cap(verdicts) {
			if got := <-verdicts; got != "ok" {
				t.Fatal(got)
			}
		}
		c.advance(loginsKept)
	}
	// And of wrong ones no more are checked than may fail, and those that were
	// being checked.
	verdicts := make(chan string, 8*perUser)
	for i := range cap(verdicts) {
		go func() { // ends with the request
			_, err := a.Authorize(context.Background(), withBasic("bob", strings.Repeat("x", i+1)), oci.Want{})
			verdicts <- verdict(err)
		}()
	}
	got := map[string]int{}
	for range cap(verdicts) {
		got[<-verdicts]++
	}
	if n := got["UNAUTHORIZED"]; n < perUser || n > perUser+bcryptAtOnce() || n+got["TOOMANYREQUESTS"] != cap(verdicts) {
		t.Errorf("got %v", got)
	}
}

func TestSuccessesAreNotLimited(t *testing.T) {
	a, c := authority(t)
	for range 5 * perUser {
		if got := ask(t, a, withBasic("alice", "wonder"), oci.Want{}); got != "ok" {
			t.Fatal(got)
		}
		c.advance(loginsKept) // so that each is checked again
	}
}

func TestTheCacheHoldsNoSecretAndEnds(t *testing.T) {
	a, c := authority(t)
	if got := ask(t, a, withBasic("alice", "wonder"), oci.Want{}); got != "ok" {
		t.Fatal(got)
	}
	if n := len(a.logins.entries); n != 1 {
		t.Fatalf("%d logins are remembered", n)
	}
	for key := range a.logins.entries {
		plain := keyOf(nil, "password", "alice", a.settings.Load().users.fixed.entries["alice"].hash, "wonder")
		if key == plain {
			t.Error("the key of the cache can be computed without the process's secret")
		}
	}
	c.advance(loginsKept)
	ask(t, a, withBasic("alice", "wrong"), oci.Want{})
	key := keyOf(a.secret, "password", "alice", a.settings.Load().users.fixed.entries["alice"].hash, "wonder")
	if _, ok := a.logins.get(key); ok {
		t.Errorf("a login counts after %s", loginsKept)
	}
}

func TestTheCacheIsBounded(t *testing.T) {
	now := newClock()
	c := newCache[int](100, now.Now)
	for i := range 1000 {
		c.put(keyOf(nil, strings.Repeat("x", i)), i, time.Hour)
	}
	if n := len(c.entries); n != 100 {
		t.Errorf("it holds %d", n)
	}
	l := newLimiter(now.Now)
	p := peer
	for range maxBuckets {
		l.failed(p, "u")
		p = p.Next()
	}
	if n := len(l.buckets); n > maxBuckets {
		t.Errorf("there are %d buckets", n)
	}
}

func TestSubjectPatterns(t *testing.T) {
	alice := Subject{Name: "user:alice"}
	main := Subject{Name: "github:repo:acme/app:ref:refs/heads/main", Groups: []string{"group:github:admins"}}
	for _, c := range []struct {
		pattern string
		is      []Subject
	}{
		{"user:alice", []Subject{alice}},
		{"user:*", []Subject{alice}},
		{"user:al*e", []Subject{alice}},
		{"authenticated", []Subject{alice, main}},
		{"anonymous", []Subject{Anonymous()}},
		{"*", []Subject{alice, main, Anonymous()}},
		{"github:repo:acme/*:ref:refs/heads/main", []Subject{main}},
		{"github:repo:*:ref:refs/heads/main", nil},
		{"github:repo:acme/*", nil},
		{"github:repo:acme/**", []Subject{main}},
		{"github:**", []Subject{main}},
		{"group:github:admins", []Subject{main}},
		{"user:alic", nil},
		{"user:alice*", []Subject{alice}},
		{"user:a.ice", nil},
		{"anonymous:*", nil},
	} {
		t.Run(c.pattern, func(t *testing.T) {
			p, err := parseSubjectPattern(c.pattern)
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range []Subject{alice, main, Anonymous()} {
				wanted := slices.ContainsFunc(c.is, func(one Subject) bool { return one.Name == s.Name })
				if got := p.matches(s); got != wanted {
					t.Errorf("%s: %v", s.Name, got)
				}
			}
		})
	}
	for _, bad := range []string{"", "alice", "*:alice", "us*r:alice", "user:***", strings.Repeat("x:", maxPattern)} {
		if _, err := parseSubjectPattern(bad); err == nil {
			t.Errorf("%.20q is a pattern", bad)
		}
	}
}

func TestRepositoryPatterns(t *testing.T) {
	for _, c := range []struct {
		pattern string
		is, not []string
	}{
		{"*", []string{"a", "a/b/c", "f/docker.io/library/nginx"}, nil},
		{"team-a", []string{"team-a", "team-a/x", "team-a/x/y"}, []string{"team", "team-abc", "x/team-a", ""}},
		{"team-a/", []string{"team-a/x"}, []string{"team-abc"}},
		{"team-*/app", []string{"team-a/app", "team-/app/x"}, []string{"team-a", "team-a/other", "team-a/x/app"}},
		{"*/public", []string{"a/public", "b/public/x"}, []string{"public", "a/b/public"}},
		{"f/docker.io", []string{"f/docker.io/library/nginx"}, []string{"f/docker.iox/a/b", "docker.io/library/nginx"}},
		{"f/127.0.0.1:5000/a", []string{"f/127.0.0.1:5000/a/b"}, []string{"f/127.0.0.1:50001/a"}},
	} {
		t.Run(c.pattern, func(t *testing.T) {
			p := oci.Pattern(c.pattern)
			if err := checkPattern(p); err != nil {
				t.Fatal(err)
			}
			for _, name := range c.is {
				if !p.Match(name) {
					t.Errorf("%q is not matched", name)
				}
			}
			for _, name := range c.not {
				if p.Match(name) {
					t.Errorf("%q is matched", name)
				}
			}
		})
	}
	for _, bad := range []string{"", "/", "/team", "team//x", "Team", "team/**", "**", "team?", "team[a]", `team\`, "../x", strings.Repeat("a/", 300) + "a"} {
		if checkPattern(oci.Pattern(bad)) == nil {
			t.Errorf("%.20q is a pattern", bad)
		}
	}
}

func TestRulesThatCannotBeMeant(t *testing.T) {
	good := Rule{Subjects: []string{"user:a"}, Repositories: []string{"a"}, Actions: actions()}
	if err := CheckRule(good); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Rule){
		"no subjects":       func(r *Rule) { r.Subjects = nil },
		"no repositories":   func(r *Rule) { r.Repositories = nil },
		"no actions":        func(r *Rule) { r.Actions = nil },
		"an unknown action": func(r *Rule) { r.Actions = []oci.Action{"write"} },
		"catalog":           func(r *Rule) { r.Actions = []oci.Action{oci.ActionCatalog} },
		"a bad subject":     func(r *Rule) { r.Subjects = []string{"alice"} },
		"a bad repository":  func(r *Rule) { r.Repositories = []string{"A"} },
	} {
		bad := good
		change(&bad)
		if CheckRule(bad) == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
