// Package policytest holds the one table that everything which judges images
// has to agree on: the Go matcher, the admission webhook, and the
// ValidatingAdmissionPolicies that package policy writes.
//
// To hold something to it, take each policy of [Policies], put it in force, and
// ask for each of [Cases] that names it, in the namespace that it names. On a
// cluster that is a pod with the one image, created with dryRun=All; the pod is
// refused for Want "deny" and for nothing else, "warn" comes with a warning that
// names the image, and the rest comes without. A pod with an Image that the API
// server itself refuses (Unpodded) can only be asked for where there is none.
// Spellings are more images, without an answer: whatever two judges say of them,
// they have to say the same.
//
// The package decides nothing itself. internal/policy and test/vap run the table
// in every test run.
package policytest

import (
	"strings"

	"github.com/larder-registry/larder/internal/policy"
)

// Case is one image under one policy.
type Case struct {
	// Name tells it apart.
	Name string
	// Policy is a key of Policies, Namespace where the pod is.
	Policy, Namespace string
	// Image is what stands in the pod.
	Image string
	// Want is the Verdict's Word: allow, deny, warn or audit.
	Want string
	// Normalized is the one spelling; empty for what is no image.
	Normalized string
	// Unpodded: the API server refuses a pod with this image by itself.
	Unpodded bool
}

// Namespaces are those that Cases and Policies speak of, for a cluster to have.
func Namespaces() []string { return []string{"table", "table-a", "table-open", "table-trial"} }

func entries(images ...string) []policy.Rule {
	rules := make([]policy.Rule, len(images))
	for i, image := range images {
		rules[i].Image = image
	}
	return rules
}

// Policies are the policies of the table, by name.
func Policies() map[string]policy.Config {
	yes, no := true, false
	return map[string]policy.Config{
		// What most clusters want.
		"closed": {
			Default: policy.Deny,
			Allow: entries("docker.io/library/", "docker.io/team/app", "ghcr.io/org", "127.0.0.1:5000/ok", "quay.io",
				"[2001:db8::1]:5000", "*.example.com", "registry.example.net:5000/below/*", "a:443"),
			Deny: entries("docker.io/library/secret", "ghcr.io/org/old", "bad.example.com", "quay.io/evil"),
		},
		// A deny list, which leaks by its nature; what it names must not.
		"open": {
			Default: policy.Allow,
			Deny:    entries("docker.io/library/secret", "ghcr.io/org", "quay.io", "*.example.com/x", "[2001:db8::1]"),
			Allow:   entries("ghcr.io/org/fine", "quay.io/fine/*"),
		},
		// Everything that has a mode.
		"modes": {
			Default: policy.Deny, Mode: policy.Warn,
			Allow: []policy.Rule{
				{Image: "ghcr.io/org"},
				{Image: "quay.io/pinned", RequireDigest: &yes, Mode: policy.Enforce},
			},
			Deny: []policy.Rule{
				{Image: "ghcr.io/org/never", Mode: policy.Enforce},
				{Image: "ghcr.io/org/old", Mode: policy.Audit},
				{Image: "ghcr.io/org/soon"},
			},
			Namespaces: map[string]policy.Namespace{"table-trial": {Mode: policy.Audit}},
		},
		// Digests everywhere, but for one registry and one namespace.
		"pinned": {
			Default: policy.Allow, RequireDigest: true,
			Allow: []policy.Rule{{Image: "registry.k8s.io", RequireDigest: &no}},
			Deny:  entries("ghcr.io/org"),
			Namespaces: map[string]policy.Namespace{
				"table-open": {RequireDigest: &no},
			},
		},
		// One namespace each for what a namespace may change.
		"namespaces": {
			Default: policy.Deny,
			Allow:   entries("ghcr.io/org", "mirror.example:5000"),
			Deny:    entries("ghcr.io/org/secret", "docker.io/library/nginx"),
			Aliases: map[string]string{"hub-mirror.example": "docker.io", "old.example:5000": "mirror.example:5000"},
			Namespaces: map[string]policy.Namespace{
				"table-a":     {Allow: entries("quay.io/a", "ghcr.io/org/secret"), Deny: entries("ghcr.io/org/not-a")},
				"table-open":  {Default: policy.Allow},
				"table-trial": {Mode: policy.Warn, Deny: entries("ghcr.io/org")},
			},
		},
	}
}

