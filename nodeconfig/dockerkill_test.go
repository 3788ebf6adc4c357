package nodeconfig

import (
	"fmt"
	"testing"
)

// TestOtherTargetsKilledAnywhere kills larder at each step of what the targets
// beside containerd's do to files: every file is the old one or the new one, the
// next run completes, and an undo then restores everything.
func TestOtherTargetsKilledAnywhere(t *testing.T) {
	for target, files := range map[string]map[string]string{
		"docker": {"etc/docker/daemon.json": "{\n  \"debug\": true\n}\n", "etc/docker/certs.d/reg.test/ca.crt": "x"},
		"crio":   {"etc/crio/": "", "etc/containers/registries.conf": "unqualified-search-registries = [\"docker.io\"]\n"},
		"k3s":    {"etc/rancher/k3s/registries.yaml": "mirrors:\n  \"*\":\n    endpoint: [https://m.test]\n"},
		"rke2":   {"var/lib/rancher/rke2/agent/etc/containerd/config.toml": "version = 3\n[plugins.'io.containerd.cri.v1.images'.registry]\n  config_path = \"/var/lib/rancher/rke2/agent/etc/containerd/certs.d\"\n"},
	} {
		t.Run(target, func(t *testing.T) {
			t.Parallel()
			fresh := func() string {
				root := t.TempDir()
				put(t, root, files)
				return root
			}
			original := content(t, fresh())
			done := fresh()
			if err := doAgain(nodeAt(done), target+" plan"); err != nil {
				t.Fatal(err)
			}
			configured := content(t, done)
			for _, verb := range []string{"plan", "undo"} {
				steps := 0
				for ; ; steps++ {
					root := fresh()
					before, after := original, configured
					if verb == "undo" {
						if err := doAgain(nodeAt(root), target+" plan"); err != nil {
							t.Fatal(err)
						}
						before, after = configured, original
					}
					if !killAt(t, root, target+" "+verb, steps) {
						break
					}
					for file, text := range content(t, root) {
						if text != before[file] && text != after[file] {
							t.Fatalf("%s, killed at step %d: %s is neither old nor new:\n%s", verb, steps, file, text)
						}
					}
					if err := doAgain(nodeAt(root), target+" "+verb); err != nil {
						t.Fatalf("%s, run again after it was killed at step %d: %v", verb, steps, err)
					}
					if got := content(t, root); fmt.Sprint(got) != fmt.Sprint(after) {
						t.Errorf("%s, run again after it was killed at step %d, left\n%v\nwant\n%v", verb, steps, got, after)
					}
				}
				if steps < 2 {
					t.Errorf("%s has only %d steps to be killed at", verb, steps)
				}
			}
		})
	}
}
