package ociserver

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// ParseAllow reads the setting of who may connect: "any", "local", or a comma
// list of addresses, CIDR prefixes and "local". What it returns is for
// Config.Local and Config.Allow.
func ParseAllow(s string) (local bool, allow []netip.Prefix, err error) {
	if s == "any" {
		return false, nil, nil
	}
	for item := range strings.SplitSeq(s, ",") {
		item = strings.TrimSpace(item)
		if item == "local" {
			local = true
			continue
		}
		prefix, err := netip.ParsePrefix(item)
		if addr, addrErr := netip.ParseAddr(item); addrErr == nil && addr.Zone() == "" {
			prefix, err = addr.Prefix(addr.BitLen())
		}
		if err != nil {
			return false, nil, fmt.Errorf("parse allow %q: write any, local, or addresses and prefixes such as 10.0.0.0/8", item)
		}
		allow = append(allow, prefix.Masked())
	}
	return local, allow, nil
}

// peers decides by source address who may be served.
type peers struct {
	local bool
	allow []netip.Prefix
	own   ownAddrs
}

// allowed judges a connection's remote address. Headers have no say.
func (p *peers) allowed(remoteAddr string) bool {
	if !p.local && len(p.allow) == 0 {
		return true
	}
	peer, err := netip.ParseAddrPort(remoteAddr)
	if err != nil {
		return false
	}
	addr := peer.Addr().Unmap().WithZone("")
	if slices.ContainsFunc(p.allow, func(prefix netip.Prefix) bool { return prefix.Contains(addr) }) {
		return true
	}
	return p.local && (addr.IsLoopback() || p.own.has(addr, time.Now()))
}

// ownAddrs knows the addresses of this host's interfaces. They come and go while
// a node lives, and an address that left may turn up on another host, so they
// are read again when they are older than ownAddrsAge.
type ownAddrs struct {
	mu    sync.Mutex
	read  time.Time
	addrs map[netip.Addr]bool
}

const ownAddrsAge = 5 * time.Second

// has reports whether addr is one of this host's own.
func (o *ownAddrs) has(addr netip.Addr, now time.Time) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if now.Sub(o.read) > ownAddrsAge {
		o.refresh(now)
	}
	return o.addrs[addr]
}

// refresh reads the interfaces. If that fails nobody but loopback is local.
func (o *ownAddrs) refresh(now time.Time) {
	o.read, o.addrs = now, map[netip.Addr]bool{}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return
	}
	for _, a := range addrs {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil {
			o.addrs[prefix.Addr().Unmap()] = true
		}
	}
}
