package e2e

import (
	"context"
	"fmt"
	"os"
	"testing"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// TestCentralContainerd has each containerd pull a private image from a central
// registry, with TLS and the password a pod's pull secret would have.
func TestCentralContainerd(t *testing.T) {
	up, img := newUpstream(t)
	c := startCentral(t, "")
	k := newKit(t, c)
	k.run(bin(t, "crane"), "auth", "login", c.addr, "-u", alice, "-p", alicePassword)
	k.run(bin(t, "crane"), "copy", up.Host()+"/"+repo+":"+tag, c.addr+"/team-a/app:v1")
	for _, kind := range []containerd{
		{name: "containerd-1.6-ctr", old: true}, {name: "containerd-1.6-cri", old: true, byCRI: true},
		{name: "containerd-2-ctr-local", local: true}, {name: "containerd-2-cri", byCRI: true},
		{name: "containerd-2-parallel-cri-local", byCRI: true, local: true, chunk: 1 << 20},
	} {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			n, ok := kind.fresh(t, target{mirror: c.addr, upstream: c.addr, repo: "team-a/app", tag: "v1"}).(*containerdNode)
			if !ok {
				t.Fatal("another kind of node")
			}
			// No mirror: the registry itself, and the authority it is known by.
			if err := os.RemoveAll(n.hosts); err != nil {
				t.Fatal(err)
			}
			write(t, n.hosts, c.addr+"/hosts.toml", fmt.Sprintf("server = \"https://%s\"\n[host.\"https://%[1]s\"]\n  capabilities = [\"pull\", \"resolve\"]\n  ca = %[2]q\n", c.addr, c.ca))
			ctx, cancel := context.WithTimeout(t.Context(), pullPatience)
			defer cancel()
			if err := n.pullAs(ctx, bob, "guess"); err == nil {
				t.Error("it pulled with a wrong password")
			}
			if err := n.pullAs(ctx, bob, bobPassword); err != nil {
				t.Fatal(err)
			}
			n.check(t, img)
		})
	}
}

// pullAs pulls with a user's password.
func (n *containerdNode) pullAs(ctx context.Context, user, password string) error {
	if n.byCRI {
		_, err := cri.NewImageServiceClient(n.conn).PullImage(ctx, &cri.PullImageRequest{
			Image: &cri.ImageSpec{Image: n.ref}, Auth: &cri.AuthConfig{Username: user, Password: password},
		})
		return err
	}
	args := []string{"--address", n.socket, "images", "pull", "--snapshotter", "native", "--hosts-dir", n.hosts, "--user", user + ":" + password}
	if n.local {
		args = append(args, "--local")
	}
	_, err := run(ctx, n.env, n.ctr, append(args, n.ref)...)
	return err
}
