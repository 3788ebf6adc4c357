package e2e

import (
	"context"
	"fmt"
	"net/http"
	"testing"
)

// foreign starts a registry that is not Larder's own, listening at addr.
type foreign struct {
	name  string
	start func(t *testing.T, addr string) *process
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
				addr := freeAddr(t)
				upstream := f.start(t, addr)
				img := seed(t, upstream, addr)
				m := startMirror(t, addr)
				to := target{mirror: m.addr, upstream: addr, repo: repo, tag: tag}
				pulled(t, c, to, img)
				upstream.kill()
				pulled(t, c, to, img)
			})
		}
	}
}

func startDockerRegistry(t *testing.T, addr string) *process {
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

func startCraneRegistry(t *testing.T, addr string) *process {
	t.Helper()
	home := scratch(t)
	return spawn(t, home, bin(t, "crane"), "registry", "serve", "--address", addr, "--disk", home)
}

// seed copies the image of the other tests to a registry, once that answers.
func seed(t *testing.T, upstream *process, addr string) image {
	t.Helper()
	await(t, "the registry to be ready", func(ctx context.Context) error {
		if err := upstream.alive(); err != nil {
			t.Fatal(err)
		}
		return get(ctx, "http://"+addr+"/v2/")
	})
	source, img := newUpstream(t)
	name := "/" + repo + ":" + tag
	if _, err := run(t.Context(), environ(t, scratch(t)), bin(t, "crane"), "copy", source.Host()+name, addr+name); err != nil {
		t.Fatal(err)
	}
	return img
}

// get fails unless url answers 200.
func get(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", url, resp.Status)
	}
	return nil
}
