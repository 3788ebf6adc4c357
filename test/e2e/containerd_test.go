package e2e

import (
	"context"
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/larder-registry/larder/test/process"
)

// containerd is one way to run containerd and to pull with it.
type containerd struct {
	old   bool // Debian's 1.6, else the pinned 2.x
	byCRI bool // pull through CRI, as kubelet does, else with ctr
	local bool // 2.x: CRI and ctr fetch by themselves, not the transfer service
	// overlay has layers unpacked as on a node; else as copies, which works
	// wherever the tests run.
	overlay bool
	chunk   int // concurrent_layer_fetch_buffer in bytes; 0 is containerd's default, off
	name    string
}

// containerds are the rows of the matrix that are containerd's.
func containerds() []client {
	const chunk = 1 << 20
	kinds := []containerd{
		{name: "containerd-1.6-ctr", old: true},
		{name: "containerd-1.6-cri", old: true, byCRI: true},
		{name: "containerd-2-ctr"},
		{name: "containerd-2-ctr-local", local: true},
		{name: "containerd-2-cri", byCRI: true},
		{name: "containerd-2-cri-local", byCRI: true, local: true},
		{name: "containerd-2-parallel-ctr", chunk: chunk},
		{name: "containerd-2-parallel-cri", byCRI: true, chunk: chunk},
		{name: "containerd-2-parallel-cri-local", byCRI: true, local: true, chunk: chunk},
	}
	var rows []client
	for _, k := range kinds {
		silent, tries := silentUntilGivenUp, 1
		if k.old {
			silent = silentUntilClosed
		}
		if k.chunk > 0 {
			tries = 2 // only the first chunk of a layer is asked of anybody else
		}
		rows = append(rows, client{
			name: k.name, fresh: k.fresh, kubelets: k.byCRI && !k.local && k.chunk == 0, quick: "killed",
			tries: tries, resumes: true,
			faults: map[string]fault{"stopped": stopped, "killed": killed, "cut": cut, "silent": silent, "500": failing},
		})
	}
	return rows
}

// containerdNode is a running containerd.
type containerdNode struct {
	containerd
	*process.Process
	home, socket, hosts, ctr, ref string
	env                           []string
	conn                          *grpc.ClientConn
}

// fresh starts a containerd with an empty store, told of the mirror the way
// `larder init` does it: one hosts.toml for all registries.
func (c containerd) fresh(t *testing.T, to target) node {
	t.Helper()
	home := scratch(t)
	n := &containerdNode{
		containerd: c, home: home, env: environ(t, home), socket: home + "/c.sock", hosts: home + "/certs.d",
		ref: to.upstream + "/" + to.repo + ":" + to.tag,
	}
	hosts := fmt.Sprintf("[host.\"http://%s\"]\n  capabilities = [\"pull\", \"resolve\"]\n", to.mirror)
	program, config := "/usr/bin/containerd", config1
	n.ctr = "/usr/bin/ctr"
	if !c.old {
		hosts += "  dial_timeout = \"200ms\"\n" // known since 2.1
		program, config = bin(t, "containerd"), config2
		n.ctr = bin(t, "ctr")
	}
	write(t, home, "certs.d/_default/hosts.toml", hosts)
	fetch := ""
	if c.chunk > 0 {
		fetch = fmt.Sprintf("concurrent_layer_fetch_buffer = %d", c.chunk)
	}
	fetchCRI, fetchTransfer := "", fetch
	if c.local { // the CRI plugin refuses to use the transfer service with its own setting
		fetchCRI, fetchTransfer = fetch, ""
	}
	if c.overlay {
		config = strings.ReplaceAll(config, `"native"`, `"overlayfs"`)
	}
	file := write(t, home, "config.toml", strings.NewReplacer(
		"HOME", home, "LOCAL", fmt.Sprint(c.local), "FETCH_CRI", fetchCRI, "FETCH_TRANSFER", fetchTransfer, "ARCH", runtime.GOARCH,
	).Replace(config))
	n.Process = spawn(t, home, program, "--config", file)

	var err error
	n.conn, err = grpc.NewClient("unix://"+n.socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.conn.Close() })
	n.Await(t, "containerd to be ready", func(ctx context.Context) error {
		if _, err := healthpb.NewHealthClient(n.conn).Check(ctx, &healthpb.HealthCheckRequest{}); err != nil {
			return err
		}
		_, err := cri.NewImageServiceClient(n.conn).ListImages(ctx, &cri.ListImagesRequest{})
		return err
	})
	return n
}

func (n *containerdNode) dir() string { return n.home }

func (n *containerdNode) pull(ctx context.Context) error {
	if n.byCRI {
		_, err := cri.NewImageServiceClient(n.conn).PullImage(ctx, &cri.PullImageRequest{Image: &cri.ImageSpec{Image: n.ref}})
		return err
	}
	args := []string{"--address", n.socket, "images", "pull", "--snapshotter", "native", "--hosts-dir", n.hosts}
	if n.local {
		args = append(args, "--local")
	}
	_, err := run(ctx, n.env, n.ctr, append(args, n.ref)...)
	return err
}

// check reads containerd's content store, asks containerd whether it has the
// image, and makes sure that it pulled the way this row says.
func (n *containerdNode) check(t *testing.T, img image) {
	t.Helper()
	checkFiles(t, filepath.Join(n.home, "root/io.containerd.content.v1.content/blobs/sha256"), img.all())
	if !n.byCRI {
		out, err := run(t.Context(), n.env, n.ctr, "--address", n.socket, "images", "check", "--snapshotter", "native", "name=="+n.ref)
		if err != nil || !strings.Contains(out, "complete") {
			t.Errorf("ctr images check: %v\n%s", err, out)
		}
		return
	}
	got, err := cri.NewImageServiceClient(n.conn).ImageStatus(t.Context(), &cri.ImageStatusRequest{Image: &cri.ImageSpec{Image: n.ref}})
	if err != nil || got.GetImage().GetId() != img.config {
		t.Errorf("CRI has image %q, want %q: %v", got.GetImage().GetId(), img.config, err)
	}
	const said = "Calling cri transfer service"
	if transfer := strings.Contains(n.Output(), said); transfer == n.local && !n.old {
		t.Errorf("local pull is %v, but that containerd's log has %q is %v", n.local, said, transfer)
	}
}
