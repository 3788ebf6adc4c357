package upstream

import (
	"errors"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/larder-registry/larder/internal/oci"
	"github.com/larder-registry/larder/test/cloud"
)

// env is an environment for Config.Env.
func env(values map[string]string) func(string) string {
	return func(name string) string { return values[name] }
}

func TestIsGoogle(t *testing.T) {
	for host, want := range map[string]bool{
		"gcr.io": true, "eu.gcr.io": true, "europe-docker.pkg.dev": true, "us-central1-docker.pkg.dev:443": true,
		"evilgcr.io": false, "gcr.io.evil.example": false, "pkg.dev": false, "europe-npm.pkg.dev": false, "k8s.gcr.io.": false, "docker.io": false,
	} {
		if got := isGoogle(host); got != want {
			t.Errorf("%s: %t", host, got)
		}
	}
}

// googleOrigin is like Artifact Registry: a bearer token for the user of an
// access token, or of a key.
func googleOrigin(t *testing.T, user, password string) (o *origin, host string, names *net.Resolver) {
	t.Helper()
	o = newOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		u, p, sent := r.BasicAuth()
		switch {
		case r.URL.Path == "/v2/token" && sent && u == user && (p == password || password == ""):
			_, _ = w.Write([]byte(`{"token":"MARKERregistry"}`))
		case r.URL.Path == "/v2/token":
			w.WriteHeader(http.StatusForbidden)
		case r.Header.Get("Authorization") == "Bearer MARKERregistry":
			answer(http.StatusOK, manifestHeader(manifestJSON), manifestJSON)(w, r)
		default:
			w.Header().Set("Www-Authenticate", `Bearer realm="http://`+r.Host+`/v2/token",service="europe-docker.pkg.dev",scope="repository:acme/images/app:pull"`)
			w.WriteHeader(http.StatusUnauthorized)
		}
	})
	_, port, _ := net.SplitHostPort(o.host())
	return o, "europe-docker.pkg.dev:" + port, resolver(t, map[string]string{"europe-docker.pkg.dev.": "127.0.0.1"})
}

// TestGoogle: tokens of the metadata server, found without configuration.
func TestGoogle(t *testing.T) {
	_, host, names := googleOrigin(t, "oauth2accesstoken", "")
	metadata := cloud.StartMetadata(t)
	now := newClock()
	leaks := newLeaks(t)
	c := newClientOf(t, Config{
		Registries: []Registry{{Host: host, Insecure: true}}, Resolver: names, Now: now.now, Log: leaks.log,
		Env: env(map[string]string{"GCE_METADATA_HOST": metadata.Host()}),
	})
	if got := metadata.Requests(); len(got) != 0 {
		t.Errorf("asked before it was needed: %q", got)
	}
	get := func(repository string) error {
		_, err := c.Manifest(t.Context(), oci.Reference{Name: oci.Name{Registry: host, Repository: repository}, Tag: "v1"})
		leaks.note(err)
		return err
	}
	for _, repository := range []string{"acme/images/app", "acme/images/other"} {
		if err := get(repository); err != nil {
			t.Errorf("%s: %v", repository, err)
		}
	}
	const path = "/computeMetadata/v1/instance/service-accounts/default/token"
	if got := metadata.Requests(); !slices.Equal(got, []string{path}) {
		t.Errorf("asked of the metadata server: %q", got)
	}
	now.advance(2 * time.Hour)
	if err := get("acme/images/app"); err != nil {
		t.Errorf("after the token's end: %v", err)
	}
	if got := metadata.Requests(); len(got) != 2 {
		t.Errorf("asked of the metadata server: %q", got)
	}
	leaks.mu.Lock()
	defer leaks.mu.Unlock()
	if strings.Contains(leaks.text.String(), "MARKER") {
		t.Errorf("a secret leaks:\n%s", leaks.text.String())
	}
}

// TestGoogleElsewhere: off Google Cloud nothing is found, soon and once.
func TestGoogleElsewhere(t *testing.T) {
	hole, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer hole.Close()
	for _, test := range []struct {
		name   string
		set    func(*cloud.Metadata) (host string)
		err    error
		reason string
	}{
		{"another cloud's server", func(m *cloud.Metadata) string { m.Foreign(); return m.Host() }, oci.ErrUnauthorized, "error"},
		{"no service account", func(m *cloud.Metadata) string { m.Answer(404, "MARKER"); return m.Host() }, oci.ErrUnauthorized, "error"},
		{"black hole", func(*cloud.Metadata) string { return hole.Addr().String() }, oci.ErrUnauthorized, "error"},
		{"garbage", func(m *cloud.Metadata) string { m.Answer(200, "MARKER"); return m.Host() }, oci.ErrUnavailable, "credential"},
		{"no token in it", func(m *cloud.Metadata) string { m.Answer(200, "{}"); return m.Host() }, oci.ErrUnavailable, "credential"},
		{"endless", func(m *cloud.Metadata) string {
			m.Answer(200, `{"access_token":"`+strings.Repeat("MARKER", 100_000)+`"}`)
			return m.Host()
		}, oci.ErrUnavailable, "credential"},
		{"not an address", func(*cloud.Metadata) string { return "%zz" }, oci.ErrUnavailable, "credential"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, host, names := googleOrigin(t, "oauth2accesstoken", "")
			metadata := cloud.StartMetadata(t)
			leaks := newLeaks(t)
			c := newClientOf(t, Config{
				Registries: []Registry{{Host: host, Insecure: true}}, Resolver: names, Log: leaks.log,
				Env: env(map[string]string{"GCE_METADATA_HOST": test.set(metadata)}),
			})
			begin := time.Now()
			for range 3 {
				_, err := c.Manifest(t.Context(), oci.Reference{Name: oci.Name{Registry: host, Repository: "acme/images/app"}, Tag: "v1"})
				leaks.note(err)
				if !errors.Is(err, test.err) || oci.Reason(err) != test.reason {
					t.Errorf("Manifest: %v (%s)", err, oci.Reason(err))
				}
			}
			if took := time.Since(begin); took > 8*time.Second {
				t.Errorf("finding out took %s", took)
			}
			if got := metadata.Requests(); len(got) > 1 {
				t.Errorf("asked %d times, want once", len(got))
			}
			leaks.mu.Lock()
			defer leaks.mu.Unlock()
			if strings.Contains(leaks.text.String(), "MARKER") {
				t.Errorf("a secret leaks:\n%.500s", leaks.text.String())
			}
		})
	}
}

// TestGoogleKeys: a service account's key is a password like any other, if a
// long one with line ends in it.
func TestGoogleKeys(t *testing.T) {
	key := `{"type":"service_account","private_key":"-----BEGIN PRIVATE KEY-----\n` + strings.Repeat("MARKER+/=\\n", 250) + "\"\n}"
	for _, test := range []struct{ user, password string }{{"_json_key", key}, {"_json_key_base64", base64Of(key)}} {
		_, host, names := googleOrigin(t, test.user, test.password)
		file := dockerFileOf(t, test.password+"\n")
		c := newClientOf(t, Config{
			Registries: []Registry{{Host: host, Insecure: true, Username: test.user, PasswordFile: file}}, Resolver: names,
			Env: func(name string) string { t.Errorf("looked for %s although there is a key", name); return "" },
		})
		if _, err := c.Manifest(t.Context(), oci.Reference{Name: oci.Name{Registry: host, Repository: "acme/images/app"}, Tag: "v1"}); err != nil {
			t.Errorf("%s: %v", test.user, err)
		}
	}
}
