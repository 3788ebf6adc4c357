package nodeconfig

import (
	"strings"
	"testing"
)

func TestDiff(t *testing.T) {
	tests := map[string]struct{ before, after, want string }{
		"an edit":          {"[a]\nx = 1\ny = 2\n", "[a]\nx = 1\nz = 3\ny = 2\n", "--- /f\n+++ /f\n@@ -3,0 +3,1 @@ [a]\n+z = 3\n"},
		"a password":       {"[a]\npassword = \"s3cret\"\n", "[a]\npassword = \"n3w\"\n", "--- /f\n+++ /f\n@@ -2,1 +2,1 @@ [a]\n-password = <masked>\n+password = <masked>\n"},
		"carriage returns": {"a\r\n", "a\r\nb\r\n", "--- /f\n+++ /f\n@@ -2,0 +2,1 @@\n+b\\r\n"},
		"no end of line":   {"a", "b", "--- /f\n+++ /f\n@@ -1,1 +1,1 @@\n-a\n+b\n"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := edit("/f", []byte(test.before), []byte(test.after), "").Diff(); got != test.want {
				t.Errorf("got\n%s\nwant\n%s", got, test.want)
			}
		})
	}
	if got := edit("/f", nil, []byte("a\n"), "").Diff(); got != "--- (none)\n+++ /f\n@@ -1,0 +1,1 @@\n+a\n" {
		t.Errorf("a new file: %s", got)
	}
	if got := edit("/f", []byte("a\n"), []byte("a\n"), "").Diff(); got != "" {
		t.Errorf("no change: %s", got)
	}
}

// TestDiffMasks: no value that sounds secret is shown, however it is written.
func TestDiffMasks(t *testing.T) {
	for _, line := range []string{
		`password = "s3cret"`, `"auth": "s3cret",`, `  auth: {username: u, password: s3cret}`, `config = { password = "s3cret" }`,
		`identitytoken='s3cret'`, `Authorization = ["Basic s3cret"]`, `registry-token: s3cret`, `secret_key = "s3cret"`, `header.X-Api-Key = "s3cret"`,
	} {
		got := edit("/f", nil, []byte(line+"\n"), "").Diff()
		if strings.Contains(got, "s3cret") {
			t.Errorf("%s is shown:\n%s", line, got)
		}
	}
}
