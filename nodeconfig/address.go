package nodeconfig

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// Family is which kind of address is wanted.
type Family string

// The families.
const (
	AnyFamily Family = "auto" // IPv4 where there is one
	IPv4      Family = "ipv4"
	IPv6      Family = "ipv6"
)

// fits reports whether addr is of the family.
func (f Family) fits(addr netip.Addr) bool {
	switch f {
	case IPv4:
		return addr.Is4()
	case IPv6:
		return addr.Is6()
	default:
		return true
	}
}

// AddressConfig says where the address comes from at which the node's runtime
// reaches the mirror.
type AddressConfig struct {
	// From is "imds", "loopback", an IP address, or "auto": the instance
	// metadata service's word, else HostIP, else loopback.
	From   string
	Family Family
	// HostIP is what the downward API says: one address, or several with
	// commas (status.hostIPs).
	HostIP string
	// Endpoints are the metadata service's, those that are preferred first:
	// IMDSv4 and IMDSv6 outside of tests. Without any it is not asked.
	Endpoints []string
	// Patience bounds what is asked of the service; a second if zero.
	Patience time.Duration
}

// ErrNoAddress is returned by FindAddress, wrapped, when the source that was
// named has no address of the family that was named.
var ErrNoAddress = errors.New("no address")

// FindAddress returns the address and, in words, where it is from. An error says
// what was tried and what to do. ctx bounds it, besides cfg.Patience.
func FindAddress(ctx context.Context, cfg AddressConfig) (netip.Addr, string, error) {
	switch cfg.From {
	case "loopback":
		return loopback(cfg.Family), "loopback", nil
	case "imds":
		addr, source, err := askIMDS(ctx, cfg)
		if err != nil {
			return netip.Addr{}, "", fmt.Errorf("%w; name the address by --address", err)
		}
		return addr, source, nil
	case "auto":
		addr, source, err := askIMDS(ctx, cfg)
		if err == nil {
			return addr, source, nil
		}
		if addr, ok := hostIP(cfg.HostIP, cfg.Family); ok {
			return addr, "HOST_IP", nil
		}
		return loopback(cfg.Family), fmt.Sprintf("loopback, for want of another: HOST_IP has none, and %v; if the mirror is elsewhere, name it by --address", err), nil
	}
	addr, err := netip.ParseAddr(cfg.From)
	if err != nil || addr.IsUnspecified() || addr.IsMulticast() || addr.Zone() != "" {
		return netip.Addr{}, "", fmt.Errorf("the address %q is none of auto, imds, loopback or one IP address", cfg.From)
	}
	if addr = addr.Unmap(); !cfg.Family.fits(addr) {
		return netip.Addr{}, "", fmt.Errorf("%w: %s is not %s", ErrNoAddress, addr, cfg.Family)
	}
	return addr, "as told", nil
}

func loopback(f Family) netip.Addr {
	if f == IPv6 {
		return netip.IPv6Loopback()
	}
	return netip.AddrFrom4([4]byte{127, 0, 0, 1})
}

// hostIP picks an address of the family, IPv4 first, from a list with commas.
func hostIP(list string, f Family) (netip.Addr, bool) {
	var found netip.Addr
	for text := range strings.SplitSeq(list, ",") {
		addr, err := netip.ParseAddr(strings.TrimSpace(text))
		if err != nil || addr.IsUnspecified() || addr.Zone() != "" || !f.fits(addr.Unmap()) {
			continue
		}
		if addr = addr.Unmap(); !found.IsValid() || addr.Is4() && found.Is6() {
			found = addr
		}
	}
	return found, found.IsValid()
}
