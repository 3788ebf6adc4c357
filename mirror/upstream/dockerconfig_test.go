package upstream

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"oras.land/oras-go/v2/registry/remote/auth"

	"github.com/larder-registry/larder/internal/oci"
)

func dockerFileOf(t *testing.T, content string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "config.json")
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func base64Of(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

// TestDockerConfig: which credential a repository gets.
func TestDockerConfig(t *testing.T) {
	program(t, "docker-credential-one", `test "$1" = get || exit 9; read server || true; echo "{\"ServerURL\":\"$server\",\"Username\":\"helped\",\"Secret\":\"for $server\"}"`)
	program(t, "docker-credential-store", `read server || true; case "$server" in
		*unknown*) echo "credentials not found in native keychain"; exit 1;;
		*token*) echo '{"Username":"<token>","Secret":"identity"}';;
		*) echo '{"Username":"stored","Secret":"s"}';;
	esac`)
	content := `{
		"auths": {
			"https://index.docker.io/v1/": {"auth": "` + base64Of("hub:pass:word") + `"},
			"quay.io": {"auth": "` + base64Of("wide:p") + `"},
			"quay.io/acme": {"username": "narrow", "password": "p"},
			"identity.example": {"auth": "` + base64Of("u:") + `", "identitytoken": "refresh"},
			"registry.example": {"registrytoken": "access"},
			"helped.example": {"auth": "` + base64Of("shadowed:p") + `"},
			"store.example": {},
			"*.azurecr.io": {"auth": "` + strings.TrimRight(base64Of("any:p"), "=") + `"}
		},
		"credHelpers": {"helped.example": "one", "https://index.other.example/v1/": "one"},
		"credsStore": "store",
		"HttpHeaders": {"User-Agent": "x"}, "psFormat": "y"
	}`
	for _, test := range []struct {
		host, repository string
		want             auth.Credential
	}{
		{"docker.io", "library/nginx", auth.Credential{Username: "hub", Password: "pass:word"}},
		{"quay.io", "other/app", auth.Credential{Username: "wide", Password: "p"}},
		{"quay.io", "acme/app", auth.Credential{Username: "narrow", Password: "p"}},
		{"identity.example", "a", auth.Credential{RefreshToken: "refresh"}},
		{"registry.example", "a", auth.Credential{AccessToken: "access"}},
		{"helped.example", "a", auth.Credential{Username: "helped", Password: "for helped.example"}},
		{"store.example", "a", auth.Credential{Username: "stored", Password: "s"}},
		{"nowhere.example", "a", auth.Credential{Username: "stored", Password: "s"}},
		{"unknown.example", "a", auth.EmptyCredential},
		{"token.example", "a", auth.Credential{RefreshToken: "identity"}},
		{"acme.azurecr.io", "a", auth.Credential{Username: "any", Password: "p"}},
	} {
		c := newClientOf(t, Config{DockerConfig: dockerFileOf(t, content)})
		base := ownBase(test.host, false)
		cred := c.foundFor(&entry{host: test.host, base: base, exchange: c.anyone})
		if got, err := cred.get(t.Context(), test.repository); err != nil || got != test.want {
			t.Errorf("%s/%s: %+v, %v, want %+v", test.host, test.repository, got, err, test.want)
		}
	}
}

// TestDockerConfigLogsIn for registries with and without an entry of their own,
// and never where an entry has another credential.
func TestDockerConfigLogsIn(t *testing.T) {
	o := basicOrigin(t, "u", "p")
	file := dockerFileOf(t, `{"auths":{"`+o.host()+`":{"auth":"`+base64Of("u:p")+`"}}}`)
	if err := ask(t, o, Config{Registries: []Registry{o.entry(t)}, DockerConfig: file}, "team/app"); err != nil {
		t.Errorf("by the file: %v", err)
	}
	own := o.entry(t)
	own.Username, own.Password = "other", "MARKERpassword"
	if err := ask(t, o, Config{Registries: []Registry{own}, DockerConfig: file}, "team/app"); !errors.Is(err, oci.ErrUnauthorized) {
		t.Errorf("the entry has its own: %v", err)
	}
	// For a host that nobody configured and nobody knows.
	elsewhere := dockerFileOf(t, `{"auths":{"unknown.example":{"auth":"`+base64Of("u:MARKERpassword")+`"}}}`)
	if err := ask(t, o, Config{Registries: []Registry{o.entry(t)}, DockerConfig: elsewhere}, "team/app"); !errors.Is(err, oci.ErrUnauthorized) {
		t.Errorf("the file has another host: %v", err)
	}
	for _, r := range o.seen {
		if strings.Contains(fmt.Sprint(r.Header), base64Of("u:MARKERpassword")) {
			t.Error("a credential was sent to another host than its own")
		}
	}
}

// TestDockerConfigChanges without a restart.
func TestDockerConfigChanges(t *testing.T) {
	o := basicOrigin(t, "u", "new")
	file := dockerFileOf(t, `{"auths":{"`+o.host()+`":{"auth":"`+base64Of("u:old")+`"}}}`)
	now := newClock()
	c := newClientOf(t, Config{Registries: []Registry{o.entry(t)}, DockerConfig: file, Now: now.now})
	if _, err := c.Manifest(t.Context(), o.tag("v1")); !errors.Is(err, oci.ErrUnauthorized) {
		t.Fatalf("the old one: %v", err)
	}
	if err := os.WriteFile(file, []byte(`{"auths":{"`+o.host()+`":{"auth":"`+base64Of("u:new")+`"}}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	now.advance(time.Minute)
	if _, err := c.Manifest(t.Context(), o.tag("v1")); err != nil {
		t.Errorf("the new one: %v", err)
	}
}

func TestBadDockerConfigs(t *testing.T) {
	for _, test := range []struct{ name, content, text string }{
		{"not JSON", `MARKER`, "not JSON, at byte 1"},
		{"cut", `{"auths":{"a":{"auth":"MARKER`, "not JSON, at byte"},
		{"list", `["MARKER"]`, "a field is of another type"},
		{"auths of another type", `{"auths":["MARKER"]}`, "a field is of another type"},
		{"auth not base64", `{"auths":{"quay.io":{"auth":"MARKER!"}}}`, "auths of quay.io: auth is not the base64 of user:password"},
		{"auth without colon", `{"auths":{"quay.io":{"auth":"` + base64Of("MARKER") + `"}}}`, "auths of quay.io: auth is not"},
		{"helper with a path", `{"credHelpers":{"quay.io":"../../MARKER"}}`, "a credential helper's name is wanted"},
		{"store with a space", `{"credsStore":"rm -rf"}`, "a credential helper's name is wanted"},
		{"too long", strings.Repeat(" ", maxDockerConfig+1), "not a regular file of at most"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if c, err := New(Config{DockerConfig: dockerFileOf(t, test.content)}); err == nil {
				c.Close()
				t.Error("the client starts")
			} else if !strings.Contains(err.Error(), test.text) || strings.Contains(err.Error(), "MARKER") {
				t.Error(err)
			}
		})
	}
	// One that goes bad later fails the pulls that need it, and no others.
	o, public := basicOrigin(t, "u", "p"), newOrigin(t, answer(http.StatusOK, manifestHeader(manifestJSON), manifestJSON))
	file := dockerFileOf(t, `{"auths":{"`+o.host()+`":{"auth":"`+base64Of("u:p")+`"}}}`)
	now := newClock()
	c := newClientOf(t, Config{Registries: []Registry{o.entry(t), public.entry(t)}, DockerConfig: file, Now: now.now})
	if err := os.WriteFile(file, []byte("MARKER"), 0o600); err != nil {
		t.Fatal(err)
	}
	now.advance(time.Minute)
	if _, err := c.Manifest(t.Context(), o.tag("v1")); oci.Reason(err) != "credential" || strings.Contains(err.Error(), "MARKER") {
		t.Errorf("with a bad file: %v", err)
	}
	if _, err := c.Manifest(t.Context(), public.tag("v1")); err != nil {
		t.Errorf("without need: %v", err)
	}
}

// FuzzParseDockerConfig: no error repeats the file, and what is accepted can be
// used.
func FuzzParseDockerConfig(f *testing.F) {
	f.Add([]byte(`{"auths":{"quay.io":{"auth":"dTpw"}}}`))
	f.Add([]byte(`{"auths":{"a":{"auth":"","identitytoken":"x"}},"credHelpers":{"a":"b"},"credsStore":"c"}`))
	f.Fuzz(func(t *testing.T, content []byte) {
		cfg, err := parseDockerConfig(content)
		if err != nil {
			return
		}
		for key, a := range cfg.Auths {
			if _, err := a.credential(); err != nil {
				t.Errorf("auths of %q: %v", key, err)
			}
		}
		for _, helper := range cfg.helpers() {
			if strings.ContainsAny(helper, "/ \x00") || strings.HasPrefix(helper, "-") {
				t.Errorf("helper %q", helper)
			}
		}
	})
}

// TestIdentityTokens are exchanged at the token server for what is sent to the
// registry (distribution, "Oauth2 Token Authentication").
func TestIdentityTokens(t *testing.T) {
	o := newOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/token" && r.Method == http.MethodPost && r.FormValue("grant_type") == "refresh_token" &&
			r.FormValue("refresh_token") == "MARKERidentity" && r.FormValue("scope") == "repository:team/app:pull" && r.FormValue("service") == "reg":
			_, _ = io.WriteString(w, `{"access_token":"MARKERaccess","expires_in":300}`)
		case r.URL.Path == "/token":
			w.WriteHeader(http.StatusUnauthorized)
		case r.Header.Get("Authorization") == "Bearer MARKERaccess":
			answer(http.StatusOK, manifestHeader(manifestJSON), manifestJSON)(w, r)
		default:
			w.Header().Set("Www-Authenticate", `Bearer realm="http://`+r.Host+`/token",service="reg",scope="repository:team/app:pull"`)
			w.WriteHeader(http.StatusUnauthorized)
		}
	})
	file := dockerFileOf(t, `{"auths":{"`+o.host()+`":{"auth":"`+base64Of("u:")+`","identitytoken":"MARKERidentity"}}}`)
	if err := ask(t, o, Config{Registries: []Registry{o.entry(t)}, DockerConfig: file}, "team/app"); err != nil {
		t.Error(err)
	}
}
