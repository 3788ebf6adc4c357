package nodeconfig

import (
	"bytes"
	"errors"
	"net/netip"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// hostsPlanned plans hosts.toml files for the roots.
func hostsPlanned(t *testing.T, n *Node, roots []string, cfg Config) []Change {
	t.Helper()
	changes, err := n.planHosts(roots, cfg, hostsOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return changes
}

// paths are the files a plan changes, and the paths it warns of.
func paths(changes []Change) (files, warned []string) {
	for _, c := range changes {
		if c.Kind == Warning {
			warned = append(warned, c.Path)
		} else if c.Changes() {
			files = append(files, c.Path)
		}
	}
	return files, warned
}

// TestWhereHostsGo: the mirror is named where containerd looks, hiding nothing,
// and what hides it is told.
func TestWhereHostsGo(t *testing.T) {
	const a, b = "/etc/containerd/certs.d", "/etc/docker/certs.d"
	tests := map[string]struct {
		files         map[string]string
		roots         []string
		registries    []string
		files2, warns []string
	}{
		"one root, nothing there":             {roots: []string{a}, files2: []string{a + "/_default"}},
		"two roots, nothing there":            {roots: []string{a, b}, files2: []string{a + "/_default"}},
		"the second has a registry":           {files: map[string]string{b + "/reg.example/ca.crt": "x"}, roots: []string{a, b}, files2: []string{b + "/_default"}, warns: []string{b + "/reg.example"}},
		"the second has a default":            {files: map[string]string{b + "/_default/": ""}, roots: []string{a, b}, files2: []string{b + "/_default"}},
		"both have defaults":                  {files: map[string]string{a + "/_default/": "", b + "/_default/": ""}, roots: []string{a, b}, files2: []string{a + "/_default"}},
		"hidden already by the first":         {files: map[string]string{a + "/_default/": "", b + "/reg.example/ca.crt": "x"}, roots: []string{a, b}, files2: []string{a + "/_default"}, warns: []string{b + "/reg.example"}},
		"a registry's directory":              {files: map[string]string{a + "/ghcr.io/": ""}, roots: []string{a}, files2: []string{a + "/_default"}, warns: []string{a + "/ghcr.io"}},
		"a registry's directory, named":       {files: map[string]string{a + "/ghcr.io/": ""}, roots: []string{a}, registries: []string{"ghcr.io"}, files2: []string{a + "/_default", a + "/ghcr.io"}},
		"with a port, underlined":             {files: map[string]string{a + "/reg_5000_/": ""}, roots: []string{a}, registries: []string{"reg:5000"}, files2: []string{a + "/_default", a + "/reg_5000_"}},
		"with a port, by colon":               {files: map[string]string{a + "/reg:5000/": ""}, roots: []string{a}, registries: []string{"reg:5000"}, files2: []string{a + "/_default", a + "/reg:5000"}},
		"without the port is another":         {files: map[string]string{a + "/reg/": ""}, roots: []string{a}, registries: []string{"reg:5000"}, files2: []string{a + "/_default"}, warns: []string{a + "/reg"}},
		"files and hidden names are nobody's": {files: map[string]string{a + "/README": "x", a + "/.git/": ""}, roots: []string{a}, files2: []string{a + "/_default"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			put(t, root, test.files)
			n, cfg := nodeAt(root), testConfig()
			cfg.Registries = test.registries
			changes := hostsPlanned(t, n, test.roots, cfg)
			files, warned := paths(changes)
			for i := range files {
				files[i] = filepath.Dir(files[i])
			}
			slices.Sort(files)
			if !slices.Equal(files, test.files2) || !slices.Equal(warned, test.warns) {
				t.Fatalf("files in %v, warnings of %v; want %v and %v", files, warned, test.files2, test.warns)
			}
			if err := n.apply(t.Context(), changes); err != nil {
				t.Fatal(err)
			}
			if files, _ := paths(hostsPlanned(t, n, test.roots, cfg)); len(files) > 0 {
				t.Errorf("planned again, it changes %v", files)
			}
		})
	}
}

// TestCertificatesStay: a registry's directory with certificates in Docker's way
// goes on using them when it gets a hosts.toml, as containerd's parser sees it.
func TestCertificatesStay(t *testing.T) {
	ca, cert, key := certificate(t)
	tests := map[string]struct {
		files map[string]string
		lines string
	}{
		"a CA":                {files: map[string]string{"ca.crt": ca}, lines: "ca = [\"ca.crt\"]\n"},
		"two CAs":             {files: map[string]string{"b.crt": ca, "a.crt": ca}, lines: "ca = [\"a.crt\", \"b.crt\"]\n"},
		"a client's pair":     {files: map[string]string{"client.cert": cert, "client.key": key}, lines: "client = [[\"client.cert\", \"client.key\"]]\n"},
		"a client's one file": {files: map[string]string{"client.cert": cert + key}, lines: "client = [\"client.cert\"]\n"},
		"both":                {files: map[string]string{"ca.crt": ca, "client.cert": cert, "client.key": key}, lines: "ca = [\"ca.crt\"]\nclient = [[\"client.cert\", \"client.key\"]]\n"},
	}
	const dir = "/certs.d/reg.example"
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			for file, content := range test.files {
				put(t, root, map[string]string{dir + "/" + file: content})
			}
			n, cfg := nodeAt(root), testConfig()
			cfg.Registries = []string{"reg.example"}
			before, err := n.readHosts(dir, "reg.example")
			if err != nil || len(before) != 1 {
				t.Fatalf("containerd reads %v (%v)", before, err)
			}
			if err := n.apply(t.Context(), hostsPlanned(t, n, []string{"/certs.d"}, cfg)); err != nil {
				t.Fatal(err)
			}
			content, err := n.read(dir + "/hosts.toml")
			if err != nil || !strings.Contains(string(content), test.lines) {
				t.Errorf("hosts.toml has not %q:\n%s", test.lines, content)
			}
			after, err := n.readHosts(dir, "reg.example")
			if err != nil || len(after) != 2 {
				t.Fatalf("containerd reads %v (%v)", after, err)
			}
			was, is := tlsOf(t, before[0]), tlsOf(t, after[1])
			if !was.RootCAs.Equal(is.RootCAs) || len(was.Certificates) != len(is.Certificates) || after[1].Host != before[0].Host {
				t.Error("the registry is no longer asked with its certificates")
			}
			for i := range was.Certificates {
				if !reflect.DeepEqual(was.Certificates[i].Certificate, is.Certificates[i].Certificate) {
					t.Error("another client certificate is used")
				}
			}
			if got := tlsOf(t, after[0]); len(got.Certificates) > 0 || after[0].Scheme != "http" {
				t.Error("the mirror is asked by TLS, or with the registry's certificate")
			}
		})
	}
}

