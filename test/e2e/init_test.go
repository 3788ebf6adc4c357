package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/larder-registry/larder/test/process"
	"github.com/larder-registry/larder/test/registry"
)

// initRow is one node: a release of containerd and a configuration it is found
// with, which larder init has to bring to the mirror.
type initRow struct {
	name, config string
	releases     []string // of containerd, as in releases(); empty means all
	quick        bool
	// shadowed: the registry has a directory of its own, which hides _default.
	shadowed bool
	// restart: init says that containerd has to read its configuration again.
	restart bool
	// written is where the mirror must be named afterwards, below /etc.
	written string
}

// Configurations of nodes, without what they say of registries.
const (
	initV1 = `root = "HOME/root"
state = "HOME/state"
[grpc]
  address = "HOME/c.sock"
[plugins.opt]
  path = "HOME/opt"
[plugins.cri.cni]
  conf_dir = "HOME/cni"
[plugins.cri.containerd]
  snapshotter = "native"
`
	initV2 = `version = 2
root = "HOME/root"
state = "HOME/state"
IMPORTS
[grpc]
  address = "HOME/c.sock" # kept
[plugins."io.containerd.internal.v1.opt"]
  path = "HOME/opt"
[plugins."io.containerd.nri.v1.nri"]
  disable = true
[plugins."io.containerd.grpc.v1.cri".cni]
  conf_dir = "HOME/cni"
[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "native"
  DISCARD
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
  snapshotter = "native"
[[plugins."io.containerd.transfer.v1.local".unpack_config]]
  platform = "linux/ARCH"
  snapshotter = "native"
  differ = "walking"
REGISTRY
`
	initV3 = `version = VERSION
root = "HOME/root"
state = "HOME/state"
IMPORTS
[SERVER]
  address = "HOME/c.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "HOME/opt"
[plugins."io.containerd.nri.v1.nri"]
  disable = true
[plugins."io.containerd.cri.v1.runtime".cni]
  conf_dir = "HOME/cni"
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "native"
  DISCARD
[[plugins."io.containerd.transfer.v1.local".unpack_config]]
  platform = "linux/ARCH"
  snapshotter = "native"
  differ = "walking"
REGISTRY
`
	imports   = `imports = ["/etc/containerd/conf.d/*.toml"]`
	list      = "/etc/containerd/certs.d:/etc/docker/certs.d"
	listIn2   = "[plugins.\"io.containerd.grpc.v1.cri\".registry]\n  config_path = \"" + list + "\""
	listIn3   = "[plugins.\"io.containerd.cri.v1.images\".registry]\n  config_path = \"" + list + "\""
	onePath   = "[plugins.\"io.containerd.cri.v1.images\".registry]\n  config_path = \"/etc/containerd/certs.d\""
	emptyIn2  = "[plugins.\"io.containerd.grpc.v1.cri\".registry]\n  config_path = \"\""
	defaultAt = "containerd/certs.d/_default/hosts.toml"
	literalAt = "containerd/certs.d:/etc/docker/certs.d/_default/hosts.toml"
)

// with fills in a configuration.
func with(config string, pairs ...string) string {
	pairs = append(pairs, "IMPORTS", "", "DISCARD", "", "REGISTRY", "", "VERSION", "3", "SERVER", "grpc")
	return strings.NewReplacer(pairs...).Replace(config) // of a key given twice, the first counts
}

var since2 = []string{"2.0", "2.1", "2.2", "2.3", "newest"}

