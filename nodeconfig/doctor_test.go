package nodeconfig

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// mirrorAt is something that answers as the mirror does, on both of its ports.
type mirrorAt struct {
	port    uint16
	admin   string
	ready   string // what /readyz says; empty for being ready
	metrics string
	// manifests are answered to clients, by path and query. ARCH is this
	// machine's architecture.
	manifests map[string]string
}

func startMirror(t *testing.T) *mirrorAt {
	t.Helper()
	m := &mirrorAt{}
	clients := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Server", "larder/test")
		if r.URL.Path == "/v2/" {
			return
		}
		text, ok := m.manifests[r.URL.RequestURI()]
		if !ok {
			w.WriteHeader(http.StatusNotFound)
		}
		fmt.Fprint(w, strings.ReplaceAll(text, "ARCH", runtime.GOARCH))
	}))
	t.Cleanup(clients.Close)
	operators := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/metrics":
			fmt.Fprint(w, m.metrics)
		case m.ready != "":
			w.WriteHeader(http.StatusServiceUnavailable)
			fmt.Fprint(w, m.ready)
		default:
			fmt.Fprint(w, `{"ready": true, "checks": {"running": "ok"}}`)
		}
	}))
	t.Cleanup(operators.Close)
	addr := netip.MustParseAddrPort(clients.Listener.Addr().String())
	m.port, m.admin = addr.Port(), operators.Listener.Addr().String()
	return m
}

// config is what doctor is told of the mirror.
func (m *mirrorAt) config() DoctorConfig {
	return DoctorConfig{Port: m.port, Admin: m.admin, MinFree: 0.25}
}

// url is the mirror as configurations name it.
func (m *mirrorAt) url() string { return fmt.Sprintf("http://127.0.0.1:%d", m.port) }

// diagnose makes a diagnosis on a machine whose clock is right.
func diagnose(t *testing.T, target Target, n *Node, cfg DoctorConfig) Diagnosis {
	t.Helper()
	d := &doctor{
		node: n, target: target, cfg: cfg, now: time.Now, synced: func() (bool, error) { return true, nil },
		local: []netip.Addr{netip.MustParseAddr("10.0.0.7")},
	}
	d.run(t.Context())
	return Diagnosis{Findings: d.found, Uses: !slices.ContainsFunc(d.found, func(f Finding) bool { return f.Verdict == Bad })}
}

// has demands a finding: "check verdict evidence", the last being a part of it,
// and the remedy's if there is a "->".
func has(t *testing.T, d Diagnosis, want string) {
	t.Helper()
	check, rest, _ := strings.Cut(want, " ")
	verdict, rest, _ := strings.Cut(rest, " ")
	evidence, remedy, _ := strings.Cut(rest, " -> ")
	for _, f := range d.Findings {
		if f.Check == check && string(f.Verdict) == verdict && strings.Contains(f.Evidence, evidence) && strings.Contains(f.Remedy, remedy) {
			return
		}
	}
	t.Errorf("no finding is %q in\n%s", want, told(d))
}

func told(d Diagnosis) string {
	var b strings.Builder
	for _, f := range d.Findings {
		fmt.Fprintf(&b, "%s %s %s -> %s\n", f.Check, f.Verdict, f.Evidence, f.Remedy)
	}
	return b.String()
}

const hostsFor = "server = \"\"\n\n[host.\"MIRROR\"]\n  capabilities = [\"pull\", \"resolve\"]\n"

const v2Path = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\n  config_path = \"/etc/containerd/certs.d\"\n"

const v3 = "version = 3\n[plugins.\"io.containerd.cri.v1.images\"]\n  IMAGES\n[plugins.\"io.containerd.cri.v1.images\".registry]\n  REGISTRY\n"

func containerd3(images, registry string) string {
	return strings.NewReplacer("IMAGES", images, "REGISTRY", registry).Replace(v3)
}

const oneDir = `config_path = "/etc/containerd/certs.d"`