// TestForeignHosts: the mirror is put before the hosts of somebody else's
// hosts.toml; every byte of theirs stays.
func TestForeignHosts(t *testing.T) {
	const block = "# larder init: from here\n[host.\"http://127.0.0.1:8000\"]\n  capabilities = [\"pull\", \"resolve\"]\n# larder init: to here\n"
	tests := map[string]struct{ before, after string }{
		"only a server":      {"server = \"https://x\"\n", "server = \"https://x\"\n" + block},
		"no line break":      {"server = \"https://x\"", "server = \"https://x\"\n" + block},
		"a comment":          {"# nothing here\n", "# nothing here\n" + block},
		"hosts":              {"server = \"https://x\"\n\n# a\n[host.\"https://a\"]\n  ca = \"a.crt\"\n[host.\"https://b\"]\n", "server = \"https://x\"\n\n# a\n" + block + "[host.\"https://a\"]\n  ca = \"a.crt\"\n[host.\"https://b\"]\n"},
		"a CA by its path":   {"[host.\"https://a\"]\n  ca = \"/etc/ssl/a.crt\"\n  client = [[\"/x\",\n \"/y\"]] # z\n", block + "[host.\"https://a\"]\n  ca = \"/etc/ssl/a.crt\"\n  client = [[\"/x\",\n \"/y\"]] # z\n"},
		"a header below":     {"[host.\"https://a\".header]\n  x = \"1\"\n", block + "[host.\"https://a\".header]\n  x = \"1\"\n"},
		"an older port":      {strings.ReplaceAll(block, "8000", "9000") + "[host.\"https://a\"]\n", block + "[host.\"https://a\"]\n"},
		"done by hand":       {"[host.\"http://127.0.0.1:8000\"]\n[host.\"https://a\"]\n", ""},
		"done, but second":   {"[host.\"https://a\"]\n[host.\"http://127.0.0.1:8000\"]\n", ""},
		"half written":       {"[host.\"https://a\"]\n  capab", ""},
		"half of our block":  {"# larder init: from here\n[host.\"https://a\"]\n", ""},
		"a table twice":      {"[host.\"https://a\"]\n[host.\"https://a\"]\n", ""},
		"inline, on 1.x":     {"[host]\n  \"http://[fd00::1]:8000\" = {capabilities = [\"pull\"]}\n", block + "[host]\n  \"http://[fd00::1]:8000\" = {capabilities = [\"pull\"]}\n"},
		"carriage returns":   {"server = \"https://x\"\r\n[host.\"https://a\"]\r\n", "server = \"https://x\"\r\n" + strings.ReplaceAll(block, "\n", "\r\n") + "[host.\"https://a\"]\r\n"},
		"keys of the server": {"server = \"https://x\"\nskip_verify = true\n[host.\"https://a\"]\n", "server = \"https://x\"\nskip_verify = true\n" + block + "[host.\"https://a\"]\n"},
	}
	const file = "/certs.d/_default/hosts.toml"
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			put(t, root, map[string]string{file: test.before})
			n := nodeAt(root)
			changes, err := n.planHosts([]string{"/certs.d"}, testConfig(), hostsOptions{})
			if test.after == "" && name != "done by hand" {
				if !errors.Is(err, errForeign) || len(changes) > 0 {
					t.Errorf("planned %v (%v)", changes, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if err := n.apply(t.Context(), changes); err != nil {
				t.Fatal(err)
			}
			want := test.after
			if want == "" {
				want = test.before
			}
			got, err := n.read(file)
			if err != nil || string(got) != want {
				t.Errorf("it has\n%s\nwant\n%s(%v)", got, want, err)
			}
			if files, _ := paths(hostsPlanned(t, n, []string{"/certs.d"}, testConfig())); len(files) > 0 {
				t.Errorf("planned again, it changes %v", files)
			}
			back, err := n.planUndo("/certs.d")
			if err != nil {
				t.Fatal(err)
			}
			if err := n.apply(t.Context(), back); err != nil {
				t.Fatal(err)
			}
			if got, err := n.read(file); err != nil || string(got) != test.before {
				t.Errorf("after the undo it has %q (%v)", got, err)
			}
		})
	}
}