func initRows() []initRow {
	old, before22 := []string{"1.6", "1.7"}, []string{"1.6", "1.7", "2.0", "2.1"}
	return []initRow{
		{name: "version-1", config: initV1, releases: old, restart: true, written: defaultAt},
		{name: "version-2", config: with(initV2), releases: before22, quick: true, restart: true, written: defaultAt},
		{name: "version-2-empty-path", config: with(initV2, "REGISTRY", emptyIn2), releases: before22, restart: true, written: defaultAt},
		{name: "version-2-imports", config: with(initV2, "IMPORTS", imports), releases: before22, restart: true, written: defaultAt},
		{name: "version-2-list", config: with(initV2, "REGISTRY", listIn2, "DISCARD", "discard_unpacked_layers = true"), written: defaultAt},
		{name: "version-3-imports", config: with(initV3, "IMPORTS", imports), releases: []string{"2.0", "2.1"}, restart: true, written: defaultAt},
		{name: "version-3-unset", config: with(initV3), releases: []string{"2.2", "2.3", "newest"}, quick: true, written: literalAt},
		{name: "version-3-list-local", config: with(initV3, "REGISTRY", listIn3, "DISCARD", "discard_unpacked_layers = true"), releases: since2, quick: true, written: defaultAt},
		{name: "version-3-list-transfer", config: with(initV3, "REGISTRY", listIn3), releases: since2[1:], written: literalAt},
		{name: "version-4", config: with(initV3, "VERSION", "4", "SERVER", `plugins."io.containerd.server.v1.grpc"`), releases: []string{"2.3", "newest"}, written: literalAt},
		{name: "version-3-shadowed", config: with(initV3, "REGISTRY", onePath), releases: since2, shadowed: true, written: defaultAt},
		{name: "version-2-shadowed", config: with(initV2), releases: before22, shadowed: true, restart: true, written: defaultAt},
	}
}

// TestInit has larder init configure real containerds: each is started on what
// it wrote, pulls an image through the mirror, and another one without it.
func TestInit(t *testing.T) {
	programs := initPrograms(t)
	for _, row := range initRows() {
		for _, release := range []string{"1.6", "1.7", "2.0", "2.1", "2.2", "2.3", "newest"} {
			if len(row.releases) > 0 && !slices.Contains(row.releases, release) {
				continue
			}
			if programs[release] == "" || !row.quick && *releasesFlag == "" {
				continue
			}
			t.Run(row.name+"/"+release, func(t *testing.T) {
				t.Parallel()
				row.test(t, programs[release])
			})
		}
	}
}

// initPrograms are the containerds there are, by release.
func initPrograms(t *testing.T) map[string]string {
	t.Helper()
	programs := map[string]string{"1.6": "/usr/bin/containerd", "newest": bin(t, "containerd")}
	if *releasesFlag != "" {
		for _, release := range []string{"1.7", "2.0", "2.1", "2.2", "2.3"} {
			programs[release] = filepath.Join(*releasesFlag, release, "containerd")
		}
	}
	return programs
}

// initNode is a machine of its own as far as /etc goes.
type initNode struct {
	home, program string
	env           []string
	*process.Process
	conn *grpc.ClientConn
}

// inside is how a program is run on the node: /etc is the node's, and containerd
// where packages put it is the one under test.
func (n *initNode) inside(args ...string) []string {
	const script = `set -e
home=$1 program=$2
shift 2
mount --bind "$home/etc" /etc
mount --bind "$home/sbin" /usr/local/sbin
test "$program" = /usr/bin/containerd || mount --bind "$program" /usr/bin/containerd
exec "$@"`
	return append([]string{"--mount", "--propagation", "private", "sh", "-c", script, "sh", n.home, n.program}, args...)
}

// larder runs larder init on the node and returns its report.
func (n *initNode) larder(t *testing.T, args ...string) initReport {
	t.Helper()
	args = append([]string{bin(t, "larder"), "init", "--output", "json", "--require"}, args...)
	out, err := run(t.Context(), n.env, "unshare", n.inside(args...)...)
	if err != nil {
		t.Fatal(err)
	}
	var r initReport
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatalf("%v:\n%s", err, out)
	}
	return r
}

// initReport is what of larder init's report matters here.
type initReport struct {
	Status  string                  `json:"status"`
	Target  string                  `json:"target"`
	Notes   []struct{ Text string } `json:"notes"`
	Restart *struct{ Unit string }  `json:"restart"`
}

