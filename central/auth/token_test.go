package auth

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/larder-registry/larder/internal/oci"
)

// tokenFor gets a token by password.
func tokenFor(t testing.TB, a *Authority, user, password string, scopes ...string) string {
	t.Helper()
	status, token, _, answer := getToken(t, a, basic(user, password), scopes...)
	if status != http.StatusOK || token == "" {
		t.Fatalf("status %d, %v", status, answer)
	}
	return token
}

func TestTokens(t *testing.T) {
	a, c := authority(t)
	pull, push := oci.ActionPull, oci.ActionPush
	token := tokenFor(t, a, "alice", "wonder", "repository:team-a/app:pull,push")
	for _, c := range []struct {
		name string
		want oci.Want
		is   string
	}{
		{"what it is for", want("team-a/app", pull, push), "ok"},
		{"the version check", oci.Want{}, "ok"},
		{"another repository of hers", want("team-a/other", pull), "UNAUTHORIZED insufficient_scope"},
		{"another action of hers", want("team-a/app", oci.ActionDelete), "UNAUTHORIZED insufficient_scope"},
		{"what is not hers", want("team-b/app", pull), "DENIED"},
		{"catalog", want("", oci.ActionCatalog), "UNAUTHORIZED insufficient_scope"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := ask(t, a, withToken(token), c.want); got != c.is {
				t.Errorf("got %s, want %s", got, c.is)
			}
		})
	}
	c.advance(a.lifetime + tokenLeeway + time.Second)
	if got := ask(t, a, withToken(token), want("team-a/app", pull)); got != "UNAUTHORIZED invalid_token" {
		t.Errorf("after its time the token is %s", got)
	}
}

func TestATokenGrantsNoMoreThanThereIs(t *testing.T) {
	a, _ := authority(t)
	for _, c := range []struct{ name, user, password, scope, granted string }{
		{"all", "alice", "wonder", "repository:team-a/app:*", "repository:team-a/app:pull,push,delete"},
		{"some", "bob", "builder", "repository:team-a/app:pull,push", "repository:team-a/app:pull"},
		{"none", "carol", "singer", "repository:team-a/app:pull,push", ""},
		{"two in one", "bob", "builder", "repository:team-a/app:pull repository:public/x:pull,push", "repository:team-a/app:pull repository:public/x:pull"},
		{"another kind", "alice", "wonder", "plugin:x:pull", ""},
		{"catalog", "carol", "singer", "registry:catalog:*", "registry:catalog:*"},
		{"nothing asked", "alice", "wonder", "", ""},
		{"an unknown action", "alice", "wonder", "repository:team-a/app:admin,pull", "repository:team-a/app:pull"},
	} {
		t.Run(c.name, func(t *testing.T) {
			status, token, granted, _ := getToken(t, a, basic(c.user, c.password), c.scope)
			if status != http.StatusOK || token == "" || granted != c.granted {
				t.Errorf("status %d, granted %q, want %q", status, granted, c.granted)
			}
		})
	}
}

func TestTheTokenEndpointRefuses(t *testing.T) {
	a, _ := authority(t)
	own := tokenFor(t, a, "alice", "wonder")
	for _, c := range []struct {
		name, authorization, scope string
		status                     int
	}{
		{"a wrong password", basic("alice", "x"), "", 401},
		{"nobody, nothing", "", "", 401},
		{"nobody, private", "", "repository:team-a/app:pull", 401},
		{"a scope that is none", basic("alice", "wonder"), "repository", 400},
		{"a name that is none", basic("alice", "wonder"), "repository:TEAM:pull", 400},
		{"too many scopes", basic("alice", "wonder"), manyScopes(maxScopes + 1), 400},
		{"a scope too long", basic("alice", "wonder"), strings.Repeat("x", maxScope+1), 400},
		{"a token for a token", "Bearer " + own, "", 400},
	} {
		t.Run(c.name, func(t *testing.T) {
			status, token, _, answer := getToken(t, a, c.authorization, c.scope)
			if status != c.status || token != "" || answer["errors"] == nil {
				t.Errorf("status %d, answer %v", status, answer)
			}
		})
	}
	if status, token, granted, _ := getToken(t, a, "", "repository:public/x:pull,push"); status != 200 || granted != "repository:public/x:pull" || ask(t, a, withToken(token), want("public/x", oci.ActionPull)) != "ok" {
		t.Errorf("anonymous pull of what is public: status %d, granted %q", status, granted)
	}
}