// TestReadBackFails: what containerd would not read as meant is put back.
func TestReadBackFails(t *testing.T) {
	const file = "/certs.d/_default/hosts.toml"
	tests := map[string]string{
		"unknown capability": "[host.\"http://127.0.0.1:8000\"]\n  capabilities = [\"fly\"]\n",
		"no TOML":            "[host",
		"may push":           "[host.\"http://127.0.0.1:8000\"]\n",
		"another host first": "[host.\"http://127.0.0.1:9\"]\n  capabilities = [\"pull\", \"resolve\"]\n[host.\"http://127.0.0.1:8000\"]\n  capabilities = [\"pull\", \"resolve\"]\n",
		"tried by TLS":       "[host.\"http://127.0.0.1:8000\"]\n  capabilities = [\"pull\", \"resolve\"]\n  skip_verify = true\n",
	}
	for name, content := range tests {
		for _, before := range []string{"", "server = \"https://theirs\"\n"} {
			t.Run(name, func(t *testing.T) {
				root := t.TempDir()
				put(t, root, map[string]string{"certs.d/": ""})
				var old []byte
				if before != "" {
					old = []byte(before)
					put(t, root, map[string]string{file: before})
				}
				start := tree(t, root)
				n := nodeAt(root)
				c := edit(file, old, []byte(content), "")
				c.check = func() error { return n.checkHosts(filepath.Dir(file), []string{"http://127.0.0.1:8000"}) }
				if err := n.apply(t.Context(), []Change{c}); err == nil {
					t.Fatal("it was taken")
				}
				if now, err := n.read(file); err != nil || !bytes.Equal(now, old) {
					t.Errorf("it is %q now (%v), and was %q", now, err, old)
				}
				if before == "" {
					same(t, "after the failure", tree(t, root), start)
				}
			})
		}
	}
}

// FuzzAddHosts: whatever somebody else's hosts.toml is, what we add to it can be
// parsed, comes first, and can be taken out again.
func FuzzAddHosts(f *testing.F) {
	for _, seed := range []string{
		"", "server = \"https://x\"\n", "[host.\"https://a\"]\n  ca = \"a.crt\"\n", "[host]\n\"https://a\" = {}\n", "host.\"https://a\".ca = 'x'\r\n",
		"[[host]]\n", "# larder init: from here\n# larder init: to here\n", "# larder init: to here\n", "[host.'https://a'.header]\nx=1", "a = '''\n[host.b]\n'''\n",
	} {
		f.Add([]byte(seed))
	}
	tables := hostTables(Config{Mirror: netip.MustParseAddrPort("127.0.0.1:8000"), Fallback: []string{"https://b.example/v2/x"}}, hostsOptions{dialTimeout: true})
	f.Fuzz(func(t *testing.T, content []byte) {
		after, err := addHosts(content, tables)
		if err != nil || bytes.Equal(after, content) {
			return
		}
		_, order, err := parseHosts(after)
		if err != nil || len(order) < 2 || order[0] != "http://127.0.0.1:8000" || order[1] != "https://b.example/v2/x" {
			t.Fatalf("%q became %q: %v (%v)", content, after, order, err)
		}
		again, err := addHosts(after, tables)
		if err != nil || !bytes.Equal(again, after) {
			t.Fatalf("%q became %q, and then %q (%v)", content, after, again, err)
		}
		rest, err := withoutBlock(content)
		if err != nil {
			t.Fatal(err)
		}
		out, err := withoutBlock(after)
		if err != nil || !bytes.Equal(bytes.TrimRight(out, "\r\n"), bytes.TrimRight(rest, "\r\n")) {
			t.Fatalf("%q became %q, which without ours is %q (%v)", content, after, out, err)
		}
	})
}

// TestReadBackInAnImage: where there is no /tmp, what names certificates that are
// not seen from here is read back all the same.
func TestReadBackInAnImage(t *testing.T) {
	const dir = "/certs.d/reg.example"
	root := t.TempDir()
	put(t, root, map[string]string{dir + "/hosts.toml": "ca = \"/etc/pki/reg.crt\"\n[host.\"https://mirror.example\"]\n"})
	t.Setenv("TMPDIR", "/nonexistent")
	hosts, err := nodeAt(root).readHosts(dir, "reg.example")
	if err != nil || len(hosts) != 2 || hosts[0].Host != "mirror.example" {
		t.Errorf("containerd reads %v (%v)", hosts, err)
	}
}
