package nodeconfig

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// runtimeAt is a container runtime as far as CRI goes: HTTP/2 on a socket.
type runtimeAt struct {
	has    atomic.Bool
	pulled atomic.Pointer[string]
	// onPull happens when an image is pulled; answer replaces every answer.
	onPull func()
	answer func(w http.ResponseWriter, r *http.Request)
}

// startRuntime serves it below a node's root, which is short.
func startRuntime(t *testing.T) (*runtimeAt, *Node) {
	t.Helper()
	t.Chdir(t.TempDir())
	put(t, ".", map[string]string{"run/containerd/": "", "etc/containerd/config.toml": v2Path})
	l, err := net.Listen("unix", "run/containerd/containerd.sock")
	if err != nil {
		t.Fatal(err)
	}
	rt := &runtimeAt{}
	server := &http.Server{Handler: rt, Protocols: new(http.Protocols)}
	server.Protocols.SetUnencryptedHTTP2(true)
	done := make(chan struct{})
	// Ends when the server is closed.
	go func() {
		defer close(done)
		_ = server.Serve(l)
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-done
	})
	return rt, nodeAt(".")
}

func field(number protowire.Number, value string) []byte {
	return protowire.AppendString(protowire.AppendTag(nil, number, protowire.BytesType), value)
}

func framed(message []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...)
}

// ServeHTTP answers the calls doctor makes, as containerd does.
func (rt *runtimeAt) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if rt.answer != nil {
		rt.answer(w, r)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil || r.Header.Get("Content-Type") != "application/grpc" || r.Header.Get("Te") != "trailers" {
		w.WriteHeader(http.StatusUnsupportedMediaType)
		return
	}
	message, err := unframe(body)
	spec, fieldsErr := stringFields(message)
	inner, innerErr := stringFields([]byte(spec[1]))
	if err != nil || fieldsErr != nil || innerErr != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/grpc")
	w.Header().Set("Trailer", "Grpc-Status, Grpc-Message")
	var answer []byte
	switch method := strings.TrimPrefix(r.URL.Path, "/runtime.v1."); method {
	case "ImageService/ImageStatus":
		if rt.has.Load() {
			answer = field(1, string(field(1, "sha256:1")))
		}
	case "ImageService/PullImage":
		image := inner[1]
		rt.pulled.Store(&image)
		if rt.onPull != nil {
			rt.onPull()
		}
		answer = field(1, "sha256:1")
	default:
		w.Header().Set("Grpc-Status", "12")
		w.Header().Set("Grpc-Message", "unknown service "+method)
		return
	}
	_, _ = w.Write(framed(answer))
	w.Header().Set("Grpc-Status", "0")
}

func TestCRI(t *testing.T) {
	rt, n := startRuntime(t)
	host, err := n.host("/run/containerd/containerd.sock")
	if err != nil {
		t.Fatal(err)
	}
	c := newCRI(host)
	t.Cleanup(c.close)
	for _, has := range []bool{false, true} {
		rt.has.Store(has)
		if got, err := c.hasImage(t.Context(), "a:1"); err != nil || got != has {
			t.Errorf("it has the image: %v, %v", got, err)
		}
	}
	if ref, err := c.pull(t.Context(), "docker.io/library/a:1"); err != nil || ref != "sha256:1" || *rt.pulled.Load() != "docker.io/library/a:1" {
		t.Errorf("pulled %s, %v", ref, err)
	}
	for name, answer := range map[string]struct {
		answer func(w http.ResponseWriter, r *http.Request)
		err    string
	}{
		"refused": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/grpc")
			w.Header().Set("Grpc-Status", "5")
			w.Header().Set("Grpc-Message", "not found: a%3A1")
		}, "not found: a:1 (gRPC status 5)"},
		"no gRPC":     {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(404) }, "the answer is no gRPC: 404"},
		"cut":         {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "call ImageService/PullImage: "},
		"empty":       {func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Grpc-Status", "0") }, "no single message"},
		"two answers": {answering(slices.Concat(framed(nil), framed(nil))), "no single message"},
		"compressed":  {answering([]byte{1, 0, 0, 0, 0}), "no single message"},
		"garbage":     {answering(framed([]byte{0xff})), "read answer"},
		"too long":    {answering(framed(make([]byte, maxMessage+100))), "longer than 4194304 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			rt.answer = answer.answer
			if _, err := c.pull(t.Context(), "a:1"); err == nil || !strings.Contains(err.Error(), answer.err) || strings.Contains(err.Error(), "http://") {
				t.Errorf("error is %v", err)
			}
		})
	}
}

