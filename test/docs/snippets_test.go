package docs

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
)

var (
	section  = regexp.MustCompile(`(?m)^(registry_proxies|image_validation|webhook|central|tracing):`)
	entry    = regexp.MustCompile(`^ +- host:`)
	named    = regexp.MustCompile(`\b(\w*(?:_file|docker_config|command)): *([^\s,}#]+)`)
	shortens = regexp.MustCompile(`\$2y\$10\$…`)
)

// hash is a password's, for snippets that only hint at one.
const hash = "$2y$05$bvIG6Nmid91Mu9RcmmWZfO5HJIMCT8riNW0hEp8f6/FuA2/mHZFpe"

// configuration makes a whole configuration file of a snippet, or gives "" when it is
// none. Files that a snippet names become files that a sandbox has: what is in
// them, and where they are, is the reader's matter.
func configuration(text string) string {
	switch {
	case entry.MatchString(text):
		text = "registry_proxies:\n  registries:\n" + text
	case !section.MatchString(text):
		return ""
	}
	text = shortens.ReplaceAllLiteralString(text, hash)
	return named.ReplaceAllStringFunc(text, func(found string) string {
		key, _, _ := strings.Cut(found, ":")
		file := "/fixtures/password"
		switch {
		case key == "command":
			file = "/bin/true"
		case strings.HasSuffix(key, "ca_file"):
			file = "/fixtures/ca.crt"
		case key == "client_cert_file":
			file = "/fixtures/tls.crt"
		case key == "client_key_file":
			file = "/fixtures/tls.key"
		case key == "docker_config":
			file = "/fixtures/config.json"
		case key == "htpasswd_file":
			file = "/fixtures/htpasswd"
		case key == "key_file":
			file = "/fixtures/token.key"
		}
		return key + ": " + file
	})
}

// TestSnippets has the binary check every snippet of configuration in the pages: each
// key, each value, and what goes together.
func TestSnippets(t *testing.T) {
	var script strings.Builder
	script.WriteString(prologue + "echo secret >/fixtures/password\necho '{}' >/fixtures/config.json\n")
	script.WriteString("echo 'u:" + hash + "' >/fixtures/htpasswd\nhead -c 32 /dev/urandom | base64 >/fixtures/token.key\nfailed=0\n")
	snippets := 0
	for _, p := range pages(t) {
		if record(p) {
			continue
		}
		for _, b := range p.Blocks {
			text := configuration(b.Text)
			if b.Language != "yaml" || text == "" {
				continue
			}
			snippets++
			fmt.Fprintf(&script, "cat >snippet.yaml <<'END-OF-FILE'\n%sEND-OF-FILE\n", text)
			fmt.Fprintf(&script, "larder config check snippet.yaml || { echo %s:%d; failed=1; }\n", p.Name, b.Line)
		}
	}
	script.WriteString("exit $failed\n")
	if snippets < 20 {
		t.Errorf("only %d snippets were found", snippets)
	}
	if _, err := (sandbox{Script: script.String()}).run(t); err != nil {
		t.Error(err)
	}
}
