package nodeconfig

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

const k3sMirror = "http://127.0.0.1:8000"

func TestRegistriesYAML(t *testing.T) {
	for _, c := range []struct{ name, registry, before, after string }{
		{"nothing", "*", "", "mirrors:\n  \"*\":\n    endpoint:\n      - \"http://127.0.0.1:8000\"\n"},
		{"comments only", "*", "# mine\n", "# mine\nmirrors:\n  \"*\":\n    endpoint:\n      - \"http://127.0.0.1:8000\"\n"},
		{"no mirrors", "*", "configs:\n  reg.test:\n    auth: {username: u}", "configs:\n  reg.test:\n    auth: {username: u}\nmirrors:\n  \"*\":\n    endpoint:\n      - \"http://127.0.0.1:8000\"\n"},
		{"empty mirrors", "*", "mirrors:\nconfigs: {}\n", "mirrors:\n  \"*\":\n    endpoint:\n      - \"http://127.0.0.1:8000\"\nconfigs: {}\n"},
		{"empty mirrors at the end", "*", "configs: {}\nmirrors:", "configs: {}\nmirrors:\n  \"*\":\n    endpoint:\n      - \"http://127.0.0.1:8000\"\n"},
		{"mirrors in braces", "*", "mirrors: {}\n", "mirrors: {\"*\": {endpoint: [\"http://127.0.0.1:8000\"]}}\n"},
		{"others in braces", "*", "mirrors: {quay.io: {endpoint: [a]}}\n", "mirrors: {\"*\": {endpoint: [\"http://127.0.0.1:8000\"]}, quay.io: {endpoint: [a]}}\n"},
		{"others", "*", "mirrors:\n  # the hub\n  docker.io:\n    endpoint:\n    - https://m.test # ours\n", "mirrors:\n  # the hub\n  \"*\":\n    endpoint:\n      - \"http://127.0.0.1:8000\"\n  docker.io:\n    endpoint:\n    - https://m.test # ours\n"},
		{"an entry", "docker.io", "mirrors:\n  docker.io:\n    endpoint:\n    - https://m.test # ours\n    rewrite:\n      a: b\n", "mirrors:\n  docker.io:\n    endpoint:\n    - \"http://127.0.0.1:8000\"\n    - https://m.test # ours\n    rewrite:\n      a: b\n"},
		{"an indented list", "*", "mirrors:\n  '*':\n    endpoint:\n      - 'https://m.test'\n", "mirrors:\n  '*':\n    endpoint:\n      - \"http://127.0.0.1:8000\"\n      - 'https://m.test'\n"},
		{"a list in brackets", "*", "mirrors:\n  \"*\":\n    endpoint: [https://m.test]\n", "mirrors:\n  \"*\":\n    endpoint: [\"http://127.0.0.1:8000\", https://m.test]\n"},
		{"an empty list", "*", "mirrors:\n  \"*\":\n    endpoint: []\n", "mirrors:\n  \"*\":\n    endpoint: [\"http://127.0.0.1:8000\"]\n"},
		{"no list", "*", "mirrors:\n  \"*\":\n    endpoint:\n", "mirrors:\n  \"*\":\n    endpoint:\n      - \"http://127.0.0.1:8000\"\n"},
		{"an empty entry", "*", "mirrors:\n  \"*\":\n  docker.io:\n", "mirrors:\n  \"*\":\n    endpoint:\n      - \"http://127.0.0.1:8000\"\n  docker.io:\n"},
		{"an entry of braces", "*", "mirrors:\n  \"*\": {}\n", "mirrors:\n  \"*\": {endpoint: [\"http://127.0.0.1:8000\"]}\n"},
		{"only rewrites", "*", "mirrors:\n  \"*\":\n    rewrite:\n      a: b\n", "mirrors:\n  \"*\":\n    endpoint:\n      - \"http://127.0.0.1:8000\"\n    rewrite:\n      a: b\n"},
		{"carriage returns", "*", "mirrors:\r\n  \"*\":\r\n    endpoint:\r\n      - a\r\n", "mirrors:\r\n  \"*\":\r\n    endpoint:\r\n      - \"http://127.0.0.1:8000\"\r\n      - a\r\n"},
		{"there", "*", "mirrors:\n  \"*\":\n    endpoint: [a, \"http://127.0.0.1:8000/\"]\n", "mirrors:\n  \"*\":\n    endpoint: [a, \"http://127.0.0.1:8000/\"]\n"},
		{"other letters", "*", "# Spiegel für ä\nmirrors:\n  \"ä.test\": {endpoint: [a]}\n", "# Spiegel für ä\nmirrors:\n  \"*\":\n    endpoint:\n      - \"http://127.0.0.1:8000\"\n  \"ä.test\": {endpoint: [a]}\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := addEndpoints([]byte(c.before), c.registry, []string{k3sMirror})
			if err != nil || string(got) != c.after {
				t.Fatalf("got\n%s%v\nwant\n%s", got, err, c.after)
			}
			if again, err := addEndpoints(got, c.registry, []string{k3sMirror}); err != nil || string(again) != c.after {
				t.Errorf("the second time gives\n%s%v", again, err)
			}
		})
	}
	for _, c := range []struct{ name, before, err string }{
		{"no YAML", "mirrors:\n\t- x\n", "line 2: found character that cannot start any token"},
		{"a list", "- a\n", "cannot unmarshal !!seq"},
		{"mirrors are a list", "mirrors: [a]\n", "mirrors is no mapping; add"},
		{"an entry is text", "mirrors: {\"*\": x}\n", "* is no mapping; add"},
		{"endpoint is text", "mirrors: {\"*\": {endpoint: x}}\n", "endpoint is no list; add"},
		{"null in words", "mirrors: null\n", "beyond what is edited safely; add [\"http://127.0.0.1:8000\"] to mirrors, \"*\", endpoint by hand"},
		{"an alias", "x: &x {endpoint: [a]}\nmirrors:\n  \"*\": *x\n", "by hand"},
		{"an end", "configs: {}\n---\nx: y\n", "by hand"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got, err := addEndpoints([]byte(c.before), "*", []string{k3sMirror}); err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("got\n%s%v", got, err)
			}
		})
	}
}

