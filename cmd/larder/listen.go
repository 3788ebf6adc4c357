package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"
)

// listen opens addr, which is host:port. The wildcard [::] means every address
// of the machine, IPv4 ones included, so on a machine without IPv6 it falls
// back to 0.0.0.0.
func listen(ctx context.Context, addr string) (net.Listener, error) {
	var config net.ListenConfig
	return listenWith(func(addr string) (net.Listener, error) { return config.Listen(ctx, "tcp", addr) }, addr)
}

func listenWith(open func(addr string) (net.Listener, error), addr string) (net.Listener, error) {
	l, err := open(addr)
	if errors.Is(err, syscall.EAFNOSUPPORT) || errors.Is(err, syscall.EADDRNOTAVAIL) {
		if host, port, splitErr := net.SplitHostPort(addr); splitErr == nil && host == "::" {
			l, err = open(net.JoinHostPort("0.0.0.0", port))
		}
	}
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("%w; another process listens there: stop it, or choose another address", err)
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("%w; ports below 1024 need a privilege: choose a higher one", err)
	}
	return l, err
}

// checkAddress refuses what cannot be an address to listen on, before anything
// is started.
func checkAddress(flag, addr string) error {
	_, port, err := net.SplitHostPort(addr)
	if err == nil {
		_, err = net.DefaultResolver.LookupPort(context.Background(), "tcp", port) // a number, or in /etc/services
	}
	if err != nil {
		return usageErrorf("--%s %q: write host:port, such as 127.0.0.1:8000 or [::]:8000", flag, addr)
	}
	return nil
}

// loopback reports whether addr can be reached from this host only.
func loopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
