package upstream

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/larder-registry/larder/internal/oci"
)

func TestSameDomain(t *testing.T) {
	for _, test := range []struct {
		registry, realm string
		want            bool
	}{
		{"registry-1.docker.io", "auth.docker.io", true},
		{"registry.gitlab.com", "gitlab.com", true},
		{"registry.example.co.uk", "auth.example.co.uk", true},
		{"ghcr.io", "ghcr.io", true},
		{"10.0.0.1", "10.0.0.1", true},
		{"registry", "registry", true},
		{"registry.example.co.uk", "evil.co.uk", false},
		{"registry.example.com", "example.com.evil.test", false},
		{"registry.example.com", "evil.com", false},
		{"acme.github.io", "evil.github.io", false},
		{"registry", "auth", false},
		{"10.0.0.1", "10.0.0.2", false},
		{"registry.internal", "auth.internal", false},
		{"::1", "127.0.0.1", false},
	} {
		if got := sameDomain(test.registry, test.realm); got != test.want {
			t.Errorf("%s and %s: %t", test.registry, test.realm, got)
		}
	}
}

// TestForeignTokenServers get no credentials, whoever names them, unless they
// are named in the entry. Anonymous tokens are had from anywhere.
func TestForeignTokenServers(t *testing.T) {
	const refused = "is in another domain than the registry and gets no credentials"
	for _, test := range []struct {
		name     string
		registry string // its name
		realm    string // the token server's; %s is its port
		trusted  string
		identity bool // an identity token and not a password
		public   bool // the registry's content is
		text     string
	}{
		{"the same host", "registry.acme.test", "http://registry.acme.test:%s/token", "", false, false, ""},
		{"the same domain", "registry.acme.example", "http://auth.acme.example:%s/token", "", false, false, ""},
		{"another domain", "registry.acme.example", "http://auth.evil.example:%s/token", "", false, false, refused},
		{"another domain, identity token", "registry.acme.example", "http://auth.evil.example:%s/token", "", true, false, refused},
		{"another domain that is trusted", "registry.acme.example", "http://auth.evil.example:%s/token", "auth.evil.example", false, false, ""},
		{"another domain, for public content", "registry.acme.example", "http://auth.evil.example:%s/token", "", false, true, ""},
		{"link-local", "registry.acme.example", "http://169.254.169.254/token", "", false, false, "loopback, link-local or metadata address"},
		{"link-local that is trusted", "registry.acme.example", "http://169.254.169.254/token", "169.254.169.254", false, false, "loopback, link-local or metadata address"},
		{"a name for link-local", "registry.acme.example", "http://sly.acme.example:%s/token", "", false, false, "loopback, link-local or metadata address"},
		{"another scheme", "registry.acme.example", "ftp://auth.acme.example/token", "", false, false, "challenge that cannot be answered"},
	} {
		t.Run(test.name, func(t *testing.T) {
			tokens := newOrigin(t, func(w http.ResponseWriter, r *http.Request) {
				_, _, basic := r.BasicAuth()
				if basic || r.Method == http.MethodPost || test.public {
					_, _ = w.Write([]byte(`{"token":"MARKERtoken","access_token":"MARKERtoken"}`))
					return
				}
				w.WriteHeader(http.StatusUnauthorized)
			})
			_, port, _ := net.SplitHostPort(tokens.host())
			realm := strings.ReplaceAll(test.realm, "%s", port)
			o := newOrigin(t, func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("Authorization") != "Bearer MARKERtoken" {
					w.Header().Set("Www-Authenticate", fmt.Sprintf(`Bearer realm="%s",service="s"`, realm))
					w.WriteHeader(http.StatusUnauthorized)
					return
				}
				answer(http.StatusOK, manifestHeader(manifestJSON), manifestJSON)(w, r)
			})
			_, ownPort, _ := net.SplitHostPort(o.host())
			entry := Registry{Host: test.registry + ":" + ownPort, Insecure: true, TokenServer: test.trusted}
			leaks := newLeaks(t)
			cfg := Config{Log: leaks.log, Resolver: resolver(t, map[string]string{
				"registry.acme.test.": "127.0.0.1", "registry.acme.example.": "127.0.0.1", "auth.acme.example.": "127.0.0.1",
				"auth.evil.example.": "127.0.0.1", "sly.acme.example.": "169.254.169.254",
			})}
			if test.identity {
				cfg.DockerConfig = dockerFileOf(t, `{"auths":{"`+entry.Host+`":{"identitytoken":"MARKERidentity"}}}`)
			} else {
				entry.Username, entry.Password = "u", "MARKERpassword"
			}
			cfg.Registries = []Registry{entry}
			c := newClientOf(t, cfg)
			_, err := c.Manifest(t.Context(), oci.Reference{Name: oci.Name{Registry: entry.Host, Repository: "team/app"}, Tag: "v1"})
			leaks.note(err)
			switch {
			case test.text == "" && err != nil:
				t.Errorf("Manifest: %v", err)
			case test.text != "" && (err == nil || !strings.Contains(err.Error()+leaks.text.String(), test.text) || errors.Is(err, oci.ErrUnavailable)):
				t.Errorf("Manifest: %v, want %q", err, test.text)
			}
			tokens.mu.Lock()
			defer tokens.mu.Unlock()
			for _, r := range tokens.seen {
				if sent := r.Header.Get("Authorization") != "" || r.Method == http.MethodPost; sent && (test.text != "" || test.public) {
					t.Errorf("the token server was sent %s with Authorization %q", r.Method, r.Header.Get("Authorization"))
				}
			}
			leaks.mu.Lock()
			defer leaks.mu.Unlock()
			if strings.Contains(leaks.text.String(), "MARKER") {
				t.Errorf("a secret leaks:\n%s", leaks.text.String())
			}
		})
	}
}
