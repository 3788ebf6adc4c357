package nodeconfig

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// metadata is an instance metadata service that behaves as a test wants.
type metadata struct {
	token   func(w http.ResponseWriter, n int64) // answers the n-th request for a token; nil grants one
	expired int64                                // how many tokens are refused
	paths   map[string]string
	status  int // for every path, when it is not 0
	v1      bool
	tokens  atomic.Int64
	gets    atomic.Int64
}

// ServeHTTP implements http.Handler.
func (m *metadata) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPut && r.URL.Path == "/latest/api/token" {
		n := m.tokens.Add(1)
		if m.token != nil {
			m.token(w, n)
			return
		}
		w.Header().Set("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", r.Header.Get("X-Aws-Ec2-Metadata-Token-Ttl-Seconds"))
		fmt.Fprintf(w, "token-%d", n)
		return
	}
	m.gets.Add(1)
	var n int64
	_, err := fmt.Sscanf(r.Header.Get("X-Aws-Ec2-Metadata-Token"), "token-%d", &n)
	switch path, ok := m.paths[strings.TrimPrefix(r.URL.Path, "/latest/meta-data/")]; {
	case !m.v1 && (err != nil || n <= m.expired):
		w.WriteHeader(http.StatusUnauthorized)
	case m.status != 0:
		w.WriteHeader(m.status)
	case !ok:
		w.WriteHeader(http.StatusNotFound)
	default:
		fmt.Fprint(w, path)
	}
}

func serve(t *testing.T, h http.Handler) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

// silent is an address where connections are accepted and nothing is ever said,
// as a packet dropped at a hop limit looks to who waits for its answer.
func silent(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}

func refuse(status int) func(http.ResponseWriter, int64) {
	return func(w http.ResponseWriter, _ int64) { w.WriteHeader(status) }
}

// TestIMDS asks services of all kinds for the address.
func TestIMDS(t *testing.T) {
	both := map[string]string{"local-ipv4": "10.1.2.3", "ipv6": "2001:db8::1"}
	tests := map[string]struct {
		service *metadata
		family  Family
		want    string // empty for none
	}{
		"both, by default":             {service: &metadata{paths: both}, family: AnyFamily, want: "10.1.2.3"},
		"both, IPv4":                   {service: &metadata{paths: both}, family: IPv4, want: "10.1.2.3"},
		"both, IPv6":                   {service: &metadata{paths: both}, family: IPv6, want: "2001:db8::1"},
		"IPv6 only, by default":        {service: &metadata{paths: map[string]string{"ipv6": "2001:db8::1\n"}}, family: AnyFamily, want: "2001:db8::1"},
		"IPv4 only, IPv6 wanted":       {service: &metadata{paths: map[string]string{"local-ipv4": "10.1.2.3"}}, family: IPv6},
		"a token that expires":         {service: &metadata{paths: both, expired: 1}, family: IPv4, want: "10.1.2.3"},
		"tokens that never work: 401":  {service: &metadata{paths: both, expired: 1 << 40}, family: IPv4},
		"switched off: 403":            {service: &metadata{paths: both, token: refuse(403)}, family: IPv4},
		"no tokens, only version 1":    {service: &metadata{paths: both, token: refuse(404), v1: true}, family: IPv4},
		"tokens not allowed: 405":      {service: &metadata{paths: both, token: refuse(405), v1: true}, family: IPv4},
		"tokens are bad requests: 400": {service: &metadata{paths: both, token: refuse(400), v1: true}, family: IPv4},
		"ill: 500":                     {service: &metadata{paths: both, status: 500}, family: IPv4},
		"no such item: 404":            {service: &metadata{}, family: IPv4},
		"no address":                   {service: &metadata{paths: map[string]string{"local-ipv4": "<html>proxy</html>"}}, family: IPv4},
		"the address of nobody":        {service: &metadata{paths: map[string]string{"local-ipv4": "0.0.0.0"}}, family: IPv4},
		"an address of the other kind": {service: &metadata{paths: map[string]string{"local-ipv4": "2001:db8::1"}}, family: IPv4},
		"a token without an end to it": {service: &metadata{paths: both, token: func(w http.ResponseWriter, _ int64) { fmt.Fprint(w, "token-1") }}, family: IPv4},
		"an answer without an end":     {service: &metadata{paths: map[string]string{"local-ipv4": strings.Repeat("1", 1<<20)}}, family: IPv4},
		"redirects the token elsewhere": {service: &metadata{paths: both, token: func(w http.ResponseWriter, _ int64) {
			w.Header().Set("Location", "http://127.0.0.1:1/")
			w.WriteHeader(307)
		}}, family: IPv4},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := AddressConfig{From: "imds", Family: test.family, Endpoints: []string{serve(t, test.service)}, Patience: time.Minute}
			addr, source, err := FindAddress(t.Context(), cfg)
			if test.want == "" {
				if err == nil {
					t.Fatalf("got %s from %s", addr, source)
				}
				if test.service.v1 && test.service.gets.Load() > 0 {
					t.Error("it was asked without a token")
				}
				return
			}
			if err != nil || addr.String() != test.want || !strings.Contains(source, "metadata") {
				t.Errorf("got %s from %q (%v), want %s", addr, source, err, test.want)
			}
		})
	}
}

