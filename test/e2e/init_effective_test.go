package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestInitReadsAsContainerdDoes has each release of containerd load
// configurations that are easily misread, and larder init find the same
// config_path in them, or the same refusal.
func TestInitReadsAsContainerdDoes(t *testing.T) {
	const (
		in1 = "[plugins.cri.registry]\nconfig_path = \"/one\"\n"
		in2 = "[plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = \"/two\"\n"
		in3 = "[plugins.\"io.containerd.cri.v1.images\".registry]\nconfig_path = \"/three\"\n"
		out = "[plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = \"x\"\n"
		imp = "imports = [\"conf.d/*.toml\"]\n"
	)
	configs := map[string][2]string{ // the main file, and one that is dropped in
		"empty":                     {"", ""},
		"1":                         {"version = 1\n" + in1, ""},
		"1 by default":              {in1, ""},
		"1 with names of 2":         {in2, ""},
		"2":                         {"version = 2\n" + in2, ""},
		"2 with names of 3":         {"version = 2\n" + in3, ""},
		"2 with names of both":      {"version = 2\n" + in2 + in3, ""},
		"3":                         {"version = 3\n" + in3, ""},
		"3 with names of 2":         {"version = 3\n" + in2, ""},
		"4":                         {"version = 4\n" + in3, ""},
		"5":                         {"version = 5\n", ""},
		"2, not imported":           {"version = 2\n", in3},
		"2 + none":                  {imp + "version = 2\n", in3},
		"2 with path + none":        {imp + "version = 2\n" + in2, in3},
		"3 + none":                  {imp + "version = 3\n", in3},
		"2 + 3":                     {imp + "version = 2\n" + in2, "version = 3\n[plugins.\"io.containerd.cri.v1.images\"]\nsnapshotter = \"native\"\n"},
		"2 + 2 for another setting": {imp + "version = 2\n" + in2, "version = 2\n" + out},
		"2 + 2 for the same":        {imp + "version = 2\n" + in2, strings.ReplaceAll("version = 2\n"+in2, "/two", "/later")},
		"3 + 2":                     {imp + "version = 3\n" + in3, "version = 2\n" + in2},
		"no TOML":                   {"version = 2\n[plugins\n", ""},
	}
	programs := initPrograms(t)
	for _, name := range slices.Sorted(maps.Keys(configs)) {
		for _, release := range slices.Sorted(maps.Keys(programs)) {
			t.Run(name+"/"+release, func(t *testing.T) {
				t.Parallel()
				home := scratch(t)
				main := write(t, home, "etc/containerd/config.toml", configs[name][0])
				if err := os.MkdirAll(filepath.Join(home, "etc/containerd/conf.d"), 0o755); err != nil {
					t.Fatal(err)
				}
				if configs[name][1] != "" {
					write(t, home, "etc/containerd/conf.d/10.toml", configs[name][1])
				}
				env := environ(t, home)
				// Debian's 1.6 takes relative patterns from where it is started.
				dump, refusal := run(t.Context(), env, "sh", "-c", `cd "${2%/*}" && exec "$1" --config "$2" config dump`, "sh", programs[release], main)
				said, err := run(t.Context(), env, programs[release], "--version")
				if err != nil {
					t.Fatal(err)
				}
				out, err := run(t.Context(), env, bin(t, "larder"), "init", "--root", home, "--address", "loopback", "--port", "1",
					"--dry-run", "--output", "json", "--containerd-version", regexp.MustCompile(`\b\d+\.\d+\.\d+`).FindString(said))
				if err != nil {
					t.Fatal(err)
				}
				var r struct {
					Status, Error string
					Notes         []struct{ Text string }
				}
				// A warning for people may follow.
				if err := json.NewDecoder(strings.NewReader(out)).Decode(&r); err != nil {
					t.Fatal(err)
				}
				// 1.6 takes a file of a version it does not know for one of its own,
				// and so ignores what is in it; larder says so instead.
				unknown := release == "1.6" && strings.Contains(r.Error, "knows at most 2")
				if refused := r.Status == "failed"; refused != (refusal != nil || unknown) {
					t.Fatalf("larder: %s %s; containerd: %v", r.Status, r.Error, refusal)
				}
				if refusal != nil || unknown {
					return
				}
				// Version 1's table is cri, 2's the whole plugin's, 3's that of
				// images; each release dumps in the form of its own.
				path := ""
				for _, table := range []string{`io.containerd.cri.v1.images`, `io.containerd.grpc.v1.cri`, `cri`} {
					m := regexp.MustCompile(`(?m)^\s*\[plugins\.['"]?` + regexp.QuoteMeta(table) + `['"]?\.registry\]\n\s*config_path = ['"](.*)['"]$`).FindStringSubmatch(dump)
					if m != nil && !(table == "io.containerd.grpc.v1.cri" && strings.Contains(dump, "io.containerd.cri.v1.images")) {
						path = m[1]
						break
					}
				}
				found := fmt.Sprint(r.Notes)
				switch {
				case path != "" && !strings.Contains(found, " from "+path):
					t.Errorf("containerd has %q, larder %s", path, found)
				case path == "" && regexp.MustCompile(` from /(one|two|three|later)`).MatchString(found):
					t.Errorf("containerd has none, larder %s", found)
				}
			})
		}
	}
}
