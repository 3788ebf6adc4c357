package upstream

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/larder-registry/larder/internal/oci"
)

func TestGuard(t *testing.T) {
	for _, test := range []struct {
		host     string
		anyone   bool // allowed for a registry without an entry
		declared bool // allowed as a redirect of one with an entry
	}{
		{"127.0.0.1", false, true},
		{"127.9.9.9", false, true},
		{"::1", false, true},
		{"::ffff:127.0.0.1", false, true},
		{"64:ff9b::7f00:1", false, true},
		{"2002:7f00:1::", false, true},
		{"localhost", false, true},
		{"LOCALHOST.", false, true},
		{"sub.localhost", false, true},
		{"169.254.169.254", false, false},
		{"::ffff:169.254.169.254", false, false},
		{"64:ff9b::a9fe:a9fe", false, false},
		{"fd00:ec2::254", false, false},
		{"fe80::1", false, false},
		{"fe80::1%eth0", false, false},
		{"0.0.0.0", false, false},
		{"0.1.2.3", false, false},
		{"::", false, false},
		{"224.0.0.251", false, false},
		{"239.1.2.3", false, false},
		{"ff02::1", false, false},
		{"ff0e::1", false, false},
		{"255.255.255.255", false, false},
		{"10.0.0.1", true, true},
		{"192.168.1.1", true, true},
		{"fd12::1", true, true},
		{"203.0.113.7", true, true},
		{"2001:db8::1", true, true},
		{"registry.test", true, true},
	} {
		t.Run(test.host, func(t *testing.T) {
			for _, g := range []struct {
				guard *guard
				want  bool
			}{{&guard{}, test.anyone}, {&guard{loopback: true}, test.declared}} {
				err := g.guard.checkHost(test.host)
				if (err == nil) != g.want {
					t.Errorf("checkHost with loopback %t: %v", g.guard.loopback, err)
				}
				if err != nil && (!errors.Is(err, oci.ErrDenied) || !strings.Contains(err.Error(), "registry_proxies.registries")) {
					t.Errorf("checkHost: %v does not say what to do", err)
				}
				addr, parseErr := netip.ParseAddr(test.host)
				if parseErr != nil {
					continue
				}
				err = g.guard.control(t.Context(), "tcp", netip.AddrPortFrom(addr, 443).String(), nil)
				if (err == nil) != g.want {
					t.Errorf("control with loopback %t: %v", g.guard.loopback, err)
				}
			}
		})
	}
}

// TestLoopbackWithoutEntry: neither by address, nor by a name that resolves to
// it, nor by redirect or token realm is this node reached for a registry that
// is not configured.
func TestLoopbackWithoutEntry(t *testing.T) {
	o := newTLSOrigin(t, answer(http.StatusOK, manifestHeader(manifestJSON), manifestJSON))
	_, port, err := net.SplitHostPort(o.host())
	if err != nil {
		t.Fatal(err)
	}
	for _, registry := range []string{o.host(), "localhost:" + port, "[::1]:" + port, "rebound.test:" + port, "169.254.169.254"} {
		t.Run(registry, func(t *testing.T) {
			c := newClientOf(t, Config{Resolver: resolver(t, map[string]string{"rebound.test.": "127.0.0.1"})})
			ref := oci.Reference{Name: oci.Name{Registry: registry, Repository: "team/app"}, Tag: "v1"}
			_, err := c.Manifest(t.Context(), ref)
			if !errors.Is(err, oci.ErrDenied) || !strings.Contains(err.Error(), "registry_proxies.registries") {
				t.Errorf("Manifest: %v, want DENIED and what to do", err)
			}
			for origin, state := range c.State() {
				if state.Failures != 0 {
					t.Errorf("%s counts as failed: %+v", origin, state)
				}
			}
		})
	}
	if got := o.requests(); len(got) != 0 {
		t.Errorf("the node's own service was reached: %q", got)
	}
}

// TestNamesAllowLoopback: an entry by name reaches a registry on this node.
func TestNamesAllowLoopback(t *testing.T) {
	o := newOrigin(t, answer(http.StatusOK, manifestHeader(manifestJSON), manifestJSON))
	_, port, err := net.SplitHostPort(o.host())
	if err != nil {
		t.Fatal(err)
	}
	host := "registry.test:" + port
	c := newClientOf(t, Config{
		Registries: []Registry{{Host: host, Insecure: true}},
		Resolver:   resolver(t, map[string]string{"registry.test.": "127.0.0.1"}),
	})
	ref := oci.Reference{Name: oci.Name{Registry: host, Repository: "team/app"}, Tag: "v1"}
	if _, err := c.Manifest(t.Context(), ref); err != nil {
		t.Errorf("Manifest: %v", err)
	}
}

