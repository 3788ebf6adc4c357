package mirror

import (
	"runtime"
	"strings"
	"testing"

	"github.com/larder-registry/larder/internal/oci"
	"github.com/larder-registry/larder/test/registry"
)

func TestWarmBringsInThePlatformsImage(t *testing.T) {
	up := registry.Start(t, registry.Options{})
	own := up.AddPlatform(repo, "", runtime.GOARCH, registry.NewLayer(1, mib))
	index := up.AddIndex(repo, "v1", own)
	nested := index
	nested.Arch = runtime.GOARCH
	up.AddIndex(repo, "nested", nested)
	fx := start(t, up, t.TempDir(), nil)
	platform := runtime.GOOS + "/" + runtime.GOARCH

	for _, c := range []struct{ tag, platform, want string }{
		{"nested", platform, "the index lists another index"},
		{"v1", "plan9/mips", "no image for plan9/mips, only for linux/" + runtime.GOARCH},
		{"none", platform, "MANIFEST_UNKNOWN"},
		{"v1", platform, ""},
	} {
		err := fx.Warm(t.Context(), oci.Reference{Name: fx.name, Tag: c.tag}, c.platform)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("warm %s for %s: %v, want %q", c.tag, c.platform, err, c.want)
		}
	}
	for _, b := range own.Blobs() {
		if !fx.onDisk(t, b) || up.Sent(b.Digest) != b.Size() {
			t.Errorf("blob %s did not come once and stay", b.Digest)
		}
	}
}
