package policy_test

import (
	"strconv"
	"strings"
	"testing"

	"github.com/larder-registry/larder/internal/policy"
)

func TestEntries(t *testing.T) {
	for _, c := range []struct {
		entry string
		// want is the one spelling; or what is wrong, with what was meant.
		want string
	}{
		{"docker.io", "docker.io"},
		{"docker.io/", "docker.io"},
		{"docker.io/*", "docker.io"},
		{"Index.Docker.io:443", "docker.io"},
		{"docker.io/library", "docker.io/library/*"},
		{"docker.io/library/", "docker.io/library/*"},
		{"docker.io/library/*", "docker.io/library/*"},
		{"docker.io/bitnami/", "docker.io/bitnami/*"},
		{"docker.io/library/nginx", "docker.io/library/nginx"},
		{"registry-1.docker.io/team/app", "docker.io/team/app"},
		{"GHCR.io/org", "ghcr.io/org"},
		{"ghcr.io/org/", "ghcr.io/org/*"},
		{"registry:5000", "registry:5000"},
		{"registry:443/x", "registry:443/x"},
		{"localhost", "localhost"},
		{"[::1]:5000/a", "[::1]:5000/a"},
		{"[2001:DB8::1]", "[2001:db8::1]"},
		{"*.example.com", "*.example.com"},
		{"*.Example.com:443/a/*", "*.example.com/a/*"},
		{"*.example.com:5000", "*.example.com:5000"},
		{"*.com", "*.com"},
		{"hub.example/x/y", "docker.io/x/y"},

		{"", `the entry is empty; write a registry, with a path if you like: "ghcr.io/org"`},
		{"*", `"*": an entry for every image is what default is for; write default: Allow or default: Deny`},
		{"docker.io/ubuntu", `"docker.io/ubuntu" is not what it looks like: as an image it is docker.io/library/ubuntu; did you mean "docker.io/library/ubuntu" or "docker.io/ubuntu/*"?`},
		{"hub.example/ubuntu", `"hub.example/ubuntu" is not what it looks like: as an image it is docker.io/library/ubuntu; did you mean "docker.io/library/ubuntu" or "docker.io/ubuntu/*"?`},
		{"ubuntu", `"ubuntu" names no registry; as an image it is on Docker Hub; did you mean "docker.io/library/ubuntu"?`},
		{"Ubuntu", `"Ubuntu" names no registry; as an image it is on Docker Hub; did you mean "docker.io/library/ubuntu"?`},
		{"bitnami/redis", `"bitnami/redis" names no registry; as an image it is on Docker Hub; did you mean "docker.io/bitnami/redis"?`},
		{"bitnami/*", `"bitnami/*" names no registry; as an image it is on Docker Hub; did you mean "docker.io/bitnami/*"?`},
		{"ubuntu:24.04", `"ubuntu:24.04": an entry is about a repository, not about one tag; did you mean "docker.io/library/ubuntu"?`},
		{"ghcr.io/org/app:v1", `"ghcr.io/org/app:v1": an entry is about a repository, not about one tag; did you mean "ghcr.io/org/app"?`},
		{"[::1]:5000/a:1", `"[::1]:5000/a:1": an entry is about a repository, not about one tag; did you mean "[::1]:5000/a"?`},
		{"ghcr.io/app:1@sha256:" + hex64, `"ghcr.io/app:1@sha256:` + hex64 + `": an entry is about a repository, not about one digest; did you mean "ghcr.io/app"?`},
		{"https://ghcr.io/org", `"https://ghcr.io/org" can never match: images are named without a scheme; did you mean "ghcr.io/org"?`},
		{" ghcr.io ", `" ghcr.io " can never match: it has a space; did you mean "ghcr.io"?`},
		{"/ghcr.io", `"/ghcr.io" can never match: it starts with a slash; did you mean "ghcr.io"?`},
		{"ghcr.io/Org", `"ghcr.io/Org" can never match: repositories are in lower case; did you mean "ghcr.io/org"?`},
		{"ghcr.io//org", `"ghcr.io//org" can never match: repository name "/org": each part`},
		{"ghcr.io/org//", `"ghcr.io/org//" can never match: repository name`},
		{"ghcr.io/org*", `"ghcr.io/org*": a * stands alone, at the end behind a slash or at the start before a dot; did you mean "ghcr.io/org/*"?`},
		{"ghcr.io/org/**", `"ghcr.io/org/**": a * stands alone, at the end behind a slash or at the start before a dot; did you mean "ghcr.io/org/*"?`},
		{"ghcr.io/*/app", `"ghcr.io/*/app": a * stands alone, at the end behind a slash or at the start before a dot; write "ghcr.io/org/*" or "*.example.com"`},
		{"reg*.io/x", `"reg*.io/x": a * stands alone`},
		{"ghcr.io/a?c", `"ghcr.io/a?c": a * stands alone`},
		{"*.docker.io", `"*.docker.io" can never match: Docker Hub is docker.io by whatever name it is asked; did you mean "docker.io"?`},
		{"*.10.0.0.1", `"*.10.0.0.1" can never match: what stands behind the * is not the end of a host's name; write "*.example.com"; addresses have no wildcard`},
		{"ghcr.io:0443/x", `"ghcr.io:0443/x" can never match: registry "ghcr.io:0443": the port is a number from 1 to 65535`},
		{"ghcr.io./x", `"ghcr.io./x" can never match: registry "ghcr.io.": write the host without the dot at its end`},
		{"a_b.io/x", `"a_b.io/x" can never match: registry "a_b.io": a host is letters, digits and '-' between dots`},
		{"127.1/x", `"127.1/x" can never match: registry "127.1": write an IPv4 address as four decimal numbers`},
		{"user@ghcr.io/x", `"user@ghcr.io/x": an entry is about a repository, not about one digest`},
	} {
		t.Run(c.entry, func(t *testing.T) {
			p, err := policy.New(policy.Config{Default: policy.Deny, Allow: rules(c.entry), Aliases: map[string]string{"hub.example": "docker.io"}})
			if err != nil {
				if got := strings.TrimPrefix(err.Error(), "allow[0]: "); !strings.HasPrefix(got, c.want) {
					t.Errorf("got  %s\nwant %s", got, c.want)
				}
				return
			}
			if got := p.Summary().Allow; len(got) != 1 || got[0] != c.want {
				t.Errorf("got %q, want %s", got, c.want)
			}
		})
	}
}

