package auth

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/larder-registry/larder/internal/oci"
)

// FuzzAuthorization holds that no header that was not made here lets anybody in
// to what is private, and that none breaks anything.
func FuzzAuthorization(f *testing.F) {
	a, _ := authority(f, func(c *Config) {
		c.Settings.Users = nil // so that a guess costs nothing; there is no password to guess
		c.Settings.Rules = []Rule{{Subjects: []string{"authenticated"}, Repositories: []string{"*"}, Actions: actions()}}
	})
	token, _, err := a.grant(f.Context(), Subject{Name: "ci:somebody"}, scope{{Type: "repository", Name: "team-a/app", Actions: []string{"pull"}}})
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{
		"", "Basic", "Basic ", "basic " + encode("alice:wonder"), "Basic " + encode(":"), "Basic " + encode("a\x00:b"), "Bearer", "Bearer ",
		"Bearer x.y.z", "Bearer eyJ.eyJ.", "Bearer " + token, "bearer  " + token + " ", "Bearer " + token[:len(token)-1], "Bearer " + token + token,
		"Bearer eyJhbGciOiJub25lIn0.e30.", "Digest x", "Basic " + strings.Repeat("A", 1000), "\xff\xfe",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, header string) {
		s, err := a.Authorize(t.Context(), oci.Caller{Authorization: header, Peer: peer}, want("team-a/app", oci.ActionPull))
		if (s == nil) == (err == nil) {
			t.Fatalf("%v and %v", s, err)
		}
		if err != nil {
			if v := verdict(err); strings.HasPrefix(v, "not a refusal") {
				t.Fatal(v)
			}
			return
		}
		scheme, value, _ := strings.Cut(header, " ")
		if !strings.EqualFold(scheme, "bearer") || strings.TrimSpace(value) != token {
			t.Errorf("%q lets %s in", header, s.Name())
		}
	})
}

// FuzzToken holds that whatever stands in place of a token's parts, only what
// was signed counts.
func FuzzToken(f *testing.F) {
	a, _ := authority(f)
	token, _, err := a.grant(f.Context(), Subject{Name: "ci:x"}, scope{{Type: "repository", Name: "team-a/app", Actions: []string{"pull"}}})
	if err != nil {
		f.Fatal(err)
	}
	parts := strings.Split(token, ".")
	f.Add(parts[0], parts[1], parts[2])
	f.Add("", "", "")
	f.Add(parts[0], parts[1], "")
	f.Add("eyJhbGciOiJub25lIn0", parts[1], "")
	f.Add(parts[0], "e30", parts[2])
	f.Fuzz(func(t *testing.T, header, payload, signature string) {
		forged := header + "." + payload + "." + signature
		if forged == token {
			return
		}
		if c, err := a.verify(forged); err == nil && c.Name != "ci:x" {
			t.Errorf("%q is a token of %s", forged, c.Name)
		}
		_ = issuerOf(forged) // of strangers, before anything is verified
	})
}

// FuzzScope holds that what is read is written the same, and stays bounded.
func FuzzScope(f *testing.F) {
	for _, seed := range []string{
		"", "repository:a/b:pull,push", "repository:a:*  repository:b:delete", "registry:catalog:*", "repository:f/127.0.0.1:5000/a:pull",
		"a:b", "::", "repository::pull", "repository:a/b:", "plugin(x):a:pull", manyScopes(maxScopes),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := parseScope([]string{text})
		if err != nil {
			return
		}
		if len(s) > maxScopes {
			t.Fatalf("%d scopes", len(s))
		}
		again, err := parseScope([]string{s.String()})
		if err != nil || again.String() != s.String() {
			t.Errorf("%q is written %q and read as %q, %v", text, s, again, err)
		}
	})
}

// FuzzHtpasswd holds that whoever is in a file that is accepted can log in by a
// hash that bcrypt knows, and that names are those RFC 7617 can carry.
func FuzzHtpasswd(f *testing.F) {
	good := "alice:" + cheap(f, "alice", "wonder").PasswordHash
	for _, seed := range []string{"", good, "# x\n" + good + "\r\n", "a:b", ":", good + "\n" + good, "a:$2y$99$" + strings.Repeat("x", 53)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := parseHtpasswd([]byte(text))
		if err != nil {
			return
		}
		for name, e := range p.entries {
			if strings.ContainsAny(name, ":\n\x00") || name == "" || len(e.hash) != 60 {
				t.Errorf("%q has the hash %q", name, e.hash)
			}
		}
	})
}

// FuzzRules holds that patterns are read or refused, and that a pattern of a
// repository without asterisks is about that repository and what is below it.
func FuzzRules(f *testing.F) {
	f.Add("user:alice", "team-a/app", "team-a/app/x")
	f.Add("github:repo:*/**", "team-*/x", "team-/x")
	f.Add("*", "*", "a")
	f.Add("a:\\", "f/docker.io/x", "f/docker.io")
	f.Fuzz(func(t *testing.T, subject, repository, name string) {
		if p, err := parseSubjectPattern(subject); err == nil && !strings.Contains(subject, "*") {
			if p.matches(Subject{Name: name}) && subject != name && (subject != authenticated || name == anonymous) {
				t.Errorf("%q is about %q", subject, name)
			}
		}
		if p := oci.Pattern(repository); checkPattern(p) == nil && !strings.Contains(repository, "*") {
			below := strings.TrimSuffix(repository, "/")
			if is := name == below || strings.HasPrefix(name, below+"/"); is != p.Match(name) {
				t.Errorf("%q and %q: %v", repository, name, !is)
			}
		}
	})
}

// FuzzTokenRequest holds that the endpoint answers whatever it is sent, and
// gives no token for it.
func FuzzTokenRequest(f *testing.F) {
	a, _ := authority(f, func(c *Config) { c.Settings = Settings{} })
	handler := a.Handler(http.NotFoundHandler())
	f.Add("GET", "scope=repository:a:pull", "", "")
	f.Add("POST", "", "application/x-www-form-urlencoded", "grant_type=password&username=a&password=b&scope=repository:a:pull")
	f.Add("POST", "%zz", "application/x-www-form-urlencoded; charset=\"", "%zz")
	f.Fuzz(func(t *testing.T, method, query, kind, body string) {
		if method != http.MethodGet {
			method = http.MethodPost
		}
		r := httptest.NewRequest(method, TokenPath, strings.NewReader(body))
		r.URL.RawQuery = query
		r.Header.Set("Content-Type", kind)
		r.Header.Set("Authorization", body)
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		if w.Code < 400 || w.Code >= 500 {
			t.Errorf("status %d: %s", w.Code, w.Body)
		}
	})
}
