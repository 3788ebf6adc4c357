package nodeconfig

import (
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
)

func mustAddrPort(t *testing.T, text string) netip.AddrPort {
	t.Helper()
	addr, err := netip.ParseAddrPort(text)
	if err != nil {
		t.Fatal(err)
	}
	return addr
}

func TestParseRelease(t *testing.T) {
	tests := map[string][2]int{
		"1.6.20~ds1": {1, 6}, "v1.7.27": {1, 7}, "2.2.4+bottlerocket": {2, 2}, "v2.1.5-k3s1": {2, 1},
		"2.4.0-beta.0": {2, 4}, "2.4.2+unknown": {2, 4}, "2.0": {2, 0},
	}
	for text, want := range tests {
		r, ok := parseRelease(text)
		if !ok || [2]int{r.major, r.minor} != want {
			t.Errorf("%q is %v (%v), want %v", text, r, ok, want)
		}
	}
	for _, text := range []string{"", "v", "2", "two", "2.x", "99999.1.1", "1.2.3.4", "fcd43222d6b07379a4be9786bda52438f0dd16a1", "github.com/containerd/containerd"} {
		if r, ok := parseRelease(text); ok {
			t.Errorf("%q is %v", text, r)
		}
	}
}

// frame is a gRPC message with text as its first field.
func frame(text string) []byte {
	body := append([]byte{1<<3 | 2, byte(len(text))}, text...)
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(body))), body...)
}

// TestAskContainerd asks daemons of all kinds. Real ones are asked in test/e2e.
func TestAskContainerd(t *testing.T) {
	say := func(message []byte) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			got, err := io.ReadAll(r.Body)
			if err != nil || string(got) != "\x00\x00\x00\x00\x00" || r.URL.Path != "/containerd.services.version.v1.Version/Version" || r.ProtoMajor != 2 {
				w.WriteHeader(http.StatusBadRequest)
				return
			}
			w.Header().Set("Content-Type", "application/grpc")
			w.Header().Set("Trailer:Grpc-Status", "0")
			_, _ = w.Write(message)
		}
	}
	tests := map[string]struct {
		answer http.HandlerFunc
		want   string
	}{
		"a version":         {say(frame("2.1.9")), "2.1.9"},
		"a refusal":         {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(403) }, ""},
		"nothing":           {say(nil), ""},
		"half a message":    {say(frame("2.1.9")[:7]), ""},
		"a longer length":   {say([]byte{0, 0, 0, 0, 3, 10, 99, 'x'}), ""},
		"another type":      {say([]byte{0, 0, 0, 0, 2, 8, 1}), ""},
		"no gRPC at all":    {func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") }, ""},
		"compressed":        {say([]byte{1, 0, 0, 0, 2, 10, 0}), ""},
		"not HTTP/2 at all": {nil, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			root, err := os.MkdirTemp("", "c") //nolint:usetesting // the paths of sockets are short
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.RemoveAll(root) })
			l, err := net.Listen("unix", filepath.Join(root, "c.sock"))
			if err != nil {
				t.Fatal(err)
			}
			server := &http.Server{Handler: test.answer, Protocols: new(http.Protocols)}
			if test.answer == nil {
				server.Handler = http.NotFoundHandler()
				server.Protocols.SetHTTP1(true)
			} else {
				server.Protocols.SetUnencryptedHTTP2(true)
			}
			served := make(chan struct{})
			// Ends when the server is closed.
			go func() {
				defer close(served)
				_ = server.Serve(l)
			}()
			t.Cleanup(func() {
				server.Close()
				<-served
			})
			got, err := nodeAt(root).askContainerd(t.Context(), "/c.sock")
			if got != test.want || (err == nil) != (test.want != "") {
				t.Errorf("got %q (%v), want %q", got, err, test.want)
			}
		})
	}
}

// TestContainerdRelease: with neither daemon nor program, the version is unknown,
// and with a word from outside it is that.
func TestContainerdRelease(t *testing.T) {
	n := nodeAt(t.TempDir())
	r, _, running := n.containerdRelease(t.Context(), "/run/containerd/containerd.sock")
	if r.known() || running || r.atLeast(1, 0) || len(r.loaders()) != 4 {
		t.Errorf("got %v, running %v", r, running)
	}
	n.ContainerdVersion = "1.7.27"
	if r, source, _ := n.containerdRelease(t.Context(), "/x.sock"); r.String() != "1.7.27" || source != "as told" {
		t.Errorf("got %v from %s", r, source)
	}
}

// FuzzVersionMessage: whatever a daemon answers, it is a version or an error.
func FuzzVersionMessage(f *testing.F) {
	f.Add(frame("2.1.9"))
	f.Add([]byte{0, 0, 0, 0, 12, 10, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0})
	f.Fuzz(func(t *testing.T, message []byte) {
		text, err := versionMessage(message)
		if err == nil && len(text) > len(message)-7 {
			t.Errorf("%q is longer than what it is from", text)
		}
	})
}
