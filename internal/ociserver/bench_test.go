package ociserver_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/sirupsen/logrus"

	"github.com/larder-registry/larder/internal/oci"
	"github.com/larder-registry/larder/internal/ociserver"
)

// BenchmarkHot measures what the edge costs: an image manifest and a blob in a
// file, each also by net/http alone.
func BenchmarkHot(b *testing.B) {
	manifest, blob := pattern(2<<10), pattern(16<<20)
	path := filepath.Join(b.TempDir(), "blob")
	if err := os.WriteFile(path, blob, 0o600); err != nil {
		b.Fatal(err)
	}
	g := newRegistry()
	m := g.addManifest(app, "v1", oci.MediaTypeManifest, manifest)
	desc := oci.Descriptor{Digest: digest.FromBytes(blob), Size: int64(len(blob))}
	g.blobs[desc.Digest] = func() (oci.Blob, error) {
		f, err := os.Open(path)
		return &fileBlob{File: f, desc: desc}, err
	}
	logger := logrus.New()
	logger.Out = io.Discard
	h, err := ociserver.New(ociserver.Config{Reader: g, Lister: g, Log: logrus.NewEntry(logger)})
	if err != nil {
		b.Fatal(err)
	}
	bareManifest := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", m.MediaType)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(manifest))
	})
	bareBlob := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", oci.MediaTypeOctetStream)
		http.ServeFile(w, r, path)
	})
	for _, bench := range []struct {
		name    string
		handler http.Handler
		target  string
		size    int
	}{
		{"manifest", h, "/v2/f/ghcr.io/org/app/manifests/" + m.Digest.String(), len(manifest)},
		{"manifest-bare", bareManifest, "/", len(manifest)},
		{"blob", h, "/v2/f/ghcr.io/org/app/blobs/" + desc.Digest.String(), len(blob)},
		{"blob-bare", bareBlob, "/", len(blob)},
	} {
		b.Run(bench.name, func(b *testing.B) {
			s := httptest.NewServer(bench.handler)
			defer s.Close()
			b.SetBytes(int64(bench.size))
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					resp, err := s.Client().Get(s.URL + bench.target)
					if err != nil {
						b.Error(err)
						return
					}
					n, err := io.Copy(io.Discard, resp.Body)
					if err != nil || n != int64(bench.size) {
						b.Errorf("%d bytes, %v", n, err)
						return
					}
					resp.Body.Close()
				}
			})
		})
	}
}
