package cluster

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/larder-registry/larder/test/registry"
	"github.com/opencontainers/go-digest"
)

// programLayer is a layer that holds the program pause.
func programLayer(t testing.TB) []byte {
	t.Helper()
	program, err := os.ReadFile(filepath.Join(*binFlag, "pause"))
	if err != nil {
		t.Fatal(err)
	}
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	if err := w.WriteHeader(&tar.Header{Name: "pause", Mode: 0o755, Size: int64(len(program))}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(program); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return layer.Bytes()
}

// descriptor names content, as in the image spec.
type descriptor struct {
	MediaType string        `json:"mediaType"`
	Digest    digest.Digest `json:"digest"`
	Size      int64         `json:"size"`
}

// addImage gives the registry an image that runs pause: its layers are the
// program and more.
func addImage(t testing.TB, up *registry.Server, repo, tag string, more ...registry.Layer) {
	t.Helper()
	layers := append([]registry.Layer{{Content: bytes.NewReader(programLayer(t))}}, more...)
	var descriptors []descriptor
	var diffs []digest.Digest
	for _, l := range layers {
		b := up.AddBlob(repo, registry.MediaTypeLayer, l.Content)
		descriptors = append(descriptors, descriptor{b.MediaType, b.Digest, b.Size()})
		diffs = append(diffs, b.Digest)
	}
	config := up.AddBlob(repo, registry.MediaTypeConfig, bytes.NewReader(encode(t, map[string]any{
		"architecture": runtime.GOARCH, "os": "linux",
		"config": map[string]any{"Entrypoint": []string{"/pause"}, "User": "65532:65532"},
		"rootfs": map[string]any{"type": "layers", "diff_ids": diffs},
	})))
	up.AddManifest(repo, tag, registry.MediaTypeManifest, encode(t, map[string]any{
		"schemaVersion": 2, "mediaType": registry.MediaTypeManifest,
		"config": descriptor{config.MediaType, config.Digest, config.Size()}, "layers": descriptors,
	}))
}

func encode(t testing.TB, v any) []byte {
	t.Helper()
	p, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return p
}
