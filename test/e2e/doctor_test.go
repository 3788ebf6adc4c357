package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/larder-registry/larder/test/registry"
)

// diagnosis is what larder doctor tells.
type diagnosis struct {
	code     int
	Uses     bool `json:"uses_mirror"`
	Findings []struct {
		Check, Verdict, Evidence, Remedy string
	} `json:"checks"`
	raw string
}

// verdict is the first finding of a check.
func (d diagnosis) verdict(check string) (verdict, evidence string) {
	for _, f := range d.Findings {
		if f.Check == check {
			return f.Verdict, f.Evidence
		}
	}
	return "", ""
}

// TestDoctor asks larder doctor about real containerds: one that uses the mirror
// has it proved by a pull, and what keeps another from it is found.
func TestDoctor(t *testing.T) {
	for _, c := range containerds() {
		if name := c.name; name != "containerd-1.6-cri" && name != "containerd-2-cri" && name != "containerd-2-cri-local" {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			up := registry.Start(t, registry.Options{})
			for i, tag := range []string{"v1", "v2", "v3"} {
				own := up.AddPlatform(repo, "", runtime.GOARCH, registry.NewLayer(uint64(10*i+1), 200<<10), registry.NewLayer(uint64(10*i+2), 4<<10))
				up.AddIndex(repo, tag, own, up.AddPlatform(repo, "", "riscv64", registry.NewLayer(uint64(10*i+3), 1<<10)))
			}
			m := startMirror(t, up.Host())
			n := c.fresh(t, target{mirror: m.addr, upstream: up.Host(), repo: repo, tag: "v1"})
			_, port, _ := strings.Cut(m.addr, ":")
			ask := func(tag string) diagnosis {
				t.Helper()
				cmd := exec.CommandContext(t.Context(), bin(t, "larder"), "doctor", "--target", "containerd", "--containerd-config", n.dir()+"/config.toml",
					"--port", port, "--admin", m.admin, "--output", "json", "--pull", up.Host()+"/"+repo+":"+tag)
				cmd.Env = environ(t, n.dir())
				out, err := cmd.Output()
				d := diagnosis{code: cmd.ProcessState.ExitCode(), raw: string(out)}
				if err := json.Unmarshal(out, &d); err != nil {
					t.Fatalf("%v:\n%s", err, out)
				}
				if d.Uses != (err == nil) || d.Uses != (d.code == 0) || !d.Uses && d.code != 1 {
					t.Errorf("it says %v with exit code %d, %v", d.Uses, d.code, err)
				}
				return d
			}
			wants := func(d diagnosis, check, verdict, evidence string) {
				t.Helper()
				if v, e := d.verdict(check); v != verdict || !strings.Contains(e, evidence) {
					t.Errorf("%s: %s, %s\nwant %s, with %q in it; all of it:\n%s", check, v, e, verdict, evidence, d.raw)
				}
			}

			// 2 or 3 image manifests (HEAD, index, platform's), a config and two layers.
			d := ask("v1")
			wants(d, "pull", "ok", "and 3 for blobs")
			wants(d, "hosts.toml", "ok", "as containerd reads it: http://"+m.addr+", then the registry itself")
			wants(d, "runtime", "ok", "it says so at "+n.dir()+"/c.sock")
			wants(d, "port", "ok", "larder answers at "+m.addr)
			if !d.Uses {
				t.Errorf("a node that uses the mirror is said not to:\n%s", d.raw)
			}
			if went := direct(up.Requests()); len(went) > 0 {
				t.Errorf("the pull for proof went past the mirror:\n%s", describe(went))
			}
			wants(ask("v1"), "pull", "warn", "the node had the image already")

			// A directory for the registry alone hides the mirror.
			own := filepath.Join(n.dir(), "certs.d", strings.ReplaceAll(up.Host(), ":", "_")+"_")
			if err := os.Mkdir(own, 0o755); err != nil {
				t.Fatal(err)
			}
			d = ask("v2")
			wants(d, "shadowing", "warn", own+" is for "+up.Host()+" alone")
			wants(d, "pull", "fail", "it came past the mirror")
			if err := os.Remove(own); err != nil {
				t.Fatal(err)
			}

			m.Stop(t)
			d = ask("v3")
			wants(d, "port", "fail", "nobody listens at "+m.addr)
			wants(d, "pull", "fail", "nothing was pulled")
		})
	}
}
