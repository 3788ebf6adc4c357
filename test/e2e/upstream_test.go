package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/larder-registry/larder/test/registry"
)

// image is what a client has to hold after a pull: digests in the form
// sha256:<hex>.
type image struct {
	index    string // empty where the tag names an image manifest
	manifest string
	config   string
	layers   []string
}

// blobs are the config and the layers.
func (i image) blobs() []string { return append([]string{i.config}, i.layers...) }

// all is everything, the index too.
func (i image) all() []string {
	all := append(i.blobs(), i.manifest)
	if i.index != "" {
		all = append(all, i.index)
	}
	return all
}

// What the upstream of most tests holds.
const (
	repo = "team/app"
	tag  = "v1"

	bigLayer = 6 << 20
	// stallAt is where the upstream stops in the middle of a layer, and
	// halfway is how much of it a client must have written down before it
	// counts as being in the middle. No other file of a client is as big.
	stallAt = 3 << 20
	halfway = 1 << 20
)

// newUpstream starts a registry that holds an index of two platforms, whose
// images have a big layer and two small ones.
func newUpstream(t *testing.T) (*registry.Server, image) {
	t.Helper()
	up := registry.Start(t, registry.Options{})
	own := up.AddPlatform(repo, "", runtime.GOARCH,
		registry.NewLayer(1, bigLayer), registry.NewLayer(2, 100<<10), registry.NewLayer(3, 4<<10))
	other := up.AddPlatform(repo, "", "riscv64", registry.NewLayer(4, 50<<10))
	index := up.AddIndex(repo, tag, own, other)
	img := imageOf(own)
	img.index = index.Digest.String()
	return up, img
}

func imageOf(i registry.Image) image {
	img := image{manifest: i.Digest.String(), config: i.Config.Digest.String()}
	for _, l := range i.Layers {
		img.layers = append(img.layers, l.Digest.String())
	}
	return img
}

// byMirror tells whether Larder sent the request, or a client that went to the
// upstream by itself.
func byMirror(r registry.Request) bool {
	return strings.HasPrefix(strings.ToLower(r.Header.Get("User-Agent")), "larder")
}

// direct are the requests of clients that went to the upstream by themselves.
func direct(all []registry.Request) []registry.Request {
	return slices.DeleteFunc(all, byMirror)
}

// describe lists requests for a failed test.
func describe(all []registry.Request) string {
	var b strings.Builder
	for _, r := range all {
		fmt.Fprintf(&b, "%s %s %q %d, %d bytes, by %s\n", r.Method, r.Path, r.Range(), r.Status, r.Sent, r.Header.Get("User-Agent"))
	}
	return b.String()
}

// sum is the digest of a file.
func sum(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil)), nil
}

// checkFiles demands that dir has a file for each digest wanted, named by its
// hex part, and that every file so named holds what its name says.
func checkFiles(t *testing.T, dir string, want []string) {
	t.Helper()
	for _, dgst := range want {
		if _, err := os.Stat(filepath.Join(dir, strings.TrimPrefix(dgst, "sha256:"))); err != nil {
			t.Errorf("the client lacks %s: %v", dgst, err)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Error(err)
	}
	for _, e := range entries {
		if len(e.Name()) != hex.EncodedLen(sha256.Size) {
			continue
		}
		got, err := sum(filepath.Join(dir, e.Name()))
		if err != nil || got != "sha256:"+e.Name() {
			t.Errorf("the client holds %s under the name %s: %v", got, e.Name(), err)
		}
	}
}

// written reports whether a file below dir has reached size bytes, as an error
// that says how far it is.
func written(dir string, size int64) error {
	var most int64
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) { // it went while we looked
			return nil
		}
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		if info, err := d.Info(); err == nil {
			most = max(most, info.Size())
		}
		return nil
	})
	if err == nil && most < size {
		err = fmt.Errorf("the biggest file has %d bytes, not yet %d", most, size)
	}
	return err
}
