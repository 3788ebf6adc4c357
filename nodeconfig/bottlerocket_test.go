package nodeconfig

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	api "github.com/larder-registry/larder/test/bottlerocket"
)

const osRelease = "NAME=Bottlerocket\nID=bottlerocket\nVERSION_ID=1.56.0\n"

// startAPI serves settings below a node's root. The root is short, because a
// socket's path must be.
func startAPI(t *testing.T, registry string) (*api.API, *Node) {
	t.Helper()
	t.Chdir(t.TempDir())
	put(t, ".", map[string]string{"run/": "", "usr/lib/os-release": osRelease})
	a, err := api.Start("run", registry)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	return a, nodeAt(".")
}

func TestBottlerocketBySettings(t *testing.T) {
	const before = `{"credentials":[{"auth":"c2VjcmV0","registry":"ghcr.io"}],"mirrors":[{"endpoint":["http://0.test"],"registry":"*"},{"endpoint":["https://h.test"],"registry":"docker.io"}]}`
	a, n := startAPI(t, before)
	target, cfg := newBottlerocket(n), testConfig()
	if evidence, found := target.Detect(t.Context()); !found || evidence != "/usr/lib/os-release" {
		t.Errorf("recognised: %v, by %s", found, evidence)
	}
	files := tree(t, ".")
	changes := planned(t, target, cfg)
	for _, part := range []string{
		"note /run/api.sock: the settings API of Bottlerocket OS 1.56.0 (aws-k8s-1.35) is used",
		"note containerd: Bottlerocket restarts containerd",
		"docker.io has an entry of its own, which hides the one for all: to have it mirrored, add --registry docker.io",
		"warning settings.container-registry.credentials: the credentials for ghcr.io hide the mirror from it",
		"http://0.test is asked before the mirror",
	} {
		if said := saying(changes); !strings.Contains(said, part) {
			t.Errorf("the plan does not say %q:\n%s", part, said)
		}
	}
	for _, c := range changes {
		if text := string(c.Before) + string(c.After) + c.Why; strings.Contains(text, "c2VjcmV0") {
			t.Errorf("a secret is in the plan: %s", text)
		}
	}
	if n := a.Commits(); n != 0 {
		t.Errorf("planning commits %d times", n)
	}
	cfg.Registries = []string{"docker.io", "ghcr.io"}
	for range 2 {
		if err := target.Apply(t.Context(), planned(t, target, cfg)); err != nil {
			t.Fatal(err)
		}
	}
	want := `{"credentials":[{"auth":"c2VjcmV0","registry":"ghcr.io"}],"mirrors":[` +
		`{"endpoint":["http://127.0.0.1:8000","http://0.test"],"registry":"*"},` +
		`{"endpoint":["http://127.0.0.1:8000","https://h.test"],"registry":"docker.io"},` +
		`{"endpoint":["http://127.0.0.1:8000"],"registry":"ghcr.io"}]}`
	if got := a.Registry(); got != want {
		t.Errorf("settings are\n%s, want\n%s", got, want)
	}
	if n := a.Commits(); n != 1 {
		t.Errorf("two runs committed %d times", n)
	}
	if again := planned(t, target, cfg); len(doing(again)) > 0 || strings.Contains(saying(again), "hide") || strings.Contains(saying(again), "restarts") {
		t.Errorf("the second run would do %+v", again)
	}
	for range 2 {
		changes, err := target.Undo(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		if err := target.Apply(t.Context(), changes); err != nil {
			t.Fatal(err)
		}
	}
	if got := a.Registry(); got != before {
		t.Errorf("after the undo settings are\n%s, want\n%s", got, before)
	}
	if n := a.Commits(); n != 2 {
		t.Errorf("all runs committed %d times", n)
	}
	same(t, "in the end", tree(t, "."), files)
}

// TestBottlerocketFromNothing: there is no setting at first, and an empty one
// after the undo.
func TestBottlerocketFromNothing(t *testing.T) {
	a, n := startAPI(t, "")
	target, cfg := newBottlerocket(n), testConfig()
	if err := target.Apply(t.Context(), planned(t, target, cfg)); err != nil {
		t.Fatal(err)
	}
	changes, err := target.Undo(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := target.Apply(t.Context(), changes); err != nil {
		t.Fatal(err)
	}
	if got := a.Registry(); got != `{"mirrors":[]}` {
		t.Errorf("settings are %s", got)
	}
	if changes, err = target.Undo(t.Context(), cfg); err != nil || len(doing(changes)) > 0 {
		t.Errorf("a second undo would do %+v, %v", changes, err)
	}
}

// TestBottlerocketChangedMeanwhile: a setting that is not what was planned for
// is not replaced.
func TestBottlerocketChangedMeanwhile(t *testing.T) {
	a, n := startAPI(t, "")
	target := newBottlerocket(n)
	changes := planned(t, target, testConfig())
	a.Stage("x", "mirrors", `[{"registry":"*","endpoint":["https://theirs.test"]}]`)
	if err := a.Commit("x"); err != nil {
		t.Fatal(err)
	}
	if err := target.Apply(t.Context(), changes); !errors.Is(err, ErrChanged) {
		t.Errorf("error is %v", err)
	}
	if got := a.Registry(); !strings.Contains(got, "theirs") || strings.Contains(got, "127.0.0.1") {
		t.Errorf("settings are %s", got)
	}
}

// TestBottlerocketAPIThatFails: an API that answers is the way; when it says no,
// files are not written behind its back.
func TestBottlerocketAPIThatFails(t *testing.T) {
	for name, c := range map[string]struct {
		path, body string
		code       int
		err        string
	}{
		"broken":      {"/settings", "", 500, "read registry settings: GET /settings: status 500"},
		"not there":   {"/settings", "", 404, "status 404"},
		"garbage":     {"/settings", "<html>", 200, "the answer is no JSON object"},
		"no release":  {"/os", "{}", 200, "names no version-id"},
		"commit":      {"/tx/commit_and_apply", "no", 500, "commit registry settings: POST /tx/commit_and_apply: status 500: no"},
		"too old":     {"/tx", "", 200, "use --target containerd --root"},
		"not allowed": {"/tx", "", 403, "DELETE /tx: status 403"},
	} {
		t.Run(name, func(t *testing.T) {
			a, n := startAPI(t, "")
			before := tree(t, ".")
			a.Break(func(w http.ResponseWriter, r *http.Request) bool {
				if name == "too old" && r.Method == http.MethodPatch {
					http.Error(w, "Json deserialize error: unknown field `container-registry`", http.StatusBadRequest)
					return true
				}
				if r.URL.Path != c.path {
					return false
				}
				w.WriteHeader(c.code)
				_, _ = w.Write([]byte(c.body))
				return true
			})
			target := newBottlerocket(n)
			changes, err := target.Plan(t.Context(), testConfig())
			if err == nil {
				err = target.Apply(t.Context(), changes)
			}
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("error is %v", err)
			}
			same(t, "after failing", tree(t, "."), before)
			if got := a.Registry(); got != "null" {
				t.Errorf("settings are %s", got)
			}
		})
	}
}

// TestBottlerocketByFiles: where the API cannot be used, from within a host
// container, the files are those below its view of the host.
func TestBottlerocketByFiles(t *testing.T) {
	for name, refuse := range map[string]bool{"no socket": false, "forbidden": true} {
		t.Run(name, func(t *testing.T) {
			n := nodeAt(".")
			if refuse {
				var a *api.API
				a, n = startAPI(t, "")
				a.Break(func(w http.ResponseWriter, _ *http.Request) bool {
					w.WriteHeader(http.StatusForbidden)
					return true
				})
			} else {
				t.Chdir(t.TempDir())
			}
			put(t, ".bottlerocket/rootfs", map[string]string{
				"usr/lib/os-release":         osRelease,
				"etc/containerd/config.toml": "version = 2\n\n[plugins.\"io.containerd.grpc.v1.cri\"]\n  sandbox_image = \"pause:1\"\n",
			})
			n.ContainerdVersion = "1.7.27"
			target := newBottlerocket(n)
			if _, found := target.Detect(t.Context()); !found {
				t.Error("it is not recognised")
			}
			if said := saying(planned(t, target, testConfig())); !strings.Contains(said, "warning /etc/containerd: files are written, because the settings API cannot be used") {
				t.Errorf("the plan says %s", said)
			}
			between := thereAndBack(t, ".", target, testConfig())
			const below = ".bottlerocket/rootfs/etc/containerd/"
			if got := fileIn(between, below+"certs.d/_default/hosts.toml"); !strings.Contains(got, "http://127.0.0.1:8000") {
				t.Errorf("hosts.toml is %s", got)
			}
			if got := between[below+"certs.d/_default"]; got != "drwxr-xr-x" {
				t.Errorf("its directory has mode %s", got)
			}
			if got := between[below+"certs.d/_default/hosts.toml"]; !strings.HasPrefix(got, "-rw-r--r-- ") {
				t.Errorf("hosts.toml has mode %s", got[:10])
			}
			if got := fileIn(between, below+"config.toml"); strings.Count(got, "config_path") != 1 || !strings.Contains(got, "sandbox_image") {
				t.Errorf("config.toml is %s", got)
			}
			if _, err := os.Stat(filepath.Join("etc", "containerd")); !os.IsNotExist(err) {
				t.Errorf("the container's own /etc was written to: %v", err)
			}
		})
	}
}

func TestOtherSystemsAreNotBottlerocket(t *testing.T) {
	for name, text := range map[string]string{"Debian": "ID=debian\nNAME=bottlerocket\n", "none": "", "quoted": "ID=\"bottlerocket\"\n"} {
		root := t.TempDir()
		put(t, root, map[string]string{"etc/os-release": text})
		if _, found := newBottlerocket(nodeAt(root)).Detect(t.Context()); found != (name == "quoted") {
			t.Errorf("%s: found %v", name, found)
		}
	}
}
