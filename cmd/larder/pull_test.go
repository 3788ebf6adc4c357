package main

import (
	"encoding/json"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/larder-registry/larder/test/registry"
)

// multiArch adds an index of this platform's image and another's.
func multiArch(up *registry.Server) registry.Image {
	own := up.AddPlatform("team/app", "", runtime.GOARCH, registry.NewLayer(1, 3<<20), registry.NewLayer(2, 10<<10))
	return up.AddIndex("team/app", "v1", own, up.AddPlatform("team/app", "", "s390x", registry.NewLayer(3, 1<<20)))
}

func TestPullWarmsTheMirror(t *testing.T) {
	up := registry.Start(t, registry.Options{})
	img := multiArch(up)
	m := startMirror(t, t.TempDir(), up.Host())
	image, mirror := up.Host()+"/team/app:v1", "http://"+m.addr
	code, out, errs := larder("pull", "--mirror", mirror, image)
	if code != 0 || errs != "" || !strings.Contains(out, image+"  warm: 3 blobs, 3.0 MiB") {
		t.Fatalf("exit code %d, %q, %q", code, out, errs)
	}
	own, other := img.Children[1], img.Children[0]
	if img.Children[0].Arch == runtime.GOARCH {
		own, other = other, own
	}
	for _, b := range own.Blobs() {
		if sent := up.Sent(b.Digest); sent != b.Size() {
			t.Errorf("the upstream sent %d bytes of a blob of %d", sent, b.Size())
		}
	}
	for _, b := range other.Blobs() {
		if sent := up.Sent(b.Digest); sent != 0 {
			t.Errorf("the upstream sent %d bytes of another platform's blob", sent)
		}
	}
	up.Stop()
	if code, out, errs = larder("pull", "--mirror", mirror, image); code != 0 {
		t.Errorf("a warm image needs its upstream: exit code %d, %q, %q", code, out, errs)
	}
	code, out, errs = larder("pull", "--mirror", mirror, "--platform", "linux/s390x", image, up.Host()+"/team/none:v1")
	if code != 1 || strings.Count(out, "failed: ") != 2 || !strings.Contains(errs, "2 of 2 images are not warm") {
		t.Errorf("images that cannot be had: exit code %d, %q, %q", code, out, errs)
	}
}

func TestThePlatformThatIsPulled(t *testing.T) {
	var index pulledManifest
	if err := json.Unmarshal([]byte(`{"manifests": [
		{"digest": "sha256:6", "platform": {"os": "linux", "architecture": "arm", "variant": "v6"}},
		{"digest": "sha256:7", "platform": {"os": "linux", "architecture": "arm", "variant": "v7"}},
		{"digest": "sha256:8", "platform": {"os": "linux", "architecture": "amd64"}}
	]}`), &index); err != nil {
		t.Fatal(err)
	}
	for platform, want := range map[string]string{
		"linux/arm": "sha256:6", "linux/arm/v6": "sha256:6", "linux/arm/v7": "sha256:7", "linux/amd64": "sha256:8", "linux/arm/v5": "", "linux/s390x": "",
	} {
		got, err := (&puller{platform: platform}).choose(index)
		if string(got) != want {
			t.Errorf("%s: %q, want %q", platform, got, want)
		}
		if wantErr := "no image for " + platform + ", only for linux/arm/v6, linux/arm/v7, linux/amd64"; want == "" && (err == nil || err.Error() != wantErr) {
			t.Errorf("%s: %v", platform, err)
		}
	}
}

func TestPullIsToldNonsense(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"no image":    {nil, "requires at least 1 arg"},
		"image":       {[]string{"https://x/y"}, "https://x/y"},
		"mirror":      {[]string{"--mirror", "127.0.0.1", "a"}, "--mirror 127.0.0.1"},
		"mirror path": {[]string{"--mirror", "http://127.0.0.1/v2", "a"}, "--mirror"},
		"parallel":    {[]string{"--parallel", "0", "a"}, "--parallel 0"},
		"platform":    {[]string{"--platform", "arm64", "a"}, "--platform arm64"},
	} {
		t.Run(name, func(t *testing.T) {
			code, out, errs := larder(append([]string{"pull"}, c.args...)...)
			if code != 2 || out != "" || !strings.Contains(errs, c.want) {
				t.Errorf("exit code %d, %q, %q", code, out, errs)
			}
		})
	}
}

func TestImagesOfTheWarmListAreBroughtIn(t *testing.T) {
	up := registry.Start(t, registry.Options{})
	img := multiArch(up)
	image := up.Host() + "/team/app:v1"
	config := writeFile(t, t.TempDir(), "larder.yaml", fmt.Sprintf(
		"registry_proxies: {max_size: 1GiB, min_free: '0', warm: [%q], warm_every: 1s, registries: [{host: %q, insecure: true}]}\n", image, up.Host()))
	p := launch(t, "mirror", "--config", config, "--data-dir", t.TempDir(), "--listen", "127.0.0.1:0", "--admin-listen", "", "--log-format", "json")
	if line := p.waitFor(t, "image is warm"); line["image"] != image {
		t.Errorf("another image is warm: %v", line)
	}
	for _, child := range img.Children {
		for _, b := range child.Blobs() {
			want := b.Size()
			if child.Arch != runtime.GOARCH {
				want = 0
			}
			if sent := up.Sent(b.Digest); sent != want {
				t.Errorf("the upstream sent %d bytes of a blob of %s, want %d", sent, child.Arch, want)
			}
		}
	}
	// The tag moves, and is found to have when it is looked at again.
	next := up.AddPlatform("team/app", "v1", runtime.GOARCH, registry.NewLayer(9, 1<<20))
	if err := up.WaitFor(t.Context(), func(all []registry.Request) bool {
		for _, r := range all {
			if r.Target == next.Layers[0].Digest.String() && r.Sent == next.Layers[0].Size() {
				return true
			}
		}
		return false
	}); err != nil {
		t.Fatal(err)
	}
}
