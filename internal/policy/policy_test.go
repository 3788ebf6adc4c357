package policy_test

import (
	"strings"
	"testing"

	"github.com/larder-registry/larder/internal/oci"
	"github.com/larder-registry/larder/internal/policy"
)

var (
	hex64  = strings.Repeat("0123456789abcdef", 4)
	pinned = "@sha256:" + hex64
	yes    = true
)

func rules(images ...string) []policy.Rule {
	out := make([]policy.Rule, len(images))
	for i, image := range images {
		out[i].Image = image
	}
	return out
}

func mustNew(t testing.TB, cfg policy.Config) *policy.Policy {
	t.Helper()
	p, err := policy.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestDecide(t *testing.T) {
	p := mustNew(t, policy.Config{
		Default: policy.Deny,
		Allow: []policy.Rule{
			{Image: "docker.io/library/"},
			{Image: "ghcr.io/org"},
			{Image: "*.example.com"},
			{Image: "registry.example.com:5000/team/*"},
			{Image: "quay.io/pinned", RequireDigest: &yes},
			{Image: "quay.io/nudged", RequireDigest: &yes, Mode: policy.Warn},
		},
		Deny: []policy.Rule{{Image: "docker.io/library/secret"}, {Image: "ghcr.io/org/old", Mode: policy.Audit}, {Image: "bad.example.com"}, {Image: "ghcr.io/org/a/b/c"}},
		Namespaces: map[string]policy.Namespace{
			"kube-system": {Default: policy.Allow},
			"team-a":      {Allow: rules("quay.io/a", "docker.io/library/secret"), Deny: rules("docker.io/library/nginx")},
			"trial":       {Mode: policy.Warn, RequireDigest: &yes},
		},
	})
	for _, c := range []struct{ name, namespace, image, word, rule string }{
		{"allowed", "x", "nginx", "allow", "allow docker.io/library/*"},
		{"longest wins", "x", "secret:1", "deny", "deny docker.io/library/secret"},
		{"and below it", "x", "ghcr.io/org/app/sub:1", "allow", "allow ghcr.io/org"},
		{"itself", "x", "ghcr.io/org:1", "allow", "allow ghcr.io/org"},
		{"not a longer name", "x", "ghcr.io/organisation/app", "deny", "default Deny"},
		{"not a longer host", "x", "ghcr.io.evil.com/org/app", "deny", "default Deny"},
		{"longer deny below a shorter", "x", "ghcr.io/org/a/b/c/d", "deny", "deny ghcr.io/org/a/b/c"},
		{"between", "x", "ghcr.io/org/a/b", "allow", "allow ghcr.io/org"},
		{"another port", "x", "ghcr.io:8443/org/app", "deny", "default Deny"},
		{"rule's mode", "x", "ghcr.io/org/old:1", "audit", "deny ghcr.io/org/old"},
		{"wildcard", "x", "a.b.example.com/x", "allow", "allow *.example.com"},
		{"wildcard is not the name itself", "x", "example.com/x", "deny", "default Deny"},
		{"wildcard needs the dot", "x", "badexample.com/x", "deny", "default Deny"},
		{"exact host before wildcard", "x", "bad.example.com/x", "deny", "deny bad.example.com"},
		{"below only, itself", "x", "registry.example.com:5000/team", "deny", "default Deny"},
		{"below only, below", "x", "registry.example.com:5000/team/x", "allow", "allow registry.example.com:5000/team/*"},
		{"tag where a digest is required", "x", "quay.io/pinned/x:1", "deny", "require_digest"},
		{"digest where it is required", "x", "quay.io/pinned/x:1" + pinned, "allow", "allow quay.io/pinned"},
		{"required by a rule with a mode", "x", "quay.io/nudged/x", "warn", "require_digest"},
		{"namespace default", "kube-system", "anything.io/x", "allow", "default Allow in namespace kube-system"},
		{"namespace inherits deny", "kube-system", "secret", "deny", "deny docker.io/library/secret"},
		{"namespace adds", "team-a", "quay.io/a/x", "allow", "allow quay.io/a in namespace team-a"},
		{"namespace replaces", "team-a", "secret", "allow", "allow docker.io/library/secret in namespace team-a"},
		{"namespace denies", "team-a", "nginx", "deny", "deny docker.io/library/nginx in namespace team-a"},
		{"namespace keeps the rest", "team-a", "busybox", "allow", "allow docker.io/library/*"},
		{"namespace's mode for default", "trial", "anything.io/x", "warn", "default Deny"},
		{"namespace's mode for inherited rules", "trial", "secret", "warn", "deny docker.io/library/secret"},
		{"a rule's own mode stays", "trial", "ghcr.io/org/old", "audit", "deny ghcr.io/org/old"},
		{"namespace requires digests", "trial", "nginx", "warn", "require_digest in namespace trial"},
		{"nothing named", "x", "", "allow", "empty"},
		{"not an image", "x", "a//b", "deny", "invalid"},
		{"not an image, on trial", "trial", "a//b", "warn", "invalid"},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := p.DecideImage(c.namespace, c.image)
			if v.Word() != c.word || v.Rule != c.rule {
				t.Errorf("%s in %s: got %s by %q (%s), want %s by %q", c.image, c.namespace, v.Word(), v.Rule, v.Reason, c.word, c.rule)
			}
			if v.Reason == "" || v.Refused() != (c.word == "deny") {
				t.Errorf("%+v", v)
			}
			if ref, err := oci.ParseReference(c.image); err == nil {
				if again := p.Decide(c.namespace, ref); again != v {
					t.Errorf("as a reference %+v, as text %+v", again, v)
				}
			}
		})
	}
}

