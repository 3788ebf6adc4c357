package upstream

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"syscall"

	"oras.land/oras-go/v2/registry/remote/auth"

	"github.com/larder-registry/larder/internal/oci"
)

// guard says which addresses may be contacted. A client of the mirror names
// the registry, so without it the mirror would be an open proxy to the node's
// own services and to the cloud's metadata service.
//
// Addresses are checked when they are dialled, after the name was resolved:
// that covers names that resolve to loopback, redirects, and token servers.
type guard struct {
	// loopback: the registry has an entry, which vouches for it, for where it
	// redirects to and for its token server. Link-local addresses stay shut.
	loopback bool
	// named are the host:port pairs written in the entry; these may be
	// anything. Filled before the first request, then only read.
	named map[string]bool
}

// blockedError is a connection that was refused here, not by the other side.
type blockedError struct{ addr string }

func (e *blockedError) Error() string { return "address " + e.addr + " is refused" }

// denied makes the error a client sees; it names the way to allow it.
func (e *blockedError) denied() *oci.Error {
	return oci.Errorf(oci.ErrDenied, "%s is a loopback, link-local or metadata address; "+
		"to allow it, add the registry under registry_proxies.registries in the configuration", e.addr)
}

// checkHost refuses early what is refused for certain: address literals and
// localhost. Host has no port and no brackets.
func (g *guard) checkHost(host string) error {
	if addr, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		if blocked := g.checkAddr(addr); blocked != nil {
			return blocked.denied()
		}
		return nil
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if !g.loopback && (host == "localhost" || strings.HasSuffix(host, ".localhost")) {
		return (&blockedError{addr: host}).denied()
	}
	return nil
}

// checkAddr refuses addresses by the list that oras-go refuses token realms by
// (loopback, link-local, unspecified, cloud metadata), and all of multicast.
func (g *guard) checkAddr(addr netip.Addr) *blockedError {
	inner := embedded(addr)
	if inner.IsLoopback() && g.loopback {
		return nil
	}
	blocked := inner.IsMulticast() || inner == netip.AddrFrom4([4]byte{255, 255, 255, 255}) ||
		slices.ContainsFunc(auth.DefaultBlockedRealmPrefixes(), func(p netip.Prefix) bool { return p.Contains(inner) })
	if blocked {
		return &blockedError{addr: addr.String()}
	}
	return nil
}

// embedded gives the IPv4 address inside an IPv4-mapped, NAT64 (RFC 6052) or
// 6to4 (RFC 3056) address, and other addresses without their zone: what the
// packet will reach in the end.
func embedded(addr netip.Addr) netip.Addr {
	addr = addr.Unmap().WithZone("")
	if !addr.Is6() {
		return addr
	}
	b := addr.As16()
	switch {
	case netip.PrefixFrom(netip.AddrFrom16([16]byte{1: 0x64, 2: 0xff, 3: 0x9b}), 96).Contains(addr):
		return netip.AddrFrom4([4]byte(b[12:16]))
	case b[0] == 0x20 && b[1] == 0x02:
		return netip.AddrFrom4([4]byte(b[2:6]))
	}
	return addr
}

// control is net.Dialer.ControlContext: address is resolved.
func (g *guard) control(_ context.Context, _, address string, _ syscall.RawConn) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("read address to dial: %w", err)
	}
	if blocked := g.checkAddr(ap.Addr()); blocked != nil {
		return blocked
	}
	return nil
}

// dialer connects under a guard.
type dialer struct {
	guard   *guard
	guarded *net.Dialer
	open    *net.Dialer
	proxies *proxies
}

// DialContext connects to address, host:port before resolving. What the
// configuration names, and the proxy, are connected to wherever they are.
func (d *dialer) DialContext(ctx context.Context, protocol, address string) (net.Conn, error) {
	if d.guard.named[address] || d.proxies.has(address) {
		return d.open.DialContext(ctx, protocol, address)
	}
	return d.guarded.DialContext(ctx, protocol, address)
}

// dialAddress is what net/http dials for u.
func dialAddress(u *url.URL) string {
	port := u.Port()
	if port == "" {
		switch u.Scheme {
		case "http":
			port = "80"
		case "socks5", "socks5h":
			port = "1080"
		default:
			port = "443"
		}
	}
	return net.JoinHostPort(u.Hostname(), port)
}