func answering(body []byte) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Trailer", "Grpc-Status")
		_, _ = w.Write(body)
		w.Header().Set("Grpc-Status", "0")
	}
}

// TestDoctorPulls: what the mirror's counters say decides.
func TestDoctorPulls(t *testing.T) {
	const before = "# HELP larder_requests_total x\nlarder_requests_total{registry=\"docker.io\",kind=\"manifest\",outcome=\"hit\",code=\"200\"} 5\n"
	counted := func(manifests, blobs int, more string) string {
		return strings.Replace(before, "} 5", fmt.Sprintf("} %d", 5+manifests), 1) +
			fmt.Sprintf("larder_requests_total{registry=\"docker.io\",kind=\"blob\",outcome=\"fill\",code=\"200\"} %d\n", blobs) + more
	}
	for name, c := range map[string]struct {
		had   bool
		after string
		has   string
		image string // what is pulled; docker.io/library/a:1 if empty
	}{
		"all of it":        {false, counted(3, 3, "larder_served_bytes_total{registry=\"docker.io\",source=\"upstream\"} 1234\n"), "pull ok the mirror answered 3 requests for image manifests and 3 for blobs, 1234 bytes (fill 3, hit 3)", ""},
		"past it":          {false, before, "pull fail answered 0 requests for image manifests and 0 for blobs, 0 bytes (no request): it came past the mirror -> larder init", ""},
		"no layers":        {false, counted(3, 0, ""), "pull fail the image manifest came through the mirror, and no layer did -> look at snapshotter", ""},
		"the config only":  {false, counted(3, 1, ""), "pull fail the image manifest came through the mirror, and no layer did", ""},
		"some layers":      {false, counted(3, 2, ""), "pull warn of 2 layers and a config; the others were on the node", ""},
		"had it":           {true, counted(1, 0, ""), "pull warn the node had the image already, so its layers were not asked for -> name an image", ""},
		"had it, no word":  {true, before, "pull fail nothing is proved, because the node had the image already", ""},
		"refused":          {false, before + "larder_requests_total{registry=\"docker.io\",kind=\"manifest\",outcome=\"miss\",code=\"404\"} 2\n", "pull fail (miss 404 2): it came past the mirror", ""},
		"another registry": {false, before + "larder_requests_total{registry=\"quay.io\",kind=\"manifest\",outcome=\"hit\",code=\"200\"} 2\n", "pull fail answered 0 requests", ""},
		"among the others": {false, before + "larder_requests_total{registry=\"other\",kind=\"manifest\",outcome=\"hit\",code=\"200\"} 2\nlarder_requests_total{registry=\"other\",kind=\"blob\",outcome=\"hit\",code=\"206\"} 4\n", "pull ok 2 requests for image manifests and 4 for blobs", "reg.test:5000/a@sha256:1"},
	} {
		t.Run(name, func(t *testing.T) {
			rt, n := startRuntime(t)
			m := startMirror(t)
			m.metrics = before
			rt.has.Store(c.had)
			rt.onPull = func() { m.metrics = c.after }
			m.manifests = map[string]string{
				"/v2/library/a/manifests/1?ns=docker.io":        `{"manifests": [{"digest": "sha256:2", "platform": {"os": "linux", "architecture": "ARCH"}}, {"digest": "sha256:9", "platform": {"os": "x", "architecture": "y"}}]}`,
				"/v2/library/a/manifests/sha256:2?ns=docker.io": `{"layers": [{"digest": "sha256:3"}, {"digest": "sha256:4"}, {"digest": "sha256:4"}]}`,
			}
			d := &doctor{node: n, target: newContainerd(n), cfg: m.config(), now: time.Now, mirror: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), m.port)}
			d.cfg.Pull = "a:1"
			want := "docker.io/library/a:1"
			if c.image != "" {
				d.cfg.Pull, want = c.image, c.image
			}
			d.checkPull(t.Context(), "/run/containerd/containerd.sock")
			has(t, Diagnosis{Findings: d.found}, c.has)
			if got := rt.pulled.Load(); got == nil || *got != want {
				t.Errorf("pulled %v, want %s", got, want)
			}
		})
	}
}

