package nodeconfig

import (
	"net/netip"
	"strings"
	"testing"
)

func TestCRIO(t *testing.T) {
	const dropIn = mark + `[[registry]]
prefix = "docker.io"
location = "docker.io"

[[registry.mirror]]
location = "127.0.0.1:8000/f/docker.io"
insecure = true
`
	for name, c := range map[string]struct {
		files map[string]string
		// says is part of the plan's remarks; kept: no drop-in is written.
		says string
		kept bool
	}{
		"podman only":       {files: map[string]string{"usr/bin/podman": ""}},
		"nothing there":     {files: map[string]string{"etc/crio/": ""}, says: "restart crio: CRI-O reads registries.conf.d again"},
		"short names":       {files: map[string]string{"etc/crio/": "", "etc/containers/registries.conf": "unqualified-search-registries = [\"docker.io\"]\n"}},
		"the old form":      {files: map[string]string{"etc/crio/": "", "etc/containers/registries.conf": "[registries.search]\nregistries = ['docker.io']\n"}},
		"others' drop-ins":  {files: map[string]string{"etc/crio/": "", "etc/containers/registries.conf.d/a.conf": "[[registry]]\nlocation = \"quay.io\"\n", "etc/containers/registries.conf.d/broken.conf.bak": "[["}},
		"a longer prefix":   {files: map[string]string{"etc/crio/": "", "etc/containers/registries.conf": "[[registry]]\nprefix = \"docker.io/library\"\nlocation = \"m.test\"\n"}, says: "note /etc/containers/registries.conf: its entry for docker.io/library stays"},
		"a wildcard":        {files: map[string]string{"etc/crio/": "", "etc/containers/registries.conf": "[[registry]]\nprefix = \"*.io\"\nblocked = true\n"}, says: "its entry for *.io stays"},
		"an own entry":      {files: map[string]string{"etc/crio/": "", "etc/containers/registries.conf.d/a.conf": "[[registry]]\nlocation = \"docker.io\"\n"}, says: `warning /etc/containers/registries.conf.d/a.conf: it has an entry for docker.io already, which a drop-in would replace; add to that entry: [[registry.mirror]] location = "127.0.0.1:8000/f/docker.io", insecure = true`, kept: true},
		"an own entry done": {files: map[string]string{"etc/crio/": "", "etc/containers/registries.conf.d/a.conf": "[[registry]]\nprefix = \"docker.io\"\n[[registry.mirror]]\nlocation = \"127.0.0.1:8000/f/docker.io\"\ninsecure = true\n"}, says: "its own entry for docker.io names the mirror", kept: true},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			put(t, root, c.files)
			target, cfg := newCRIO(nodeAt(root)), testConfig()
			cfg.Registries = []string{"docker.io"}
			if _, found := target.Detect(t.Context()); !found {
				t.Error("it is not recognised")
			}
			if said := saying(planned(t, target, cfg)); !strings.Contains(said, c.says) {
				t.Errorf("the plan says %s", said)
			}
			want := dropIn
			if c.kept {
				want = ""
			}
			if got := fileIn(thereAndBack(t, root, target, cfg), "etc/containers/registries.conf.d/50-larder-docker.io.conf"); got != want {
				t.Errorf("the drop-in is\n%s, want\n%s", got, want)
			}
		})
	}
}

// TestCRIOFollowsTheMirror: drop-ins of an earlier run follow its address, also
// those that are not named again.
func TestCRIOFollowsTheMirror(t *testing.T) {
	root := t.TempDir()
	target, cfg := newCRIO(nodeAt(root)), testConfig()
	cfg.Registries = []string{"docker.io", "quay.io"}
	if err := target.Apply(t.Context(), planned(t, target, cfg)); err != nil {
		t.Fatal(err)
	}
	cfg.Mirror = netip.MustParseAddrPort("10.0.0.7:9000")
	cfg.Registries = []string{"ghcr.io"}
	cfg.Fallback = []string{"https://second.test:5000/", "http://third.test/v2/x"}
	changes := planned(t, target, cfg)
	if !strings.Contains(saying(changes), "http://third.test/v2/x is left out") {
		t.Errorf("the plan says %s", saying(changes))
	}
	if err := target.Apply(t.Context(), changes); err != nil {
		t.Fatal(err)
	}
	for _, registry := range []string{"docker.io", "quay.io", "ghcr.io"} {
		got := fileIn(tree(t, root), "etc/containers/registries.conf.d/50-larder-"+registry+".conf")
		if !strings.HasSuffix(got, "\nlocation = \"10.0.0.7:9000/f/"+registry+"\"\ninsecure = true\n\n[[registry.mirror]]\nlocation = \"second.test:5000/f/"+registry+"\"\n") {
			t.Errorf("the drop-in for %s is\n%s", registry, got)
		}
	}
}

func TestCRIORefuses(t *testing.T) {
	for name, c := range map[string]struct {
		files      map[string]string
		mirror     string
		registries []string
		err        string
	}{
		"no names":        {registries: nil, err: "name those to mirror, as in --registry docker.io"},
		"a port":          {registries: []string{"reg.test:5000"}, err: "--registry reg.test:5000: it must be a host without a port"},
		"a path":          {registries: []string{"docker.io/library"}, err: "it must be a host"},
		"dots":            {registries: []string{"../x"}, err: "it must be a host"},
		"a quote":         {registries: []string{"x\"\n[[registry]]"}, err: "it must be a host"},
		"IPv6":            {mirror: "[fd00::1]:8000", registries: []string{"docker.io"}, err: "takes no IPv6 address as a mirror (fd00::1): every pull would fail; use --address loopback"},
		"a broken file":   {files: map[string]string{"etc/containers/registries.conf.d/a.conf": "x = 1\n[[registry]\n"}, registries: []string{"docker.io"}, err: "read /etc/containers/registries.conf.d/a.conf: line 2: "},
		"a broken main":   {files: map[string]string{"etc/containers/registries.conf": "x"}, registries: []string{"docker.io"}, err: "read /etc/containers/registries.conf: line 1: "},
		"somebody's file": {files: map[string]string{"etc/containers/registries.conf.d/50-larder-docker.io.conf": "# mine\n"}, registries: []string{"docker.io"}, err: "somebody else's file has that name"},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			put(t, root, c.files)
			before := tree(t, root)
			cfg := testConfig()
			cfg.Registries = c.registries
			if c.mirror != "" {
				cfg.Mirror = netip.MustParseAddrPort(c.mirror)
			}
			if changes, err := newCRIO(nodeAt(root)).Plan(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("planned %v, %v", changes, err)
			}
			same(t, "after refusing", tree(t, root), before)
		})
	}
}

// FuzzContainersConf: no registries.conf makes reading it panic, and none of the
// entries read lacks a place.
func FuzzContainersConf(f *testing.F) {
	for _, seed := range []string{"", "[[registry]]\nlocation = 'docker.io'\n[[registry.mirror]]\nlocation='x'\n", "registry = 5", "[registries.search]\nregistries = []", "[[registry]]\nprefix = '/'"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		entries, err := parseContainers(content)
		if err != nil && (entries != nil || err.Error() == "") {
			t.Errorf("%v and %v", entries, err)
		}
		for _, e := range entries {
			if e.Prefix == "" && strings.Trim(e.Location, "/") != "" {
				t.Errorf("no prefix for %q", e.Location)
			}
		}
	})
}
