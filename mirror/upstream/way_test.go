package upstream

import (
	"encoding/base64"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/larder-registry/larder/internal/oci"
	"github.com/larder-registry/larder/test/registry"
)

// asked is one question and what was heard of it.
type asked struct {
	mu    sync.Mutex
	heard []oci.Way
}

func (a *asked) hear(way oci.Way) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.heard = append(a.heard, way)
}

// waysRegistry knows the mirror's own user and the team, and lets everybody in if
// it is public.
func waysRegistry(t *testing.T, basic bool, public bool) (*registry.Server, oci.Reference) {
	t.Helper()
	opts := registry.Options{Basic: basic, Tokens: !basic, Anonymous: []string{}, Users: map[string]string{"node": "own", "team": "secret"}}
	if public {
		opts.Anonymous = []string{"team/app"}
	}
	up := registry.Start(t, opts)
	up.AddImage("team/app", "v1", registry.NewLayer(1, 1000))
	return up, oci.Reference{Name: oci.Name{Registry: up.Host(), Repository: "team/app"}, Tag: "v1"}
}

// TestWays is the table of what is configured, who asks, and what the registry
// lets in: which way is taken, and who is sent whose credentials.
func TestWays(t *testing.T) {
	const node, team, wrong = "node:own", "team:secret", "team:wrong"
	own := func(r *Registry) { r.Username, r.Password = "node", "own" }
	old := func(r *Registry) { r.Username, r.Password = "node", "old" }
	broken := func(r *Registry) {
		r.Provider = &Plugin{Command: "/no/such/plugin", APIVersion: "credentialprovider.kubelet.k8s.io/v1", Timeout: time.Second}
	}
	proof := func(r *Registry) { own(r); r.Proof = true }
	tests := []struct {
		name   string
		entry  func(*Registry)
		public bool
		caller string
		alone  bool
		want   oci.Way
		err    error
		sent   []string // logins the registry or its token server was sent
	}{
		{"public", nil, true, "", false, oci.WayAnonymous, nil, nil},
		{"public, a caller", nil, true, team, false, oci.WayAnonymous, nil, nil},
		{"public, configured", own, true, team, false, oci.WayConfigured, nil, []string{node}},
		{"public, configured wrongly", old, true, team, false, oci.WayAnonymous, nil, []string{"node:old"}},
		{"public, configured for proof", proof, true, team, false, oci.WayAnonymous, nil, nil},
		{"public, no credential can be had", broken, true, "", false, oci.WayAnonymous, nil, nil},
		{"private", nil, false, "", false, oci.WayRefused, oci.ErrUnauthorized, nil},
		{"private, a caller", nil, false, team, false, oci.WayCaller, nil, []string{team}},
		{"private, a stranger", nil, false, wrong, false, oci.WayRefused, oci.ErrUnauthorized, []string{wrong}},
		{"private, configured", own, false, team, false, oci.WayConfigured, nil, []string{node}},
		{"private, configured wrongly", old, false, "", false, oci.WayRefused, oci.ErrUnauthorized, []string{"node:old"}},
		{"private, configured wrongly, a caller", old, false, team, false, oci.WayCaller, nil, []string{"node:old", team}},
		{"private, configured for proof", proof, false, "", false, oci.WayConfigured, nil, []string{node}},
		{"private, no credential can be had", broken, false, "", false, 0, oci.ErrUnavailable, nil},
		{"private, no credential can be had, a caller", broken, false, team, false, oci.WayCaller, nil, []string{team}},
		{"alone", nil, false, team, true, oci.WayCaller, nil, []string{team}},
		{"alone, public", nil, true, team, true, oci.WayCaller, nil, []string{team}},
		{"alone, configured", own, false, team, true, oci.WayCaller, nil, []string{team}},
		{"alone, a stranger", own, true, wrong, true, oci.WayRefused, oci.ErrUnauthorized, []string{wrong}},
	}
	for _, test := range tests {
		for _, basic := range []bool{true, false} {
			t.Run(test.name+map[bool]string{true: ", basic", false: ", tokens"}[basic], func(t *testing.T) {
				up, ref := waysRegistry(t, basic, test.public)
				entry := Registry{Host: up.Host(), Insecure: true}
				if test.entry != nil {
					test.entry(&entry)
				}
				c := newClientOf(t, Config{Registries: []Registry{entry}})
				a := &asked{}
				ap := oci.Approach{Heard: a.hear, Alone: test.alone}
				if user, secret, ok := strings.Cut(test.caller, ":"); ok {
					ap.Credential, ap.Key = oci.NewCredential(user, secret), test.caller
				}
				_, got := c.Manifest(oci.WithApproach(t.Context(), ap), ref)
				var want []oci.Way
				if test.want != 0 {
					want = []oci.Way{test.want}
				}
				// A public registry that speaks Basic has no challenge to
				// answer: nobody is sent anything, whatever is there to send.
				sent, err := test.sent, test.err
				if basic && test.public {
					want, sent, err = []oci.Way{oci.WayAnonymous}, nil, nil
				}
				if !errors.Is(got, err) {
					t.Errorf("Manifest: %v, want %v", got, err)
				}
				if !slices.Equal(a.heard, want) {
					t.Errorf("heard %v, want %v", a.heard, want)
				}
				if all := sentLogins(up); !slices.Equal(all, sent) {
					t.Errorf("the logins %v were sent, want %v", all, sent)
				}
			})
		}
	}
}

