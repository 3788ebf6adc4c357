package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/larder-registry/larder/test/process"
)

// dockerAtCentral has Debian's docker, which is a daemon and a client, push and
// pull. The daemon runs no containers here and makes no network.
func dockerAtCentral(t *testing.T, k kit, from string, img image) {
	containerd := spawn(t, k.dir, "/usr/bin/containerd", "-c", write(t, k.dir, "containerd.toml", fmt.Sprintf(
		"version = 2\nroot = \"%s/c/root\"\nstate = \"%[1]s/c/state\"\n[grpc]\naddress = \"%[1]s/c.sock\"\n", k.dir)))
	containerd.Await(t, "containerd", func(ctx context.Context) error {
		_, err := run(ctx, k.env, "/usr/bin/ctr", "-a", k.dir+"/c.sock", "version")
		return err
	})
	// The daemon takes the authority from where Docker looks for it.
	write(t, k.dir, "daemon.json", "{}")
	daemon := process.Spawn(t, k.dir, k.env, "/usr/sbin/dockerd", "--config-file", k.dir+"/daemon.json", "--data-root", k.dir+"/data",
		"--exec-root", k.dir+"/exec", "--pidfile", k.dir+"/docker.pid", "--host", "unix://"+k.dir+"/d.sock", "--containerd", k.dir+"/c.sock",
		"--iptables=false", "--ip6tables=false", "--bridge=none", "--storage-driver=vfs")
	docker := func(args ...string) []string {
		return append([]string{"--host", "unix://" + k.dir + "/d.sock"}, args...)
	}
	const client = "/usr/bin/docker"
	daemon.Await(t, "dockerd", func(ctx context.Context) error {
		_, err := run(ctx, k.env, client, docker("version")...)
		return err
	})
	k.run(client, docker("pull", from)...)
	pushed := k.at("team-a/docker:v1")
	k.run(client, docker("tag", from, pushed)...)
	k.refused(client, docker("push", pushed)...)
	k.refused(client, docker("login", "-u", alice, "-p", "guess", k.c.addr)...)
	k.run(client, docker("login", "-u", alice, "-p", alicePassword, k.c.addr)...)
	k.run(client, docker("push", pushed)...)
	_, m := k.c.holds(t, "team-a/docker", "v1")
	if m.MediaType != "application/vnd.docker.distribution.manifest.v2+json" || m.Config.Digest != img.config {
		t.Errorf("it pushed %+v, want config %s", m, img.config)
	}
	// The same image elsewhere: its layers are mounted.
	k.run(client, docker("tag", from, k.at("team-a/docker-copy:v1"))...)
	if out := k.run(client, docker("push", k.at("team-a/docker-copy:v1"))...); !strings.Contains(out, "Mounted from team-a/docker") {
		t.Errorf("no layer was mounted: %s", out)
	}
	k.c.holds(t, "team-a/docker-copy", "v1")
	k.run(client, docker("rmi", "--force", from, pushed, k.at("team-a/docker-copy:v1"))...)
	k.run(client, docker("pull", pushed)...)
	if got := k.run(client, docker("image", "inspect", "--format", "{{.Id}}", pushed)...); got != img.config {
		t.Errorf("it pulled %s, want %s", got, img.config)
	}
	k.run(client, docker("logout", k.c.addr)...)
	k.run(client, docker("rmi", "--force", pushed)...)
	k.refused(client, docker("pull", pushed)...)
}
