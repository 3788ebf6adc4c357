package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// doorkeeper is a running registry whose users and rules a test changes.
type doorkeeper struct {
	*mirrorProcess
	url    string
	client *http.Client
}

// startDoorkeeper starts a registry with a configuration file that a test goes
// on to change, and the user root.
func startDoorkeeper(t *testing.T, dataDir, config, password string, args ...string) *doorkeeper {
	t.Helper()
	p := launch(t, append([]string{
		"central", "--config", config, "--user", "root", "--password-file", password, "--data-dir", dataDir, "--plain-http",
		"--listen", "127.0.0.1:0", "--admin-listen", "", "--log-format", "json",
	}, args...)...)
	line := p.waitFor(t, "larder central serves")
	d := &doorkeeper{p, "http://" + strings.TrimPrefix(fmt.Sprint(line["listen"]), "registry="), &http.Client{Transport: &http.Transport{}}}
	t.Cleanup(d.client.CloseIdleConnections)
	return d
}

// get asks for a path as a user, and gives the status and the body.
func (d *doorkeeper) get(t *testing.T, user, password, path string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, d.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if user == "Bearer" {
		r.Header.Set("Authorization", "Bearer "+password)
	} else if user != "" {
		r.SetBasicAuth(user, password)
	}
	res, err := d.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(body)
}

// wants holds an answer about what is not there against a status: 404 is for who
// may pull, 403 for who may not, 401 for who is not known.
func (d *doorkeeper) wants(t *testing.T, when, user, password, repository string, status int) {
	t.Helper()
	if got, body := d.get(t, user, password, "/v2/"+repository+"/tags/list"); got != status {
		t.Errorf("%s: %s in %s gets %d %s, want %d", when, user, repository, got, body, status)
	}
}

// The passwords are "b" and "other"; hashes are bcrypt's at the least cost.
const (
	hashOfB     = "$2a$04$ez8UNGXpo3tJUrLbRCDHVut1qMTTopOLpe2xrJC/Y0e3/HoHP1crq"
	hashOfOther = "$2a$04$UGQyV9qoEakfZ79pUgCCrOTweyp7uZRVXUe9qA94L/K98O/r.U/qG"
)

func accessOf(hash, repository string) string {
	return fmt.Sprintf("central:\n  users: [{name: alice, password_hash: %s}]\n  access: [{subjects: [\"user:alice\"], repositories: [%s], actions: [pull]}]\n", hash, repository)
}

// TestUsersAndRulesChangeWhileTheRegistryRuns changes the configuration file and
// the password's, well and badly, and then starts the registry anew.
func TestUsersAndRulesChangeWhileTheRegistryRuns(t *testing.T) {
	dir, data := t.TempDir(), filepath.Join(t.TempDir(), "data")
	config := writeFile(t, dir, "larder.yaml", accessOf(hashOfB, "team-a"))
	password := writeFile(t, dir, "password", "secret\n")
	d := startDoorkeeper(t, data, config, password)
	d.wants(t, "at first", "alice", "b", "team-a/x", 404)
	d.wants(t, "at first", "alice", "b", "team-b/x", 403)
	d.wants(t, "at first", "alice", "other", "team-a/x", 401)
	d.wants(t, "at first", "root", "secret", "team-b/x", 404)
	_, body := d.get(t, "alice", "b", "/token?scope=repository:team-a/x:pull")
	var token struct{ Token string }
	if err := json.Unmarshal([]byte(body), &token); err != nil {
		t.Fatalf("%v in %s", err, body)
	}
	d.wants(t, "at first", "Bearer", token.Token, "team-a/x", 404)

	const again, refused = "users and rules of the registry were read again", "changed users and rules of the registry are refused; those that were in force stay"
	writeFile(t, dir, "larder.yaml", "central: {users: alice}\n")
	d.waitFor(t, refused)
	d.wants(t, "after a change that makes no sense", "alice", "b", "team-a/x", 404)
	writeFile(t, dir, "larder.yaml", accessOf(hashOfB, "team-b"))
	d.waitFor(t, again)
	d.wants(t, "with another rule", "alice", "b", "team-a/x", 403)
	d.wants(t, "with another rule", "alice", "b", "team-b/x", 404)
	d.wants(t, "with another rule", "Bearer", token.Token, "team-a/x", 403)
	d.stopped(t)

	// A token outlasts a restart, the password of root changes, alice's is
	// another and ends her token.
	writeFile(t, dir, "larder.yaml", accessOf(hashOfB, "team-a"))
	d = startDoorkeeper(t, data, config, password)
	d.wants(t, "after a restart", "Bearer", token.Token, "team-a/x", 404)
	writeFile(t, dir, "password", "changed\n")
	d.waitFor(t, again)
	d.wants(t, "with another password", "root", "changed", "team-b/x", 404)
	d.wants(t, "with another password", "root", "secret", "team-b/x", 401)
	d.stopped(t)
	writeFile(t, dir, "larder.yaml", accessOf(hashOfOther, "team-a"))
	d = startDoorkeeper(t, data, config, password)
	d.wants(t, "with another hash", "Bearer", token.Token, "team-a/x", 401)
	d.wants(t, "with another hash", "alice", "other", "team-a/x", 404)
	d.stopped(t)
}

