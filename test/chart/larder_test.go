package chart

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestLarderTakesTheFlags that are rendered: each container's command line is put
// before the binary, which would name one it does not know.
func TestLarderTakesTheFlags(t *testing.T) {
	commands := map[string]bool{}
	for _, set := range valueSets(t) {
		for _, w := range workloads(render(t, release, set.args...)) {
			for _, c := range w.containers() {
				args := c.args()
				commands[args[0]] = true
				// With --help flags are read, and nothing is done.
				if out := program(t, *larderFlag, append(args, "--help")...); out.code != 0 {
					t.Errorf("%s: %s %s: larder %s: %s", set.name, w.id(), c.text("name"), strings.Join(args, " "), out.stderr)
				}
			}
		}
	}
	for _, name := range []string{"init", "mirror", "central"} {
		if !commands[name] {
			t.Errorf("no container runs larder %s", name)
		}
	}
	if out := program(t, *larderFlag, "mirror", "--no-such-flag", "--help"); out.code != 2 {
		t.Errorf("a flag that is none: exit code %d", out.code)
	}
}

// TestLarderTakesTheConfiguration that is rendered, with the files it names in
// their places.
func TestLarderTakesTheConfiguration(t *testing.T) {
	files := map[string]string{
		"/etc/larder-secrets/hub.password/password": "secret\n",
		"/etc/larder-secrets/users/htpasswd":        "bob:$2a$04$ez8UNGXpo3tJUrLbRCDHVut1qMTTopOLpe2xrJC/Y0e3/HoHP1crq\n",
	}
	checked := 0
	for _, set := range valueSets(t) {
		for _, m := range of(render(t, release, set.args...), "ConfigMap") {
			content := m.text("data", "larder.yaml")
			if content == "" {
				continue // the dashboard
			}
			checked++
			dir := t.TempDir()
			for name, text := range files {
				local := filepath.Join(dir, filepath.Base(name))
				write(t, local, text)
				content = strings.ReplaceAll(content, name, local)
			}
			file := filepath.Join(dir, "larder.yaml")
			write(t, file, content)
			if out := program(t, *larderFlag, "config", "check", file); out.code != 0 || out.stderr != "" {
				t.Errorf("%s: %s: exit code %d: %s", set.name, m.id(), out.code, out.stderr)
			}
		}
	}
	if checked < 12 {
		t.Errorf("only %d files were checked", checked)
	}
}

// TestConfigIsVerbatim: what is written under config is what larder reads, with
// the numbers, texts and keys it had.
func TestConfigIsVerbatim(t *testing.T) {
	objects := render(t, release, "--values", "testdata/values/everything.yaml")
	file := filepath.Join(t.TempDir(), "larder.yaml")
	password := filepath.Join(filepath.Dir(file), "password")
	write(t, password, "secret\n")
	write(t, file, strings.ReplaceAll(one(t, objects, "ConfigMap", "larder-mirror").text("data", "larder.yaml"), "/etc/larder-secrets/hub.password/password", password))
	out := program(t, *larderFlag, "config", "print", file)
	if out.code != 0 {
		t.Fatal(out.stderr)
	}
	for _, want := range []string{"max_size: 50GiB", `username: "0123"`, "host: reg.example:5000", "insecure: true"} {
		if !strings.Contains(out.stdout, want) {
			t.Errorf("larder does not read %q: %s", want, out.stdout)
		}
	}
}

// TestEverySectionHasAPlace: what larder reads can be given to one of its roles at
// least.
func TestEverySectionHasAPlace(t *testing.T) {
	out := program(t, *larderFlag, "config", "print", "testdata/policy.yaml")
	if out.code != 0 {
		t.Fatal(out.stderr)
	}
	sections := parse(t, out.stdout)[0]
	if len(sections) < 4 {
		t.Errorf("larder has only %d sections", len(sections))
	}
	for section := range sections {
		taken := false
		for _, role := range []string{"mirror", "central", "webhook"} {
			taken = taken || template(t, release, "--set", role+".config."+section+".x=null").code == 0
		}
		if !taken {
			t.Errorf("no role takes the section %s", section)
		}
	}
}

// TestWrongConfigurationIsFound by larder before anything is installed: its
// message has line, key and fix.
func TestWrongConfigurationIsFound(t *testing.T) {
	objects := render(t, release, "--set", "mirror.config.registry_proxies.max_sice=1GiB")
	file := filepath.Join(t.TempDir(), "larder.yaml")
	write(t, file, one(t, objects, "ConfigMap", "larder-mirror").text("data", "larder.yaml"))
	out := program(t, *larderFlag, "config", "check", file)
	if out.code != 2 || !strings.Contains(out.stderr, fmt.Sprintf("%s:2:", file)) || !strings.Contains(out.stderr, "max_sice") || !strings.Contains(out.stderr, "max_size") {
		t.Errorf("exit code %d: %s", out.code, out.stderr)
	}
}

func write(t testing.TB, file, content string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}
