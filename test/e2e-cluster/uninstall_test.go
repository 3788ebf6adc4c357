package cluster

import (
	"errors"
	"io/fs"
	"os"
	"testing"
)

// uninstall takes the manifests back: first what init did, then the rest.
func uninstall(t *testing.T, s *suite) {
	s.Do(t, "apply", "-k", "../../manifests/overlays/undo")
	s.mirrorReady(t)
	if _, err := os.Stat(hostsTOML); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("containerd is still told of the mirror: %v", err)
	}
	s.Do(t, "delete", "-k", "../../manifests/overlays/undo")
	s.asBefore(t)
}

// asBefore demands that the node is as it was before Larder, to the byte: but
// for one empty directory, which init cannot remove since it is mounted there.
func (s *suite) asBefore(t *testing.T) {
	t.Helper()
	now := takeSnapshot(t)
	if now[dataDir] != "drwx------ 0:0" {
		t.Errorf("%s is left as %q", dataDir, now[dataDir])
	}
	delete(now, dataDir)
	for _, d := range s.untouched.differences(now) {
		t.Errorf("the node is not as it was: %s", d)
	}
	p := pod{namespace: "default", name: "afterwards", image: example + "/before:1", policy: "Always"}
	s.start(t, p)
	s.runs(t, p)
	s.remove(t, p)
}
