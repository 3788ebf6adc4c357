package main

import (
	"errors"
	"net"
	"strings"
	"syscall"
	"testing"

	"github.com/larder-registry/larder/internal/config"
)

func TestAWildcardFallsBackToIPv4(t *testing.T) {
	for _, cause := range []error{syscall.EAFNOSUPPORT, syscall.EADDRNOTAVAIL} {
		var tried []string
		l, err := listenWith(func(addr string) (net.Listener, error) {
			tried = append(tried, addr)
			if addr == "[::]:0" {
				return nil, &net.OpError{Op: "listen", Err: cause}
			}
			return net.Listen("tcp", "127.0.0.1:0")
		}, "[::]:0")
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
		if strings.Join(tried, " ") != "[::]:0 0.0.0.0:0" {
			t.Errorf("%v: tried %q", cause, tried)
		}
	}
}

func TestExposedCredentials(t *testing.T) {
	registries := []config.Registry{{Host: "a.example"}, {Host: "b.example", PathPrefix: "team", Username: "u"}}
	for _, c := range []struct {
		allow  string
		listen []string
		want   string
	}{
		{"any", []string{"[::]:8000"}, "b.example/team"},
		{"any", []string{"127.0.0.1:8000", "10.0.0.1:8000"}, "b.example/team"},
		{"any", []string{":8000"}, "b.example/team"},
		{"any", []string{"127.0.0.1:8000", "[::1]:8000", "localhost:8000"}, ""},
		{"local", []string{"[::]:8000"}, ""},
		{"10.0.0.0/8", []string{"[::]:8000"}, ""},
	} {
		if got := exposedCredentials(mirrorFlags{allow: c.allow, listen: c.listen}, registries); got != c.want {
			t.Errorf("--allow %s --listen %v exposes %q, want %q", c.allow, c.listen, got, c.want)
		}
	}
}

func TestOneAddressDoesNotFallBack(t *testing.T) {
	calls := 0
	_, err := listenWith(func(string) (net.Listener, error) {
		calls++
		return nil, &net.OpError{Op: "listen", Err: syscall.EAFNOSUPPORT}
	}, "[::1]:0")
	if calls != 1 || !errors.Is(err, syscall.EAFNOSUPPORT) {
		t.Errorf("%d calls, %v", calls, err)
	}
}

func TestAnAddressThatIsTakenIsExplained(t *testing.T) {
	l, err := listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, err = listen(t.Context(), l.Addr().String())
	if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), "another process listens there") {
		t.Error(err)
	}
}