func TestDoctorOfContainerd(t *testing.T) {
	const (
		config = "etc/containerd/config.toml"
		def    = "etc/containerd/certs.d/_default/hosts.toml"
		list   = `config_path = "/etc/containerd/certs.d:/etc/docker/certs.d"`
	)
	for name, c := range map[string]struct {
		version string
		files   map[string]string
		named   []string
		uses    bool
		has     []string
	}{
		"as it should be": {
			"1.7.27",
			map[string]string{config: v2Path, def: hostsFor},
			nil, true,
			[]string{"config_path ok /etc/containerd/certs.d", "hosts.toml ok _default/hosts.toml, as containerd reads it: MIRROR, then the registry itself", "transfer ok containerd 1.7.27 fetches in its CRI plugin", "shadowing ok 0 registries", "port ok larder answers at 127.0.0.1:", "mirror ok it is ready", "snapshotter ok", "disk ok no kubelet", "proxy ok no proxy catches 127.0.0.1", "clock ok", "runtime warn containerd 1.7.27 (as told); it does not answer"},
		},
		"no configuration":     {"1.7.27", map[string]string{"etc/": ""}, nil, false, []string{"config_path fail sets no config_path -> larder init --target containerd --port"}},
		"the built-in list":    {"2.2.4", map[string]string{"etc/": ""}, nil, false, []string{"config_path ok /etc/containerd/certs.d, then /etc/docker/certs.d (built in)", "transfer warn takes the list in config_path for one directory, /etc/containerd/certs.d:/etc/docker/certs.d", "hosts.toml fail /etc/containerd/certs.d:/etc/docker/certs.d/_default/hosts.toml: there is no such directory"}},
		"the list, local pull": {"2.1.5", map[string]string{config: containerd3("discard_unpacked_layers = true", list), def: hostsFor}, nil, true, []string{"transfer ok in the CRI plugin, because of discard_unpacked_layers = true", "hosts.toml ok /etc/containerd/certs.d/_default/hosts.toml"}},
		"the list, transfer":   {"2.1.5", map[string]string{config: containerd3("", list), def: hostsFor}, nil, false, []string{"hosts.toml fail /etc/containerd/certs.d:/etc/docker/certs.d/_default/hosts.toml: there is no such directory"}},
		"one path, transfer":   {"2.1.5", map[string]string{config: containerd3("", oneDir), def: hostsFor}, nil, true, []string{"transfer ok by the transfer service, which reads the one directory"}},
		"another port":         {"1.7.27", map[string]string{config: v2Path, def: strings.ReplaceAll(hostsFor, "MIRROR", "http://127.0.0.1:9")}, nil, false, []string{"hosts.toml fail containerd asks http://127.0.0.1:9, then https://registry.example, and not the mirror at port"}},
		"another machine":      {"1.7.27", map[string]string{config: v2Path, def: strings.ReplaceAll(hostsFor, "MIRROR", "http://10.0.0.8:PORT")}, nil, false, []string{"hosts.toml fail containerd asks http://10.0.0.8:"}},
		"not the first":        {"1.7.27", map[string]string{config: v2Path, def: "[host.\"https://m.test\"]\n" + hostsFor[len("server = \"\"\n"):]}, nil, true, []string{"hosts.toml warn containerd asks https://m.test, then MIRROR, then https://registry.example: the mirror is not the first"}},
		"no TOML":              {"1.7.27", map[string]string{config: v2Path, def: hostsFor + hostsFor}, nil, false, []string{"hosts.toml fail /etc/containerd/certs.d/_default/hosts.toml: containerd ignores"}},
		"IPv6 on 1.x":          {"1.7.27", map[string]string{config: v2Path, def: strings.ReplaceAll(hostsFor, "MIRROR", "http://[::1]:PORT")}, nil, false, []string{"hosts.toml fail names an IPv6 address, and containerd 1.7.27 ignores such a file"}},
		"referrers on 2.1":     {"2.1.5", map[string]string{config: containerd3("", oneDir), def: strings.Replace(hostsFor, `"resolve"`, `"resolve", "referrers"`, 1)}, nil, false, []string{"hosts.toml fail has the capability referrers, and containerd 2.1.5 ignores"}},
		"shadowed":             {"2.1.5", map[string]string{config: containerd3("", oneDir), def: hostsFor, "etc/containerd/certs.d/quay.io/ca.crt": "x", "etc/containerd/certs.d/reg.test_5000_/hosts.toml": hostsFor}, nil, true, []string{"shadowing warn /etc/containerd/certs.d/quay.io is for quay.io alone and does not name the mirror -> --registry quay.io"}},
		"shadowed, named":      {"2.1.5", map[string]string{config: containerd3("", oneDir), def: hostsFor, "etc/containerd/certs.d/quay.io/": ""}, []string{"quay.io"}, false, []string{"shadowing fail /etc/containerd/certs.d/quay.io"}},
		"own, mirrored":        {"2.1.5", map[string]string{config: containerd3("", oneDir), def: hostsFor, "etc/containerd/certs.d/quay.io/hosts.toml": hostsFor}, []string{"quay.io"}, true, []string{"shadowing ok 1 registries have a directory of their own, and all name the mirror"}},
		"conflict":             {"1.7.27", map[string]string{config: v2Path + "[plugins.\"io.containerd.grpc.v1.cri\".registry.mirrors.\"docker.io\"]\n  endpoint = [\"https://m.test\"]\n"}, nil, false, []string{`legacy fail has config_path and registry.mirrors."docker.io": containerd does not load its CRI plugin with both`}},
		"inline mirrors":       {"1.7.27", map[string]string{config: "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry.mirrors.\"*\"]\n  endpoint = [\"MIRROR\"]\n[plugins.\"io.containerd.grpc.v1.cri\".registry.mirrors.\"quay.io\"]\n  endpoint = [\"https://m.test\"]\n"}, nil, true, []string{`legacy ok has the mirror as registry.mirrors."*"`, `shadowing warn registry.mirrors."quay.io" is for quay.io alone`}},
		"others inline":        {"1.7.27", map[string]string{config: "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry.mirrors.\"docker.io\"]\n  endpoint = [\"MIRROR\"]\n"}, nil, false, []string{"legacy fail has registry.mirrors, and none for all registries"}},
		"SOCI":                 {"2.1.5", map[string]string{config: containerd3("snapshotter = \"soci\"", oneDir), def: hostsFor}, nil, true, []string{"snapshotter warn soci may fetch layers by itself"}},
		"stargz for a runtime": {"1.7.27", map[string]string{config: v2Path + "[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc]\n  snapshotter = \"stargz\"\n", def: hostsFor}, nil, true, []string{"snapshotter warn stargz may"}},
		"garbage":              {"1.7.27", map[string]string{config: "version = 2\nx = [\n"}, nil, false, []string{"runtime fail parse /etc/containerd/config.toml: line 2"}},
		"from the future":      {"1.7.27", map[string]string{config: v2Path, def: hostsFor, "etc/hostname": "FUTURE"}, nil, true, []string{"clock warn /etc/hostname was written at"}},
	} {
		t.Run(name, func(t *testing.T) {
			m := startMirror(t)
			fill := strings.NewReplacer("MIRROR", m.url(), "PORT", fmt.Sprint(m.port))
			root := t.TempDir()
			files := map[string]string{}
			for name, content := range c.files {
				files[name] = fill.Replace(content)
			}
			put(t, root, files)
			if name == "from the future" {
				future := time.Now().Add(time.Hour)
				if err := os.Chtimes(filepath.Join(root, "etc/hostname"), future, future); err != nil {
					t.Fatal(err)
				}
			}
			n := nodeAt(root)
			n.ContainerdVersion = c.version
			before := tree(t, root)
			cfg := m.config()
			cfg.Registries = c.named
			d := diagnose(t, newContainerd(n), n, cfg)
			for _, want := range c.has {
				has(t, d, fill.Replace(want))
			}
			if d.Uses != c.uses {
				t.Errorf("it uses the mirror: %v\n%s", d.Uses, told(d))
			}
			same(t, "after the diagnosis", tree(t, root), before)
		})
	}
}

