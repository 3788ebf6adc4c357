package upstream

import (
	"strings"
	"testing"
)

func TestBestKey(t *testing.T) {
	keys := []string{
		"https://index.docker.io/v1/", "quay.io", "quay.io/acme", "quay.io/acme/deep/", "Registry.Example.com:5000",
		"*.azurecr.io", "*.*.example.org", "acme.azurecr.io", "http://plain.example/v2", "*.quay.io:8443", "[::1]:5000",
	}
	for _, test := range []struct{ host, repository, want string }{
		{"docker.io", "library/nginx", "https://index.docker.io/v1/"},
		{"quay.io", "other/app", "quay.io"},
		{"quay.io", "acme", "quay.io/acme"},
		{"quay.io", "acme/app", "quay.io/acme"},
		{"quay.io", "acme-two/app", "quay.io"},
		{"quay.io", "acme/deep/app", "quay.io/acme/deep/"},
		{"registry.example.com:5000", "a", "Registry.Example.com:5000"},
		{"registry.example.com", "a", ""},
		{"acme.azurecr.io", "a", "acme.azurecr.io"},
		{"other.azurecr.io", "a", "*.azurecr.io"},
		{"a.b.azurecr.io", "a", ""},
		{"a.b.example.org", "a", "*.*.example.org"},
		{"a.example.org", "a", ""},
		{"plain.example", "a", "http://plain.example/v2"},
		{"x.quay.io", "a", ""},
		{"x.quay.io:8443", "a", "*.quay.io:8443"},
		{"[::1]:5000", "a", "[::1]:5000"},
		{"evil.example", "quay.io/acme", ""},
	} {
		if got := bestKey(keys, test.host, test.repository); got != test.want {
			t.Errorf("%s/%s: %q, want %q", test.host, test.repository, got, test.want)
		}
	}
	// The answer does not depend on the order.
	for i := range keys {
		keys[i], keys[0] = keys[0], keys[i]
		if got := bestKey(keys, "quay.io", "acme/deep/app"); got != "quay.io/acme/deep/" {
			t.Errorf("shuffled: %q", got)
		}
	}
}

// FuzzBestKey: a key never fits another host than its own, patterns apart.
func FuzzBestKey(f *testing.F) {
	f.Add("https://index.docker.io/v1/", "docker.io", "library/nginx")
	f.Add("*.azurecr.io", "a.azurecr.io", "x")
	f.Add("[::1]:5000/x", "[::1]:5000", "x/y")
	f.Add("[a-]", "a", "x")
	f.Fuzz(func(t *testing.T, key, host, repository string) {
		got := bestKey([]string{key}, host, repository)
		keyHost, keyPath := splitKey(key)
		if got == "" {
			return
		}
		if got != key {
			t.Errorf("%q gives %q", key, got)
		}
		if !strings.ContainsAny(keyHost, "*?[") && keyHost != host {
			t.Errorf("%q fits %q", key, host)
		}
		if keyPath != "" && repository != keyPath && !strings.HasPrefix(repository, keyPath+"/") {
			t.Errorf("%q fits the repository %q", key, repository)
		}
	})
}
