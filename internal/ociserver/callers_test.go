package ociserver_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/sirupsen/logrus"

	"github.com/larder-registry/larder/internal/oci"
	"github.com/larder-registry/larder/internal/ociserver"
)

func basic(user, secret string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+secret))
}

// TestCallersCredential: what of Authorization reaches the reader, and that none
// of it reaches the log.
func TestCallersCredential(t *testing.T) {
	tests := map[string]struct {
		header       string
		user, secret string
	}{
		"none":              {"", "", ""},
		"basic":             {basic("MARKERuser", "MARKERsecret"), "MARKERuser", "MARKERsecret"},
		"case":              {"b" + basic("u", "MARKERs")[1:], "u", "MARKERs"},
		"colon in secret":   {basic("u", "MARKER:s"), "u", "MARKER:s"},
		"no user":           {basic("", "MARKERs"), "", "MARKERs"},
		"no secret":         {basic("MARKERuser", ""), "", ""},
		"bearer":            {"Bearer MARKERtoken", "", ""},
		"not base64":        {"Basic MARKER!", "", ""},
		"no colon":          {"Basic " + base64.StdEncoding.EncodeToString([]byte("MARKER")), "", ""},
		"only the scheme":   {"Basic", "", ""},
		"something else":    {"Digest username=MARKER", "", ""},
		"a long one":        {basic("u", strings.Repeat("MARKER", 5000)), "u", strings.Repeat("MARKER", 5000)},
		"bytes, not letter": {basic("u", "\x00\xff\n"), "u", "\x00\xff\n"},
	}
	for name, tt := range tests {
		for _, callers := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, callers %v", name, callers), func(t *testing.T) {
				g := newRegistry()
				g.err = oci.ErrManifestUnknown
				var got oci.Credential
				g.touch = func(ctx context.Context) { got = oci.AccessOf(ctx).Credential }
				s := start(t, g, func(cfg *ociserver.Config) { cfg.Callers = callers }, nil)
				var headers []string
				if tt.header != "" {
					headers = []string{"Authorization", tt.header}
				}
				s.do(t, "GET", "/v2/a/b/manifests/v1?ns=a.b", headers...).want(t, 404)
				user, secret := got.Login()
				if callers && (user != tt.user || secret != tt.secret) || !callers && !got.IsZero() {
					t.Errorf("the reader was given %q, %q", user, secret)
				}
				line, err := s.line(t).String()
				if err != nil || strings.Contains(line, "MARKER") || strings.Contains(line, basic("MARKERuser", "MARKERsecret")[6:]) {
					t.Errorf("the access log has %s, %v", line, err)
				}
			})
		}
	}
}

// TestChallenge: who is asked to log in.
func TestChallenge(t *testing.T) {
	refusal := &oci.Refusal{Cause: oci.ErrUnauthorized, Challenges: []string{`Basic realm="a.b"`}}
	only := []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	own := ownAddress(t)
	tests := map[string]struct {
		err     error
		path    string
		remote  string
		local   bool
		allow   []netip.Prefix
		callers bool
		want    string
	}{
		"containerd":                       {refusal, "/v2/c/manifests/v1?ns=a.b", "127.0.0.1:9", false, nil, true, `Basic realm="a.b"`},
		"containerd, wrapped":              {fmt.Errorf("get: %w", refusal), "/v2/c/manifests/v1?ns=a.b", "127.0.0.1:9", false, nil, true, `Basic realm="a.b"`},
		"containerd, by IPv6":              {refusal, "/v2/c/manifests/v1?ns=a.b", "[::1]:9", false, nil, true, `Basic realm="a.b"`},
		"containerd, mapped":               {refusal, "/v2/c/manifests/v1?ns=a.b", "[::ffff:127.0.0.1]:9", false, nil, true, `Basic realm="a.b"`},
		"containerd, this host's":          {refusal, "/v2/c/manifests/v1?ns=a.b", net.JoinHostPort(own, "9"), false, nil, true, `Basic realm="a.b"`},
		"containerd, from afar":            {refusal, "/v2/c/manifests/v1?ns=a.b", "192.0.2.1:9", false, nil, true, ""},
		"containerd, from afar and wanted": {refusal, "/v2/c/manifests/v1?ns=a.b", "192.0.2.1:9", false, only, true, `Basic realm="a.b"`},
		"containerd, local only":           {refusal, "/v2/c/manifests/v1?ns=a.b", "127.0.0.1:9", true, nil, true, `Basic realm="a.b"`},
		"podman, CRI-O":                    {refusal, "/v2/f/a.b/c/manifests/v1", "127.0.0.1:9", false, nil, true, ""},
		"dockerd":                          {refusal, "/v2/c/manifests/v1", "127.0.0.1:9", false, nil, true, ""},
		"refused for good":                 {oci.ErrUnauthorized, "/v2/c/manifests/v1?ns=a.b", "127.0.0.1:9", false, nil, true, ""},
		"no peer":                          {refusal, "/v2/c/manifests/v1?ns=a.b", "@", false, nil, true, ""},
		"not for callers":                  {refusal, "/v2/c/manifests/v1", "192.0.2.1:9", false, nil, false, `Basic realm="a.b"`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			g := newRegistry()
			g.err = tt.err
			quiet := logrus.New()
			quiet.SetOutput(t.Output())
			h, err := ociserver.New(ociserver.Config{
				Reader: g, Lister: g, DefaultRegistry: "docker.io", Log: logrus.NewEntry(quiet),
				Callers: tt.callers, Local: tt.local, Allow: tt.allow,
			})
			if err != nil {
				t.Fatal(err)
			}
			for _, method := range []string{http.MethodGet, http.MethodHead} {
				r := httptest.NewRequestWithContext(t.Context(), method, tt.path, nil)
				r.RemoteAddr = tt.remote
				w := httptest.NewRecorder()
				h.ServeHTTP(w, r)
				if got := w.Header().Get("WWW-Authenticate"); w.Code != 401 || got != tt.want {
					t.Errorf("%s: status %d, WWW-Authenticate %q; want 401 and %q", method, w.Code, got, tt.want)
				}
			}
		})
	}
}

// TestTheVersionCheckNeverChallenges: clients that meet a challenge there log in
// everywhere or give up.
func TestTheVersionCheckNeverChallenges(t *testing.T) {
	g := newRegistry()
	g.err = &oci.Refusal{Cause: oci.ErrUnauthorized, Challenges: []string{`Basic realm="a.b"`}}
	s := start(t, g, func(cfg *ociserver.Config) { cfg.Callers = true }, nil)
	s.do(t, "GET", "/v2/").want(t, 200, "WWW-Authenticate", "")
	s.do(t, "GET", "/v2/", "Authorization", basic("u", "p")).want(t, 200, "WWW-Authenticate", "")
}

// ownAddress is an address of this host's own; any will do.
func ownAddress(t *testing.T) string {
	t.Helper()
	addrs, err := net.InterfaceAddrs()
	if err != nil || len(addrs) == 0 {
		t.Fatalf("this host has no address: %v", err)
	}
	prefix, err := netip.ParsePrefix(addrs[len(addrs)-1].String())
	if err != nil {
		t.Fatal(err)
	}
	return prefix.Addr().String()
}