// TestDoctorFindsWhatInitDoes: what every target writes is what doctor looks for.
func TestDoctorFindsWhatInitDoes(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		make  func(*Node) Target
		has   string
	}{
		"containerd":   {map[string]string{"etc/containerd/config.toml": v2Path}, func(n *Node) Target { return newContainerd(n) }, "hosts.toml ok"},
		"k3s":          {map[string]string{"var/lib/rancher/k3s/agent/etc/containerd/config.toml": k3sConfig}, func(n *Node) Target { return newRancher(n, "k3s") }, "hosts.toml ok /var/lib/rancher/k3s/agent/etc/containerd/certs.d/_default/hosts.toml"},
		"crio":         {map[string]string{"etc/crio/": ""}, func(n *Node) Target { return newCRIO(n) }, "registries.conf ok mirrored are docker.io, and no others"},
		"docker":       {map[string]string{"etc/docker/": ""}, func(n *Node) Target { return newDocker(n) }, "daemon.json ok registry-mirrors has the mirror"},
		"bottlerocket": {map[string]string{"usr/lib/os-release": osRelease, "etc/containerd/config.toml": v2Path}, func(n *Node) Target { return newBottlerocket(n) }, "hosts.toml ok"},
	} {
		t.Run(name, func(t *testing.T) {
			m := startMirror(t)
			root := t.TempDir()
			put(t, root, c.files)
			n := nodeAt(root)
			if name != "k3s" {
				n.ContainerdVersion = "1.7.27"
			}
			cfg := m.config()
			if name == "crio" {
				cfg.Registries = []string{"docker.io"}
			}
			if d := diagnose(t, c.make(n), n, cfg); d.Uses {
				t.Errorf("before init, it uses the mirror:\n%s", told(d))
			}
			target := c.make(n)
			wanted := Config{Mirror: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), m.port), Registries: cfg.Registries}
			if err := target.Apply(t.Context(), planned(t, target, wanted)); err != nil {
				t.Fatal(err)
			}
			d := diagnose(t, c.make(n), n, cfg)
			if has(t, d, c.has); !d.Uses {
				t.Errorf("after init, it does not use the mirror:\n%s", told(d))
			}
		})
	}
}

