package e2e

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// containersImage are the rows of podman and skopeo. Both read registries.conf,
// know nothing of ?ns=, and reach the mirror by the path form. They choose
// between mirror and upstream once, when they ask for the image manifest.
func containersImage() []client {
	faults := map[string]fault{"stopped": stopped, "killed": killed, "cut": cutThenHealed, "silent": silentUntilClosed, "500": failing}
	return []client{
		{name: "podman", fresh: freshPodman, tries: 2, quick: "stopped", faults: faults},
		{name: "skopeo", fresh: freshSkopeo, tries: 2, quick: "killed", faults: faults},
	}
}

// containersNode is the files podman or skopeo gets in place of those in
// /etc/containers.
type containersNode struct {
	home, ref  string
	env        []string
	registries string // registries.conf
	policy     string // signatures: none asked for
}

func freshContainers(t *testing.T, to target) containersNode {
	t.Helper()
	home := scratch(t)
	n := containersNode{home: home, ref: pathName + "/" + to.repo + ":" + to.tag}
	n.registries = write(t, home, "registries.conf", fmt.Sprintf(`[[registry]]
prefix = %q
location = %q
insecure = true

[[registry.mirror]]
location = "%s/f/%s"
insecure = true
`, pathName, to.upstream, to.mirror, pathName))
	n.policy = write(t, home, "policy.json", `{"default": [{"type": "insecureAcceptAnything"}]}`)
	storage := write(t, home, "storage.conf", fmt.Sprintf(`[storage]
driver = "vfs"
runroot = "%s/run"
graphroot = "%[1]s/storage"
`, home))
	n.env = environ(t, home, "CONTAINERS_REGISTRIES_CONF="+n.registries, "CONTAINERS_STORAGE_CONF="+storage)
	return n
}

func (n containersNode) dir() string { return n.home }

type podmanNode struct{ containersNode }

func freshPodman(t *testing.T, to target) node { return podmanNode{freshContainers(t, to)} }

func (n podmanNode) pull(ctx context.Context) error {
	_, err := run(ctx, n.env, "/usr/bin/podman", "pull", "--signature-policy", n.policy, n.ref)
	return err
}

// check exports what podman holds. It keeps layers unpacked and packs them
// anew, so they are compared by what they unpack to; the layers of the test's
// upstream are not compressed.
func (n podmanNode) check(t *testing.T, img image) {
	t.Helper()
	podman := func(args ...string) string {
		out, err := run(t.Context(), n.env, "/usr/bin/podman", args...)
		if err != nil {
			t.Error(err)
		}
		return strings.TrimSpace(out)
	}
	if got := podman("image", "inspect", "--format", "sha256:{{.Id}}", n.ref); got != img.config {
		t.Errorf("podman has image %s, want %s", got, img.config)
	}
	podman("save", "--quiet", "--format", "oci-dir", "--output", n.home+"/saved", n.ref)
	savedHolds(t, n.home+"/saved", img)
}

// savedHolds makes sure that the layers of an image that podman saved are right.
func savedHolds(t *testing.T, saved string, img image) {
	t.Helper()
	files, err := filepath.Glob(saved + "/blobs/sha256/*")
	if err != nil {
		t.Fatal(err)
	}
	held := map[string]bool{}
	for _, file := range files {
		dgst, err := unpackedSum(file)
		if err != nil {
			t.Error(err)
		}
		held[dgst] = true
	}
	for _, dgst := range img.layers {
		if !held[dgst] {
			t.Errorf("podman lacks %s, and has %v", dgst, held)
		}
	}
}

// unpackedSum is the digest of a file, or of what is in it if it is gzip.
func unpackedSum(path string) (string, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	h := sha256.New()
	var content io.Reader = bytes.NewReader(raw)
	if bytes.HasPrefix(raw, []byte{0x1f, 0x8b}) {
		if content, err = gzip.NewReader(content); err != nil {
			return "", fmt.Errorf("unpack %s: %w", path, err)
		}
	}
	if _, err := io.Copy(h, content); err != nil {
		return "", fmt.Errorf("unpack %s: %w", path, err)
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil)), nil
}

type skopeoNode struct{ containersNode }

func freshSkopeo(t *testing.T, to target) node { return skopeoNode{freshContainers(t, to)} }

func (n skopeoNode) pull(ctx context.Context) error {
	_, err := run(ctx, n.env, "/usr/bin/skopeo", "--policy", n.policy, "--registries-conf", n.registries,
		"copy", "docker://"+n.ref, "dir:"+n.home+"/image")
	return err
}

// check reads the directory skopeo copied to: a file for each blob, named by
// the digest, and the platform's image manifest.
func (n skopeoNode) check(t *testing.T, img image) {
	t.Helper()
	checkFiles(t, n.home+"/image", img.blobs())
	if got, err := sum(n.home + "/image/manifest.json"); got != img.manifest {
		t.Errorf("skopeo has image manifest %s, want %s: %v", got, img.manifest, err)
	}
}
