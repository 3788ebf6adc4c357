package cluster

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path"
	"runtime"
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/test/registry"
)

// addLarder gives the registry the image under test, from its OCI archive, as a
// company with an authority of its own would: with one layer more, that has the
// authorities in it. The revision makes images of the same content differ.
func addLarder(t testing.TB, up *registry.Server, repo, tag, revision string, authorities []byte) {
	t.Helper()
	files := unpack(t, *imageFlag)
	blob := func(d digest.Digest) []byte {
		content := files["blobs/sha256/"+d.Encoded()]
		if digest.FromBytes(content) != d {
			t.Fatalf("the archive lacks %s", d)
		}
		return content
	}
	type manifest struct {
		SchemaVersion int          `json:"schemaVersion"`
		MediaType     string       `json:"mediaType"`
		Config        descriptor   `json:"config"`
		Layers        []descriptor `json:"layers"`
	}
	var top, index struct {
		Manifests []struct {
			descriptor
			Platform struct{ Architecture string }
		}
	}
	decode(t, files["index.json"], &top)
	decode(t, blob(top.Manifests[0].Digest), &index)
	for _, entry := range index.Manifests {
		if entry.Platform.Architecture != runtime.GOARCH {
			continue
		}
		var m manifest
		decode(t, blob(entry.Digest), &m)
		for _, l := range m.Layers {
			up.AddBlob(repo, l.MediaType, bytes.NewReader(blob(l.Digest)))
		}
		layer := up.AddBlob(repo, registry.MediaTypeLayer, bytes.NewReader(archive(t, "etc/ssl/certs/test.pem", 0o644, authorities)))
		m.Layers = append(m.Layers, descriptor{layer.MediaType, layer.Digest, layer.Size()})
		var config map[string]any
		decode(t, blob(m.Config.Digest), &config)
		rootfs := config["rootfs"].(map[string]any)
		rootfs["diff_ids"] = append(rootfs["diff_ids"].([]any), layer.Digest)
		config["config"].(map[string]any)["Labels"] = map[string]string{"revision": revision}
		c := up.AddBlob(repo, m.Config.MediaType, bytes.NewReader(encode(t, config)))
		m.Config = descriptor{c.MediaType, c.Digest, c.Size()}
		up.AddManifest(repo, tag, m.MediaType, encode(t, m))
		return
	}
	t.Fatalf("the archive has no image for %s", runtime.GOARCH)
}

// unpack reads an archive into memory.
func unpack(t testing.TB, name string) map[string][]byte {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	files := map[string][]byte{}
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		if files[path.Clean(h.Name)], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
}

// archive is a tar archive of one file.
func archive(t testing.TB, name string, mode int64, content []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	err := w.WriteHeader(&tar.Header{Name: name, Mode: mode, Size: int64(len(content))})
	if err == nil {
		_, err = w.Write(content)
	}
	if err = errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return slices.Clip(b.Bytes())
}

func decode(t testing.TB, content []byte, v any) {
	t.Helper()
	if err := json.Unmarshal(content, v); err != nil {
		t.Fatalf("%v: %.200s", err, content)
	}
}

func encode(t testing.TB, v any) []byte {
	t.Helper()
	p, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return p
}