func TestDoctorOfK3s(t *testing.T) {
	m := startMirror(t)
	root := t.TempDir()
	const agent = "var/lib/rancher/k3s/agent/etc/containerd/"
	put(t, root, map[string]string{agent + "config.toml": k3sConfig, agent + "certs.d/_default/hosts.toml": strings.NewReplacer("MIRROR", m.url(), "server = \"\"\n", "").Replace(hostsFor)})
	n := nodeAt(root)
	has(t, diagnose(t, newRancher(n, "k3s"), n, m.config()), `fallback warn has no server line, which k3s takes for none: without the mirror nothing can be pulled -> add server = ""`)
}

func TestDoctorOfBottlerocket(t *testing.T) {
	m := startMirror(t)
	entry := `{"registry":"*","endpoint":["` + m.url() + `"]}`
	a, n := startAPI(t, `{"mirrors":[`+entry+`],"credentials":[{"registry":"ghcr.io","auth":"c2VjcmV0"}]}`)
	put(t, ".", map[string]string{"etc/containerd/config.toml": containerd3("", oneDir), "etc/containerd/certs.d/_default/hosts.toml": strings.ReplaceAll(hostsFor, "MIRROR", m.url())})
	n.ContainerdVersion = "2.1.5"
	d := diagnose(t, newBottlerocket(n), n, m.config())
	has(t, d, `settings ok settings.container-registry.mirrors has `+m.url()+` for "*"`)
	has(t, d, "shadowing warn settings.container-registry.credentials is for ghcr.io alone")
	if !d.Uses || strings.Contains(told(d), "c2VjcmV0") {
		t.Errorf("it says\n%s", told(d))
	}
	if n := a.Commits(); n != 0 {
		t.Errorf("a diagnosis commits %d times", n)
	}
	a.Close()
	_, n = startAPI(t, `{"mirrors":[]}`)
	has(t, diagnose(t, newBottlerocket(n), n, m.config()), `settings fail has no entry "*" with the mirror -> larder init --target bottlerocket`)
}