func TestCheck(t *testing.T) {
	for name, c := range map[string]struct {
		cfg  policy.Config
		want string
	}{
		"nothing at all": {policy.Config{}, "no image could run: there is no default and nothing is allowed; write default: Allow, or default: Deny if you mean it"},
		"an allow entry that is denied": {
			policy.Config{Allow: rules("ghcr.io", "ghcr.io/org"), Deny: rules("GHCR.io/org")},
			`allow[1]: "ghcr.io/org" can never allow anything: deny[0] denies the same, and deny wins; remove one of them`,
		},
		"an allow entry that is denied with its path": {
			policy.Config{Allow: rules("ghcr.io/org/*"), Deny: rules("ghcr.io/org")},
			`allow[0]: "ghcr.io/org/*" can never allow anything: deny[0] denies the same, and deny wins; remove one of them`,
		},
		"the path itself is left": {policy.Config{Allow: rules("ghcr.io/org"), Deny: rules("ghcr.io/org/*")}, ""},
		"a namespace may replace": {policy.Config{Allow: rules("quay.io"), Deny: rules("ghcr.io/org"), Namespaces: map[string]policy.Namespace{"a": {Allow: rules("ghcr.io/org")}}}, ""},
		"a namespace replaces too little": {
			policy.Config{Allow: rules("quay.io"), Deny: rules("ghcr.io/org"), Namespaces: map[string]policy.Namespace{"a": {Allow: rules("ghcr.io/org/*")}}},
			`namespaces.a.allow[0]: "ghcr.io/org/*" can never allow anything: deny[0] denies the same, and deny wins; remove one of them`,
		},
		"a namespace that cannot be": {
			policy.Config{Default: policy.Deny, Namespaces: map[string]policy.Namespace{"Team*": {}}},
			`namespaces.Team*: "Team*" can never match: it is not the name of a namespace; write lower-case letters, digits and '-'; there are no patterns`,
		},
		"the same twice": {policy.Config{Allow: rules("ghcr.io", "ghcr.io/")}, ""},
		"the same twice, with a mode": {
			policy.Config{Default: policy.Allow, Deny: []policy.Rule{{Image: "ghcr.io"}, {Image: "ghcr.io/", Mode: policy.Warn}}},
			`deny[1]: "ghcr.io/" is there twice, first as deny[0]; keep one of them`,
		},
		"a mode that never counts": {
			policy.Config{Allow: []policy.Rule{{Image: "ghcr.io", Mode: policy.Warn}}},
			"allow[0].mode: what is allowed is not denied, so the mode never counts; remove it, or add require_digest: true",
		},
		"a mode that counts": {policy.Config{RequireDigest: true, Allow: []policy.Rule{{Image: "ghcr.io", Mode: policy.Warn}}}, ""},
		"a digest of what is denied": {
			policy.Config{Default: policy.Allow, Deny: []policy.Rule{{Image: "ghcr.io", RequireDigest: &yes}}},
			"deny[0].require_digest: what is denied is denied by digest too; remove it",
		},
		"an alias of itself":                    {policy.Config{Default: policy.Deny, Aliases: map[string]string{"a.io": "A.io:443"}}, "aliases.a.io: a registry's name cannot be its own alias; remove it"},
		"Docker Hub as alias":                   {policy.Config{Default: policy.Deny, Aliases: map[string]string{"docker.io": "a.io"}}, "aliases.docker.io: a registry's name cannot be its own alias; remove it"},
		"a chain of aliases":                    {policy.Config{Default: policy.Deny, Aliases: map[string]string{"a.io": "b.io", "b.io": "c.io"}}, "aliases.a.io: it stands for another alias; write the name of the registry itself"},
		"an alias of an alias that is built in": {policy.Config{Default: policy.Deny, Aliases: map[string]string{"a.io": "index.docker.io"}}, ""},
		"an alias with a path":                  {policy.Config{Default: policy.Deny, Aliases: map[string]string{"a.io/x": "b.io"}}, "aliases.a.io/x: not the name of a registry; write a host with its port, if it has one: mirror.example:5000"},
		"everything at once": {
			policy.Config{Default: "No", Mode: "Off", Allow: rules("x"), Namespaces: map[string]policy.Namespace{"a": {Default: "Maybe"}}},
			"default: unknown value \"No\"; write Allow or Deny\nmode: unknown value \"Off\"; write enforce, warn or audit\n" +
				"allow[0]: \"x\" names no registry; as an image it is on Docker Hub; did you mean \"docker.io/library/x\"?\nnamespaces.a.default: unknown value \"Maybe\"; write Allow or Deny",
		},
		"only a warning": {policy.Config{Allow: rules("10.0.0.1/x")}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := policy.New(c.cfg)
			got := ""
			if err != nil {
				got = err.Error()
			}
			if got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestWarnings(t *testing.T) {
	problems := policy.Check(policy.Config{Allow: rules("127.0.0.1", "10.0.0.1/x", "localhost", "[::1]", "127.0.0.1:5000", "localhost:5000", "ghcr.io")})
	if len(problems) != 4 {
		t.Fatalf("%q", problems)
	}
	for _, p := range problems {
		if !p.Warning || !strings.Contains(p.String(), "is the registry on port 443 only; name the port for another one:") {
			t.Errorf("%+v", p)
		}
	}
}

// FuzzEntries holds every text to this: it is an entry, and so is its one
// spelling, which is then the same; or it is a mistake, and what was meant
// instead, where that is said, is an entry.
func FuzzEntries(f *testing.F) {
	for _, s := range []string{
		"docker.io/ubuntu", "nginx:1", "https://ghcr.io/a", "*.example.com/x/*", "ghcr.io/a*", "A/b", "[::1]:5000/x", "bitnami/*", "x@sha256:0", "a/b/c/*/d",
		"docker.io/library/", "/x", " y ", "index.docker.io:443/q", "*", "a//b", "ghcr.io/A//B", "http://http://x", "docker.io/A", "*.docker.io/x", "localhost:443", "\x00", "ä.io",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := policy.New(policy.Config{Default: policy.Deny, Allow: rules(s)})
		if err == nil {
			text := p.Summary().Allow[0]
			if again := mustNew(t, policy.Config{Allow: rules(text)}).Summary().Allow[0]; again != text {
				t.Errorf("%q is %q is %q", s, text, again)
			}
			return
		}
		_, meant, _ := strings.Cut(err.Error(), "; did you mean ")
		for meant != "" {
			quoted, err := strconv.QuotedPrefix(meant)
			if err != nil {
				t.Fatalf("%q: %v in %q", s, err, meant)
			}
			entry, _ := strconv.Unquote(quoted)
			if _, err := policy.New(policy.Config{Allow: rules(entry)}); err != nil {
				t.Errorf("%q was answered by %q, which is %v", s, entry, err)
			}
			meant = strings.TrimPrefix(strings.TrimSuffix(meant[len(quoted):], "?"), " or ")
		}
	})
}
