package upstream

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/larder-registry/larder/internal/oci"
	"github.com/larder-registry/larder/test/cloud"
)

func TestIsAzure(t *testing.T) {
	for host, want := range map[string]bool{
		"acme.azurecr.io": true, "acme.azurecr.cn": true, "Acme.azurecr.us:443": true, "acme.eastus.data.azurecr.io": true,
		"azurecr.io": false, ".azurecr.io": false, "acme.azurecr.io.evil.example": false, "acmeazurecr.io": false,
	} {
		if got := isAzure(host); got != want {
			t.Errorf("%s: %t", host, got)
		}
	}
}

// acr is like an Azure registry: an identity's token is exchanged for a refresh
// token, that for access tokens.
type acr struct {
	mu        sync.Mutex
	exchanged []url.Values
	refuse    int           // status of exchanges to come
	life      time.Duration // of refresh tokens
	now       func() time.Time
	issued    int
}

func (a *acr) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	refresh := func(n int) string { return fmt.Sprintf("MARKERrefresh%d", n) }
	switch {
	case r.URL.Path == "/oauth2/exchange" && a.refuse != 0:
		w.WriteHeader(a.refuse)
	case r.URL.Path == "/oauth2/exchange" && r.Method == http.MethodPost && r.FormValue("grant_type") == "access_token" && strings.HasPrefix(r.FormValue("access_token"), "MARKERcloud"):
		a.exchanged = append(a.exchanged, r.PostForm)
		a.issued++
		claims := base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, `{"exp":%d,"jti":"%s"}`, a.now().Add(a.life).Unix(), refresh(a.issued)))
		_, _ = fmt.Fprintf(w, `{"refresh_token":"e30.%s.%s"}`, claims, refresh(a.issued))
	case r.URL.Path == "/oauth2/token" && r.Method == http.MethodPost && r.FormValue("grant_type") == "refresh_token" &&
		strings.HasSuffix(r.FormValue("refresh_token"), "."+refresh(a.issued)) && r.FormValue("scope") == "repository:team/app:pull":
		_, _ = io.WriteString(w, `{"access_token":"MARKERaccess"}`)
	case strings.HasPrefix(r.URL.Path, "/oauth2/"):
		w.WriteHeader(http.StatusUnauthorized)
	case r.Header.Get("Authorization") == "Bearer MARKERaccess":
		answer(http.StatusOK, manifestHeader(manifestJSON), manifestJSON)(w, r)
	default:
		w.Header().Set("Www-Authenticate", `Bearer realm="http://`+r.Host+`/oauth2/token",service="acme.azurecr.io",scope="repository:team/app:pull"`)
		w.WriteHeader(http.StatusUnauthorized)
	}
}

func (a *acr) exchanges() []url.Values {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]url.Values(nil), a.exchanged...)
}

// TestAzure: managed identity and workload identity, found without
// configuration.
func TestAzure(t *testing.T) {
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("MARKERassertion\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name   string
		suffix string
		env    map[string]string
		asked  string // of the stand-in
		tenant string
	}{
		{"managed identity", "azurecr.io", nil, "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https%3A%2F%2Fcontainerregistry.azure.net%2F", ""},
		{"one of several", "azurecr.io", map[string]string{"AZURE_CLIENT_ID": "id"}, "/metadata/identity/oauth2/token?api-version=2018-02-01&client_id=id&resource=https%3A%2F%2Fcontainerregistry.azure.net%2F", ""},
		{"in China", "azurecr.cn", nil, "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https%3A%2F%2Fmanagement.chinacloudapi.cn%2F", ""},
		{"workload identity", "azurecr.io", map[string]string{"AZURE_FEDERATED_TOKEN_FILE": token, "AZURE_CLIENT_ID": "id", "AZURE_TENANT_ID": "tenant"}, "/tenant/oauth2/v2.0/token", "tenant"},
	} {
		t.Run(test.name, func(t *testing.T) {
			metadata := cloud.StartMetadata(t)
			now := newClock()
			registry := &acr{life: 3 * time.Hour, now: now.now}
			o := newOrigin(t, registry.ServeHTTP)
			_, port, _ := net.SplitHostPort(o.host())
			host := "acme." + test.suffix + ":" + port
			values := map[string]string{"AZURE_POD_IDENTITY_AUTHORITY_HOST": metadata.URL(), "AZURE_AUTHORITY_HOST": metadata.URL() + "/"}
			for name, value := range test.env {
				values[name] = value
			}
			leaks := newLeaks(t)
			c := newClientOf(t, Config{
				Registries: []Registry{{Host: host, Insecure: true}}, Now: now.now, Log: leaks.log, Env: env(values),
				Resolver: resolver(t, map[string]string{"acme." + test.suffix + ".": "127.0.0.1"}),
			})
			get := func() error {
				_, err := c.Manifest(t.Context(), oci.Reference{Name: oci.Name{Registry: host, Repository: "team/app"}, Tag: "v1"})
				leaks.note(err)
				return err
			}
			for range 2 {
				if err := get(); err != nil {
					t.Fatal(err)
				}
			}
			if got := metadata.Requests(); len(got) != 1 || got[0] != test.asked {
				t.Errorf("asked of Azure: %q, want %q", got, test.asked)
			}
			if got := registry.exchanges(); len(got) != 1 || got[0].Get("service") != host || got[0].Get("tenant") != test.tenant {
				t.Errorf("exchanged: %v", got)
			}
			now.advance(4 * time.Hour)
			if err := get(); err != nil {
				t.Errorf("after the refresh token's end: %v", err)
			}
			if got := registry.exchanges(); len(got) != 2 {
				t.Errorf("%d exchanges, want 2", len(got))
			}
			// The refresh token is revoked.
			now.advance(time.Hour)
			registry.mu.Lock()
			registry.issued += 10
			registry.mu.Unlock()
			if err := get(); err != nil {
				t.Errorf("with a refresh token that is refused: %v", err)
			}
			leaks.mu.Lock()
			defer leaks.mu.Unlock()
			if strings.Contains(leaks.text.String(), "MARKER") {
				t.Errorf("a secret leaks:\n%s", leaks.text.String())
			}
		})
	}
}

