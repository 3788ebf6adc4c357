package oci

import (
	"net/netip"
	"strconv"
	"strings"
)

// dockerHub is how clients name Docker Hub; its servers have other names.
const dockerHub = "docker.io"

// normalRegistry checks a registry's host[:port] and gives the one spelling
// used as Name.Registry. A host is a DNS name with at least one dot (or
// localhost, or any name with a port: Docker's rule, which is how clients tell
// a registry from the first part of a repository), an IPv4 address, or an IPv6
// address in brackets.
//
// What is refused here is refused because two readers could take it for two
// hosts: user names, schemes, zones, trailing dots, and the numeric short forms
// of IPv4 ("127.1", "0x7f000001") that some resolvers accept. Whether a host
// may be *contacted* is for the upstream client to say.
func normalRegistry(s string) (string, error) {
	switch {
	case s == "":
		return "", Errorf(ErrNameInvalid, "registry is empty: write a host such as docker.io")
	case strings.Contains(s, "@"):
		// The text before the @ may be a password: it is not repeated.
		return "", Errorf(ErrNameInvalid, "registry: write the host without a user name")
	case strings.Contains(s, "://"):
		return "", Errorf(ErrNameInvalid, "registry %s: write the host without a scheme", quote(s))
	case strings.ContainsAny(s, "/?#"):
		return "", Errorf(ErrNameInvalid, "registry %s: write the host without a path or query", quote(s))
	}
	host, port, err := splitPort(s)
	if err != nil {
		return "", err
	}
	bare := !strings.HasPrefix(host, "[")
	if bare {
		host, err = normalHost(host)
	} else {
		host, err = normalIPv6(host)
	}
	if err != nil {
		return "", err
	}
	if port != "" {
		return host + ":" + port, nil
	}
	if bare && host != "localhost" && !strings.Contains(host, ".") {
		return "", Errorf(ErrNameInvalid, "registry %s: a host without a dot needs a port, as in %s:5000", quote(s), host)
	}
	switch host {
	case "index.docker.io", "registry-1.docker.io":
		return dockerHub, nil
	}
	return host, nil
}

// splitPort cuts off ":port", which is empty when there is none. The host is
// not looked at, but for its brackets.
func splitPort(s string) (host, port string, err error) {
	if strings.HasPrefix(s, "[") {
		end := strings.IndexByte(s, ']')
		if end < 0 {
			return "", "", Errorf(ErrNameInvalid, "registry %s: the bracket is never closed", quote(s))
		}
		host, port = s[:end+1], s[end+1:]
		if port == "" {
			return host, "", nil
		}
		if port[0] != ':' {
			return "", "", Errorf(ErrNameInvalid, "registry %s: only a port may follow the bracket", quote(s))
		}
		port = port[1:]
	} else {
		var found bool
		host, port, found = strings.Cut(s, ":")
		if !found {
			return host, "", nil
		}
		if strings.Contains(port, ":") {
			return "", "", Errorf(ErrNameInvalid, "registry %s: write an IPv6 address in brackets, as in [::1]:5000", quote(s))
		}
	}
	// Leading zeros and signs would give one port two spellings.
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 || strconv.FormatUint(n, 10) != port {
		return "", "", Errorf(ErrNameInvalid, "registry %s: the port is a number from 1 to 65535", quote(s))
	}
	return host, port, nil
}

// normalIPv6 checks an address in brackets and gives its canonical spelling
// (RFC 5952).
func normalIPv6(host string) (string, error) {
	addr, err := netip.ParseAddr(host[1 : len(host)-1])
	switch {
	case err != nil || !addr.Is6():
		return "", Errorf(ErrNameInvalid, "registry %s: not an IPv6 address", quote(host))
	case addr.Zone() != "":
		return "", Errorf(ErrNameInvalid, "registry %s: write the address without a zone", quote(host))
	case addr.Is4In6():
		return "", Errorf(ErrNameInvalid, "registry %s: write %s", quote(host), addr.Unmap())
	}
	return "[" + addr.String() + "]", nil
}

// normalHost checks a DNS name (RFC 1123 section 2.1) or an IPv4 address and
// gives it in lower case.
func normalHost(host string) (string, error) {
	if strings.HasSuffix(host, ".") {
		return "", Errorf(ErrNameInvalid, "registry %s: write the host without the dot at its end", quote(host))
	}
	if len(host) > 253 {
		return "", Errorf(ErrNameInvalid, "registry %s: a host has at most 253 characters", quote(host))
	}
	host = strings.ToLower(host)
	last := ""
	for label := range strings.SplitSeq(host, ".") {
		if !validLabel(label) {
			return "", Errorf(ErrNameInvalid, "registry %s: a host is letters, digits and '-' between dots (other scripts as punycode)", quote(host))
		}
		last = label
	}
	if looksNumeric(last) {
		if addr, err := netip.ParseAddr(host); err != nil || !addr.Is4() {
			return "", Errorf(ErrNameInvalid, "registry %s: write an IPv4 address as four decimal numbers", quote(host))
		}
	}
	return host, nil
}

// validLabel reports whether s, in lower case, is one label of a DNS name.
func validLabel(s string) bool {
	if s == "" || len(s) > 63 || !isAlphanumeric(s[0]) || !isAlphanumeric(s[len(s)-1]) {
		return false
	}
	for i := range len(s) {
		if !isAlphanumeric(s[i]) && s[i] != '-' {
			return false
		}
	}
	return true
}

// looksNumeric reports whether a host whose last label is s would be read as
// an IPv4 address by some resolver: decimal, octal, or hexadecimal with 0x (the
// WHATWG URL standard's "ends in a number").
func looksNumeric(s string) bool {
	hex, is := strings.CutPrefix(s, "0x")
	digits := "0123456789"
	if is {
		s, digits = hex, "0123456789abcdef"
	}
	return strings.Trim(s, digits) == ""
}

// looksLikeRegistry is Docker's rule for telling a registry from the first
// component of a repository: it has a dot or a port, or is localhost, or could
// not be a component.
func looksLikeRegistry(s string) bool {
	return s == "localhost" || strings.ContainsAny(s, ".:[@") || strings.ToLower(s) != s
}
