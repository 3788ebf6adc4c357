package upstream

import (
	"context"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"golang.org/x/net/publicsuffix"
)

// realmError is a token server that is not sent credentials.
type realmError struct{ host string }

func (e *realmError) Error() string { return "the token server " + e.host + " is not trusted" }

// checkRealm refuses a request to a token server at an address that is never
// contacted, and one that carries credentials if the server is not of the registry's own domain: whoever answers for a
// registry, or speaks in its place, could have them sent anywhere. Docker Hub's
// and GitLab's token servers have other hosts than their registries, so the
// domain counts, by the public suffix list, and not the host; for addresses and
// for names of one label nothing but the same host does. Registry.TokenServer
// names another.
func (x *exchange) checkRealm(req *http.Request) error {
	if !x.guard.named[dialAddress(req.URL)] {
		if err := x.guard.checkHost(req.URL.Hostname()); err != nil {
			return err
		}
	}
	registry := registryOf(req.Context())
	if registry == nil || req.Header.Get("Authorization") == "" && req.Body == nil {
		return nil
	}
	host := strings.ToLower(req.URL.Hostname())
	if host == x.tokenServer || sameDomain(strings.ToLower(registry.Hostname()), host) {
		return nil
	}
	return &realmError{host: host}
}

// sameDomain reports whether two hosts belong to the same registrable domain.
func sameDomain(a, b string) bool {
	if a == b {
		return true
	}
	if isAddress(a) || isAddress(b) {
		return false
	}
	domainA, errA := publicsuffix.EffectiveTLDPlusOne(a)
	domainB, errB := publicsuffix.EffectiveTLDPlusOne(b)
	return errA == nil && errB == nil && domainA == domainB
}

func isAddress(host string) bool {
	_, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil
}

type registryKey struct{}

// withRegistry notes for the requests of one call which registry they serve, be
// they sent to it or to the token server it names.
func withRegistry(ctx context.Context, base *url.URL) context.Context {
	return context.WithValue(ctx, registryKey{}, base)
}

func registryOf(ctx context.Context) *url.URL {
	base, _ := ctx.Value(registryKey{}).(*url.URL)
	return base
}