func manyScopes(n int) string {
	var list []string
	for i := range n {
		list = append(list, fmt.Sprintf("repository:team-a/app%d:pull", i))
	}
	return strings.Join(list, " ")
}

// TestTokensByForm is the OAuth 2 way, which containerd tries first.
func TestTokensByForm(t *testing.T) {
	a, _ := authority(t)
	server := httptest.NewServer(a.Handler(http.NotFoundHandler()))
	defer server.Close()
	post := func(kind string, form url.Values) (int, string) {
		res, err := server.Client().Post(server.URL+TokenPath, kind, strings.NewReader(form.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		var answer map[string]any
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(body, &answer); err != nil {
			t.Fatalf("%v in %s", err, body)
		}
		if token, ok := answer["access_token"].(string); ok {
			return res.StatusCode, ask(t, a, withToken(token), want("team-a/app", oci.ActionPull))
		}
		code, _ := answer["error"].(string)
		return res.StatusCode, code
	}
	const kind = "application/x-www-form-urlencoded"
	form := func(pairs ...string) url.Values {
		v := url.Values{"grant_type": {"password"}, "service": {service}, "client_id": {"test"}, "scope": {"repository:team-a/app:pull"}, "username": {"alice"}, "password": {"wonder"}}
		for i := 0; i < len(pairs); i += 2 {
			v.Set(pairs[i], pairs[i+1])
		}
		return v
	}
	for _, c := range []struct {
		name, kind string
		form       url.Values
		status     int
		is         string
	}{
		{"a password", kind, form(), 200, "ok"},
		{"with a charset", kind + "; charset=utf-8", form(), 200, "ok"},
		{"a wrong password", kind, form("password", "x"), 401, "invalid_grant"},
		{"a refresh token", kind, form("grant_type", "refresh_token"), 400, "invalid_grant"},
		{"another grant", kind, form("grant_type", "client_credentials"), 400, "unsupported_grant_type"},
		{"no form", "application/json", form(), 415, "invalid_request"},
		{"too long", kind, form("padding", strings.Repeat("x", maxForm)), 400, "invalid_request"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if status, is := post(c.kind, c.form); status != c.status || is != c.is {
				t.Errorf("status %d and %s, want %d and %s", status, is, c.status, c.is)
			}
		})
	}
	res, err := server.Client().Head(server.URL + TokenPath)
	if err != nil || res.StatusCode != http.StatusMethodNotAllowed || res.Header.Get("Allow") == "" {
		t.Errorf("HEAD: %v, %v", res, err)
	}
	res.Body.Close()
}

func TestATokenIsGoodOnEveryReplicaAndAfterARestart(t *testing.T) {
	file := keyFile(t, "shared")
	one, _ := authority(t, func(c *Config) { c.KeyFile = file })
	token := tokenFor(t, one, "alice", "wonder", "repository:team-a/app:pull")
	settings := Settings{Users: []User{{Name: "alice", PasswordHash: one.settings.Load().users.fixed.entries["alice"].hash}}, Rules: []Rule{{Subjects: []string{"user:alice"}, Repositories: []string{"team-a"}, Actions: actions()}}}
	two, _ := authority(t, func(c *Config) { c.KeyFile, c.Settings = file, settings })
	if got := ask(t, two, withToken(token), want("team-a/app", oci.ActionPull)); got != "ok" {
		t.Errorf("at another process the token is %s", got)
	}
	stranger, _ := authority(t, func(c *Config) { c.KeyFile, c.Settings = keyFile(t, "own"), settings })
	if got := ask(t, stranger, withToken(token), want("team-a/app", oci.ActionPull)); got != "UNAUTHORIZED invalid_token" {
		t.Errorf("at another registry the token is %s", got)
	}
}

func TestATokenEndsWithItsPasswordItsUserAndItsRights(t *testing.T) {
	a, _ := authority(t)
	pull := want("team-a/app", oci.ActionPull)
	rules := []Rule{{Subjects: []string{"user:alice"}, Repositories: []string{"team-a"}, Actions: actions()}}
	alice := User{Name: "alice", PasswordHash: a.settings.Load().users.fixed.entries["alice"].hash}
	token := withToken(tokenFor(t, a, "alice", "wonder", "repository:team-a/app:pull"))
	for _, c := range []struct {
		name string
		to   Settings
		is   string
	}{
		{"all as it was", Settings{Users: []User{alice}, Rules: rules}, "ok"},
		{"no rights", Settings{Users: []User{alice}}, "DENIED"},
		{"another password", Settings{Users: []User{cheap(t, "alice", "other")}, Rules: rules}, "UNAUTHORIZED invalid_token"},
		{"no such user", Settings{Users: []User{cheap(t, "bob", "b")}, Rules: rules}, "UNAUTHORIZED invalid_token"},
		{"no users", Settings{Rules: rules}, "UNAUTHORIZED invalid_token"},
		{"back again", Settings{Users: []User{alice}, Rules: rules}, "ok"},
	} {
		if err := a.Update(c.to); err != nil {
			t.Fatal(err)
		}
		if got := ask(t, a, token, pull); got != c.is {
			t.Errorf("%s: %s, want %s", c.name, got, c.is)
		}
	}
	// The same with the password itself, which is remembered.
	if got := ask(t, a, withBasic("alice", "wonder"), pull); got != "ok" {
		t.Fatal(got)
	}
	if err := a.Update(Settings{Users: []User{cheap(t, "alice", "other")}, Rules: rules}); err != nil {
		t.Fatal(err)
	}
	if got := ask(t, a, withBasic("alice", "wonder"), pull); got != "UNAUTHORIZED" {
		t.Errorf("the old password is %s", got)
	}
	if err := a.Update(Settings{Users: []User{{Name: "alice", PasswordHash: "plain"}}}); err == nil {
		t.Error("a bad user is accepted")
	}
	if got := ask(t, a, withBasic("alice", "other"), pull); got != "ok" {
		t.Errorf("after a change that was refused, what was before is %s", got)
	}
}

func TestForgedTokens(t *testing.T) {
	a, c := authority(t)
	key := a.keys.get()[0]
	genuine := tokenFor(t, a, "alice", "wonder", "repository:team-a/app:pull")
	parts := strings.Split(genuine, ".")
	now := c.Now()
	good := func() claims {
		return claims{
			Claims: jwt.Claims{
				Issuer: issuer, Subject: "user:alice", Audience: jwt.Audience{service},
				IssuedAt: jwt.NewNumericDate(now), Expiry: jwt.NewNumericDate(now.Add(time.Minute)),
			},
			Login:  a.fingerprint(key, Subject{Name: "user:alice"}),
			Access: scope{{Type: "repository", Name: "team-a/app", Actions: []string{"pull"}}},
		}
	}
	signed := func(alg jose.SignatureAlgorithm, secret any, kid string, change func(*claims)) string {
		cl := good()
		change(&cl)
		signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: secret}, (&jose.SignerOptions{}).WithHeader("kid", kid))
		if err != nil {
			t.Fatal(err)
		}
		token, err := jwt.Signed(signer).Claims(cl).Serialize()
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	nothing := func(*claims) {}
	raw := base64.RawURLEncoding.EncodeToString
	if got := ask(t, a, withToken(signed(jose.HS256, key.secret, key.id, nothing)), want("team-a/app", oci.ActionPull)); got != "ok" {
		t.Fatalf("a token made as here is %s", got)
	}
	for name, token := range map[string]string{
		"no signature":          parts[0] + "." + parts[1] + ".",
		"alg none":              raw([]byte(`{"alg":"none","kid":"`+key.id+`"}`)) + "." + parts[1] + ".",
		"another's signature":   parts[0] + "." + parts[1] + "." + strings.Split(signed(jose.HS256, key.secret, key.id, func(c *claims) { c.Subject = "user:bob" }), ".")[2],
		"another key":           signed(jose.HS256, []byte(strings.Repeat("k", 32)), key.id, nothing),
		"an unknown key id":     signed(jose.HS256, key.secret, "x", nothing),
		"no key id":             signed(jose.HS256, key.secret, "", nothing),
		"another algorithm":     signed(jose.HS512, append(key.secret, key.secret...), key.id, nothing),
		"another issuer":        signed(jose.HS256, key.secret, key.id, func(c *claims) { c.Issuer = "x" }),
		"another audience":      signed(jose.HS256, key.secret, key.id, func(c *claims) { c.Audience = jwt.Audience{"x"} }),
		"no audience":           signed(jose.HS256, key.secret, key.id, func(c *claims) { c.Audience = nil }),
		"no end":                signed(jose.HS256, key.secret, key.id, func(c *claims) { c.Expiry = nil }),
		"over":                  signed(jose.HS256, key.secret, key.id, func(c *claims) { c.Expiry = jwt.NewNumericDate(now.Add(-time.Minute)) }),
		"not yet":               signed(jose.HS256, key.secret, key.id, func(c *claims) { c.NotBefore = jwt.NewNumericDate(now.Add(time.Minute)) }),
		"no subject":            signed(jose.HS256, key.secret, key.id, func(c *claims) { c.Subject = "" }),
		"no login":              signed(jose.HS256, key.secret, key.id, func(c *claims) { c.Login = "" }),
		"an unknown user":       signed(jose.HS256, key.secret, key.id, func(c *claims) { c.Subject = "user:x"; c.Login = "" }),
		"four parts":            genuine + ".x",
		"a token that is huge":  strings.Repeat("e", maxPassword+1),
		"blanks":                parts[0] + ". " + parts[1] + "." + parts[2],
		"two tokens":            genuine + " " + genuine,
		"signature cut":         genuine[:len(genuine)-2],
		"json instead of parts": `{"payload":"` + parts[1] + `","protected":"` + parts[0] + `","signature":"` + parts[2] + `"}`,
	} {
		t.Run(name, func(t *testing.T) {
			if got := ask(t, a, withToken(token), want("team-a/app", oci.ActionPull)); got != "UNAUTHORIZED invalid_token" {
				t.Errorf("got %s", got)
			}
		})
	}
}

