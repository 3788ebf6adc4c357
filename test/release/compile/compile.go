// Package compile builds the binary that is shipped: static, stripped, and the
// same bytes wherever and by whomever it is built with the same Go.
//
// It is the only place that knows how; the image ([rootfs]) and the release have
// their binaries from here, and make build says the same in one line, which a
// test holds it to. It builds for Linux only.
//
// [rootfs]: https://pkg.go.dev/github.com/larder-registry/larder/test/release/rootfs
package compile

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// Arches are the architectures that are shipped, as Go and OCI call them.
func Arches() []string { return []string{"amd64", "arm64"} }

// Binary builds cmd/larder of the module at root for arch and returns it. What its
// version command prints is version. ctx ends the compiler.
func Binary(ctx context.Context, root, arch, version string) ([]byte, error) {
	if !slices.Contains(Arches(), arch) {
		return nil, fmt.Errorf("build larder: architecture %q is none of %s", arch, strings.Join(Arches(), ", "))
	}
	dir, err := os.MkdirTemp("", "larder-build-")
	if err != nil {
		return nil, fmt.Errorf("build larder: %w", err)
	}
	defer os.RemoveAll(dir)
	out := filepath.Join(dir, "larder")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false",
		"-ldflags", "-s -w -X main.version="+version, "-o", out, "./cmd/larder")
	cmd.Dir, cmd.Env = root, Env(arch)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("build larder for %s: %w", arch, err)
	}
	binary, err := os.ReadFile(out)
	if err != nil {
		return nil, fmt.Errorf("build larder for %s: %w", arch, err)
	}
	return binary, nil
}

// Env is this process's environment without what would change the binary's
// bytes: whoever has GOFLAGS or GOAMD64 set builds the same.
func Env(arch string) []string {
	return append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch,
		"GOAMD64=v1", "GOARM64=v8.0", "GOFLAGS=-mod=readonly", "GOWORK=off", "GOEXPERIMENT=", "GOFIPS140=off")
}
