package upstream

import (
	"cmp"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/larder-registry/larder/internal/oci"
)

// entry is a Registry made ready, or what stands in for one: an endpoint's host
// counts as configured, so that clients may also name it as a registry.
type entry struct {
	host      string
	prefix    string
	base      *url.URL    // the registry itself
	cred      *credential // nil: none
	proof     bool        // Registry.Proof
	exchange  *exchange
	endpoints []*endpoint // in the order to ask; the registry itself is last
}

// endpoint is one place to ask for what a registry has.
type endpoint struct {
	registry string      // how clients name the registry
	base     *url.URL    // scheme, host and the path in place of /v2
	origin   string      // scheme://host, which breakers and metrics go by
	own      bool        // the registry itself, whose word is final
	cred     *credential // what it may be sent; nil: nothing
	proof    bool        // Registry.Proof
	exchange *exchange
	// key tells apart what must not share tokens or rate limits: entries have
	// different credentials for one and the same origin.
	key string
}

// configure makes the entries ready.
func (c *Client) configure(net network, registries []Registry) error {
	for _, r := range registries {
		if err := c.addEntry(net, r); err != nil {
			return fmt.Errorf("registry %s: %w", r, err)
		}
	}
	for _, r := range registries {
		e := c.find(normalHost(r.Host), strings.Trim(r.PathPrefix, "/"))
		for _, raw := range r.Endpoints {
			base, err := parseEndpoint(raw)
			if err != nil {
				return fmt.Errorf("registry %s: %w", r, err)
			}
			ep := newEndpoint(e, base, false)
			e.exchange.allow(base)
			c.addStandIn(e, base)
			ep.cred = c.credentialFor(base)
			e.endpoints = append(e.endpoints, ep)
		}
		e.endpoints = append(e.endpoints, newEndpoint(e, e.base, true))
	}
	return nil
}

// addEntry makes the entry for r, all but its endpoints.
func (c *Client) addEntry(net network, r Registry) error {
	name, err := oci.NewName(r.Host, "any/repository")
	if err != nil {
		return err
	}
	e := &entry{
		host:   name.Registry,
		prefix: strings.Trim(r.PathPrefix, "/"),
		base:   ownBase(name.Registry, r.Insecure),
		proof:  r.Proof,
	}
	if (r.ClientCertFile == "") != (r.ClientKeyFile == "") {
		return fmt.Errorf("client_cert_file and client_key_file go together, one is missing")
	}
	g := &guard{loopback: true, named: map[string]bool{}}
	if e.exchange, err = net.exchange(r, g); err != nil {
		return err
	}
	e.exchange.allow(e.base)
	if e.cred, err = c.credentialOf(r, e); err != nil {
		return err
	}
	for _, other := range c.entries[e.host] {
		if other.prefix == e.prefix {
			return fmt.Errorf("there are two entries for this host and path_prefix")
		}
	}
	c.insert(e)
	return nil
}

// addStandIn counts the host of an endpoint of e as configured, with e's TLS
// settings and with what credentials are found for it, unless it has an entry of
// its own.
func (c *Client) addStandIn(e *entry, base *url.URL) {
	name, err := oci.NewName(base.Host, "any/repository")
	if err != nil || c.find(name.Registry, "") != nil {
		return // a host that clients cannot name needs no entry
	}
	s := &entry{host: name.Registry, base: ownBase(name.Registry, base.Scheme == "http"), exchange: e.exchange}
	s.cred = c.foundFor(s)
	s.endpoints = []*endpoint{newEndpoint(s, s.base, true)}
	c.insert(s)
}

func (c *Client) insert(e *entry) {
	c.entries[e.host] = append(c.entries[e.host], e)
	slices.SortFunc(c.entries[e.host], func(a, b *entry) int { return cmp.Compare(len(b.prefix), len(a.prefix)) })
}

// find gives the entry for a repository, nil if there is none.
func (c *Client) find(host, repository string) *entry {
	for _, e := range c.entries[host] {
		if e.prefix == "" || repository == e.prefix || strings.HasPrefix(repository, e.prefix+"/") {
			return e
		}
	}
	return nil
}

// credentialFor finds what an endpoint may be sent: the credential of the entry
// whose registry it is, scheme and port included.
func (c *Client) credentialFor(base *url.URL) *credential {
	repository := strings.TrimPrefix(strings.TrimPrefix(base.Path, "/v2"), "/")
	e := c.find(normalHost(base.Host), repository)
	if e == nil || originOf(e.base) != originOf(base) {
		return nil
	}
	return e.cred
}

// endpointsFor lists where to ask for name, in order. It fails with
// oci.ErrDenied for a registry on this node that has no entry.
func (c *Client) endpointsFor(name oci.Name) ([]*endpoint, error) {
	if e := c.find(name.Registry, name.Repository); e != nil {
		return e.endpoints, nil
	}
	base := ownBase(name.Registry, false)
	if err := c.anyone.guard.checkHost(base.Hostname()); err != nil {
		return nil, err
	}
	e := &entry{host: name.Registry, base: base, exchange: c.anyone}
	e.cred = c.foundFor(e)
	return []*endpoint{newEndpoint(e, base, true)}, nil
}

func newEndpoint(e *entry, base *url.URL, own bool) *endpoint {
	ep := &endpoint{
		registry: e.host,
		base:     base,
		origin:   originOf(base),
		own:      own,
		proof:    e.proof,
		exchange: e.exchange,
		key:      e.host + "/" + e.prefix + " " + base.String(),
	}
	if own {
		ep.cred = e.cred
	}
	return ep
}

// namespace is the value for ?ns=, empty where the endpoint is the registry.
func (ep *endpoint) namespace() string {
	if ep.own || ep.base.Host == ownBase(ep.registry, false).Host {
		return ""
	}
	return ep.registry
}

// blockedRealms is what oras-go's client refuses as a token server's address:
// nothing, since it would look names up by itself for that. What is refused is
// checked here, when it is dialled (dial.go) and before (realm.go).
func (*endpoint) blockedRealms() []netip.Prefix { return []netip.Prefix{} }

// ownBase is where a registry itself is. Docker Hub is the one registry whose
// name is not its host's.
func ownBase(registry string, insecure bool) *url.URL {
	u := &url.URL{Scheme: "https", Host: registry, Path: "/v2"}
	if registry == "docker.io" {
		u.Host = "registry-1.docker.io"
	}
	if insecure {
		u.Scheme = "http"
	}
	return u
}

// parseEndpoint reads one of Registry.Endpoints.
func parseEndpoint(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	switch {
	case err != nil:
		// The error of url.Parse repeats the URL, and a password in it.
		return nil, fmt.Errorf("endpoint is not a URL: write https://host/v2/path")
	case u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "":
		return nil, fmt.Errorf("endpoint %s: write http:// or https:// and a host", redactURL(u))
	case u.User != nil:
		return nil, fmt.Errorf("endpoint %s: credentials belong in an entry for that host", redactURL(u))
	case u.RawQuery != "" || u.Fragment != "":
		return nil, fmt.Errorf("endpoint %s: a query or fragment has no meaning here", redactURL(u))
	}
	path := strings.TrimRight(u.Path, "/")
	if path == "" {
		path = "/v2"
	}
	return &url.URL{Scheme: u.Scheme, Host: strings.ToLower(u.Host), Path: path}, nil
}

// normalHost spells a host the way oci.Name does; a host that is no registry's
// stays as it is.
func normalHost(host string) string {
	if name, err := oci.NewName(host, "any/repository"); err == nil {
		return name.Registry
	}
	return host
}

func originOf(u *url.URL) string { return u.Scheme + "://" + u.Host }
