package e2e

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/larder-registry/larder/test/process"
	"github.com/larder-registry/larder/test/registry"
)

// TestInitPodman has larder init tell podman of the mirror: podman pulls an image
// through the drop-in it wrote, another one without the mirror, and a third after
// the undo. The registry has to be at the port that goes without saying, because
// a name in a mirror's path can have none.
func TestInitPodman(t *testing.T) {
	t.Parallel()
	up := registry.Start(t, registry.Options{Addr: "127.0.0.1:443", TLS: true})
	images := map[string]image{}
	for i, tag := range []string{"v1", "v2", "v3"} {
		images[tag] = imageOf(up.AddImage(repo, tag, registry.NewLayer(uint64(10*i+1), 200<<10), registry.NewLayer(uint64(10*i+2), 4<<10)))
	}
	m := &mirror{addr: process.Addr(t), admin: process.Addr(t), dir: scratch(t)}
	ca := write(t, m.dir, "ca.crt", string(up.CAPEM()))
	write(t, m.dir, "larder.yaml", "registry_proxies:\n  max_size: 1GiB\n  min_free: 1%\n  registries:\n    - host: 127.0.0.1\n      ca_file: "+ca+"\n")
	m.start(t)

	home := scratch(t)
	n := &podmanMachine{home: home, env: environ(t, home, "CONTAINERS_STORAGE_CONF="+write(t, home, "storage.conf", "[storage]\ndriver = \"vfs\"\nrunroot = \""+home+"/run\"\ngraphroot = \""+home+"/storage\"\n"))}
	for _, name := range []string{"hosts", "passwd", "group"} {
		raw, err := os.ReadFile("/etc/" + name)
		if err != nil {
			t.Fatal(err)
		}
		write(t, home, "etc/"+name, string(raw))
	}
	write(t, home, "etc/containers/policy.json", `{"default": [{"type": "insecureAcceptAnything"}]}`)
	write(t, home, "etc/containers/registries.conf", "unqualified-search-registries = [\"docker.io\"]\n")
	write(t, home, "etc/containers/certs.d/127.0.0.1/ca.crt", string(up.CAPEM()))
	before := files(t, home+"/etc/containers")

	_, port, _ := strings.Cut(m.addr, ":")
	args := []string{"--target", "crio", "--address", "loopback", "--port", port, "--registry", "127.0.0.1"}
	if got := n.larder(t, args...); got != "changed" {
		t.Fatalf("larder init: %s", got)
	}
	if got := n.larder(t, args...); got != "unchanged" {
		t.Fatalf("larder init, run again: %s", got)
	}
	n.pull(t, "v1", images["v1"])
	if went := direct(up.Requests()); len(went) > 0 || len(up.Requests()) == 0 {
		t.Errorf("podman went to the registry itself:\n%s", describe(went))
	}
	n.doctor(t, port, m.admin)

	m.Kill()
	n.pull(t, "v2", images["v2"])
	if len(direct(up.Requests())) == 0 {
		t.Error("without the mirror, podman did not go to the registry")
	}

	if got := n.larder(t, "--target", "crio", "--undo"); got != "undone" {
		t.Fatalf("larder init --undo: %s", got)
	}
	if after := files(t, home+"/etc/containers"); after != before {
		t.Errorf("after the undo, /etc/containers has\n%s\nbefore it had\n%s", after, before)
	}
	n.pull(t, "v3", images["v3"])
}

// podmanMachine is a machine of its own as far as /etc goes, with podman on it.
type podmanMachine struct {
	home string
	env  []string
}

// run runs a program on it.
func (n *podmanMachine) run(ctx context.Context, args ...string) (string, error) {
	const script = `set -e
home=$1
shift
mount --bind "$home/etc" /etc
exec "$@"`
	return run(ctx, n.env, "unshare", append([]string{"--mount", "--propagation", "private", "sh", "-c", script, "sh", n.home}, args...)...)
}

// larder runs larder init on it, and returns what came of it.
func (n *podmanMachine) larder(t *testing.T, args ...string) string {
	t.Helper()
	out, err := n.run(t.Context(), append([]string{bin(t, "larder"), "init", "--output", "json", "--require"}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	var r initReport
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatalf("%v:\n%s", err, out)
	}
	return r.Status
}

// doctor demands that larder doctor finds what init did.
func (n *podmanMachine) doctor(t *testing.T, port, admin string) {
	t.Helper()
	out, err := n.run(t.Context(), bin(t, "larder"), "doctor", "--target", "crio", "--port", port, "--admin", admin, "--registry", "127.0.0.1")
	if err != nil || !strings.Contains(out, "mirrored are 127.0.0.1, and no others") {
		t.Errorf("larder doctor: %v\n%s", err, out)
	}
}

// pull pulls an image, and compares its layers with what the registry has.
func (n *podmanMachine) pull(t *testing.T, tag string, img image) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), pullPatience)
	defer cancel()
	ref := "127.0.0.1/" + repo + ":" + tag
	if _, err := n.run(ctx, "/usr/bin/podman", "pull", ref); err != nil {
		t.Fatal(err)
	}
	saved := filepath.Join(n.home, "saved-"+tag)
	if _, err := n.run(ctx, "/usr/bin/podman", "save", "--quiet", "--format", "oci-dir", "--output", saved, ref); err != nil {
		t.Fatal(err)
	}
	savedHolds(t, saved, img)
}
