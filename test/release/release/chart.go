package release

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/larder-registry/larder/test/release/image"
)

// charts makes what is for clusters: the chart, and the manifests rendered from it.
type charts struct {
	root   string // the project's
	work   string // to write to
	stamp  image.Stamp
	helm   string // built by make
	larder string // the binary, for this machine
}

// maxChart bounds what a packed chart may unpack to, in bytes.
const maxChart = 16 << 20

// make writes the chart as helm packages it, but for the times, and the kustomize
// bases and overlays in one archive. In both the version is the release's, and so
// is the image that they start.
func (c charts) make(ctx context.Context, out string) error {
	if err := buildHelm(ctx, c.root, c.helm); err != nil {
		return err
	}
	version := strings.TrimPrefix(c.stamp.Version, "v")
	err := run(c.command(ctx, c.helm, "package", filepath.Join(c.root, "manifests", "chart"),
		"--version", version, "--app-version", c.stamp.Version, "--destination", c.work))
	if err != nil {
		return err
	}
	packed, err := os.ReadFile(filepath.Join(c.work, "larder-"+version+".tgz"))
	if err != nil {
		return fmt.Errorf("read chart: %w", err)
	}
	files, err := unpack(packed)
	if err != nil {
		return err
	}
	// Helm notes the time at which it packs.
	chart, err := pack("larder", files, c.stamp.Created)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(out, "larder-"+version+".tgz"), chart, 0o644); err != nil {
		return fmt.Errorf("write chart: %w", err)
	}
	return c.render(ctx, files, out)
}

// render runs manifests/render beside the chart of this release.
func (c charts) render(ctx context.Context, chart []entry, out string) error {
	manifests := filepath.Join(c.work, "manifests")
	if err := os.CopyFS(manifests, os.DirFS(filepath.Join(c.root, "manifests"))); err != nil {
		return fmt.Errorf("copy manifests: %w", err)
	}
	if err := os.RemoveAll(filepath.Join(manifests, "chart")); err != nil {
		return fmt.Errorf("copy manifests: %w", err)
	}
	for _, f := range chart {
		file := filepath.Join(manifests, "chart", filepath.FromSlash(f.path))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return fmt.Errorf("unpack chart: %w", err)
		}
		if err := os.WriteFile(file, f.content, 0o644); err != nil {
			return fmt.Errorf("unpack chart: %w", err)
		}
	}
	rendered := filepath.Join(c.work, "rendered")
	if err := run(c.command(ctx, filepath.Join(manifests, "render"), c.helm, c.larder, rendered)); err != nil {
		return err
	}
	files, err := readDir(rendered)
	if err != nil {
		return err
	}
	name := "larder-" + c.stamp.Version + "-manifests"
	packed, err := pack(name, files, c.stamp.Created)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(out, name+".tar.gz"), packed, 0o644); err != nil {
		return fmt.Errorf("write manifests: %w", err)
	}
	return c.single(rendered, out)
}

// single writes each base as one file, which kubectl apply takes by its address.
func (c charts) single(rendered, out string) error {
	for _, base := range []string{"mirror", "central", "all"} {
		var all []byte
		for _, name := range []string{"namespace.yaml", "larder.yaml"} {
			content, err := os.ReadFile(filepath.Join(rendered, base, name))
			if err != nil {
				return fmt.Errorf("read manifests: %w", err)
			}
			all = append(append(all, "---\n"...), content...)
		}
		if err := os.WriteFile(filepath.Join(out, "larder-"+c.stamp.Version+"-"+base+".yaml"), all, 0o644); err != nil {
			return fmt.Errorf("write manifests: %w", err)
		}
	}
	return nil
}

// buildHelm builds helm as test/chart/run does, so that the compiler's cache is
// used by both.
func buildHelm(ctx context.Context, root, out string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", out, "helm.sh/helm/v3/cmd/helm")
	cmd.Dir, cmd.Env = filepath.Join(root, "test", "tools", "helm"), append(os.Environ(), "CGO_ENABLED=0")
	return run(cmd)
}

// command is one that finds nothing of this machine's own helm configuration.
func (c charts) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "HOME="+c.work, "XDG_CONFIG_HOME=", "XDG_CACHE_HOME=", "XDG_DATA_HOME=", "LC_ALL=C")
	return cmd
}

// run runs a program, and has what it prints in the error.
func run(cmd *exec.Cmd) error {
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", filepath.Base(cmd.Path), err, out)
	}
	return nil
}

// unpack reads a packed chart: the files below its one directory, in their order.
func unpack(packed []byte) ([]entry, error) {
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, fmt.Errorf("read chart: %w", err)
	}
	var files []entry
	for t := tar.NewReader(io.LimitReader(z, maxChart)); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return files, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read chart: %w", err)
		}
		path, ok := strings.CutPrefix(h.Name, "larder/")
		if !ok || !filepath.IsLocal(path) {
			return nil, fmt.Errorf("read chart: %q is not below larder/", h.Name)
		}
		content, err := io.ReadAll(t)
		if err != nil {
			return nil, fmt.Errorf("read chart: %w", err)
		}
		files = append(files, entry{path, 0o644, content})
	}
}
