package main

import (
	"testing"
	"time"

	"github.com/larder-registry/larder/internal/ociserver"
)

// BenchmarkRequestLine makes the access log's line of a blob that was pulled.
func BenchmarkRequestLine(b *testing.B) {
	fields := []ociserver.Field{
		{Key: "bytes", Number: 31 << 20},
		{Key: "client", Text: "127.0.0.1:50718"},
		{Key: "digest", Text: "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
		{Key: "duration_ms", Number: 12.375},
		{Key: "method", Text: "GET"},
		{Key: "outcome", Text: "hit"},
		{Key: "registry", Text: "docker.io"},
		{Key: "repository", Text: "library/nginx"},
		{Key: "status", Number: 200},
		{Key: "user_agent", Text: "containerd/v2.1.4"},
	}
	at := time.Now()
	for name, f := range map[string]lineFormatter{"text": {}, "json": {json: true}} {
		b.Run(name, func(b *testing.B) {
			line := make([]byte, 0, 1<<10)
			b.ReportAllocs()
			for b.Loop() {
				line = f.appendRequest(line[:0], at, fields)
			}
		})
	}
}
