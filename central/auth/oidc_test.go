package auth

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/larder-registry/larder/internal/oci"
)

// testIssuer is an OpenID Connect issuer over HTTP.
type testIssuer struct {
	*httptest.Server
	mu      sync.Mutex
	keys    map[string]*ecdsa.PrivateKey
	claimed string // issuer in the discovery document, if not its own
	down    bool
	asked   int // for keys
}

func newTestIssuer(t *testing.T, ids ...string) *testIssuer {
	t.Helper()
	i := &testIssuer{keys: map[string]*ecdsa.PrivateKey{}}
	for _, id := range ids {
		i.addKey(t, id)
	}
	i.Server = httptest.NewServer(http.HandlerFunc(i.serve))
	t.Cleanup(i.Close)
	return i
}

func (i *testIssuer) addKey(t *testing.T, id string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.keys[id] = key
}

func (i *testIssuer) set(change func(*testIssuer)) {
	i.mu.Lock()
	defer i.mu.Unlock()
	change(i)
}

func (i *testIssuer) serve(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.down {
		http.Error(w, "down", http.StatusInternalServerError)
		return
	}
	switch r.URL.Path {
	case "/.well-known/openid-configuration":
		issuer := i.claimed
		if issuer == "" {
			issuer = i.URL
		}
		_ = json.NewEncoder(w).Encode(map[string]string{"issuer": issuer, "jwks_uri": i.URL + "/keys"})
	case "/keys":
		i.asked++
		if !strings.Contains(r.Header.Get("Accept"), "application/jwk-set+json") { // as Kubernetes has it
			w.WriteHeader(http.StatusNotAcceptable)
			return
		}
		list := []any{map[string]string{"kty": "unheard-of"}}
		for id, key := range i.keys {
			list = append(list, jose.JSONWebKey{Key: key.Public(), KeyID: id, Use: "sig"})
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"keys": list})
	default:
		http.NotFound(w, r)
	}
}

// token signs claims with a key of the issuer's, or one it has never seen.
func (i *testIssuer) token(t *testing.T, id string, c map[string]any) string {
	t.Helper()
	i.mu.Lock()
	key := i.keys[id]
	i.mu.Unlock()
	if key == nil {
		var err error
		if key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			t.Fatal(err)
		}
	}
	options := (&jose.SignerOptions{}).WithType("JWT")
	if id != "" {
		options = options.WithHeader("kid", id)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key}, options)
	if err != nil {
		t.Fatal(err)
	}
	token, err := jwt.Signed(signer).Claims(c).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// withIssuer makes an authority that takes tokens of i for main of acme.
