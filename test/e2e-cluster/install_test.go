package cluster

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/larder-registry/larder/test/registry"
)

const appLayer = 20 * mebibyte

// install applies the rendered manifests, as they are.
func install(t *testing.T, s *suite) {
	began := time.Now()
	s.Do(t, "apply", "-k", "../../manifests/mirror")
	s.mirrorReady(t)
	t.Logf("from kubectl apply to a ready DaemonSet, image and all: %v", time.Since(began).Round(10*time.Millisecond))
	hosts, err := os.ReadFile(hostsTOML)
	if err != nil || !strings.Contains(string(hosts), `[host."http://127.0.0.1:8000"]`) {
		t.Fatalf("init has not told containerd: %v: %s", err, hosts)
	}
	pid, err := mirrorPID()
	if err != nil {
		t.Fatal(err)
	}
	status, err := os.ReadFile(filepath.Join("/proc", itoa(pid), "status"))
	if err != nil || !strings.Contains(string(status), "\nUid:\t65532\t65532\t65532\t65532\n") || !strings.Contains(string(status), "\nCapEff:\t0000000000000000\n") {
		t.Errorf("the mirror has powers: %v: %s", err, status)
	}
}

// accepted has the API server judge every set of rendered manifests.
func accepted(t *testing.T, s *suite) {
	files, err := filepath.Glob("../../manifests/*/kustomization.yaml")
	if err != nil {
		t.Fatal(err)
	}
	overlays, err := filepath.Glob("../../manifests/overlays/*/kustomization.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if files = append(files, overlays...); len(files) < 4 {
		t.Fatalf("only %q are there", files)
	}
	for _, file := range files {
		out, err := s.Kubectl(t, "", "apply", "--dry-run=server", "-k", filepath.Dir(file))
		if err != nil {
			t.Errorf("%s: %v", file, err)
		}
		if strings.Contains(out, "Warning") {
			t.Errorf("%s: %s", file, out)
		}
	}
}

// pulls shows what the mirror is for: an image comes through it, and once more
// from it, also while its registry is gone.
func pulls(t *testing.T, s *suite) {
	image := pod{namespace: "default", name: "app", image: example + "/app:1"}
	s.start(t, image)
	s.runs(t, image)
	if direct := asked(s.up, "app", false, registry.Manifests, registry.Blobs); len(direct) > 0 {
		t.Errorf("containerd asked for the image itself:\n%s", describe(direct))
	}
	if all := asked(s.up, "app", true, registry.Blobs); len(all) == 0 {
		t.Error("the upstream has not seen the mirror")
	}
	if got := count(t, "larder_upstream_bytes_total"); got < appLayer {
		t.Errorf("the mirror counts %.0f bytes from upstream", got)
	}
	if got := count(t, "larder_served_bytes_total"); got < appLayer {
		t.Errorf("the mirror counts %.0f bytes that it served", got)
	}
	again := func(name string) {
		t.Helper()
		s.remove(t, image)
		s.forget(t, image.image)
		sent, served := s.up.Sent(s.appLayer), count(t, "larder_served_bytes_total", `source="disk"`)
		image.name = name
		s.start(t, image)
		s.runs(t, image)
		if now := s.up.Sent(s.appLayer); now != sent || sent < appLayer {
			t.Errorf("%s: the upstream has sent %d bytes of the layer, after %d before", name, now, sent)
		}
		if got := count(t, "larder_served_bytes_total", `source="disk"`) - served; got < appLayer {
			t.Errorf("%s: the mirror counts %.0f bytes from its disk", name, got)
		}
	}
	again("again")
	s.up.Stop()
	again("while-the-registry-is-gone")
	if err := s.up.Resume(); err != nil {
		t.Fatal(err)
	}
	s.remove(t, image)
}