func TestDoctorOfCRIO(t *testing.T) {
	const drops = "etc/containers/registries.conf.d/"
	entry := "[[registry]]\nprefix = \"REG\"\nlocation = \"REG\"\n\n[[registry.mirror]]\nlocation = \"127.0.0.1:PORT/f/REG\"\ninsecure = true\n"
	for name, c := range map[string]struct {
		files map[string]string
		named []string
		has   string
	}{
		"nothing":          {nil, nil, "registries.conf fail no registry has the mirror -> --registry docker.io"},
		"garbage":          {map[string]string{drops + "x.conf": "[["}, nil, "registries.conf fail read /etc/containers/registries.conf.d/x.conf: line 1"},
		"by hand":          {map[string]string{"etc/containers/registries.conf": strings.ReplaceAll(entry, "REG", "quay.io")}, []string{"quay.io"}, "registries.conf ok mirrored are quay.io"},
		"one missing":      {map[string]string{"etc/containers/registries.conf": strings.ReplaceAll(entry, "REG", "quay.io")}, []string{"quay.io", "ghcr.io"}, "registries.conf fail ghcr.io does not have the mirror -> --registry ghcr.io"},
		"TLS expected":     {map[string]string{"etc/containers/registries.conf": strings.NewReplacer("REG", "quay.io", "insecure = true\n", "").Replace(entry)}, nil, "registries.conf fail no registry"},
		"another port":     {map[string]string{drops + "50-larder-quay.io.conf": mark + strings.NewReplacer("REG", "quay.io", "PORT", "9").Replace(entry)}, nil, "registries.conf warn /etc/containers/registries.conf.d/50-larder-quay.io.conf does not name the mirror"},
		"replaced by file": {map[string]string{drops + "50-larder-quay.io.conf": mark + strings.ReplaceAll(entry, "REG", "quay.io"), drops + "99-x.conf": "[[registry]]\nlocation = \"quay.io\"\n"}, nil, "shadowing warn /etc/containers/registries.conf.d/99-x.conf replaces the entry for quay.io"},
	} {
		t.Run(name, func(t *testing.T) {
			m := startMirror(t)
			root := t.TempDir()
			for file, content := range c.files {
				put(t, root, map[string]string{file: strings.ReplaceAll(content, "PORT", fmt.Sprint(m.port))})
			}
			n, cfg := nodeAt(root), m.config()
			cfg.Registries = c.named
			has(t, diagnose(t, newCRIO(n), n, cfg), c.has)
		})
	}
}

// TestDoctorOfDocker asks an engine that runs what it was started with.
func TestDoctorOfDocker(t *testing.T) {
	m := startMirror(t)
	for name, c := range map[string]struct {
		daemon, info string
		has          []string
	}{
		"not running":     {`{"registry-mirrors": ["MIRROR/"]}`, "", []string{"daemon.json ok", "runtime unknown ask Docker"}},
		"not configured":  {`{"registry-mirrors": ["https://m.test"]}`, "", []string{"daemon.json fail registry-mirrors are https://m.test, and not the mirror"}},
		"garbage":         {"{\n x", "", []string{"daemon.json fail /etc/docker/daemon.json: line 2"}},
		"not reloaded":    {`{"registry-mirrors": ["MIRROR"]}`, `{"ServerVersion": "29.0.1", "RegistryConfig": {"Mirrors": []}}`, []string{"runtime ok Docker 29.0.1 answers", "restart fail the running engine's mirrors are none -> systemctl reload docker"}},
		"classic":         {`{"registry-mirrors": ["MIRROR"]}`, `{"ServerVersion": "20.10.5", "DriverStatus": [["Backing Filesystem", "extfs"]], "RegistryConfig": {"Mirrors": ["MIRROR/"]}}`, []string{"registries warn mirrors for docker.io only"}},
		"containerd's":    {`{"registry-mirrors": ["MIRROR"]}`, `{"ServerVersion": "29.0.1", "DriverStatus": [["driver-type", "io.containerd.snapshotter.v1"]], "RegistryConfig": {"Mirrors": ["MIRROR/"]}}`, []string{"hosts.toml ok /etc/docker/certs.d/_default/hosts.toml"}},
		"an odd answer":   {`{"registry-mirrors": ["MIRROR"]}`, `[]`, []string{"runtime unknown ask Docker: json"}},
		"mirrors, a text": {`{"registry-mirrors": "MIRROR"}`, "", []string{`daemon.json fail "registry-mirrors" is not a list`}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			fill := strings.NewReplacer("MIRROR", m.url())
			put(t, ".", map[string]string{"etc/docker/daemon.json": fill.Replace(c.daemon), "etc/docker/certs.d/_default/hosts.toml": fill.Replace(hostsFor), "run/": ""})
			if c.info != "" {
				l, err := net.Listen("unix", "run/docker.sock")
				if err != nil {
					t.Fatal(err)
				}
				engine := &httptest.Server{Listener: l, Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if r.URL.Path == "/info" {
						fmt.Fprint(w, fill.Replace(c.info))
					}
				})}}
				engine.Start()
				t.Cleanup(engine.Close)
			}
			n := nodeAt(".")
			d := diagnose(t, newDocker(n), n, m.config())
			for _, want := range c.has {
				has(t, d, want)
			}
		})
	}
}