func (row initRow) test(t *testing.T, program string) {
	up := registry.Start(t, registry.Options{})
	first := imageOf(up.AddImage(repo, "v1", registry.NewLayer(1, 200<<10), registry.NewLayer(2, 4<<10)))
	second := imageOf(up.AddImage(repo, "v2", registry.NewLayer(3, 200<<10)))
	m := startMirror(t, up.Host())
	home := scratch(t)
	n := &initNode{home: home, program: program, env: environ(t, home)}
	config := strings.NewReplacer("HOME", home, "ARCH", runtime.GOARCH).Replace(row.config)
	write(t, home, "etc/containerd/config.toml", config)
	for _, name := range []string{"hosts", "passwd", "group"} {
		raw, err := os.ReadFile("/etc/" + name)
		if err != nil {
			t.Fatal(err)
		}
		write(t, home, "etc/"+name, string(raw))
	}
	if row.shadowed {
		host, port, _ := strings.Cut(up.Host(), ":")
		write(t, home, "etc/containerd/certs.d/"+host+"_"+port+"_/hosts.toml", "# theirs\nserver = \"http://"+up.Host()+"\"\n\n[host.\"http://127.0.0.1:9\"]\n  capabilities = [\"pull\"]\n")
	}
	before := files(t, home+"/etc")
	// What larder asks of systemd is written down.
	if err := os.Chmod(write(t, home, "sbin/systemctl", "#!/bin/sh\necho \"$@\" >>"+home+"/asked\n"), 0o755); err != nil {
		t.Fatal(err)
	}

	_, port, _ := strings.Cut(m.addr, ":")
	args := []string{"--address", "loopback", "--port", port, "--registry", up.Host(), "--restart"}
	r := n.larder(t, args...)
	if r.Status != "changed" || r.Target != "containerd" || (r.Restart != nil) != row.restart {
		t.Fatalf("larder init: %+v", r)
	}
	if asked, err := os.ReadFile(home + "/asked"); (string(asked) == "restart containerd\n") != row.restart || (err == nil) != row.restart {
		t.Errorf("systemd was asked to %q (%v)", asked, err)
	}
	if raw, err := os.ReadFile(filepath.Join(home, "etc", row.written)); err != nil || !bytes.Contains(raw, []byte("http://"+m.addr)) {
		t.Fatalf("the mirror is not named in %s: %v\n%s", row.written, err, raw)
	}
	n.start(t)
	if r = n.larder(t, args...); r.Status != "unchanged" || !strings.Contains(fmt.Sprint(r.Notes), "it says so at "+home+"/c.sock") {
		t.Fatalf("larder init, run again beside the running containerd: %+v", r)
	}

	n.pull(t, up.Host()+"/"+repo+":v1")
	if went := direct(up.Requests()); len(went) > 0 || len(up.Requests()) == 0 {
		t.Errorf("containerd went to the registry itself:\n%s\nits log:\n%s", describe(went), n.Tail())
	}
	n.holds(t, first)
	m.Kill()
	n.pull(t, up.Host()+"/"+repo+":v2")
	if len(direct(up.Requests())) == 0 {
		t.Error("without the mirror, containerd did not go to the registry")
	}
	n.holds(t, second)

	if r = n.larder(t, "--undo"); r.Status != "undone" {
		t.Fatalf("larder init --undo: %+v", r)
	}
	if after := files(t, home+"/etc"); after != before {
		t.Errorf("after the undo, /etc has\n%s\nbefore it had\n%s", after, before)
	}
}

// start starts containerd and waits until it answers.
func (n *initNode) start(t *testing.T) {
	t.Helper()
	n.Process = spawn(t, n.home, "unshare", n.inside("/usr/bin/containerd")...)
	var err error
	n.conn, err = grpc.NewClient("unix://"+n.home+"/c.sock", grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.conn.Close() })
	n.Await(t, "containerd's CRI plugin", func(ctx context.Context) error {
		_, err := cri.NewImageServiceClient(n.conn).ListImages(ctx, &cri.ListImagesRequest{})
		return err
	})
}

func (n *initNode) pull(t *testing.T, ref string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), pullPatience)
	defer cancel()
	if _, err := cri.NewImageServiceClient(n.conn).PullImage(ctx, &cri.PullImageRequest{Image: &cri.ImageSpec{Image: ref}}); err != nil {
		t.Fatalf("pull %s: %v\n%s", ref, err, n.Tail())
	}
}

// holds makes sure that the content arrived; layers may be discarded once they
// are unpacked.
func (n *initNode) holds(t *testing.T, img image) {
	t.Helper()
	got, err := cri.NewImageServiceClient(n.conn).ListImages(t.Context(), &cri.ListImagesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(got.GetImages(), func(i *cri.Image) bool { return i.GetId() == img.config }) {
		t.Errorf("containerd has no image %s: %v", img.config, got.GetImages())
	}
}

// files is every file below dir with its content, and every directory.
func files(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(name string, entry os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "%s %s\n", name, info.Mode())
		if info.Mode().IsRegular() {
			raw, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			b.Write(raw)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}
