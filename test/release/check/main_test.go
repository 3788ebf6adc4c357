package check

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"

	"github.com/larder-registry/larder/test/release/image"
	"github.com/larder-registry/larder/test/release/snapshot"
)

var fresh = flag.Bool("fresh", false, "compile everything anew for the second build, instead of linking it only")

// root is the repository, seen from this directory.
const root = "../../.."

// built is the image that all tests are about.
var built struct {
	set  *image.Set
	dist string
	ref  name.Tag
}

// stamp is of a time that no file here has.
func stamp() image.Stamp {
	return image.Stamp{Version: "v0.0.0-check", Revision: "0123456789abcdef0123456789abcdef01234567", Created: time.Unix(1_700_000_000, 0).UTC()}
}

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "larder-check-")
	if err == nil {
		defer os.RemoveAll(dir)
		built.set, built.ref, err = build(context.Background(), filepath.Join(dir, "source"), filepath.Join(dir, "dist"))
		built.dist = filepath.Join(dir, "dist")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// build makes and saves the image from a copy of the source in dir.
func build(ctx context.Context, dir, dist string) (*image.Set, name.Tag, error) {
	ref, err := name.NewTag(image.Repository + ":" + stamp().Version)
	if err != nil {
		return nil, ref, err
	}
	if err := snapshot.Take(ctx, root, dir); err != nil {
		return nil, ref, err
	}
	set, err := image.Make(ctx, dir, stamp())
	if err != nil {
		return nil, ref, err
	}
	return set, ref, set.Save(dist, ref)
}

// TestTwice builds again, somewhere else, and compares everything that was made.
func TestTwice(t *testing.T) {
	if *fresh {
		t.Setenv("GOCACHE", t.TempDir())
	}
	t.Setenv("GOFLAGS", "-tags=other") // what somebody may have set
	t.Setenv("GOAMD64", "v3")
	dist := filepath.Join(t.TempDir(), "dist")
	again, _, err := build(t.Context(), filepath.Join(t.TempDir(), "another", "place"), dist)
	if err != nil {
		t.Fatal(err)
	}
	want, got := contents(t, built.dist), contents(t, dist)
	for path := range want {
		if !bytes.Equal(want[path], got[path]) {
			t.Errorf("%s differs between two builds", path)
		}
	}
	if len(got) != len(want) || len(want) != 5 {
		t.Errorf("%d files the first time, %d the second; want 5", len(want), len(got))
	}
	for i, r := range built.set.Referrers {
		first, err := r.RawManifest()
		if err != nil {
			t.Fatal(err)
		}
		second, err := again.Referrers[i].RawManifest()
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(first, second) {
			t.Errorf("referrer %d differs between two builds:\n%s\n%s", i, first, second)
		}
	}
}

// TestSize holds the image to what a node pulls before it has a mirror.
func TestSize(t *testing.T) {
	const most = 20 << 20
	for _, p := range built.set.Platforms {
		size, err := image.Size(p.Image)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %.2f MiB", p.Arch, float64(size)/(1<<20))
		if size > most || size < 1<<20 {
			t.Errorf("%s: %d bytes to pull, at most %d are promised", p.Arch, size, most)
		}
	}
}

// TestMakeBuild: who builds the binary alone gets the one that is in the image.
func TestMakeBuild(t *testing.T) {
	dir := t.TempDir()
	if err := snapshot.Take(t.Context(), root, dir); err != nil {
		t.Fatal(err)
	}
	for _, p := range built.set.Platforms {
		t.Setenv("GOARCH", p.Arch)
		output(t, "make", "-s", "-C", dir, "build", "VERSION="+stamp().Version)
		binary, err := os.ReadFile(filepath.Join(dir, "bin", "larder"))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(binary, p.Binary) {
			t.Errorf("%s: make build makes another binary than the image has", p.Arch)
		}
	}
}

// contents reads the files of a directory.
func contents(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	all := map[string][]byte{}
	err := fs.WalkDir(os.DirFS(dir), ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		all[path], err = os.ReadFile(filepath.Join(dir, path))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// output runs a program that has to succeed, and returns what it printed.
func output(t *testing.T, program string, args ...string) string {
	t.Helper()
	stdout, stderr, err := try(t, program, args...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s%s", program, strings.Join(args, " "), err, stdout, stderr)
	}
	return stdout
}

// try runs a program.
func try(t *testing.T, program string, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, args...)
	var out, problems bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problems
	err = cmd.Run()
	return out.String(), problems.String(), err
}