func withIssuer(t *testing.T, i *testIssuer) (*Authority, *clock, *lockedBuffer) {
	t.Helper()
	client, err := NewClient(ClientConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.CloseIdleConnections)
	log, said := logs()
	c := newClock()
	provider, err := NewIssuer(IssuerConfig{
		Name: "github", URL: i.URL, Audiences: []string{"registry.test"}, GroupsClaim: "roles",
		Client: client, Log: log, Now: c.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	a, _ := authority(t, func(cfg *Config) {
		cfg.Providers, cfg.Log, cfg.Now = []Provider{provider}, log, c.Now
		cfg.Settings.Rules = append(cfg.Settings.Rules,
			Rule{Subjects: []string{"github:repo:acme/*:ref:refs/heads/main"}, Repositories: []string{"acme"}, Actions: []oci.Action{oci.ActionPull, oci.ActionPush}},
			Rule{Subjects: []string{"group:github:cleaners"}, Repositories: []string{"acme"}, Actions: []oci.Action{oci.ActionDelete}})
	})
	return a, c, said
}

func (c *clock) claims(issuer string, change ...func(map[string]any)) map[string]any {
	m := map[string]any{
		"iss": issuer, "sub": "repo:acme/app:ref:refs/heads/main", "aud": "registry.test",
		"iat": c.Now().Unix(), "exp": c.Now().Add(5 * time.Minute).Unix(),
	}
	for _, f := range change {
		f(m)
	}
	return m
}

func TestTokensOfAnIssuer(t *testing.T) {
	i := newTestIssuer(t, "one", "two")
	a, c, said := withIssuer(t, i)
	set := func(key string, value any) func(map[string]any) { return func(m map[string]any) { m[key] = value } }
	drop := func(key string) func(map[string]any) { return func(m map[string]any) { delete(m, key) } }
	push, remove := want("acme/app", oci.ActionPush), want("acme/app", oci.ActionDelete)
	for _, tc := range []struct {
		name, key string
		change    func(map[string]any)
		want      oci.Want
		is        string
	}{
		{"as it should be", "one", set("x", 1), push, "ok"},
		{"by the other key", "two", set("x", 1), push, "ok"},
		{"several audiences", "one", set("aud", []string{"x", "registry.test"}), push, "ok"},
		{"another branch", "one", set("sub", "repo:acme/app:ref:refs/heads/evil"), push, "DENIED"},
		{"a branch that ends alike", "one", set("sub", "repo:evil/app:ref:refs/heads/x:ref:refs/heads/main"), push, "DENIED"},
		{"no right to delete", "one", set("x", 1), remove, "DENIED"},
		{"by a group", "one", set("roles", []string{"cleaners"}), remove, "ok"},
		{"by a group that is a text", "one", set("roles", "cleaners"), remove, "ok"},
		{"by a group of another form", "one", set("roles", map[string]any{"cleaners": true}), remove, "DENIED"},
		{"another audience", "one", set("aud", "sts.amazonaws.com"), push, "UNAUTHORIZED"},
		{"no audience", "one", drop("aud"), push, "UNAUTHORIZED"},
		{"over", "one", set("exp", 1), push, "UNAUTHORIZED"},
		{"no end", "one", drop("exp"), push, "UNAUTHORIZED"},
		{"not yet", "one", set("nbf", c.Now().Add(time.Hour).Unix()), push, "UNAUTHORIZED"},
		{"another issuer", "one", set("iss", "https://evil.test"), push, "UNAUTHORIZED"},
		{"no issuer", "one", drop("iss"), push, "UNAUTHORIZED"},
		{"no subject", "one", drop("sub"), push, "UNAUTHORIZED"},
		{"a subject with a line's end", "one", set("sub", "a\nb"), push, "UNAUTHORIZED"},
		{"a subject too long", "one", set("sub", strings.Repeat("x", maxSubject+1)), push, "UNAUTHORIZED"},
		{"the right key id, another key", "", set("x", 1), push, "UNAUTHORIZED"},
		{"claims to be this registry", "one", set("iss", issuer), push, "UNAUTHORIZED"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			// Each from an address of its own, so that no limit is met.
			peer = peer.Next()
			token := i.token(t, tc.key, c.claims(i.URL, tc.change))
			if got := ask(t, a, withBasic("anything", token), tc.want); got != tc.is {
				t.Errorf("as a password: %s, want %s", got, tc.is)
			}
			is := tc.is
			if is == "UNAUTHORIZED" {
				is += " invalid_token"
			}
			if got := ask(t, a, withToken(token), tc.want); got != is {
				t.Errorf("as a token: %s, want %s", got, is)
			}
			if strings.Contains(said.String(), token) || strings.Contains(said.String(), strings.Split(token, ".")[2]) {
				t.Error("the log tells the token")
			}
		})
	}
	t.Run("exchanged for one of ours", func(t *testing.T) {
		token := i.token(t, "one", c.claims(i.URL, set("roles", []string{"cleaners"})))
		status, own, granted, _ := getToken(t, a, basic("x", token), "repository:acme/app:pull,push,delete")
		if status != 200 || granted != "repository:acme/app:pull,push,delete" {
			t.Fatalf("status %d, granted %q", status, granted)
		}
		if got := ask(t, a, withToken(own), want("acme/app", oci.ActionPush, oci.ActionDelete)); got != "ok" {
			t.Errorf("it is %s", got)
		}
	})
}

func TestKeysOfAnIssuerAreReplaced(t *testing.T) {
	i := newTestIssuer(t, "one")
	a, c, _ := withIssuer(t, i)
	login := func(key string) string {
		return ask(t, a, withBasic("x", i.token(t, key, c.claims(i.URL))), oci.Want{})
	}
	if got := login("one"); got != "ok" {
		t.Fatal(got)
	}
	i.addKey(t, "new")
	c.advance(keysRetry)
	if got := login("new"); got != "ok" {
		t.Errorf("with a new key: %s", got)
	}
	asked := i.asked
	for range 5 {
		if got := login("unheard of"); got != "UNAUTHORIZED" {
			t.Errorf("with an unknown key: %s", got)
		}
	}
	if more := i.asked - asked; more > 1 {
		t.Errorf("five tokens with an unknown key made for %d requests", more)
	}
	i.set(func(i *testIssuer) { i.down = true })
	c.advance(keysFresh)
	if got := login("one"); got != "ok" {
		t.Errorf("while the issuer is down: %s", got)
	}
	c.advance(keysStale)
	if got := login("one"); got != "UNAVAILABLE" {
		t.Errorf("a day later: %s", got)
	}
	i.set(func(i *testIssuer) { i.down = false; delete(i.keys, "one"); delete(i.keys, "new") })
	i.addKey(t, "last")
	c.advance(keysRetry)
	if got := login("one"); got != "UNAUTHORIZED" {
		t.Errorf("with a key that was taken back: %s", got)
	}
	if got := login("last"); got != "ok" {
		t.Errorf("after the issuer is back: %s", got)
	}
}

func TestAnIssuerThatIsAnotherOne(t *testing.T) {
	i := newTestIssuer(t, "one")
	i.claimed = "https://other.test"
	a, c, said := withIssuer(t, i)
	if got := ask(t, a, withBasic("x", i.token(t, "one", c.claims(i.URL))), oci.Want{}); got != "UNAVAILABLE" {
		t.Errorf("got %s", got)
	}
	if !strings.Contains(said.String(), "https://other.test") {
		t.Errorf("the log says %s", said)
	}
}

func TestIssuersThatCannotBeMeant(t *testing.T) {
	log, _ := logs()
	good := IssuerConfig{Name: "ci", URL: "https://ci.test", Audiences: []string{"a"}, Client: &http.Client{}, Log: log}
	if _, err := NewIssuer(good); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*IssuerConfig){
		"no audience":       func(c *IssuerConfig) { c.Audiences = nil },
		"no URL":            func(c *IssuerConfig) { c.URL = "" },
		"plain HTTP":        func(c *IssuerConfig) { c.URL = "http://ci.test" },
		"keys by HTTP":      func(c *IssuerConfig) { c.JWKSURL = "http://ci.test/keys" },
		"a URL with a user": func(c *IssuerConfig) { c.URL = "https://a:b@ci.test" },
		"a name of users":   func(c *IssuerConfig) { c.Name = "user" },
		"a name of groups":  func(c *IssuerConfig) { c.Name = "group" },
		"a colon":           func(c *IssuerConfig) { c.Name = "a:b" },
	} {
		bad := good
		change(&bad)
		if _, err := NewIssuer(bad); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
