package upstream

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"oras.land/oras-go/v2/registry/remote/auth"
)

// TestPlugin: what it is asked, and what becomes of its answer.
func TestPlugin(t *testing.T) {
	asked := filepath.Join(t.TempDir(), "asked")
	answerFile := filepath.Join(t.TempDir(), "answer")
	file := program(t, "plugin", fmt.Sprintf(`cat >>%[1]s; echo "|$1|$NAME" >>%[1]s; cat %[2]s`, asked, answerFile))
	const form = `{"kind":"CredentialProviderResponse","apiVersion":"credentialprovider.kubelet.k8s.io/v1","cacheKeyType":%q,"cacheDuration":%s,"auth":{%s}}`
	const both = `"registry.example":{"username":"wide","password":"p1"},"registry.example/team":{"username":"narrow","password":"p2"},"*.other.example":{"username":"x","password":"y"}`
	for _, test := range []struct {
		name, keyType, duration, auth string
		repositories                  []string
		want                          auth.Credential // for the last
		runs                          int
		kept                          time.Duration // used without another run
	}{
		{"by registry", "Registry", `"6h"`, both, []string{"a/b", "team/app"}, auth.Credential{Username: "wide", Password: "p1"}, 1, 4 * time.Hour},
		{"globally", "Global", `"6h"`, both, []string{"a/b", "c/d", "e/f"}, auth.Credential{Username: "wide", Password: "p1"}, 1, 4 * time.Hour},
		{"by image", "Image", `"6h"`, both, []string{"a/b", "a/b", "team/app"}, auth.Credential{Username: "narrow", Password: "p2"}, 2, 4 * time.Hour},
		{"without a duration", "Registry", `null`, both, []string{"a/b"}, auth.Credential{Username: "wide", Password: "p1"}, 1, 7 * time.Minute},
		{"not to be kept", "Registry", `"0s"`, both, []string{"a/b", "a/b", "a/b"}, auth.Credential{Username: "wide", Password: "p1"}, 3, 0},
		{"for longer than a day", "Registry", `"100000h"`, both, []string{"a/b"}, auth.Credential{Username: "wide", Password: "p1"}, 1, 17 * time.Hour},
		{"for others only", "Registry", `"6h"`, `"*.other.example":{"username":"x","password":"y"}`, []string{"a/b", "c/d"}, auth.EmptyCredential, 1, 30 * time.Second},
		{"for nobody", "Registry", `"6h"`, ``, []string{"a/b"}, auth.EmptyCredential, 1, 30 * time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			_ = os.Remove(asked)
			if err := os.WriteFile(answerFile, fmt.Appendf(nil, form, test.keyType, test.duration, test.auth), 0o600); err != nil {
				t.Fatal(err)
			}
			now := newClock()
			c := newClientOf(t, Config{Now: now.now})
			cred := c.newCredential("test", &plugin{
				Plugin: Plugin{Command: file, Args: []string{"get-credentials"}, Env: []string{"NAME=value"}},
				host:   "registry.example", now: now.now,
			}, time.Minute)
			var got auth.Credential
			for _, repository := range test.repositories {
				var err error
				if got, err = cred.get(t.Context(), repository); err != nil {
					t.Fatal(err)
				}
			}
			if got != test.want {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
			lines := func() []string {
				content, err := os.ReadFile(asked)
				if err != nil {
					t.Fatal(err)
				}
				return strings.Split(strings.TrimSpace(string(content)), "\n")
			}
			runs := lines()
			want := `{"kind":"CredentialProviderRequest","apiVersion":"credentialprovider.kubelet.k8s.io/v1","image":"registry.example/` + test.repositories[0] + `"}|get-credentials|value`
			if len(runs) != test.runs || runs[0] != want {
				t.Errorf("runs: %q, want %d as %q", runs, test.runs, want)
			}
			now.advance(test.kept)
			if _, err := cred.get(t.Context(), test.repositories[0]); err != nil {
				t.Error(err)
			}
			if test.kept > 0 && len(lines()) != test.runs {
				t.Errorf("run again after %s", test.kept)
			}
		})
	}
}

func TestPluginAnswers(t *testing.T) {
	p := &plugin{host: "registry.example", now: time.Now}
	for _, test := range []struct{ name, answer, text string }{
		{"nothing", ``, "not a CredentialProviderResponse"},
		{"another kind", `{"kind":"CredentialProviderRequest"}`, "another kind"},
		{"another version", `{"kind":"CredentialProviderResponse","apiVersion":"credentialprovider.kubelet.k8s.io/v1alpha1"}`, "not of version credentialprovider.kubelet.k8s.io/v1"},
		{"no key type", `{"kind":"CredentialProviderResponse","apiVersion":"credentialprovider.kubelet.k8s.io/v1"}`, "cacheKeyType"},
		{"bad duration", `{"kind":"CredentialProviderResponse","apiVersion":"credentialprovider.kubelet.k8s.io/v1","cacheKeyType":"Image","cacheDuration":"MARKER"}`, "cacheDuration"},
		{"negative duration", `{"kind":"CredentialProviderResponse","apiVersion":"credentialprovider.kubelet.k8s.io/v1","cacheKeyType":"Image","cacheDuration":"-1s"}`, "cacheDuration"},
		{"auth as a list", `{"kind":"CredentialProviderResponse","apiVersion":"credentialprovider.kubelet.k8s.io/v1","cacheKeyType":"Image","auth":["MARKER"]}`, "not a CredentialProviderResponse"},
	} {
		if _, err := p.read([]byte(test.answer), "a"); err == nil || !strings.Contains(err.Error(), test.text) || strings.Contains(err.Error(), "MARKER") {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}

// FuzzPluginAnswer: nothing of an answer gets into an error, and a login is for
// the registry that was asked for.
func FuzzPluginAnswer(f *testing.F) {
	for _, keyType := range []string{"Image", "Registry", "Global", ""} {
		f.Add([]byte(`{"kind":"CredentialProviderResponse","apiVersion":"credentialprovider.kubelet.k8s.io/v1","cacheKeyType":"` + keyType + `","cacheDuration":"6h0m0s","auth":{"registry.example":{"username":"u","password":"p"}}}`))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		now := newClock()
		p := &plugin{host: "registry.example", now: now.now}
		l, err := p.read(content, "team/app")
		if err != nil {
			if l != (login{}) {
				t.Errorf("a login beside the error %v", err)
			}
			return
		}
		if d := l.expires.Sub(now.now()); d < 0 || d > maxPluginCache {
			t.Errorf("kept for %s", d)
		}
		if l.Credential == auth.EmptyCredential {
			return
		}
		var resp pluginResponse
		if err := json.Unmarshal(content, &resp); err != nil {
			t.Fatal(err)
		}
		for key, a := range resp.Auth {
			if host, _ := splitKey(key); a.Password == l.Password && matchHost(host, "registry.example") {
				return
			}
		}
		t.Error("the password is another registry's")
	})
}

// TestPluginLogsIn at a registry, by its entry.
func TestPluginLogsIn(t *testing.T) {
	o := basicOrigin(t, "u", "MARKERpassword")
	file := program(t, "plugin", `echo '{"kind":"CredentialProviderResponse","apiVersion":"credentialprovider.kubelet.k8s.io/v1","cacheKeyType":"Registry","auth":{"`+o.host()+`":{"username":"u","password":"MARKERpassword"}}}'`)
	entry := o.entry(t)
	entry.Provider = &Plugin{Command: file}
	if err := ask(t, o, Config{Registries: []Registry{entry}}, "team/app"); err != nil {
		t.Error(err)
	}
}