// FuzzRegistriesYAML: whatever can be edited says afterwards what it said, and
// the mirror; twice is once.
func FuzzRegistriesYAML(f *testing.F) {
	for _, seed := range []string{"", "mirrors:\n", "mirrors:\n  \"*\":\n    endpoint:\n    - a\n", "mirrors: {'*': {endpoint: []}}", "a: &a\n  b: c\nmirrors:\n  x: *a\n", "? mirrors\n: ? '*'\n  : endpoint: [x]\n", "mirrors:\n  '*': # c\n\n    rewrite: {a: b}\n"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, before string) {
		after, err := addEndpoints([]byte(before), "*", []string{k3sMirror})
		if err != nil {
			return
		}
		var was, is map[string]any
		if err := yaml.Unmarshal([]byte(before), &was); err != nil {
			t.Fatalf("%q was taken: %v", before, err)
		}
		if err := yaml.Unmarshal(after, &is); err != nil {
			t.Fatalf("%q became %q: %v", before, after, err)
		}
		list := take(is)
		if !slices.Contains(list, any(k3sMirror)) && !slices.Contains(list, any(k3sMirror+"/")) {
			t.Fatalf("%q lacks the mirror", after)
		}
		take(was)
		if len(was)+len(is) > 0 && !reflect.DeepEqual(was, is) {
			t.Fatalf("%q became %q", before, after)
		}
		if again, err := addEndpoints(after, "*", []string{k3sMirror}); err != nil || string(again) != string(after) {
			t.Fatalf("%q became %q, %v", after, again, err)
		}
	})
}

// take takes mirrors."*".endpoint out, and what it leaves empty.
func take(file map[string]any) (list []any) {
	mirrors, _ := file["mirrors"].(map[string]any)
	entry, _ := mirrors["*"].(map[string]any)
	list, _ = entry["endpoint"].([]any)
	delete(entry, "endpoint")
	if len(entry) == 0 {
		delete(mirrors, "*")
	}
	if len(mirrors) == 0 {
		delete(file, "mirrors")
	}
	return list
}

// k3sConfig is what k3s generates, shortened.
const k3sConfig = `# File generated by k3s. DO NOT EDIT. Use config-v3.toml.tmpl instead.
version = 3
root = "/var/lib/rancher/k3s/agent/containerd"

[plugins.'io.containerd.cri.v1.images'.registry]
  config_path = "/var/lib/rancher/k3s/agent/etc/containerd/certs.d"
`

const k3sGenerated = "# File generated by k3s. DO NOT EDIT.\n\nserver = \"https://quay.io/v2\"\n[host]\n[host.\"https://q.test/v2\"]\n  capabilities = [\"pull\", \"resolve\"]\n"