// TestEndpointHostCountsAsConfigured: it may be named as a registry, too.
func TestEndpointHostCountsAsConfigured(t *testing.T) {
	o := newOrigin(t, answer(http.StatusOK, manifestHeader(manifestJSON), manifestJSON))
	c := newClientOf(t, Config{Registries: []Registry{{
		Host: "registry.test", Username: "user", Password: "pass", Endpoints: []string{o.URL + "/v2/cache"},
	}}})
	if _, err := c.Manifest(t.Context(), o.tag("v1")); err != nil {
		t.Errorf("Manifest: %v", err)
	}
	wantRequests(t, o, getManifest)
	if got := o.last(t).Header.Get("Authorization"); got != "" {
		t.Errorf("Authorization: %q", got)
	}
}

func TestDNSFailure(t *testing.T) {
	c := newClientOf(t, Config{Resolver: resolver(t, nil)})
	ref := oci.Reference{Name: oci.Name{Registry: "gone.test", Repository: "team/app"}, Tag: "v1"}
	_, err := c.Manifest(t.Context(), ref)
	if !errors.Is(err, oci.ErrUnavailable) || oci.Reason(err) != "dns" {
		t.Errorf("Manifest: %v (%s)", err, oci.Reason(err))
	}
	if state := c.State()["https://gone.test"]; state.Failures != 1 {
		t.Errorf("state: %+v, want one try: the name does not exist", state)
	}
}

// TestProxy: a proxy on this node is used for a registry that is not, and a
// registry at the proxy's address stays out of reach.
func TestProxy(t *testing.T) {
	var mu sync.Mutex
	var connects []string
	proxy := newOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		connects = append(connects, r.Method+" "+r.Host)
		mu.Unlock()
		w.WriteHeader(http.StatusForbidden)
	})
	c := newClientOf(t, Config{Proxy: http.ProxyURL(mustURL(t, proxy.URL))})
	ref := oci.Reference{Name: oci.Name{Registry: "registry.test", Repository: "team/app"}, Tag: "v1"}
	if _, err := c.Manifest(t.Context(), ref); !errors.Is(err, oci.ErrUnavailable) {
		t.Errorf("Manifest through a proxy that refuses: %v", err)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(connects) == 0 || connects[0] != "CONNECT registry.test:443" {
		t.Errorf("the proxy was asked %q", connects)
	}
	asked := len(connects)
	ref.Registry = proxy.host()
	if _, err := c.Manifest(t.Context(), ref); !errors.Is(err, oci.ErrDenied) || len(connects) != asked {
		t.Errorf("Manifest from the proxy's own address: %v", err)
	}
}

func TestDialAddress(t *testing.T) {
	for raw, want := range map[string]string{
		"https://a.test/x": "a.test:443", "http://a.test": "a.test:80", "http://a.test:5000": "a.test:5000",
		"https://[::1]": "[::1]:443", "http://[::1]:5": "[::1]:5", "socks5://a.test": "a.test:1080",
	} {
		u, err := url.Parse(raw)
		if err != nil {
			t.Fatal(err)
		}
		if got := dialAddress(u); got != want {
			t.Errorf("dialAddress(%s): %s, want %s", raw, got, want)
		}
	}
}

// resolver answers from a name server on loopback that knows the given names,
// IPv4 only, and says that all others do not exist.
func resolver(t *testing.T, names map[string]string) *net.Resolver {
	t.Helper()
	conn, err := new(net.ListenConfig).ListenPacket(t.Context(), "udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { // ends when conn is closed
		defer close(done)
		buf := make([]byte, 512)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			if reply := dnsReply(buf[:n], names); reply != nil {
				_, _ = conn.WriteTo(reply, from)
			}
		}
	}()
	t.Cleanup(func() {
		_ = conn.Close()
		<-done
	})
	address := conn.LocalAddr().String()
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", address)
	}}
}

// dnsReply answers the one question of a query (RFC 1035 section 4).
func dnsReply(query []byte, names map[string]string) []byte {
	if len(query) < 12 {
		return nil
	}
	var name strings.Builder
	at := 12
	for at < len(query) && query[at] != 0 {
		end := at + 1 + int(query[at])
		if end > len(query) {
			return nil
		}
		name.Write(query[at+1 : end])
		name.WriteByte('.')
		at = end
	}
	if at+5 > len(query) {
		return nil
	}
	question := query[12 : at+5]
	address, known := names[name.String()]
	reply := append([]byte{}, query[:2]...)
	flags := uint16(0x8180)
	if !known {
		flags |= 3 // NXDOMAIN
	}
	const typeA = 1
	answers := uint16(0)
	if known && binary.BigEndian.Uint16(query[at+1:]) == typeA {
		answers = 1
	}
	for _, field := range []uint16{flags, 1, answers, 0, 0} {
		reply = binary.BigEndian.AppendUint16(reply, field)
	}
	reply = append(reply, question...)
	if answers == 1 {
		ip := netip.MustParseAddr(address).As4()
		reply = append(reply, 0xc0, 12, 0, typeA, 0, 1, 0, 0, 0, 60, 0, 4)
		reply = append(reply, ip[:]...)
	}
	return reply
}