func (d *doorkeeper) stopped(t *testing.T) {
	t.Helper()
	d.signal(t, syscall.SIGTERM)
	if code := d.exit(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// TestReplicasTakeEachOthersTokens starts two registries that share a key and
// nothing else.
func TestReplicasTakeEachOthersTokens(t *testing.T) {
	dir := t.TempDir()
	key := writeFile(t, dir, "token.key", strings.Repeat("k", 40)+"\n")
	config := writeFile(t, dir, "larder.yaml", accessOf(hashOfB, "team-a")+"  tokens: {key_file: "+key+", lifetime: 1m}\n")
	password := writeFile(t, dir, "password", "secret\n")
	one := startDoorkeeper(t, filepath.Join(t.TempDir(), "data"), config, password)
	two := startDoorkeeper(t, filepath.Join(t.TempDir(), "data"), config, password)
	for _, user := range []struct{ name, password string }{{"alice", "b"}, {"root", "secret"}} {
		_, body := one.get(t, user.name, user.password, "/token?scope=repository:team-a/x:pull")
		var token struct{ Token string }
		if err := json.Unmarshal([]byte(body), &token); err != nil || token.Token == "" {
			t.Fatalf("%v in %s", err, body)
		}
		two.wants(t, user.name+"'s token at the other replica", "Bearer", token.Token, "team-a/x", 404)
	}
}

func TestTheUsageOfAccess(t *testing.T) {
	dir := t.TempDir()
	password, empty := writeFile(t, dir, "password", "secret"), writeFile(t, dir, "empty", "\n")
	kubernetes := writeFile(t, dir, "kubernetes.yaml", "central: {kubernetes: {audiences: [a]}}\n")
	for _, c := range []struct {
		name string
		args []string
		code int
		want string
	}{
		{"no TLS", nil, 2, "--plain-http"},
		{"half of TLS", []string{"--tls-cert", password}, 2, "--tls-cert and --tls-key belong together"},
		{"TLS that is none", []string{"--tls-cert", password, "--tls-key", password}, 1, "prepare TLS"},
		{"a user without password", []string{"--plain-http", "--user", "ci"}, 2, "belong together"},
		{"an empty password", []string{"--plain-http", "--user", "ci", "--password-file", empty}, 2, "no password"},
		{"no such file", []string{"--plain-http", "--user", "ci", "--password-file", dir + "/none"}, 2, "no such file"},
		{"a cluster outside of one", []string{"--plain-http", "--config", kubernetes}, 2, "this is no pod"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv("KUBERNETES_SERVICE_HOST", "")
			code, _, stderr := larder(append([]string{"central", "--serve", "registry", "--data-dir", filepath.Join(t.TempDir(), "data"), "--listen", "127.0.0.1:0", "--admin-listen", ""}, c.args...)...)
			if code != c.code || !strings.Contains(stderr, c.want) {
				t.Errorf("exit code %d: %s", code, stderr)
			}
			if strings.Contains(stderr, "secret") {
				t.Errorf("it tells the password: %s", stderr)
			}
		})
	}
}