func TestDecideAnywhere(t *testing.T) {
	p := mustNew(t, policy.Config{
		Allow: rules("ghcr.io"),
		Namespaces: map[string]policy.Namespace{
			"a": {Allow: rules("quay.io")},
			"b": {Mode: policy.Audit, Deny: rules("ghcr.io/b")},
		},
	})
	for image, want := range map[string]string{
		"ghcr.io/x":   "allow by allow ghcr.io",
		"ghcr.io/b":   "allow by allow ghcr.io",
		"quay.io/x":   "allow by allow quay.io in namespace a",
		"docker.io/x": "audit by default Deny",
	} {
		ref, err := oci.ParseReference(image)
		if err != nil {
			t.Fatal(err)
		}
		if v := p.DecideAnywhere(ref); v.Word()+" by "+v.Rule != want {
			t.Errorf("%s: %s by %s, want %s", image, v.Word(), v.Rule, want)
		}
	}
}

func TestReasonsNameTheNearest(t *testing.T) {
	p := mustNew(t, policy.Config{Allow: rules("ghcr.io/org", "quay.io/team/app", "docker.io/library/")})
	for image, want := range map[string]string{
		"ghcr.io/organisation/x": "ghcr.io/org",
		"quay.io/tean/app":       "quay.io/team/app",
		"docker.io/bitnami/x":    "docker.io/library/*",
		"mcr.microsoft.com/x":    "",
	} {
		v := p.DecideImage("x", image)
		if v.Nearest != want || strings.Contains(v.Reason, "nearest") != (want != "") {
			t.Errorf("%s: nearest %q, want %q; %s", image, v.Nearest, want, v.Reason)
		}
	}
}

func TestRevisionAndSummary(t *testing.T) {
	cfg := policy.Config{Default: policy.Deny, Allow: rules("ghcr.io/org", "docker.io/library"), Namespaces: map[string]policy.Namespace{"b": {}, "a": {}}}
	p := mustNew(t, cfg)
	if again := mustNew(t, cfg); p.Revision() != again.Revision() || len(p.Revision()) != 12 {
		t.Errorf("revisions %q and %q", p.Revision(), again.Revision())
	}
	s := p.Summary()
	if strings.Join(s.Allow, " ") != "docker.io/library/* ghcr.io/org" || len(s.Deny) != 0 || strings.Join(s.Namespaces, " ") != "a b" || s.Default != policy.Deny || s.Mode != policy.Enforce || s.Revision != p.Revision() {
		t.Errorf("%+v", s)
	}
	cfg.Mode = policy.Audit
	if other := mustNew(t, cfg); other.Revision() == p.Revision() {
		t.Error("another policy has the same revision")
	}
}
