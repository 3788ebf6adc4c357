package cluster

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/test/registry"
)

// descriptor names content, as in the image spec.
type descriptor struct {
	MediaType string        `json:"mediaType"`
	Digest    digest.Digest `json:"digest"`
	Size      int64         `json:"size"`
}

// addImage gives the registry an image that runs pause: its layers are the
// program and more. It returns the digest of the last. The program's is in every
// image, so containerd does not ask for it again.
func addImage(t testing.TB, up *registry.Server, repo, tag string, more ...registry.Layer) (last digest.Digest) {
	t.Helper()
	program, err := os.ReadFile(filepath.Join(*binFlag, "pause"))
	if err != nil {
		t.Fatal(err)
	}
	layers := append([]registry.Layer{{Content: bytes.NewReader(archive(t, "pause", 0o755, program))}}, more...)
	var descriptors []descriptor
	var diffs []digest.Digest
	for _, l := range layers {
		b := up.AddBlob(repo, registry.MediaTypeLayer, l.Content)
		descriptors = append(descriptors, descriptor{b.MediaType, b.Digest, b.Size()})
		diffs = append(diffs, b.Digest)
	}
	config := up.AddBlob(repo, registry.MediaTypeConfig, bytes.NewReader(encode(t, map[string]any{
		"architecture": runtime.GOARCH, "os": "linux",
		"config": map[string]any{"Entrypoint": []string{"/pause"}, "User": "65532:65532", "Labels": map[string]string{"repository": repo}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": diffs},
	})))
	up.AddManifest(repo, tag, registry.MediaTypeManifest, encode(t, map[string]any{
		"schemaVersion": 2, "mediaType": registry.MediaTypeManifest,
		"config": descriptor{config.MediaType, config.Digest, config.Size()}, "layers": descriptors,
	}))
	return diffs[len(diffs)-1]
}