// TestIMDSEndpoints: the first that answers counts, and silence is not waited
// for.
func TestIMDSEndpoints(t *testing.T) {
	good := serve(t, &metadata{paths: map[string]string{"local-ipv4": "10.1.2.3"}})
	other := serve(t, &metadata{paths: map[string]string{"local-ipv4": "10.3.2.1"}})
	dead := silent(t)
	for _, endpoints := range [][]string{{good, other}, {good, "http://" + dead}, {"http://127.0.0.1:1", good}, {"http://" + dead, good}} {
		addr, _, err := FindAddress(t.Context(), AddressConfig{From: "imds", Endpoints: endpoints, Patience: 5 * time.Second})
		if err != nil || addr.String() != "10.1.2.3" {
			t.Errorf("got %s (%v) of %v", addr, err, endpoints)
		}
	}
	start := time.Now()
	addr, source, err := FindAddress(t.Context(), AddressConfig{From: "auto", Endpoints: []string{"http://" + dead, "http://" + dead}})
	if err != nil || addr.String() != "127.0.0.1" || !strings.HasPrefix(source, "loopback") {
		t.Errorf("got %s from %q (%v) with nobody well", addr, source, err)
	}
	// It is bounded by a second. The limit is for a busy machine.
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("it took %s", took)
	}
}

// TestIMDSFailures: an operator is told in one line what was tried and what to
// do, and nobody is asked twice who is not there.
func TestIMDSFailures(t *testing.T) {
	refused := "http://user:secret@127.0.0.1:1"
	off := serve(t, &metadata{token: refuse(403)})
	empty := serve(t, &metadata{})
	at := func(url string) string { return strings.TrimPrefix(url, "http://") }
	const what, todo = "no address from the instance metadata service at ", "; name the address by --address"
	for name, test := range map[string]struct {
		endpoints []string
		want      string
	}{
		"refused":         {[]string{refused}, what + "127.0.0.1:1 (connection refused)" + todo},
		"switched off":    {[]string{off}, what + at(off) + " (it answers 403 Forbidden)" + todo},
		"has none":        {[]string{empty, refused}, what + at(empty) + " (it has none), 127.0.0.1:1 (connection refused)" + todo},
		"no URL":          {[]string{"http://user:secret@\x7f"}, what + "what should be its URL (it is no URL)" + todo},
		"not to be asked": {nil, "no address: the instance metadata service is not to be asked" + todo},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := FindAddress(t.Context(), AddressConfig{From: "imds", Endpoints: test.endpoints, Patience: time.Hour})
			if !errors.Is(err, ErrNoAddress) || err.Error() != test.want {
				t.Errorf("it says %q, want %q", err, test.want)
			}
		})
	}
	silence := "http://" + silent(t)
	_, source, err := FindAddress(t.Context(), AddressConfig{From: "auto", Endpoints: []string{silence, refused}})
	if want := "loopback, for want of another: HOST_IP has none, and " + what + at(silence) + " (no answer), 127.0.0.1:1 (connection refused); if the mirror is elsewhere, name it by --address"; err != nil || source != want {
		t.Errorf("it says %q (%v), want %q", source, err, want)
	}
}

// TestIMDSProxy: Go's own rules except loopback from proxies, so that there is
// no watching one being passed by; the transport must not know of any.
func TestIMDSProxy(t *testing.T) {
	if imdsTransport().Proxy != nil {
		t.Error("a proxy may be asked for the instance's address")
	}
}

