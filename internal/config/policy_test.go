package config

import (
	"bytes"
	"reflect"
	"strings"
	"testing"

	"github.com/larder-registry/larder/internal/policy"
)

func TestImageValidation(t *testing.T) {
	no := false
	cfg, warnings, err := Parse("f", []byte(`
image_validation:
  default: Deny
  mode: warn
  require_digest: true
  allow:
    - docker.io/library/
    - {image: ghcr.io/org, require_digest: false}
    - image: quay.io/x
      mode: audit
  deny: [docker.io/library/secret]
  aliases: {mirror.example: docker.io}
  namespaces:
    kube-system: {default: Allow, require_digest: false}
    team-a:
      allow: [ghcr.io/team-a]
`))
	if err != nil || len(warnings) != 0 {
		t.Fatal(warnings, err)
	}
	want := &policy.Config{
		Default: policy.Deny, Mode: policy.Warn, RequireDigest: true,
		Allow:   []policy.Rule{{Image: "docker.io/library/"}, {Image: "ghcr.io/org", RequireDigest: &no}, {Image: "quay.io/x", Mode: policy.Audit}},
		Deny:    []policy.Rule{{Image: "docker.io/library/secret"}},
		Aliases: map[string]string{"mirror.example": "docker.io"},
		Namespaces: map[string]policy.Namespace{
			"kube-system": {Default: policy.Allow, RequireDigest: &no},
			"team-a":      {Allow: []policy.Rule{{Image: "ghcr.io/team-a"}}},
		},
	}
	if !reflect.DeepEqual(cfg.ImageValidation, want) {
		t.Errorf("got %+v", cfg.ImageValidation)
	}
	var printed bytes.Buffer
	if err := cfg.Print(&printed); err != nil {
		t.Fatal(err)
	}
	again, _, err := Parse("f", printed.Bytes())
	if err != nil || !reflect.DeepEqual(again.ImageValidation, want) {
		t.Errorf("%v\n%s", err, printed.String())
	}
}

// TestTheAncestorsPolicyLoads takes the forms its documentation and its chart
// have for the section.
func TestTheAncestorsPolicyLoads(t *testing.T) {
	for _, content := range []string{
		"image_validation:\n  default: Deny\n  allow:\n    - my-registry.example.com/\n    - registry.k8s.io/\n    - docker.io/library\n    - quay.io\n  deny: []\n",
		"image_validation:\n  default: Allow\n  allow: []\n  deny:\n    - \"docker.io/library/evil/\"\n",
		"registry_proxies: {offline: true}\nimage_validation:\n  default: Deny\n  deny:\n  allow:\n    - 127.0.0.1:31000/\n",
	} {
		cfg, warnings, err := Parse("f", []byte(content))
		if err != nil || len(warnings) != 0 || cfg.ImageValidation == nil {
			t.Errorf("%s%v %v", content, warnings, err)
		}
	}
	_, warnings, err := Parse("f", []byte("image_validation: {default: Deny, allow: [127.0.0.1]}"))
	if err != nil || len(warnings) != 1 || warnings[0].String() != `f:1:43: image_validation.allow[0]: "127.0.0.1" is the registry on port 443 only; name the port for another one: "127.0.0.1:5000"` {
		t.Error(warnings, err)
	}
}

func TestImageValidationMistakes(t *testing.T) {
	for name, c := range map[string]struct{ content, want string }{
		"an image":             {"allow: [docker.io/ubuntu]", `f:2:11: image_validation.allow[0]: "docker.io/ubuntu" is not what it looks like: as an image it is docker.io/library/ubuntu; did you mean "docker.io/library/ubuntu" or "docker.io/ubuntu/*"?`},
		"in a namespace":       {"default: Deny\n  namespaces: {a: {deny: [x, 'https://ghcr.io/x']}}", "f:3:27: image_validation.namespaces.a.deny[0]: \"x\" names no registry; as an image it is on Docker Hub; did you mean \"docker.io/library/x\"?\nf:3:30: image_validation.namespaces.a.deny[1]: \"https://ghcr.io/x\" can never match: images are named without a scheme; did you mean \"ghcr.io/x\"?"},
		"nothing":              {"deny: []", "f:2:3: image_validation: no image could run: there is no default and nothing is allowed; write default: Allow, or default: Deny if you mean it"},
		"an unknown key":       {"default: Deny\n  allowed: []", `f:3:3: image_validation.allowed: unknown key; did you mean "allow"?`},
		"an unknown rule key":  {"allow: [{image: ghcr.io, tag: x}]", `f:2:28: image_validation.allow[0].tag: unknown key`},
		"an unknown mode":      {"default: Deny\n  mode: Audit", `f:3:9: image_validation.mode: unknown value "Audit"; write enforce, warn or audit`},
		"an unknown default":   {"default: deny", `f:2:12: image_validation.default: unknown value "deny"; write Allow or Deny`},
		"a list":               {"namespaces: [a]\n  default: Deny", "f:2:15: image_validation.namespaces: keys and values are wanted, not a list"},
		"a namespace twice":    {"default: Deny\n  namespaces: {a: {}, a: {}}", "f:3:23: image_validation.namespaces.a: the key is there twice, first in line 3; keep one of them"},
		"a rule without image": {"allow: [{mode: warn}]", "f:2:11: image_validation.allow[0]: the entry is empty"},
		"an alias":             {"default: Deny\n  aliases: {x: docker.io/library}", "f:3:16: image_validation.aliases.x: what it stands for is not the name of a registry"},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := Parse("f", []byte("image_validation:\n  "+c.content+"\n"))
			if err == nil || !strings.HasPrefix(err.Error(), c.want) {
				t.Errorf("got  %v\nwant %s", err, c.want)
			}
		})
	}
}