func TestK3s(t *testing.T) {
	const (
		agent = "var/lib/rancher/k3s/agent/etc/containerd/"
		file  = "etc/rancher/k3s/registries.yaml"
		hosts = agent + "certs.d/_default/hosts.toml"
	)
	for name, c := range map[string]struct {
		files      map[string]string
		registries []string
		// yaml and certs say which of the two files names the mirror.
		yaml, certs bool
		says        string
		not         string
	}{
		"running":                {files: map[string]string{agent + "config.toml": k3sConfig, "etc/systemd/system/k3s.service": ""}, certs: true, not: "restart"},
		"running, others' YAML":  {files: map[string]string{agent + "config.toml": k3sConfig, file: "mirrors:\n  quay.io:\n    endpoint: [https://q.test]\n", agent + "certs.d/quay.io/hosts.toml": k3sGenerated}, certs: true, says: "warning /etc/rancher/k3s/registries.yaml: quay.io has an entry of its own, which hides the one for all: to have it mirrored, add --registry quay.io"},
		"others' YAML, named":    {files: map[string]string{agent + "config.toml": k3sConfig, file: "mirrors:\n  quay.io:\n    endpoint: [https://q.test]\n", agent + "certs.d/quay.io/hosts.toml": k3sGenerated, "etc/systemd/system/k3s-agent.service": ""}, registries: []string{"quay.io"}, certs: true, yaml: true, says: "restart k3s-agent: k3s reads registries.yaml when it starts only"},
		"credentials":            {files: map[string]string{agent + "config.toml": k3sConfig, file: "configs:\n  reg.test:\n    auth: {username: u, password: p}\n"}, certs: true, says: "reg.test has an entry of its own"},
		"a wildcard":             {files: map[string]string{agent + "config.toml": k3sConfig, file: "mirrors:\n  \"*\":\n    endpoint: [https://m.test]\n", hosts: k3sGenerated}, yaml: true, says: "note /etc/rancher/k3s/registries.yaml: k3s reads it when it starts"},
		"before the first start": {files: map[string]string{"usr/local/bin/k3s": ""}, yaml: true, says: "k3s reads it when it starts"},
		"an old release":         {files: map[string]string{agent + "config.toml": "version = 2\n", "etc/systemd/system/k3s.service": ""}, yaml: true, says: "restart k3s: "},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			put(t, root, c.files)
			target, cfg := newRancher(nodeAt(root), "k3s"), testConfig()
			cfg.Registries = c.registries
			if _, found := target.Detect(t.Context()); !found {
				t.Error("it is not recognised")
			}
			if said := saying(planned(t, target, cfg)); !strings.Contains(said, c.says) || c.not != "" && strings.Contains(said, c.not) {
				t.Errorf("the plan says %s", said)
			}
			between := thereAndBack(t, root, target, cfg)
			if got := strings.Contains(between[file], k3sMirror); got != c.yaml {
				t.Errorf("registries.yaml is %s", between[file])
			}
			got := fileIn(between, hosts)
			if strings.Contains(got, k3sMirror) != c.certs || c.certs && !strings.Contains(got, "server = \"\"\n") {
				t.Errorf("hosts.toml is %s", got)
			}
		})
	}
}

// TestK3sIsRestartedOnce: the advice stays until k3s has read registries.yaml.
func TestK3sIsRestartedOnce(t *testing.T) {
	root := t.TempDir()
	put(t, root, map[string]string{"etc/rancher/rke2/": "", "etc/systemd/system/rke2-server.service": "", "usr/local/lib/systemd/system/rke2-agent.service": "", "etc/systemd/system/multi-user.target.wants/rke2-server.service": ""})
	target, cfg := newRancher(nodeAt(root), "rke2"), testConfig()
	cfg.Restart = true
	restarts := func() string {
		for _, c := range planned(t, target, cfg) {
			if c.Kind == Restart && !c.Advice {
				return c.Path
			}
		}
		return ""
	}
	if got := restarts(); got != "rke2-server" {
		t.Errorf("restarts %q", got)
	}
	cfg.Restart = false
	if err := target.Apply(t.Context(), planned(t, target, cfg)); err != nil {
		t.Fatal(err)
	}
	cfg.Restart = true
	if got := restarts(); got != "rke2-server" {
		t.Errorf("without a restart, restarts %q", got)
	}
	put(t, root, map[string]string{"var/lib/rancher/rke2/agent/etc/containerd/certs.d/_default/hosts.toml": "# File generated by rke2. DO NOT EDIT.\n[host.\"http://127.0.0.1:8000/v2\"]\n"})
	if got := restarts(); got != "" {
		t.Errorf("after a restart, restarts %q", got)
	}
}

func TestK3sRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		err   string
	}{
		"garbage":          {map[string]string{"etc/rancher/k3s/registries.yaml": "mirrors:\n  a: b: c\n"}, "read /etc/rancher/k3s/registries.yaml: yaml: line 2: "},
		"garbled config":   {map[string]string{"var/lib/rancher/k3s/agent/etc/containerd/config.toml": "a = 1\nx = [\n"}, "parse /var/lib/rancher/k3s/agent/etc/containerd/config.toml: line 2"},
		"beyond an editor": {map[string]string{"etc/rancher/k3s/registries.yaml": "mirrors: ~\n"}, "edit /etc/rancher/k3s/registries.yaml: its form is beyond"},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			put(t, root, c.files)
			before := tree(t, root)
			if changes, err := newRancher(nodeAt(root), "k3s").Plan(t.Context(), testConfig()); err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("planned %v, %v", changes, err)
			}
			same(t, "after refusing", tree(t, root), before)
		})
	}
}
