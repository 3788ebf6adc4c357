package oci_test

import (
	"net/http"
	"net/url"
	"testing"

	"github.com/larder-registry/larder/internal/oci"
)

// BenchmarkParseRequest takes apart what containerd asks a mirror for.
func BenchmarkParseRequest(b *testing.B) {
	const dgst = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	for name, target := range map[string]string{
		"blob":     "/v2/library/nginx/blobs/" + dgst,
		"manifest": "/v2/library/nginx/manifests/" + dgst,
		"tag":      "/v2/library/nginx/manifests/1.27-alpine",
	} {
		b.Run(name, func(b *testing.B) {
			query := url.Values{"ns": {"docker.io"}}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := oci.ParseRequest(http.MethodGet, target, query, ""); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