// TestDoctorPullsNothingInVain: without a runtime, or counters to read, nothing
// is pulled.
func TestDoctorPullsNothingInVain(t *testing.T) {
	rt, n := startRuntime(t)
	m := startMirror(t)
	ask := func(cfg DoctorConfig, socket, want string) {
		t.Helper()
		d := &doctor{node: n, target: newContainerd(n), cfg: cfg, now: time.Now}
		d.cfg.Pull = "a"
		d.checkPull(t.Context(), socket)
		has(t, Diagnosis{Findings: d.found}, want)
	}
	cfg := m.config()
	ask(cfg, "", "pull unknown containerd has no interface for kubelets")
	ask(cfg, "/run/none.sock", "pull fail ask the runtime at /run/none.sock: call ImageService/ImageStatus: dial unix")
	cfg.Admin = "127.0.0.1:0"
	ask(cfg, "/run/containerd/containerd.sock", "pull fail nothing was pulled, since nothing could be proved -> --admin")
	if rt.pulled.Load() != nil {
		t.Error("something was pulled")
	}
	cfg = m.config()
	rt.answer = func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	cfg.PullTimeout = 10 * time.Millisecond
	ask(cfg, "/run/containerd/containerd.sock", "pull fail")
}

func TestFullReference(t *testing.T) {
	for image, want := range map[string]string{
		"a":                    "docker.io/library/a:latest",
		"a:1":                  "docker.io/library/a:1",
		"a/b":                  "docker.io/a/b:latest",
		"a/b@sha256:1":         "docker.io/a/b@sha256:1",
		"localhost/a":          "localhost/a:latest",
		"reg.test/a/b:1":       "reg.test/a/b:1",
		"reg:5000/a":           "reg:5000/a:latest",
		"reg:5000/a:1":         "reg:5000/a:1",
		"docker.io/library/a":  "docker.io/library/a:latest",
		"127.0.0.1:5000/t/a:1": "127.0.0.1:5000/t/a:1",
	} {
		if got := fullReference(image); got != want {
			t.Errorf("%s is %s, want %s", image, got, want)
		}
	}
}

func TestMetrics(t *testing.T) {
	before := parseMetrics("larder_a 1\nlarder_b{x=\"1\"} 2\n")
	after := parseMetrics("# TYPE larder_a counter\nlarder_a 1\nlarder_b{x=\"1\",y=\"2\"} 7 1700000000\nlarder_b{x=\"1\"} 4.5\nlarder_c{x=\"a\\\"b,}\\n\"} +Inf\ngo_x 5\nlarder_d{x=} 1\nlarder_e\nlarder_f{\nlarder_g x\n")
	if got := after.sum("larder_b", map[string]string{"x": "1"}); got != 11.5 {
		t.Errorf("the sum is %v", got)
	}
	if got := after.since(before); len(got) != 3 || got[0].value != 7 || got[1].value != 2.5 || got[2].labels["x"] != "a\"b,}\n" {
		t.Errorf("changed are %v", got)
	}
}

// FuzzMetrics: no page of metrics makes reading it panic, and only Larder's own
// are read.
func FuzzMetrics(f *testing.F) {
	for _, seed := range []string{"larder_a 1", "larder_a{b=\"c\",d=\"e\"} 2 3", "larder_a{b=`x`} 1", "larder_a{,} 1", "larder_a{b=\"\\", "larder_{} NaN"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, s := range parseMetrics(text) {
			if !strings.HasPrefix(s.name, "larder_") || s.labels == nil {
				t.Errorf("read %v", s)
			}
		}
	})
}

// FuzzMessages: no answer of a runtime makes reading it panic.
func FuzzMessages(f *testing.F) {
	f.Add(framed(field(1, "x")))
	f.Add(framed(protowire.AppendVarint(protowire.AppendTag(nil, 3, protowire.VarintType), 7)))
	f.Add([]byte{0, 0, 0, 0, 2, 0x0a, 0xff})
	f.Fuzz(func(t *testing.T, body []byte) {
		message, err := unframe(body)
		if err != nil {
			return
		}
		fields, err := stringFields(message)
		for number, value := range fields {
			if err == nil && (number < 1 || len(value) > len(message)) {
				t.Errorf("field %d is %q", number, value)
			}
		}
	})
}
