package e2e

import (
	"fmt"
	"testing"

	"github.com/larder-registry/larder/test/process"
)

// foreign starts a registry that is not Larder's own, listening at addr.
type foreign struct {
	name  string
	start func(t *testing.T, addr string) *process.Process
}

// TestForeignRegistries pulls from the registry that Debian packages and from
// the one in crane. The second node pulls when they are gone: all it gets is
// what the mirror has, and the tag is what the mirror remembers.
func TestForeignRegistries(t *testing.T) {
	for _, f := range []foreign{{"docker-registry", startDockerRegistry}, {"crane-registry", startCraneRegistry}} {
		for _, c := range clients() {
			if !*fullFlag && !c.kubelets {
				continue
			}
			t.Run(f.name+"/"+c.name, func(t *testing.T) {
				t.Parallel()
				addr := process.Addr(t)
				upstream := f.start(t, addr)
				img := seed(t, upstream, addr)
				m := startMirror(t, addr)
				to := target{mirror: m.addr, upstream: addr, repo: repo, tag: tag}
				pulled(t, c, to, img)
				upstream.Kill()
				pulled(t, c, to, img)
			})
		}
	}
}

func startDockerRegistry(t *testing.T, addr string) *process.Process {
	t.Helper()
	home := scratch(t)
	config := write(t, home, "config.yml", fmt.Sprintf(`version: 0.1
http:
  addr: %s
storage:
  filesystem:
    rootdirectory: %s/registry
`, addr, home))
	return spawn(t, home, "/usr/bin/docker-registry", "serve", config)
}

func startCraneRegistry(t *testing.T, addr string) *process.Process {
	t.Helper()
	home := scratch(t)
	return spawn(t, home, bin(t, "crane"), "registry", "serve", "--address", addr, "--disk", home)
}

// seed copies the image of the other tests to a registry, once that answers.
func seed(t *testing.T, upstream *process.Process, addr string) image {
	t.Helper()
	upstream.Await(t, "the registry to be ready", process.Answers("http://"+addr+"/v2/"))
	source, img := newUpstream(t)
	name := "/" + repo + ":" + tag
	if _, err := run(t.Context(), environ(t, scratch(t)), bin(t, "crane"), "copy", source.Host()+name, addr+name); err != nil {
		t.Fatal(err)
	}
	return img
}