func TestKeysAreReplacedWhileInUse(t *testing.T) {
	log, said := logs()
	file := keyFile(t, "old-key")
	a, c := authority(t, func(cfg *Config) { cfg.KeyFile, cfg.Log = file, log })
	pull := want("team-a/app", oci.ActionPull)
	replace := func(content string) {
		t.Helper()
		next := filepath.Join(filepath.Dir(file), "next")
		if err := os.WriteFile(next, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(next, file); err != nil {
			t.Fatal(err)
		}
		c.advance(lookEvery)
	}
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	old := tokenFor(t, a, "alice", "wonder", "repository:team-a/app:pull")
	fresh := strings.Repeat("n", minSecret) + "\n"
	replace(fresh + string(before))
	if got := ask(t, a, withToken(old), pull); got != "ok" {
		t.Errorf("with a second key behind the new, the old token is %s", got)
	}
	next := tokenFor(t, a, "alice", "wonder", "repository:team-a/app:pull")
	replace(fresh)
	if got := ask(t, a, withToken(old), pull); got != "UNAUTHORIZED invalid_token" {
		t.Errorf("without the old key, its token is %s", got)
	}
	replace("short\n")
	if got := ask(t, a, withToken(next), pull); got != "ok" {
		t.Errorf("with a file that makes no sense, the token is %s", got)
	}
	c.advance(lookEvery)
	ask(t, a, withToken(next), pull)
	if n := strings.Count(said.String(), "what it said before stays in force"); n != 1 {
		t.Errorf("the log says so %d times", n)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	c.advance(lookEvery)
	if got := ask(t, a, withToken(next), pull); got != "ok" {
		t.Errorf("without a file, the token is %s", got)
	}
}

func TestEnsureKey(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token.key")
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			if err := EnsureKey(file); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	before, err := os.ReadFile(file)
	if err != nil || CheckKeys(before) != nil {
		t.Fatal(err, CheckKeys(before))
	}
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if err := EnsureKey(file); err != nil {
		t.Fatal(err)
	}
	again, err := os.ReadFile(file)
	if err != nil || !bytes.Equal(again, before) {
		t.Errorf("a second call made another key: %v", err)
	}
	left, err := os.ReadDir(filepath.Dir(file))
	if err != nil || len(left) != 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