// sentLogins are the different logins a registry was sent, in order.
func sentLogins(up *registry.Server) (all []string) {
	for _, r := range up.Requests() {
		value, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Basic ")
		if text, err := base64.StdEncoding.DecodeString(value); ok && err == nil && !slices.Contains(all, string(text)) {
			all = append(all, string(text))
		}
	}
	return all
}

// TestFreshTokens: what a caller's token was good for before says nothing of
// whether the caller may now.
func TestFreshTokens(t *testing.T) {
	up, ref := waysRegistry(t, false, false)
	c := newClientOf(t, Config{Registries: []Registry{{Host: up.Host(), Insecure: true}}})
	ask := func(fresh bool) error {
		ap := oci.Approach{Credential: oci.NewCredential("team", "secret"), Key: "k", Alone: true, Fresh: fresh}
		_, err := c.Resolve(oci.WithApproach(t.Context(), ap), ref)
		return err
	}
	for range 3 {
		if err := ask(false); err != nil {
			t.Fatal(err)
		}
	}
	if n := up.Count(registry.Tokens); n != 1 {
		t.Errorf("%d tokens were fetched, want 1", n)
	}
	up.SetUser("team", "")
	if err := ask(false); err != nil {
		t.Errorf("the token is good for a while yet: %v", err)
	}
	if err := ask(true); !errors.Is(err, oci.ErrUnauthorized) {
		t.Errorf("with a fresh token: %v", err)
	}
	if err := ask(false); !errors.Is(err, oci.ErrUnauthorized) {
		t.Errorf("the old token came back: %v", err)
	}
}

// TestCallersTokensStayApart: the token one caller brought is not another's.
func TestCallersTokensStayApart(t *testing.T) {
	up, ref := waysRegistry(t, false, false)
	c := newClientOf(t, Config{Registries: []Registry{{Host: up.Host(), Insecure: true}}})
	ask := func(ap oci.Approach) error {
		ctx := oci.WithApproach(t.Context(), ap)
		if _, err := c.Resolve(ctx, ref); err != nil {
			return err
		}
		_, err := c.Manifest(ctx, ref)
		return err
	}
	// A HEAD that says too little leaves the manifest for the next question.
	up.Set(registry.Fault{On: registry.Manifests, Method: http.MethodHead, Status: 405})
	team := oci.Approach{Credential: oci.NewCredential("team", "secret"), Key: "team", Alone: true}
	if err := ask(team); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Resolve(oci.WithApproach(t.Context(), team), ref); err != nil {
		t.Fatal(err)
	}
	for name, ap := range map[string]oci.Approach{
		"nobody":                               {},
		"a stranger":                           {Credential: oci.NewCredential("team", "wrong"), Key: "wrong", Alone: true},
		"the same, and whatever else there is": {Credential: oci.NewCredential("team", "wrong"), Key: "wrong"},
	} {
		if _, err := c.Manifest(oci.WithApproach(t.Context(), ap), ref); !errors.Is(err, oci.ErrUnauthorized) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestCallersCredentialsGoNowhereElse: not to an endpoint in front, not to a
// token server elsewhere, not along a redirect.
func TestCallersCredentialsGoNowhereElse(t *testing.T) {
	const secret = "MARKERsecret"
	var mu sync.Mutex
	var leaked []string
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			mu.Lock()
			leaked = append(leaked, r.URL.Path)
			mu.Unlock()
		}
		w.Header().Set("Www-Authenticate", `Basic realm="give me all you have"`)
		w.WriteHeader(http.StatusUnauthorized)
	}))
	defer elsewhere.Close()
	// The same server by another name, which is no other address of ours.
	other := strings.Replace(elsewhere.URL, "127.0.0.1", "127.0.0.2", 1)
	for name, handler := range map[string]http.HandlerFunc{
		"token server": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Www-Authenticate", `Bearer realm="`+other+`/token",service="s"`)
			w.WriteHeader(http.StatusUnauthorized)
		},
		"link-local token server": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Www-Authenticate", `Bearer realm="http://169.254.169.254/token",service="s"`)
			w.WriteHeader(http.StatusUnauthorized)
		},
		"redirect": func(w http.ResponseWriter, r *http.Request) {
			if _, _, ok := r.BasicAuth(); ok {
				w.Header().Set("Location", elsewhere.URL+"/stolen")
				w.WriteHeader(http.StatusTemporaryRedirect)
				return
			}
			w.Header().Set("Www-Authenticate", `Basic realm="registry"`)
			w.WriteHeader(http.StatusUnauthorized)
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := newOrigin(t, handler)
			entry := o.entry(t)
			entry.Endpoints = []string{elsewhere.URL}
			c := newClientOf(t, Config{Registries: []Registry{entry}})
			for _, alone := range []bool{false, true} {
				ap := oci.Approach{Credential: oci.NewCredential("team", secret), Key: "k", Alone: alone}
				_, err := c.Manifest(oci.WithApproach(t.Context(), ap), o.tag("v1"))
				if err == nil || strings.Contains(err.Error(), "MARKER") {
					t.Errorf("Manifest: %v", err)
				}
			}
		})
	}
	if len(leaked) > 0 {
		t.Errorf("credentials were sent elsewhere: %v", leaked)
	}
}
