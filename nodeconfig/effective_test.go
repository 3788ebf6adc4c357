package nodeconfig

import (
	"strings"
	"testing"
)

// TestEffective loads configurations the way each generation of containerd does.
// The real ones were asked the same: containerd config dump, and pulls through
// CRI in test/e2e.
func TestEffective(t *testing.T) {
	const (
		v1in = "[plugins.cri.registry]\nconfig_path = \"/one\"\n"
		v2in = "[plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = \"/two\"\n"
		v3in = "[plugins.\"io.containerd.cri.v1.images\".registry]\nconfig_path = \"/three\"\n"
	)
	imports := func(text string) string { return "imports = [\"conf.d/*.toml\"]\n" + text }
	tests := map[string]struct {
		main, drop string
		want       [3]string // config_path for 1.x, 2.0 to 2.2, 2.3 and newer; "!" for a refusal
	}{
		"nothing":                            {"", "", [3]string{"", "", ""}},
		"version 1, by default":              {v1in, "", [3]string{"/one", "", "/one"}},
		"version 1":                          {"version = 1\n" + v1in, "", [3]string{"/one", "", "/one"}},
		"version 2":                          {"version = 2\n" + v2in, "", [3]string{"/two", "/two", "/two"}},
		"version 2 with names of 3":          {"version = 2\n" + v3in, "", [3]string{"", "/three", "/three"}},
		"version 2 with names of 2 and 3":    {"version = 2\n" + v2in + v3in, "", [3]string{"/two", "/two", "/two"}},
		"version 3":                          {"version = 3\n" + v3in, "", [3]string{"!", "/three", "/three"}},
		"version 3 with names of 2":          {"version = 3\n" + v2in, "", [3]string{"!", "", "/two"}},
		"version 4":                          {"version = 4\n" + v3in, "", [3]string{"!", "!", "/three"}},
		"version 5":                          {"version = 5\n", "", [3]string{"!", "!", "!"}},
		"not imported":                       {"version = 2\n", v3in, [3]string{"", "", ""}},
		"version 2, without one dropped in":  {imports("version = 2\n"), v3in, [3]string{"", "/three", "/three"}},
		"version 3, without one dropped in":  {imports("version = 3\n"), v3in, [3]string{"!", "/three", "/three"}},
		"version 2, with 3 dropped in":       {imports("version = 2\n" + v2in), "version = 3\n[plugins.\"io.containerd.cri.v1.images\"]\nsnapshotter = \"x\"\n", [3]string{"!", "", "/two"}},
		"version 2, with its table replaced": {imports("version = 2\n" + v2in), "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = \"x\"\n", [3]string{"", "/two", "/two"}},
		"version 2, overridden":              {imports("version = 2\n" + v2in), strings.ReplaceAll("version = 2\n"+v2in, "/two", "/later"), [3]string{"/later", "/later", "/later"}},
		"names of 3 dropped in beside 2":     {imports("version = 2\n" + v2in), v3in, [3]string{"/two", "/two", "/three"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			put(t, root, map[string]string{"etc/containerd/config.toml": test.main, "etc/containerd/conf.d/": ""})
			if test.drop != "" {
				put(t, root, map[string]string{"etc/containerd/conf.d/10.toml": test.drop})
			}
			for i, by := range []loader{loader1, loader20, loader23} {
				got := "!"
				if e, err := nodeAt(root).load("/etc/containerd/config.toml", by, nil); err == nil {
					got = e.configPath()
				}
				if got != test.want[i] {
					t.Errorf("loaded the way %d does, config_path is %q, want %q", i, got, test.want[i])
				}
			}
		})
	}
}

// TestImportErrors names what cannot be read.
func TestImportErrors(t *testing.T) {
	root := t.TempDir()
	put(t, root, map[string]string{
		"etc/containerd/config.toml":    "version = 2\nimports = [\"/etc/containerd/conf.d/*.toml\"]\n",
		"etc/containerd/conf.d/10.toml": "version = 2\n\n[plugins\n",
		"etc/containerd/lost.toml":      "imports = [\"gone.toml\"]\n",
		"etc/containerd/circle.toml":    "imports = [\"circle.toml\", \"/etc/containerd/circle.toml\"]\n",
	})
	n := nodeAt(root)
	_, err := n.load("/etc/containerd/config.toml", loader23, nil)
	if err == nil || !strings.Contains(err.Error(), "/etc/containerd/conf.d/10.toml: line 3") {
		t.Errorf("got %v, want the file and the line", err)
	}
	if _, err := n.load("/etc/containerd/lost.toml", loader23, nil); err == nil || !strings.Contains(err.Error(), "/etc/containerd/gone.toml") {
		t.Errorf("got %v, want the file that is missing", err)
	}
	if e, err := n.load("/etc/containerd/circle.toml", loader23, nil); err != nil || len(e.files) != 1 {
		t.Errorf("a circle of imports: %v", err)
	}
}

// TestTransferService: what has containerd fetch images in the CRI plugin.
func TestTransferService(t *testing.T) {
	tests := map[string]string{
		"":                                          "",
		"discard_unpacked_layers = false":           "",
		"max_concurrent_downloads = 3":              "",
		"use_local_image_pull = true":               "use_local_image_pull",
		"discard_unpacked_layers = true":            "discard_unpacked_layers = true",
		"disable_snapshot_annotations = false":      "disable_snapshot_annotations = false",
		"max_concurrent_downloads = 10":             "max_concurrent_downloads",
		"image_pull_with_sync_fs = true":            "image_pull_with_sync_fs",
		"registry.auths.\"https://x\".auth = \"x\"": "registry.mirrors, configs or auths",
	}
	for text, want := range tests {
		t.Run(text, func(t *testing.T) {
			root := t.TempDir()
			put(t, root, map[string]string{"c.toml": "version = 3\n[plugins.\"io.containerd.cri.v1.images\"]\n" + text + "\n"})
			e, err := nodeAt(root).load("/c.toml", loader20, nil)
			if err != nil {
				t.Fatal(err)
			}
			if got := e.localPull(); got != want {
				t.Errorf("local pull by %q, want %q", got, want)
			}
		})
	}
}
