package check

import (
	"archive/tar"
	"crypto/sha256"
	"errors"
	"fmt"
	goversion "go/version"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"github.com/larder-registry/larder/test/release/snapshot"
)

// TestDockerfile has buildah build the Dockerfile. Its base image stands in for
// golang: it is this machine's own Go and what that needs, so nothing is fetched.
// All but the instructions that led there is the same as in the image that make
// image makes: each file with its owner, rights and time, the configuration, the
// moment of creation. Built twice, it has one digest.
func TestDockerfile(t *testing.T) {
	dockerfile, err := os.ReadFile(filepath.Join(root, "Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	version := regexp.MustCompile(`(?m)^ARG GO_VERSION=(\S+)$`).FindSubmatch(dockerfile)
	if version == nil {
		t.Fatal("the Dockerfile names no GO_VERSION")
	}
	for _, module := range []string{".", "test/release"} {
		mod, err := os.ReadFile(filepath.Join(root, module, "go.mod"))
		if err != nil {
			t.Fatal(err)
		}
		needs := regexp.MustCompile(`(?m)^go (\S+)$`).FindSubmatch(mod)
		if needs == nil || goversion.Compare("go"+string(version[1]), "go"+string(needs[1])) < 0 {
			t.Errorf("the Dockerfile builds with Go %s, the module %s needs %s", version[1], module, needs)
		}
	}
	base := "docker.io/library/golang:" + string(version[1])
	for _, p := range built.set.Platforms {
		t.Run(p.Arch, func(t *testing.T) {
			b := newBuildah(t)
			b.standIn(t, base, p.Arch)
			img := b.build(t, p.Arch)
			same(t, p.Image, img)

			first, err := img.Digest()
			if err != nil {
				t.Fatal(err)
			}
			second, err := b.build(t, p.Arch).Digest()
			if err != nil {
				t.Fatal(err)
			}
			if first != second {
				t.Errorf("two builds of the Dockerfile have the digests %s and %s", first, second)
			}
		})
	}
}

// buildah is a store of its own.
type buildah struct{ args []string }

func newBuildah(t *testing.T) buildah {
	dir := t.TempDir()
	return buildah{[]string{"--root", filepath.Join(dir, "root"), "--runroot", filepath.Join(dir, "run"), "--storage-driver", "vfs"}}
}

func (b buildah) run(t *testing.T, args ...string) {
	t.Helper()
	output(t, "buildah", append(slices.Clone(b.args), args...)...)
}

// standIn makes the base image: directories to mount this machine's at.
func (b buildah) standIn(t *testing.T, ref, arch string) {
	t.Helper()
	goroot, gopath := goEnv(t, "GOROOT"), t.TempDir()
	for _, dir := range []string{"usr", "tmp", "root", "etc", "proc", "sys", "dev", "modules", "cache", goroot} {
		if err := os.MkdirAll(filepath.Join(gopath, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"bin", "lib", "lib64"} {
		if err := os.Symlink("usr/"+name, filepath.Join(gopath, name)); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(t.TempDir(), "Dockerfile")
	text := "FROM scratch\nCOPY . /\nENV PATH=" + goroot + "/bin:/usr/bin:/bin HOME=/root GOTOOLCHAIN=local GOPROXY=off GOMODCACHE=/modules GOCACHE=/cache\n"
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	b.run(t, "bud", "-q", "--isolation", "chroot", "--arch", arch, "-t", ref, "-f", file, gopath)
}

// build builds the Dockerfile from a copy of the source in a directory of its own.
func (b buildah) build(t *testing.T, arch string) v1.Image {
	t.Helper()
	source, out := t.TempDir(), t.TempDir()
	if err := snapshot.Take(t.Context(), root, source); err != nil {
		t.Fatal(err)
	}
	epoch := fmt.Sprint(stamp().Created.Unix())
	goroot := goEnv(t, "GOROOT")
	b.run(t, "bud", "-q", "--isolation", "chroot", "--network", "host", "--pull-never",
		"--platform", "linux/"+arch, "--timestamp", epoch, "--identity-label=false",
		"-v", "/usr:/usr:ro", "-v", goroot+":"+goroot+":ro",
		"-v", goEnv(t, "GOMODCACHE")+":/modules", "-v", goEnv(t, "GOCACHE")+":/cache",
		"--build-arg", "VERSION="+stamp().Version, "--build-arg", "REVISION="+stamp().Revision,
		"--build-arg", "SOURCE_DATE_EPOCH="+epoch, "-t", "localhost/larder", source)
	b.run(t, "push", "-q", "localhost/larder", "oci:"+out+":larder")
	index, err := layout.ImageIndexFromPath(out)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	img, err := index.Image(manifest.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func goEnv(t *testing.T, name string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "env", name).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// same compares two images but for the history that tells who made them.
func same(t *testing.T, want, got v1.Image) {
	t.Helper()
	wantConfig, err := want.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	gotConfig, err := got.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	a, b := wantConfig.DeepCopy(), gotConfig.DeepCopy()
	a.History, b.History = nil, nil
	a.RootFS, b.RootFS = v1.RootFS{}, v1.RootFS{} // the files are compared below
	if !reflect.DeepEqual(a, b) {
		t.Errorf("configurations differ:\nmake image: %+v\nDockerfile: %+v", *a, *b)
	}
	ours, theirs := tree(t, want), tree(t, got)
	for _, path := range slices.Sorted(maps.Keys(ours)) {
		if ours[path] != theirs[path] {
			t.Errorf("%s:\nmake image: %s\nDockerfile: %s", path, ours[path], theirs[path])
		}
	}
	for _, path := range slices.Sorted(maps.Keys(theirs)) {
		if _, ok := ours[path]; !ok {
			t.Errorf("%s is in the Dockerfile's image only", path)
		}
	}
	if len(ours) < 10 {
		t.Errorf("the image has %d files: %v", len(ours), ours)
	}
}

// tree is what is in an image, by path: all that a container can see of a file.
func tree(t *testing.T, img v1.Image) map[string]string {
	t.Helper()
	r := mutate.Extract(img)
	defer r.Close()
	files := map[string]string{}
	for packed := tar.NewReader(r); ; {
		h, err := packed.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.New()
		if _, err := io.Copy(sum, packed); err != nil {
			t.Fatal(err)
		}
		// Some note the type in the mode, too.
		path := strings.Trim(strings.TrimPrefix(h.Name, "./"), "/")
		files[path] = fmt.Sprintf("type %c mode %o owner %d:%d time %d link %q size %d sha256 %x",
			h.Typeflag, h.Mode&0o7777, h.Uid, h.Gid, h.ModTime.Unix(), h.Linkname, h.Size, sum.Sum(nil))
	}
}
