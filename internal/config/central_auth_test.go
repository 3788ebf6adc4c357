package config

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// bcryptHash is of the password "b", at the least cost.
const bcryptHash = "$2a$04$ez8UNGXpo3tJUrLbRCDHVut1qMTTopOLpe2xrJC/Y0e3/HoHP1crq"

func TestCentralAccessIsRead(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{
		"users": "bob:" + bcryptHash + "\n",
		"key":   strings.Repeat("k", 40) + "\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cfg, warnings, err := Parse(filepath.Join(dir, "f"), []byte(`central:
  users: [{name: alice, password_hash: `+bcryptHash+`}]
  htpasswd_file: users
  anonymous_pull: true
  access:
    - subjects: ["user:alice", "ci:repo:acme/*"]
      repositories: [team-a, "team-*/base"]
      actions: [pull, push]
  tokens: {key_file: key, lifetime: 10m, public_url: "https://registry.example"}
  kubernetes: {audiences: [registry.example], review_access: true, issuer: "https://cluster.example", api_url: "https://127.0.0.1:6443", service_account_dir: account}
  issuers:
    - {name: ci, url: "https://ci.example", audiences: [registry.example], groups_claim: roles, jwks_url: "https://ci.example/keys", token_file: token}
  tls: {require_client_cert: false}
`))
	if err != nil || len(warnings) > 0 {
		t.Fatal(err, warnings)
	}
	want := Central{
		Users: []CentralUser{{"alice", bcryptHash}}, HtpasswdFile: filepath.Join(dir, "users"), AnonymousPull: true,
		Access: []CentralAccess{{[]string{"user:alice", "ci:repo:acme/*"}, []string{"team-a", "team-*/base"}, []string{"pull", "push"}}},
		Tokens: CentralTokens{filepath.Join(dir, "key"), Duration(10 * time.Minute), "https://registry.example"},
		Kubernetes: &CentralKubernetes{
			Audiences: []string{"registry.example"}, ReviewAccess: true, Issuer: "https://cluster.example",
			APIURL: "https://127.0.0.1:6443", ServiceAccountDir: filepath.Join(dir, "account"),
		},
		Issuers: []CentralIssuer{{"ci", "https://ci.example", []string{"registry.example"}, "roles", "https://ci.example/keys", "", filepath.Join(dir, "token")}},
	}
	got := cfg.Central
	for name, pair := range map[string][2]any{
		"users": {got.Users, want.Users}, "htpasswd_file": {got.HtpasswdFile, want.HtpasswdFile}, "anonymous_pull": {got.AnonymousPull, want.AnonymousPull},
		"access": {got.Access, want.Access}, "tokens": {got.Tokens, want.Tokens}, "kubernetes": {got.Kubernetes, want.Kubernetes},
		"issuers": {got.Issuers, want.Issuers}, "tls": {got.TLS, want.TLS},
	} {
		if !reflect.DeepEqual(pair[0], pair[1]) {
			t.Errorf("%s: got %+v, want %+v", name, pair[0], pair[1])
		}
	}
	var printed strings.Builder
	if err := cfg.Print(&printed); err != nil || strings.Contains(printed.String(), bcryptHash) || !strings.Contains(printed.String(), "name: alice") {
		t.Errorf("printed as %s, %v", printed.String(), err)
	}
}

func TestCentralAccessThatCannotBeMeant(t *testing.T) {
	for _, c := range []struct{ name, content, want string }{
		{"a password for a hash", "users: [{name: a, password_hash: secret}]", "htpasswd -nB a"},
		{"a user twice", "users: [{name: a, password_hash: " + bcryptHash + "}, {name: a, password_hash: " + bcryptHash + "}]", "there twice"},
		{"no htpasswd file", "htpasswd_file: none", "no such file"},
		{"a rule about nobody", "access: [{repositories: [a], actions: [pull]}]", "no subjects"},
		{"a subject without a kind", "access: [{subjects: [alice], repositories: [a], actions: [pull]}]", "user:alice"},
		{"an action nobody knows", "access: [{subjects: [authenticated], repositories: [a], actions: [write]}]", "pull, push or delete"},
		{"a pattern across slashes", `access: [{subjects: [authenticated], repositories: ["a/**"], actions: [pull]}]`, "one component"},
		{"no key file", "tokens: {key_file: none}", "no such file"},
		{"tokens for days", "tokens: {lifetime: 48h}", "an hour"},
		{"a URL that is none", "tokens: {public_url: registry.example}", "no scheme"},
		{"certificates nobody signs", "tls: {require_client_cert: true}", "client_ca_file"},
		{"a cluster without audience", "kubernetes: {review_access: true}", "audiences is missing"},
		{"an issuer without audience", `issuers: [{name: ci, url: "https://ci.example"}]`, "audiences is missing"},
		{"an issuer by HTTP", `issuers: [{name: ci, url: "http://ci.example", audiences: [a]}]`, "https only"},
		{"an issuer called user", `issuers: [{name: user, url: "https://ci.example", audiences: [a]}]`, "is taken"},
		{"two of a name", `issuers: [{name: ci, url: "https://a.example", audiences: [a]}, {name: ci, url: "https://b.example", audiences: [a]}]`, "there twice"},
		{"an issuer called as the cluster", `{kubernetes: {audiences: [a]}, issuers: [{name: kubernetes, url: "https://a.example", audiences: [a]}]}`, "there twice"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, _, err := Parse(filepath.Join(t.TempDir(), "f"), []byte("central:\n  "+c.content+"\n"))
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), ":2:") {
				t.Errorf("got %v", err)
			}
			if err != nil && strings.Contains(err.Error(), "secret") {
				t.Errorf("it tells the password: %v", err)
			}
		})
	}
}