const hex = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// Cases is the table.
func Cases() []Case {
	pin := "@sha256:" + hex
	long := strings.Repeat("a", 250)
	cases := []Case{
		// Docker Hub, by all its names.
		{Policy: "closed", Image: "nginx", Want: "allow", Normalized: "docker.io/library/nginx:latest"},
		{Policy: "closed", Image: "library/nginx:1", Want: "allow", Normalized: "docker.io/library/nginx:1"},
		{Policy: "closed", Image: "docker.io/nginx", Want: "allow", Normalized: "docker.io/library/nginx:latest"},
		{Policy: "closed", Image: "index.docker.io/nginx", Want: "allow", Normalized: "docker.io/library/nginx:latest"},
		{Policy: "closed", Image: "registry-1.docker.io/library/nginx", Want: "allow", Normalized: "docker.io/library/nginx:latest"},
		{Policy: "closed", Image: "registry.hub.docker.com/library/nginx", Want: "allow", Normalized: "docker.io/library/nginx:latest"},
		{Policy: "closed", Image: "Docker.io/library/nginx", Want: "allow", Normalized: "docker.io/library/nginx:latest"},
		{Policy: "closed", Image: "docker.io:443/library/nginx", Want: "allow", Normalized: "docker.io/library/nginx:latest"},
		{Policy: "closed", Image: "secret", Want: "deny", Normalized: "docker.io/library/secret:latest"},
		{Policy: "closed", Image: "registry-1.docker.io:443/secret:1" + pin, Want: "deny", Normalized: "docker.io/library/secret" + pin},
		{Policy: "closed", Image: "REGISTRY.hub.docker.com/library/secret/sub", Want: "deny", Normalized: "docker.io/library/secret/sub:latest"},
		{Policy: "closed", Image: "team/app:1", Want: "allow", Normalized: "docker.io/team/app:1"},
		{Policy: "closed", Image: "team/application", Want: "deny", Normalized: "docker.io/team/application:latest"},
		{Policy: "open", Image: "registry-1.docker.io/library/secret", Want: "deny", Normalized: "docker.io/library/secret:latest"},
		{Policy: "open", Image: "docker.io/secret" + pin, Want: "deny", Normalized: "docker.io/library/secret" + pin},
		{Policy: "open", Image: "nginx", Want: "allow", Normalized: "docker.io/library/nginx:latest"},
		// What looks like a host and is none, and the other way round.
		{Policy: "closed", Image: "ghcr.io", Want: "allow", Normalized: "docker.io/library/ghcr.io:latest"},
		{Policy: "closed", Image: "quay.io:evil", Want: "allow", Normalized: "docker.io/library/quay.io:evil"},
		{Policy: "closed", Image: "A/b", Want: "allow", Normalized: "a:443/b:latest"},
		{Policy: "closed", Image: "a/b", Want: "deny", Normalized: "docker.io/a/b:latest"},
		{Policy: "closed", Image: "a:443/b", Want: "allow", Normalized: "a:443/b:latest"},
		{Policy: "closed", Image: "a_b.io/c", Want: "deny"},
		{Policy: "open", Image: "a_b.io/c", Want: "deny"},
		{Policy: "open", Image: "localhost/c", Want: "allow", Normalized: "localhost/c:latest"},
		{Policy: "open", Image: "LOCALHOST:443/c", Want: "allow", Normalized: "localhost/c:latest"},
		// Image IDs: containerd looks them up on the node, shortened ones too.
		{Policy: "open", Image: "sha256:" + hex, Want: "deny"},
		{Policy: "closed", Image: "sha256:" + hex, Want: "deny"},
		{Policy: "closed", Image: "sha256:0123", Want: "deny"},
		{Policy: "closed", Image: "sha512:" + hex + hex, Want: "deny"},
		{Policy: "closed", Image: "sha384:" + hex[:32], Want: "deny"},
		{Policy: "closed", Image: hex, Want: "deny"},
		{Policy: "closed", Image: "docker.io/library/sha256:" + hex, Want: "allow", Normalized: "docker.io/library/sha256:" + hex},
		{Policy: "closed", Image: "sha256", Want: "allow", Normalized: "docker.io/library/sha256:latest"},
		// Whole segments, whole hosts.
		{Policy: "closed", Image: "ghcr.io/org/app", Want: "allow", Normalized: "ghcr.io/org/app:latest"},
		{Policy: "closed", Image: "ghcr.io/org", Want: "allow", Normalized: "ghcr.io/org:latest"},
		{Policy: "closed", Image: "GHCR.IO/org/x:Tag", Want: "allow", Normalized: "ghcr.io/org/x:Tag"},
		{Policy: "closed", Image: "ghcr.io/organisation/app", Want: "deny", Normalized: "ghcr.io/organisation/app:latest"},
		{Policy: "closed", Image: "ghcr.io/org-x", Want: "deny", Normalized: "ghcr.io/org-x:latest"},
		{Policy: "closed", Image: "ghcr.io/org/old", Want: "deny", Normalized: "ghcr.io/org/old:latest"},
		{Policy: "closed", Image: "ghcr.io/org/old/er", Want: "deny", Normalized: "ghcr.io/org/old/er:latest"},
		{Policy: "closed", Image: "ghcr.io/org/older", Want: "allow", Normalized: "ghcr.io/org/older:latest"},
		{Policy: "closed", Image: "quay.io.evil.com/x", Want: "deny", Normalized: "quay.io.evil.com/x:latest"},
		{Policy: "closed", Image: "quay.io:8443/x", Want: "deny", Normalized: "quay.io:8443/x:latest"},
		{Policy: "closed", Image: "127.0.0.1:5000/ok", Want: "allow", Normalized: "127.0.0.1:5000/ok:latest"},
		{Policy: "closed", Image: "127.0.0.1:50000/ok", Want: "deny", Normalized: "127.0.0.1:50000/ok:latest"},
		{Policy: "closed", Image: "127.0.0.10:5000/ok", Want: "deny", Normalized: "127.0.0.10:5000/ok:latest"},
		{Policy: "closed", Image: "registry.example.net:5000/below/x", Want: "allow", Normalized: "registry.example.net:5000/below/x:latest"},
		{Policy: "closed", Image: "registry.example.net:5000/below", Want: "deny", Normalized: "registry.example.net:5000/below:latest"},
		{Policy: "closed", Image: "registry.example.net:5000/belowx/x", Want: "deny", Normalized: "registry.example.net:5000/belowx/x:latest"},
		// Wildcards.
		{Policy: "closed", Image: "r.example.com/x", Want: "allow", Normalized: "r.example.com/x:latest"},
		{Policy: "closed", Image: "a.r.Example.com:443/x", Want: "allow", Normalized: "a.r.example.com/x:latest"},
		{Policy: "closed", Image: "example.com/x", Want: "deny", Normalized: "example.com/x:latest"},
		{Policy: "closed", Image: "notexample.com/x", Want: "deny", Normalized: "notexample.com/x:latest"},
		{Policy: "closed", Image: "r.example.com:5000/x", Want: "deny", Normalized: "r.example.com:5000/x:latest"},
		{Policy: "closed", Image: "bad.example.com/x", Want: "deny", Normalized: "bad.example.com/x:latest"},
		{Policy: "closed", Image: "very.bad.example.com/x", Want: "allow", Normalized: "very.bad.example.com/x:latest"},
		{Policy: "open", Image: "r.example.com/x/y", Want: "deny", Normalized: "r.example.com/x/y:latest"},
		{Policy: "open", Image: "r.example.com/y", Want: "allow", Normalized: "r.example.com/y:latest"},
		// Ports.
		{Policy: "open", Image: "ghcr.io:443/org/x", Want: "deny", Normalized: "ghcr.io/org/x:latest"},
		{Policy: "open", Image: "quay.io:443/fine/x", Want: "allow", Normalized: "quay.io/fine/x:latest"},
		{Policy: "open", Image: "quay.io/fine", Want: "deny", Normalized: "quay.io/fine:latest"},
		{Policy: "open", Image: "ghcr.io:0443/org/x", Want: "deny"},
		{Policy: "open", Image: "ghcr.io:65536/org/x", Want: "deny"},
		{Policy: "open", Image: "ghcr.io:0/x", Want: "deny"},
		{Policy: "open", Image: "ghcr.io:/x", Want: "deny"},
		{Policy: "open", Image: "ghcr.io:65535/org/x", Want: "allow", Normalized: "ghcr.io:65535/org/x:latest"},
		{Policy: "open", Image: "ghcr.io:123456789012345678901/x", Want: "deny"},
		// Addresses.
		{Policy: "closed", Image: "[2001:DB8:0:0::1]:5000/a", Want: "allow", Normalized: "[2001:db8::1]:5000/a:latest"},
		{Policy: "closed", Image: "[2001:db8::2]:5000/a", Want: "deny", Normalized: "[2001:db8::2]:5000/a:latest"},
		{Policy: "open", Image: "[2001:DB8:0:0::1]/a", Want: "deny", Normalized: "[2001:db8::1]/a:latest"},
		{Policy: "open", Image: "[2001:db8:0:0:0:0:0:1]:443/a", Want: "deny", Normalized: "[2001:db8::1]/a:latest"},
		{Policy: "open", Image: "[2001:db8::3]:443/a", Want: "allow", Normalized: "[2001:db8::3]/a:latest"},
		{Policy: "open", Image: "[::ffff:7f00:1]/a", Want: "deny"},
		{Policy: "open", Image: "[:::]/a", Want: "deny"},
		{Policy: "open", Image: "[fe80::1%25eth0]/a", Want: "deny"},
		{Policy: "open", Image: "127.1:5000/a", Want: "deny"},
		{Policy: "open", Image: "0x7f.1/a", Want: "deny"},
		{Policy: "open", Image: "127.0.0.01/a", Want: "deny"},
		{Policy: "open", Image: "2130706433:5000/a", Want: "deny"},
		{Policy: "open", Image: "10.0.0.256/a", Want: "deny"},
		{Policy: "open", Image: "10.0.0.255/a", Want: "allow", Normalized: "10.0.0.255/a:latest"},
		// What no kubelet can pull.
		{Policy: "open", Image: "quay.io./x", Want: "deny"},
		{Policy: "open", Image: "https://quay.io/x", Want: "deny"},
		{Policy: "open", Image: "x@y", Want: "deny"},
		{Policy: "open", Image: "a//b", Want: "deny"},
		{Policy: "open", Image: "../a", Want: "deny"},
		{Policy: "open", Image: "quay.io/../a", Want: "deny"},
		{Policy: "open", Image: "/a", Want: "deny"},
		{Policy: "open", Image: "a/", Want: "deny"},
		{Policy: "open", Image: "a b", Want: "deny"},
		{Policy: "open", Image: " nginx", Want: "deny", Unpodded: true},
		{Policy: "open", Image: "nginx ", Want: "deny", Unpodded: true},
		{Policy: "open", Image: "nginx\n", Want: "deny", Unpodded: true},
		{Policy: "open", Image: "nginх", Want: "deny"}, // Cyrillic
		{Policy: "open", Image: "quay%2fio/x", Want: "deny"},
		{Policy: "open", Image: "ghcr.io/Org/x", Want: "deny"},
		{Policy: "open", Image: "Nginx", Want: "deny"},
		{Policy: "open", Image: "-a.io/x", Want: "deny"},
		{Policy: "open", Image: "a..io/x", Want: "deny"},
		{Policy: "open", Image: "user:pw@quay.io/x", Want: "deny"},
		{Policy: "open", Image: "a:", Want: "deny"},
		{Policy: "open", Image: "a:.b", Want: "deny"},
		{Policy: "open", Image: "a:" + strings.Repeat("x", 129), Want: "deny"},
		{Policy: "open", Image: "a@sha256:" + hex[:63], Want: "deny"},
		{Policy: "open", Image: "a@sha256:" + strings.ToUpper(hex), Want: "deny"},
		{Policy: "open", Image: "a@md5:" + hex[:32], Want: "deny"},
		{Policy: "open", Image: "x.io/" + long + "/abcde", Want: "deny"},
		{Policy: "open", Image: "x.io/" + long + "/abcd", Want: "allow", Normalized: "x.io/" + long + "/abcd:latest"},
		{Policy: "open", Image: "x.io/a__b.c---d", Want: "allow", Normalized: "x.io/a__b.c---d:latest"},
		{Policy: "open", Image: "x.io/a___b", Want: "deny"},
		{Policy: "open", Image: strings.Repeat("a", 64) + ".io/x", Want: "deny"},
		{Policy: "open", Image: "", Want: "allow", Unpodded: true},
		{Policy: "closed", Image: "", Want: "allow", Unpodded: true},
		// Modes.
		{Policy: "modes", Image: "ghcr.io/org/x", Want: "allow", Normalized: "ghcr.io/org/x:latest"},
		{Policy: "modes", Image: "ghcr.io/org/never", Want: "deny", Normalized: "ghcr.io/org/never:latest"},
		{Policy: "modes", Image: "ghcr.io/org/old", Want: "audit", Normalized: "ghcr.io/org/old:latest"},
		{Policy: "modes", Image: "ghcr.io/org/soon", Want: "warn", Normalized: "ghcr.io/org/soon:latest"},
		{Policy: "modes", Image: "quay.io/x", Want: "warn", Normalized: "quay.io/x:latest"},
		{Policy: "modes", Image: "quay.io/pinned", Want: "deny", Normalized: "quay.io/pinned:latest"},
		{Policy: "modes", Image: "quay.io/pinned" + pin, Want: "allow", Normalized: "quay.io/pinned" + pin},
		{Policy: "modes", Image: "a//b", Want: "warn"},
		{Policy: "modes", Namespace: "table-trial", Image: "ghcr.io/org/never", Want: "deny", Normalized: "ghcr.io/org/never:latest"},
		{Policy: "modes", Namespace: "table-trial", Image: "ghcr.io/org/soon", Want: "audit", Normalized: "ghcr.io/org/soon:latest"},
		{Policy: "modes", Namespace: "table-trial", Image: "sha256:0123", Want: "audit"},
		// Digests.
		{Policy: "pinned", Image: "nginx", Want: "deny", Normalized: "docker.io/library/nginx:latest"},
		{Policy: "pinned", Image: "nginx:1" + pin, Want: "allow", Normalized: "docker.io/library/nginx" + pin},
		{Policy: "pinned", Image: "registry.k8s.io/pause:3", Want: "allow", Normalized: "registry.k8s.io/pause:3"},
		{Policy: "pinned", Image: "ghcr.io/org/x" + pin, Want: "deny", Normalized: "ghcr.io/org/x" + pin},
		{Policy: "pinned", Namespace: "table-open", Image: "nginx", Want: "allow", Normalized: "docker.io/library/nginx:latest"},
		{Policy: "pinned", Namespace: "table-open", Image: "ghcr.io/org/x", Want: "deny", Normalized: "ghcr.io/org/x:latest"},
		// Namespaces and aliases.
		{Policy: "namespaces", Image: "quay.io/a/x", Want: "deny", Normalized: "quay.io/a/x:latest"},
		{Policy: "namespaces", Image: "ghcr.io/org/secret", Want: "deny", Normalized: "ghcr.io/org/secret:latest"},
		{Policy: "namespaces", Image: "hub-mirror.example/nginx", Want: "deny", Normalized: "docker.io/library/nginx:latest"},
		{Policy: "namespaces", Image: "Old.example:5000/x", Want: "allow", Normalized: "mirror.example:5000/x:latest"},
		{Policy: "namespaces", Image: "old.example/x", Want: "deny", Normalized: "old.example/x:latest"},
		{Policy: "namespaces", Namespace: "table-a", Image: "quay.io/a/x", Want: "allow", Normalized: "quay.io/a/x:latest"},
		{Policy: "namespaces", Namespace: "table-a", Image: "ghcr.io/org/secret/x", Want: "allow", Normalized: "ghcr.io/org/secret/x:latest"},
		{Policy: "namespaces", Namespace: "table-a", Image: "ghcr.io/org/not-a", Want: "deny", Normalized: "ghcr.io/org/not-a:latest"},
		{Policy: "namespaces", Namespace: "table-a", Image: "ghcr.io/org/x", Want: "allow", Normalized: "ghcr.io/org/x:latest"},
		{Policy: "namespaces", Namespace: "table-open", Image: "anything.io/x", Want: "allow", Normalized: "anything.io/x:latest"},
		{Policy: "namespaces", Namespace: "table-open", Image: "hub-mirror.example/nginx", Want: "deny", Normalized: "docker.io/library/nginx:latest"},
		{Policy: "namespaces", Namespace: "table-trial", Image: "ghcr.io/org/x", Want: "warn", Normalized: "ghcr.io/org/x:latest"},
		{Policy: "namespaces", Namespace: "table-trial", Image: "quay.io/a/x", Want: "warn", Normalized: "quay.io/a/x:latest"},
	}
	for i := range cases {
		c := &cases[i]
		if c.Namespace == "" {
			c.Namespace = "table"
		}
		c.Name = c.Policy + " " + c.Namespace + " " + shortened(c.Image)
	}
	return cases
}

// shortened keeps names of cases readable.
func shortened(image string) string {
	if image == "" {
		return "nothing"
	}
	if len(image) > 60 {
		return image[:40] + "…" + image[len(image)-12:]
	}
	return image
}
