package check

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	cdx "github.com/CycloneDX/cyclonedx-go"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// host runs the image with podman as a cluster does: nothing may be written but
// what is mounted, no capability is left, nothing can be gained.
type host struct {
	args []string
	etc  string // mounted read-only at /etc/larder
	data string // mounted at the working directory, and its user's
}

// newHost loads the image from what docker load takes.
func newHost(t *testing.T) *host {
	t.Helper()
	dir := t.TempDir()
	h := &host{
		args: []string{"--root", filepath.Join(dir, "root"), "--runroot", filepath.Join(dir, "run"), "--storage-driver", "vfs"},
		etc:  t.TempDir(), data: t.TempDir(),
	}
	if err := os.Chown(h.data, 65532, 65532); err != nil {
		t.Fatal(err)
	}
	h.podman(t, "load", "-q", "-i", filepath.Join(built.dist, "larder-image.tar"))
	// What podman calls an image's ID is the digest of its configuration.
	first := h.podman(t, "image", "inspect", "--format", "{{.Id}}", built.ref.Name())
	h.podman(t, "load", "-q", "-i", filepath.Join(built.dist, "larder-image-amd64.tar"))
	second := h.podman(t, "image", "inspect", "--format", "{{.Id}}", built.ref.Name())
	made, err := built.set.Platforms[0].Image.ConfigName()
	if err != nil {
		t.Fatal(err)
	}
	if first != made.Hex+"\n" || second != first {
		t.Errorf("podman loaded %s from the OCI archive and %s from the other, made was %s", first, second, made.Hex)
	}
	t.Cleanup(func() {
		cmd := exec.Command("podman", append(slices.Clone(h.args), "rm", "-a", "-f", "-t", "0")...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("remove containers: %v\n%s", err, out)
		}
	})
	return h
}

func (h *host) podman(t *testing.T, args ...string) string {
	t.Helper()
	return output(t, "podman", append(slices.Clone(h.args), args...)...)
}

// container is the arguments that run larder in a container.
func (h *host) container(options []string, larder ...string) []string {
	all := append(slices.Clone(h.args), "run", "--read-only", "--read-only-tmpfs=false", "--cap-drop=all",
		"--security-opt=no-new-privileges", "--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024",
		"-v", h.etc+":/etc/larder:ro", "-v", h.data+":/var/lib/larder")
	all = append(all, options...)
	return append(append(all, built.ref.Name()), larder...)
}

