package auth

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/larder-registry/larder/internal/oci"
)

// replaceFile writes a file anew as a mounted Secret does: whole, by a rename.
func replaceFile(t testing.TB, name, content string) {
	t.Helper()
	next := name + ".next"
	if err := os.WriteFile(next, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, name); err != nil {
		t.Fatal(err)
	}
}

func TestHtpasswdIsReadAgain(t *testing.T) {
	line := func(name, password string) string { return name + ":" + cheap(t, name, password).PasswordHash + "\n" }
	file := filepath.Join(t.TempDir(), "users")
	replaceFile(t, file, "# people\n\n"+line("dora", "wonder"))
	log, said := logs()
	a, c := authority(t, func(cfg *Config) { cfg.Settings.HtpasswdFile, cfg.Log = file, log })
	expect := func(name, user, password, is string) {
		t.Helper()
		if got := ask(t, a, withBasic(user, password), oci.Want{}); got != is {
			t.Errorf("%s: %s is %s, want %s", name, user, got, is)
		}
	}
	expect("at first", "dora", "wonder", "ok")
	expect("beside", "alice", "wonder", "ok")
	replaceFile(t, file, line("dora", "other")+line("emil", "builder"))
	expect("at once", "dora", "wonder", "ok")
	c.advance(lookEvery)
	expect("changed", "dora", "wonder", "UNAUTHORIZED")
	expect("changed", "dora", "other", "ok")
	expect("changed", "emil", "builder", "ok")
	replaceFile(t, file, "emil:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\n")
	c.advance(lookEvery)
	expect("not to be used", "emil", "builder", "ok")
	if !strings.Contains(said.String(), "htpasswd -nB emil") || strings.Contains(said.String(), "5en6G6") {
		t.Errorf("the log says %s", said)
	}
	replaceFile(t, file, line("emil", "singer"))
	c.advance(lookEvery)
	expect("repaired", "emil", "singer", "ok")
	expect("repaired", "emil", "builder", "UNAUTHORIZED")
}

func TestHtpasswdFilesThatCannotBeUsed(t *testing.T) {
	good := "a:" + cheap(t, "a", "b").PasswordHash
	for name, content := range map[string]string{
		"no colon":      "alice",
		"plain":         "alice:secret",
		"MD5":           "alice:$apr1$sxyz$abcdefghijklmnopqrstu/",
		"no name":       ":" + cheap(t, "a", "b").PasswordHash,
		"twice":         good + "\n" + good,
		"too costly":    "a:" + strings.Replace(cheap(t, "a", "b").PasswordHash, "$04$", "$20$", 1),
		"cut short":     good[:50],
		"something on":  good + "x",
		"a long line":   strings.Repeat("x", 1<<17),
		"a bad name":    "a\x01b:" + cheap(t, "a", "b").PasswordHash,
		"three columns": good + ":more",
	} {
		if err := CheckHtpasswd([]byte(content)); err == nil {
			t.Errorf("%s: accepted", name)
		} else if strings.Contains(err.Error(), "$0") || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: the error tells the hash: %v", name, err)
		}
	}
	if err := CheckHtpasswd([]byte("\r\n# x\r\n" + good + "\r\n")); err != nil {
		t.Errorf("with lines ended as on Windows: %v", err)
	}
	if err := CheckHtpasswd(nil); err != nil {
		t.Errorf("empty: %v", err)
	}
}

// TestAUserWithAPassword is the shortcut for one user: its token is good at
// every process that has the same password, though each hashes it for itself.
func TestAUserWithAPassword(t *testing.T) {
	file := keyFile(t, "shared")
	open := func(password string) *Authority {
		a, _ := authority(t, func(c *Config) {
			c.KeyFile, c.Settings = file, Settings{
				Users: []User{{Name: "ci", Password: password}},
				Rules: []Rule{{Subjects: []string{"user:ci"}, Repositories: []string{"*"}, Actions: actions()}},
			}
		})
		return a
	}
	one, two, other := open("hunter2"), open("hunter2"), open("changed")
	if got := ask(t, one, withBasic("ci", "hunter2"), oci.Want{}); got != "ok" {
		t.Fatal(got)
	}
	if got := ask(t, one, withBasic("ci", "hunter"), oci.Want{}); got != "UNAUTHORIZED" {
		t.Error(got)
	}
	token := withToken(tokenFor(t, one, "ci", "hunter2", "repository:a:pull"))
	if got := ask(t, two, token, want("a", oci.ActionPull)); got != "ok" {
		t.Errorf("at another process its token is %s", got)
	}
	if got := ask(t, other, token, want("a", oci.ActionPull)); got != "UNAUTHORIZED invalid_token" {
		t.Errorf("with another password its token is %s", got)
	}
	for name, bad := range map[string]User{
		"a password of which the end would not count": {Name: "ci", Password: strings.Repeat("x", maxPlain+1)},
		"a name with a colon":                         {Name: "c:i", Password: "x"},
		"a hash and a password":                       {Name: "ci", Password: "x", PasswordHash: cheap(t, "ci", "b").PasswordHash},
		"neither":                                     {Name: "ci"},
	} {
		if CheckUser(bad) == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// TestUnknownUsersCostAsMuchAsKnownOnes holds that a name nobody has is compared
// with a hash as costly as somebody's, and always with the same one.
func TestUnknownUsersCostAsMuchAsKnownOnes(t *testing.T) {
	a, _ := authority(t)
	u := a.settings.Load().users
	for _, name := range []string{"mallory", "trudy", "", strings.Repeat("x", maxUserName)} {
		e, known := u.find(name, a.secret)
		if known || !slices.Contains(slices.Collect(maps.Values(u.fixed.entries)), e) {
			t.Errorf("%q is compared with %q, known %v", name, e.hash, known)
		}
		if again, _ := u.find(name, a.secret); again != e {
			t.Errorf("%q is compared with another hash the second time", name)
		}
		// The right password for that hash lets nobody in.
		for _, password := range []string{"wonder", "builder", "singer"} {
			if got := ask(t, a, withBasic(name, password), oci.Want{}); got != "UNAUTHORIZED" {
				t.Errorf("%q is %s", name, got)
			}
		}
	}
	nobody, _ := authority(t, func(c *Config) { c.Settings = Settings{} })
	if got := ask(t, nobody, withBasic("", ""), oci.Want{}); got != "UNAUTHORIZED" {
		t.Errorf("without any users it is %s", got)
	}
}