func TestDoctorOfTheMirror(t *testing.T) {
	root := t.TempDir()
	put(t, root, map[string]string{"etc/containerd/config.toml": v2Path})
	n := nodeAt(root)
	n.ContainerdVersion = "1.7.27"
	ask := func(t *testing.T, cfg DoctorConfig) Diagnosis {
		t.Helper()
		return diagnose(t, newContainerd(n), n, cfg)
	}
	t.Run("not ready", func(t *testing.T) {
		m := startMirror(t)
		m.ready = `{"ready": false, "checks": {"running": "stopping", "keeping content": "ok"}}`
		has(t, ask(t, m.config()), "mirror fail it is not ready: running: stopping")
	})
	t.Run("ready with a complaint", func(t *testing.T) {
		m := startMirror(t)
		m.ready = `{"ready": true, "checks": {"running": "ok", "keeping content": "the disk is full"}}`
		has(t, ask(t, m.config()), "mirror warn it is ready, but keeping content: the disk is full")
	})
	t.Run("garbage", func(t *testing.T) {
		m := startMirror(t)
		m.ready = "<html>"
		has(t, ask(t, m.config()), "mirror unknown ask its port for operators: invalid character")
	})
	t.Run("bypassed", func(t *testing.T) {
		m := startMirror(t)
		m.metrics = "larder_bypassed{registry=\"docker.io\"} 2\nlarder_bypassed{registry=\"quay.io\"} 1\n"
		has(t, ask(t, m.config()), "bypassed warn 3 image manifests lately and for none of their layers")
	})
	t.Run("nobody", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		port := netip.MustParseAddrPort(l.Addr().String()).Port()
		l.Close()
		d := ask(t, DoctorConfig{Port: port})
		has(t, d, "port fail nobody listens at 127.0.0.1:")
		has(t, d, "mirror unknown its port for operators was not named")
	})
	t.Run("somebody else", func(t *testing.T) {
		other := httptest.NewServer(http.NotFoundHandler())
		t.Cleanup(other.Close)
		has(t, ask(t, DoctorConfig{Port: netip.MustParseAddrPort(other.Listener.Addr().String()).Port()}), "port fail somebody else listens there: it answers 404 Not Found -> another port")
	})
	t.Run("interrupted", func(t *testing.T) {
		m := startMirror(t)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if d := Diagnose(ctx, n, newContainerd(n), "", m.config()); d.Uses || d.Kind != "containerd" {
			t.Errorf("it says %+v", d)
		}
	})
}

func TestDoctorOfTheDisk(t *testing.T) {
	for name, c := range map[string]struct {
		files   map[string]string
		minFree float64
		has     string
	}{
		"defaults":          {nil, 0.25, "disk ok kubelet acts when less than 15% is free"},
		"unknown":           {nil, 0, "disk unknown what the mirror leaves free is not known as a share -> write min_free in per cent"},
		"too little":        {nil, 0.10, "disk warn and the mirror leaves only 10%: kubelet deletes images before the mirror gives way -> set min_free to 20% or more"},
		"kubeadm":           {map[string]string{"var/lib/kubelet/config.yaml": "imageGCHighThresholdPercent: 70\n"}, 0.25, "disk warn less than 30% is free (imageGCHighThresholdPercent, /var/lib/kubelet/config.yaml) -> 35%"},
		"EKS":               {map[string]string{"etc/kubernetes/kubelet/config.json": `{"evictionHard": {"nodefs.available": "10%", "imagefs.available": "20%"}}`}, 0.25, "disk ok less than 20% is free (imagefs.available, /etc/kubernetes/kubelet/config.json)"},
		"EKS with drop-ins": {map[string]string{"etc/kubernetes/kubelet/config.json": "{}", "etc/kubernetes/kubelet/config.json.d/40-x.conf": `{"imageGCHighThresholdPercent": 60}`}, 0.25, "disk warn less than 40% is free"},
		"in bytes":          {map[string]string{"var/lib/kubelet/config.yaml": "evictionHard: {nodefs.available: 1Gi}\n"}, 0.25, "disk ok less than 15% is free (imageGCHighThresholdPercent"},
		"garbage":           {map[string]string{"var/lib/kubelet/config.yaml": "\t["}, 0.25, "disk ok less than 15%"},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			put(t, root, map[string]string{"var/lib/kubelet/": ""})
			put(t, root, c.files)
			d := &doctor{node: nodeAt(root), cfg: DoctorConfig{MinFree: c.minFree}}
			d.checkDisk(samples{{name: "larder_fs_free_ratio", value: 0.5}})
			has(t, Diagnosis{Findings: d.found}, c.has)
			has(t, Diagnosis{Findings: d.found}, d.found[0].Check+" "+string(d.found[0].Verdict)+" 50% is free where the mirror keeps its data")
		})
	}
}