// TestFindAddress covers what needs no service, or does without.
func TestFindAddress(t *testing.T) {
	none := serve(t, &metadata{})
	tests := map[string]struct {
		cfg  AddressConfig
		want string
		from string
	}{
		"auto, HOST_IP":               {AddressConfig{From: "auto", Family: AnyFamily, HostIP: "10.9.8.7"}, "10.9.8.7", "HOST_IP"},
		"auto, of several":            {AddressConfig{From: "auto", Family: AnyFamily, HostIP: "2001:db8::2, 10.9.8.7"}, "10.9.8.7", "HOST_IP"},
		"auto, of several, IPv6":      {AddressConfig{From: "auto", Family: IPv6, HostIP: "10.9.8.7,2001:db8::2"}, "2001:db8::2", "HOST_IP"},
		"auto, none of this family":   {AddressConfig{From: "auto", Family: IPv6, HostIP: "10.9.8.7"}, "::1", "loopback"},
		"auto, nonsense":              {AddressConfig{From: "auto", Family: AnyFamily, HostIP: "$(HOST_IP)"}, "127.0.0.1", "loopback"},
		"auto, nothing":               {AddressConfig{From: "auto", Family: AnyFamily}, "127.0.0.1", "loopback"},
		"loopback":                    {AddressConfig{From: "loopback", Family: AnyFamily, HostIP: "10.9.8.7"}, "127.0.0.1", "loopback"},
		"loopback, IPv6":              {AddressConfig{From: "loopback", Family: IPv6}, "::1", "loopback"},
		"one that is named":           {AddressConfig{From: "192.0.2.1", Family: IPv4}, "192.0.2.1", "as told"},
		"IPv4 written as IPv6":        {AddressConfig{From: "::ffff:192.0.2.1", Family: IPv4}, "192.0.2.1", "as told"},
		"named, of the other family":  {AddressConfig{From: "192.0.2.1", Family: IPv6}, "", ""},
		"named, everybody":            {AddressConfig{From: "0.0.0.0", Family: AnyFamily}, "", ""},
		"named, with a zone":          {AddressConfig{From: "fe80::1%eth0", Family: AnyFamily}, "", ""},
		"named, no address":           {AddressConfig{From: "node-1", Family: AnyFamily}, "", ""},
		"the service, which has none": {AddressConfig{From: "imds", Family: AnyFamily, HostIP: "10.9.8.7"}, "", ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			test.cfg.Endpoints = []string{none}
			addr, source, err := FindAddress(t.Context(), test.cfg)
			if test.want == "" {
				if err == nil {
					t.Errorf("got %s from %s", addr, source)
				}
				return
			}
			if err != nil || addr.String() != test.want || !strings.HasPrefix(source, test.from) {
				t.Errorf("got %s from %q (%v), want %s from %s", addr, source, err, test.want, test.from)
			}
		})
	}
}

// TestCheckListener: nobody and a mirror may have the port.
func TestCheckListener(t *testing.T) {
	answers := func(h http.HandlerFunc) string { return strings.TrimPrefix(serve(t, h), "http://") }
	raw := func(say string) string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		// Ends when the listener is closed.
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = c.Write([]byte(say))
				c.Close()
			}
		}()
		return l.Addr().String()
	}
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	tests := map[string]struct {
		addr string
		free bool
	}{
		"nobody":                {closed.Addr().String(), true},
		"a mirror":              {answers(func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Server", "larder") }), true},
		"a mirror that refuses": {answers(func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Server", "larder"); w.WriteHeader(403) }), true},
		"another registry": {answers(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
		}), false},
		"a web server": {answers(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Server", "nginx/1.2")
			w.WriteHeader(404)
		}), false},
		"a name like ours": {answers(func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Server", "larderly") }), false},
		"no HTTP":          {raw("SSH-2.0-OpenSSH_9.2\r\n"), false},
		"hangs up":         {raw(""), false},
		"says nothing":     {silent(t), false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := CheckListener(t.Context(), mustAddrPort(t, test.addr))
			if (err == nil) != test.free || err != nil && !errors.Is(err, ErrTaken) {
				t.Errorf("got %v", err)
			}
		})
	}
}
