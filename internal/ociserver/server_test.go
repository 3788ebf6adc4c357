package ociserver_test

import (
	"errors"
	"io"
	"net"
	"net/http/httptest"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/sirupsen/logrus"

	"github.com/larder-registry/larder/internal/ociserver"
)

func TestNewNeedsItsParts(t *testing.T) {
	logger := logrus.New()
	logger.SetOutput(io.Discard)
	g := newRegistry()
	for name, cfg := range map[string]ociserver.Config{
		"reader": {Lister: g, Log: logrus.NewEntry(logger)},
		"lister": {Reader: g, Log: logrus.NewEntry(logger)},
		"log":    {Reader: g, Lister: g},
	} {
		if h, err := ociserver.New(cfg); err == nil || h != nil {
			t.Errorf("without %s: got %v, %v", name, h, err)
		}
	}
}

func TestHealth(t *testing.T) {
	var ready atomic.Bool
	s := start(t, newRegistry(), func(cfg *ociserver.Config) {
		cfg.Ready = func() error {
			if !ready.Load() {
				return errors.New("store is opening /secret/dir")
			}
			return nil
		}
		cfg.Allow = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")} // probes come from anywhere
	}, nil)
	a := s.do(t, "GET", "/readyz")
	a.want(t, 503)
	if string(a.body) != "not ready\n" {
		t.Errorf("body %q", a.body)
	}
	s.do(t, "GET", "/healthz").want(t, 200, "Cache-Control", "no-store")
	ready.Store(true)
	s.do(t, "GET", "/readyz").want(t, 200)
	s.do(t, "HEAD", "/readyz").want(t, 200)
}

func TestPeers(t *testing.T) {
	tests := map[string]struct {
		allow  string
		status int
	}{
		"any":              {"any", 200},
		"local":            {"local", 200},
		"own prefix":       {"127.0.0.0/8", 200},
		"own address":      {"127.0.0.1", 200},
		"one of several":   {"192.0.2.0/24, 127.0.0.1/32", 200},
		"local or another": {"192.0.2.0/24,local", 200},
		"another":          {"192.0.2.0/24", 403},
		"ipv6 only":        {"::/0", 403},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			local, allow, err := ociserver.ParseAllow(tt.allow)
			if err != nil {
				t.Fatal(err)
			}
			s := start(t, newRegistry(), func(cfg *ociserver.Config) { cfg.Local, cfg.Allow = local, allow }, nil)
			s.do(t, "GET", "/v2/", "X-Forwarded-For", "192.0.2.1", "X-Real-Ip", "192.0.2.1").want(t, tt.status)
		})
	}
}

func TestParseAllow(t *testing.T) {
	local, allow, err := ociserver.ParseAllow("local,10.1.2.3/8, 2001:db8::1")
	want := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8::1/128")}
	if err != nil || !local || !slices.Equal(allow, want) {
		t.Errorf("got %v, %v, %v; want true, %v", local, allow, err, want)
	}
	for _, s := range []string{"", "all", "10.0.0.0/33", "local,", "any,local", "10.0.0.0/8;local", "fe80::1%eth0", "example.com"} {
		if _, _, err := ociserver.ParseAllow(s); err == nil {
			t.Errorf("ParseAllow(%q): no error", s)
		}
	}
}

// FuzzParseAllow: what is accepted restricts somebody, or is "any".
func FuzzParseAllow(f *testing.F) {
	for _, s := range []string{"any", "local", "10.0.0.0/8,::1", "local,192.0.2.7", ",", "0.0.0.0/0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		local, allow, err := ociserver.ParseAllow(s)
		if err == nil && !local && len(allow) == 0 && s != "any" {
			t.Fatalf("%q allows anybody", s)
		}
	})
}

// TestLocalPeers: the addresses of this host's interfaces are local, others are
// not, and an address that cannot be read is nobody's.
func TestLocalPeers(t *testing.T) {
	logger := logrus.New()
	logger.SetOutput(io.Discard)
	g := newRegistry()
	h, err := ociserver.New(ociserver.Config{Reader: g, Lister: g, Log: logrus.NewEntry(logger), Local: true})
	if err != nil {
		t.Fatal(err)
	}
	peers := map[string]int{
		"127.0.0.1:1":          200,
		"127.9.9.9:1":          200,
		"[::1]:1":              200,
		"[::ffff:127.0.0.1]:1": 200,
		"192.0.2.1:1":          403,
		"[2001:db8::1]:1":      403,
		"[::ffff:192.0.2.1]:1": 403,
		"@":                    403,
		"":                     403,
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		prefix, err := netip.ParsePrefix(a.String())
		if err != nil {
			t.Fatal(err)
		}
		peers[netip.AddrPortFrom(prefix.Addr(), 1).String()] = 200
		if prefix.Addr().Is6() {
			peers[netip.AddrPortFrom(prefix.Addr().WithZone("eth0"), 1).String()] = 200
		}
	}
	for peer, want := range peers {
		r := httptest.NewRequest("GET", "/v2/", nil)
		r.RemoteAddr = peer
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != want {
			t.Errorf("peer %q: status %d, want %d", peer, w.Code, want)
		}
	}
}