// serve starts larder on the host's network, and waits until it is ready at
// admin. It ends with the test.
func (h *host) serve(t *testing.T, admin string, args ...string) {
	t.Helper()
	cmd := exec.Command("podman", h.container([]string{"--network=host", "--rm"}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { // ends with the container
		defer close(ended)
		cmd.Wait()
	}()
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM) // podman passes it on
		<-ended
		if code := cmd.ProcessState.ExitCode(); code != 0 {
			t.Errorf("larder %s ended with %d:\n%s", args[0], code, log.String())
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for tick := time.NewTicker(50 * time.Millisecond); ; {
		if code, _ := get(ctx, "http://"+admin+"/readyz"); code == http.StatusOK {
			tick.Stop()
			return
		}
		select {
		case <-tick.C:
		case <-ended:
			t.Fatalf("larder %s ended:\n%s", args[0], log.String())
		case <-ctx.Done():
			t.Fatalf("larder %s is not ready", args[0])
		}
	}
}

// free is an address of loopback that nobody listens on.
func free(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func get(ctx context.Context, url string) (int, []byte) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, nil
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, nil
	}
	return resp.StatusCode, body
}

func (h *host) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(h.etc, name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestRuns runs every subcommand in the image, from the registry that keeps this
// very image to the mirror that pulls it from there.
func TestRuns(t *testing.T) {
	h := newHost(t)
	registry, registryAdmin := free(t), free(t)
	listen, admin := free(t), free(t)
	_, port, err := net.SplitHostPort(listen)
	if err != nil {
		t.Fatal(err)
	}
	to, err := name.NewTag(registry + "/team/larder:v1")
	if err != nil {
		t.Fatal(err)
	}
	h.write(t, "registry.yaml", "central:\n  access:\n    - subjects: [anonymous]\n      repositories: [\"*\"]\n      actions: [pull, push]\n")
	h.write(t, "mirror.yaml", fmt.Sprintf("registry_proxies:\n  min_free: 1%%\n  registries:\n    - host: %s\n      insecure: true\n", registry))
	h.write(t, "policy.yaml", "image_validation:\n  default: Deny\n  allow: [ghcr.io/larder-registry]\n")
	node := containerdNode(t)
	h.serve(t, registryAdmin, "central", "--serve=registry", "--config", "/etc/larder/registry.yaml", "--plain-http",
		"--listen", registry, "--admin-listen", registryAdmin, "--data-dir", "registry", "--shutdown-delay", "0s")
	if err := built.set.Push(t.Context(), to); err != nil {
		t.Fatal(err)
	}
	pushed(t, to)
	// The mirror has no --data-dir: the default is where it may write.
	h.serve(t, admin, "mirror", "--config", "/etc/larder/mirror.yaml", "--listen", listen, "--admin-listen", admin, "--allow", "local")
	if code, body := get(t.Context(), "http://"+listen+"/v2/"); code != http.StatusOK {
		t.Errorf("the mirror answers /v2/ with %d %s", code, body)
	}

	outside := []string{"--network=host", "--rm"}
	alone := []string{"--network=none", "--rm"}
	asRoot := append(slices.Clone(alone), "--user=0:0", "-v", node+":/host")
	tests := []struct {
		name    string
		options []string
		args    []string
		code    int
		want    string
	}{
		{"version", alone, []string{"version"}, 0, "larder " + stamp().Version + " go"},
		{"help", alone, []string{"help"}, 0, "Available Commands:"},
		{"config print", alone, []string{"config", "print", "/etc/larder/mirror.yaml"}, 0, "insecure: true"},
		{"config check", alone, []string{"config", "check", "/etc/larder/mirror.yaml"}, 0, ""},
		{"policy allows", alone, []string{"policy", "test", "--config", "/etc/larder/policy.yaml", built.ref.Name()}, 0, "allow"},
		{"policy denies", alone, []string{"policy", "test", "--config", "/etc/larder/policy.yaml", "nginx"}, 1, "docker.io/library/nginx"},
		{"policy render", alone, []string{"policy", "render", "--config", "/etc/larder/policy.yaml"}, 0, "ValidatingAdmissionPolicy"},
		{"init plans", asRoot, []string{"init", "--root", "/host", "--address", "loopback", "--dry-run", "--containerd-version", "1.7.20"}, 0, "create /etc/containerd/certs.d/_default/hosts.toml"},
		{"init applies", asRoot, []string{"init", "--root", "/host", "--address", "loopback", "--port", port, "--containerd-version", "1.7.20", "--require"}, 0, "quay.io"},
		// Its certificate is not in the container: read back is a copy without.
		{"init reads back", asRoot, []string{"init", "--root", "/host", "--address", "loopback", "--registry", "quay.io", "--containerd-version", "1.7.20", "--require"}, 0, "read back"},
		{"init undoes", asRoot, []string{"init", "--root", "/host", "--undo", "--require"}, 0, ""},
		{"doctor", outside, []string{"doctor", "--root", "/etc", "--target", "containerd", "--port", port, "--admin", admin, "--address", "127.0.0.1"}, 1, "does not use the mirror"},
		{"pull", outside, []string{"pull", "--mirror", "http://" + listen, to.Name()}, 0, to.Name()},
		{"status", outside, []string{"status", "--admin", admin}, 0, "team/larder"},
		{"central gc", alone, []string{"central", "gc", "--data-dir", "registry", "--dry-run"}, 0, ""},
		{"central backup", alone, []string{"central", "backup", "--data-dir", "registry", "registry.tar"}, 0, ""},
		{"central restore", alone, []string{"central", "restore", "--data-dir", "restored", "registry.tar"}, 0, ""},
	}
	ran := map[string]bool{"mirror": true, "central": true}
	for _, tt := range tests {
		ran[tt.args[0]] = true
		t.Run(tt.name, func(t *testing.T) {
			stdout, stderr, err := try(t, "podman", h.container(tt.options, tt.args...)...)
			code := 0
			if exit, ok := errors.AsType[*exec.ExitError](err); ok {
				code = exit.ExitCode()
			} else if err != nil {
				t.Fatal(err)
			}
			if code != tt.code || !strings.Contains(stdout+stderr, tt.want) {
				t.Errorf("exit code %d, want %d, and %q in:\n%s%s", code, tt.code, tt.want, stdout, stderr)
			}
		})
	}
	// What a later version can do is not forgotten here.
	help := h.podman(t, h.container(alone, "help")[len(h.args):]...)
	_, commands, _ := strings.Cut(help, "Available Commands:\n")
	commands, _, _ = strings.Cut(commands, "\n\n")
	for _, c := range regexp.MustCompile(`(?m)^  (\w+)`).FindAllStringSubmatch(commands, -1) {
		if !ran[c[1]] {
			t.Errorf("larder %s was not tried", c[1])
		}
	}

	// The node's image came through the mirror, and to the byte.
	through := fmt.Sprintf("http://%s/v2/f/%s/team/larder/manifests/v1", listen, registry)
	code, got := get(t.Context(), through)
	want, err := built.set.Index.RawManifest()
	if err != nil {
		t.Fatal(err)
	}
	if code != http.StatusOK || !bytes.Equal(got, want) {
		t.Errorf("%s: %d\n%s\nwant\n%s", through, code, got, want)
	}
}

// containerdNode is a node's file system, with a registry that somebody else has
// configured, and a certificate that is not seen from here.
func containerdNode(t *testing.T) string {
	t.Helper()
	node := t.TempDir()
	for name, text := range map[string]string{
		"etc/containerd/config.toml":                "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = \"/etc/containerd/certs.d\"\n",
		"etc/containerd/certs.d/quay.io/hosts.toml": "server = \"https://quay.io\"\nca = \"/etc/pki/quay.crt\"\n",
	} {
		file := filepath.Join(node, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return node
}

// pushed compares what the registry has with what was made, and reads what is
// attached to it.
func pushed(t *testing.T, to name.Tag) {
	t.Helper()
	index, err := remote.Index(to)
	if err != nil {
		t.Fatal(err)
	}
	got, err := index.RawManifest()
	if err != nil {
		t.Fatal(err)
	}
	want, err := built.set.Index.RawManifest()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("the registry has\n%s\nwant\n%s", got, want)
	}
	for _, p := range built.set.Platforms {
		digest, err := p.Image.Digest()
		if err != nil {
			t.Fatal(err)
		}
		referrers, err := remote.Referrers(to.Digest(digest.String()))
		if err != nil {
			t.Fatal(err)
		}
		list, err := referrers.IndexManifest()
		if err != nil {
			t.Fatal(err)
		}
		if len(list.Manifests) != 1 || list.Manifests[0].ArtifactType != "application/vnd.cyclonedx+json" {
			t.Fatalf("%s: referrers are %+v", p.Arch, list.Manifests)
		}
		artifact, err := remote.Image(to.Digest(list.Manifests[0].Digest.String()))
		if err != nil {
			t.Fatal(err)
		}
		layers, err := artifact.Layers()
		if err != nil {
			t.Fatal(err)
		}
		content, err := layers[0].Compressed()
		if err != nil {
			t.Fatal(err)
		}
		defer content.Close()
		read, err := io.ReadAll(content)
		if err != nil {
			t.Fatal(err)
		}
		saved, err := os.ReadFile(filepath.Join(built.dist, "larder-image-"+p.Arch+".cdx.json"))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(read, saved) {
			t.Errorf("%s: the attached list of components differs from the file", p.Arch)
		}
		var bom cdx.BOM
		if err := cdx.NewBOMDecoder(bytes.NewReader(read), cdx.BOMFileFormatJSON).Decode(&bom); err != nil {
			t.Fatal(err)
		}
		if bom.Metadata.Component.Version != stamp().Version || len(*bom.Components) < 50 {
			t.Errorf("%s: %d components of %+v", p.Arch, len(*bom.Components), *bom.Metadata.Component)
		}
	}
}