// TestAzureFailures end in a status, and are not asked for by every request.
func TestAzureFailures(t *testing.T) {
	for _, test := range []struct {
		name   string
		set    func(*cloud.Metadata, *acr, map[string]string)
		err    error
		reason string
	}{
		{"no identity", func(m *cloud.Metadata, _ *acr, _ map[string]string) { m.Answer(400, `{"error":"MARKER"}`) }, oci.ErrUnauthorized, "error"},
		{"no rights", func(_ *cloud.Metadata, a *acr, _ map[string]string) { a.refuse = 401 }, oci.ErrUnauthorized, "error"},
		{"exchange fails", func(_ *cloud.Metadata, a *acr, _ map[string]string) { a.refuse = 500 }, oci.ErrUnavailable, "credential"},
		{"garbage", func(m *cloud.Metadata, _ *acr, _ map[string]string) { m.Answer(200, "MARKER") }, oci.ErrUnavailable, "credential"},
		{"token file missing", func(_ *cloud.Metadata, _ *acr, values map[string]string) {
			values["AZURE_FEDERATED_TOKEN_FILE"] = "/nonexistent/MARKER-is-a-path"
		}, oci.ErrUnavailable, "credential"},
	} {
		t.Run(test.name, func(t *testing.T) {
			metadata := cloud.StartMetadata(t)
			registry := &acr{life: time.Hour, now: time.Now}
			values := map[string]string{"AZURE_POD_IDENTITY_AUTHORITY_HOST": metadata.URL(), "AZURE_AUTHORITY_HOST": metadata.URL()}
			test.set(metadata, registry, values)
			o := newOrigin(t, registry.ServeHTTP)
			_, port, _ := net.SplitHostPort(o.host())
			host := "acme.azurecr.io:" + port
			c := newClientOf(t, Config{
				Registries: []Registry{{Host: host, Insecure: true}}, Env: env(values),
				Resolver: resolver(t, map[string]string{"acme.azurecr.io.": "127.0.0.1"}),
			})
			for range 3 {
				_, err := c.Manifest(t.Context(), oci.Reference{Name: oci.Name{Registry: host, Repository: "team/app"}, Tag: "v1"})
				if !errors.Is(err, test.err) || oci.Reason(err) != test.reason {
					t.Errorf("Manifest: %v (%s)", err, oci.Reason(err))
				}
			}
			if got := metadata.Requests(); len(got) > 1 {
				t.Errorf("Azure was asked %d times", len(got))
			}
		})
	}
}

func TestJWTExpiry(t *testing.T) {
	token := func(claims string) string {
		return "e30." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + ".x"
	}
	for _, test := range []struct {
		token string
		want  int64
	}{
		{token(`{"exp":1700000000}`), 1700000000},
		{token(`{"exp":"1700000000"}`), 1700000000},
		{token(`{"exp":-1}`), 0},
		{token(`{"exp":1e300}`), 0},
		{token(`{"exp":99999999999999999}`), 0},
		{token(`{}`), 0},
		{token(`MARKER`), 0},
		{"a.b", 0},
		{"a.!.c", 0},
		{"", 0},
	} {
		if got, ok := jwtExpiry(test.token); ok != (test.want != 0) || ok && got.Unix() != test.want {
			t.Errorf("%s: %v, %t", test.token, got, ok)
		}
	}
}

// FuzzJWTExpiry does not panic, and gives times that make sense.
func FuzzJWTExpiry(f *testing.F) {
	f.Add("e30.eyJleHAiOjE3MDAwMDAwMDB9.x")
	f.Fuzz(func(t *testing.T, token string) {
		if at, ok := jwtExpiry(token); ok && (at.Unix() <= 0 || at.Unix() > 1<<40) {
			t.Errorf("%v", at)
		}
	})
}