func TestDoctorOfTheProxy(t *testing.T) {
	const secret = "http://user:hunter2@proxy.test:3128"
	for name, c := range map[string]struct {
		files  map[string]string
		mirror string
		target func(*Node) Target
		has    string
	}{
		"in the process":       {map[string]string{"proc/7/comm": "containerd\n", "proc/7/environ": "A=b\x00HTTP_PROXY=" + secret + "\x00NO_PROXY=127.0.0.1\x00"}, "10.0.0.7:8000", nil, "proxy fail HTTP_PROXY is set (the environment of containerd, process 7), and NO_PROXY does not except 10.0.0.7 -> add 10.0.0.7 to NO_PROXY"},
		"excepted":             {map[string]string{"proc/7/comm": "containerd\n", "proc/7/environ": "http_proxy=" + secret + "\x00no_proxy=10.0.0.0/8\x00"}, "10.0.0.7:8000", nil, "proxy ok no proxy catches 10.0.0.7"},
		"loopback":             {map[string]string{"proc/7/comm": "containerd\n", "proc/7/environ": "HTTP_PROXY=" + secret + "\x00"}, "127.0.0.1:8000", nil, "proxy ok no proxy catches 127.0.0.1"},
		"of another process":   {map[string]string{"proc/7/comm": "bash\n", "proc/7/environ": "HTTP_PROXY=" + secret + "\x00"}, "10.0.0.7:8000", nil, "proxy ok (its unit sets none)"},
		"in the unit":          {map[string]string{"etc/systemd/system/containerd.service.d/p.conf": "[Service]\nEnvironment=\"HTTP_PROXY=" + secret + "\" 'NO_PROXY=x y'\n"}, "10.0.0.7:8000", nil, "proxy fail HTTP_PROXY is set (/etc/systemd/system/containerd.service.d/p.conf)"},
		"in the unit's file":   {map[string]string{"usr/lib/systemd/system/containerd.service": "EnvironmentFile=-/etc/environment\n", "etc/environment": "# x\nexport HTTP_PROXY=\"" + secret + "\"\n"}, "10.0.0.7:8000", nil, "proxy fail HTTP_PROXY is set (/etc/environment)"},
		"excepted in the unit": {map[string]string{"usr/lib/systemd/system/containerd.service": "Environment=HTTP_PROXY=" + secret + " NO_PROXY=10.0.0.7\n"}, "10.0.0.7:8000", nil, "proxy ok"},
		"k3s":                  {map[string]string{"etc/systemd/system/k3s.service": "", "etc/systemd/system/k3s.service.env": "HTTP_PROXY=" + secret + "\n"}, "10.0.0.7:8000", func(n *Node) Target { return newRancher(n, "k3s") }, "proxy fail (/etc/systemd/system/k3s.service.env)"},
		"no URL":               {map[string]string{"proc/7/comm": "crio\n", "proc/7/environ": "HTTP_PROXY=http://[\x00"}, "10.0.0.7:8000", func(n *Node) Target { return newCRIO(n) }, "proxy fail"},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			put(t, root, c.files)
			n := nodeAt(root)
			d := &doctor{node: n, target: newContainerd(n), mirror: netip.MustParseAddrPort(c.mirror)}
			if c.target != nil {
				d.target = c.target(n)
			}
			d.checkProxy()
			if has(t, Diagnosis{Findings: d.found}, c.has); strings.Contains(told(Diagnosis{Findings: d.found}), "hunter2") {
				t.Error("a password is told")
			}
		})
	}
}

func TestDoctorOfTheClock(t *testing.T) {
	n := nodeAt(t.TempDir())
	for _, c := range []struct {
		synced bool
		err    error
		has    string
	}{
		{true, nil, "clock ok synchronised"},
		{false, nil, "clock warn not synchronised -> start chrony"},
		{false, os.ErrPermission, "clock unknown ask the kernel: permission denied"},
	} {
		d := &doctor{node: n, now: time.Now, synced: func() (bool, error) { return c.synced, c.err }}
		d.checkClock()
		has(t, Diagnosis{Findings: d.found}, c.has)
	}
	if _, err := kernelSynced(); err != nil {
		t.Errorf("the kernel does not say: %v", err)
	}
}
