package main

import (
	"bytes"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"go.uber.org/goleak"
)

// asLarder makes the test binary behave as larder, so that tests can start it
// as the process it is and send it signals.
const asLarder = "LARDER_TEST_RUN"

func TestMain(m *testing.M) {
	if os.Getenv(asLarder) != "" {
		os.Unsetenv(asLarder)
		main()
	}
	goleak.VerifyTestMain(m)
}

// larder runs a command in this process.
func larder(args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	code = run(args, &out, &errs)
	return code, out.String(), errs.String()
}

func TestExitCodesAndMessages(t *testing.T) {
	dir := t.TempDir()
	good := writeFile(t, dir, "good.yaml", "registry_proxies: {offline: true, registries: [{host: a_b.example}]}\n")
	bad := writeFile(t, dir, "bad.yaml", "registry_proxies:\n  offlin: true\n  min_free: x\n")
	file := writeFile(t, dir, "file", "")
	for _, c := range []struct {
		name string
		args []string
		code int
		// out and err each hold a part of the output, or are empty when
		// there must be none.
		out, err string
	}{
		{"nothing", nil, 2, "", "larder: a command is needed\nRun 'larder --help' for usage.\n"},
		{"unknown command", []string{"mirrors"}, 2, "", `unknown command "mirrors" for "larder"`},
		{"unknown subcommand", []string{"config", "x"}, 2, "", `unknown command "x" for "larder config"`},
		{"no subcommand", []string{"config"}, 2, "", "Run 'larder config --help' for usage."},
		{"unknown flag", []string{"mirror", "--port", "1"}, 2, "", "unknown flag: --port\nRun 'larder mirror --help'"},
		{"bad value", []string{"mirror", "--drain-timeout", "x"}, 2, "", `invalid argument "x" for "--drain-timeout"`},
		{"argument too many", []string{"mirror", "x"}, 2, "", "Run 'larder mirror --help'"},
		{"bad level", []string{"mirror", "--log-level", "loud"}, 2, "", `--log-level "loud": write error, warn, info or debug`},
		{"bad format", []string{"mirror", "--log-format", "xml"}, 2, "", `--log-format "xml": write text or json`},
		{"bad address", []string{"mirror", "--listen", "8000"}, 2, "", `--listen "8000": write host:port`},
		{"bad port", []string{"mirror", "--listen", "127.0.0.1:99999"}, 2, "", `--listen "127.0.0.1:99999": write host:port`},
		{"no port", []string{"mirror", "--listen", "127.0.0.1:web site"}, 2, "", `--listen "127.0.0.1:web site": write host:port`},
		{"bad admin address", []string{"mirror", "--admin-listen", "x"}, 2, "", `--admin-listen "x": write host:port`},
		{"bad allow", []string{"mirror", "--allow", "10.0.0.0/99"}, 2, "", "--allow: "},
		{"negative drain", []string{"mirror", "--drain-timeout", "-1s"}, 2, "", "--drain-timeout -1s: it cannot be negative"},
		{"bad configuration", []string{"mirror", "--config", bad}, 2, "", bad + ":2:3: registry_proxies.offlin: unknown key; did you mean \"offline\"?\n" + bad + ":3:13: registry_proxies.min_free: parse size"},
		{"no configuration", []string{"mirror", "--config", dir + "/none"}, 2, "", "open " + dir + "/none: no such file or directory"},
		{"data directory is a file", []string{"mirror", "--data-dir", file, "--listen", "127.0.0.1:0"}, 1, "", "larder: open data directory: "},
		{"check good", []string{"config", "check", good}, 0, good + ": ok\n", "warning: " + good + ":1:55: registry_proxies.registries[0].host: no image can be from a host with an underscore"},
		{"check bad", []string{"config", "check", bad}, 2, "", bad + ":2:3: "},
		{"check nothing", []string{"config", "check"}, 2, "", "accepts 1 arg(s), received 0"},
		{"check no name", []string{"config", "check", ""}, 2, "", "no such file or directory"},
		{"print no name", []string{"config", "print", ""}, 2, "", "no such file or directory"},
		{"help", []string{"help", "config", "check"}, 0, "Contacts nobody.", ""},
		{"help for nothing", []string{"help", "mirrors"}, 2, "", `there is no command "mirrors"`},
		{"check a directory", []string{"config", "check", dir}, 2, "", "is a directory"},
		{"print", []string{"config", "print", good}, 0, "  offline: true\n", "warning: "},
		{"print defaults", []string{"config", "print"}, 0, "  max_size: auto # 20% of the file system, at most 50GiB\n", ""},
		{"print bad", []string{"config", "print", bad}, 2, "", bad + ":2:3: "},
		{"version", []string{"version"}, 0, "larder ", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, out, errs := larder(c.args...)
			if code != c.code {
				t.Errorf("exit code %d, want %d", code, c.code)
			}
			holds := func(what, got, want string) {
				if (want == "") != (got == "") || !strings.Contains(got, want) {
					t.Errorf("%s is %q, want %q in it", what, got, want)
				}
			}
			holds("output", out, c.out)
			holds("error output", errs, c.err)
		})
	}
}

// TestHelpIsComplete holds every command to a description, and every flag to a
// meaning and a place in the reference.
func TestHelpIsComplete(t *testing.T) {
	reference, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	var visit func(path []string)
	visit = func(path []string) {
		code, help, errs := larder(append(path[1:], "--help")...)
		if code != 0 || errs != "" {
			t.Errorf("%v --help: exit code %d, %s", path, code, errs)
		}
		cmd := find(t, path[1:])
		if cmd.Short == "" || !cmd.HasSubCommands() && cmd.Name() != "version" && cmd.Long == "" {
			t.Errorf("%v is not described", path)
		}
		for _, f := range flagsOf(cmd) {
			if f.usage == "" || !strings.Contains(help, "--"+f.name) {
				t.Errorf("%v --%s has no help", path, f.name)
			}
			if !strings.Contains(string(reference), "`--"+f.name+" ") {
				t.Errorf("%v --%s is not in docs/configuration.md", path, f.name)
			}
		}
		for _, sub := range cmd.Commands() {
			if !strings.Contains(help, sub.Short) {
				t.Errorf("%v --help does not list %s", path, sub.Name())
			}
			visit(append(slices.Clip(path), sub.Name()))
		}
	}
	visit([]string{"larder"})
}

func find(t *testing.T, path []string) *cobra.Command {
	t.Helper()
	cmd, rest, err := newRoot().Find(path)
	if err != nil || len(rest) > 0 {
		t.Fatal(path, rest, err)
	}
	return cmd
}
