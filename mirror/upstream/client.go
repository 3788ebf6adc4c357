// Package upstream is the client for origin registries: it answers what an
// upstream has, and brings manifests and blobs in over HTTP (distribution spec,
// section "Pull").
//
// It asks the endpoints configured for a registry and then the registry
// itself, answers challenges (auth.go), follows redirects without carrying
// credentials along (redirect.go), tries again a little (retry.go), leaves
// alone what is down or has asked for quiet (breaker.go, limit.go), and says
// what failed in the words of [oci.Error] (error.go).
//
// It refuses to contact this node's own services: loopback and link-local
// addresses are dialled only for registries that have an entry in the
// configuration (dial.go). It keeps nothing: what is worth keeping, and for
// how long, is decided in package mirror. Passwords, tokens and signed URLs
// never get into an error, a log line or a metric (redact.go).
package upstream

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"
)

// Config says which registries need more than their name, and how patient the
// client is. The zero value asks any public registry over HTTPS.
type Config struct {
	// Registries are the entries of the configuration; a registry needs none.
	Registries []Registry
	// DockerConfig is a file like Docker's config.json, whose credentials and
	// helpers count for every registry whose entry names none. Empty for none.
	DockerConfig string
	// Env reads the environment by which clouds are set up. Nil turns off the
	// credentials that come with a cloud: ECR's, Google's, Azure's. They are
	// looked for when a registry of theirs is first asked, and not before.
	Env func(name string) string
	// UserAgent is sent with every request; "larder" when empty.
	UserAgent string
	// Log gets one line at debug level for every try that failed, and one
	// when a breaker opens or closes. Nil discards them.
	Log *logrus.Entry
	// Registerer takes the metrics; nil keeps them private.
	Registerer prometheus.Registerer
	// Label bounds the "registry" label of the metrics. Nil labels every
	// registry "other".
	Label func(registry string) string
	// Timeouts are the patience of one request; zero fields take defaults.
	Timeouts Timeouts
	// Proxy names the HTTP proxy for a request, as http.ProxyFromEnvironment
	// does. Nil uses none. Behind a proxy the proxy resolves names, so
	// refusing this node's own addresses is the proxy's work too.
	Proxy func(*http.Request) (*url.URL, error)
	// Resolver looks up names; nil is the system's. Tests answer from a name
	// server of their own.
	Resolver *net.Resolver
	// Now is the clock that tokens, breakers and Retry-After are measured by;
	// nil is time.Now. Timeouts and back-off always use real time.
	Now func() time.Time
}

// Registry is the entry for one registry, or for the repositories of it below
// PathPrefix. Which entry a repository gets: the longest PathPrefix that
// matches on '/' boundaries, else the entry without one, else none.
type Registry struct {
	// Host is how clients name the registry: "docker.io", "10.0.0.1:5000".
	Host string
	// PathPrefix limits the entry to repositories at or below this path.
	PathPrefix string
	// Username and Password are for Host, and for the token server that Host
	// names in its challenge. They are never sent to Endpoints: an endpoint
	// that wants credentials gets those of the entry whose Host it is.
	Username, Password string
	// PasswordFile holds the password instead. It is read when it is needed,
	// and again after a minute or a refusal, so that it may be replaced.
	PasswordFile string
	// Proof: what the entry's credentials fetch is for those callers only who
	// show that they may have it; whether it takes credentials at all is then
	// found out first.
	Proof bool
	// Provider is a program to ask for credentials instead.
	Provider *Plugin
	// AWS makes the registry one of ECR's, whatever its host.
	AWS *AWS
	// TokenServer is the host of a token server that may be sent this
	// registry's credentials although it is in another domain; without it
	// only the registry's own domain may.
	TokenServer string
	// Insecure asks Host over plain HTTP, and allows redirects from HTTPS to
	// HTTP.
	Insecure bool
	// CAFile holds PEM certificates to trust besides the system's.
	CAFile string
	// ClientCertFile and ClientKeyFile are shown to Host and Endpoints when
	// they ask, and to nobody they redirect to.
	ClientCertFile, ClientKeyFile string
	// Endpoints are URLs asked in this order before Host itself. Without a
	// path, "/v2" is meant; a path stands in place of "/v2" (containerd's
	// override_path). Requests to them carry ?ns=<Host>, as containerd's do.
	Endpoints []string
}

// String names the entry without its secrets.
func (r Registry) String() string {
	if r.PathPrefix == "" {
		return r.Host
	}
	return r.Host + "/" + r.PathPrefix
}

// Timeouts bound the parts of a request. Zero takes the default named.
type Timeouts struct {
	// Dial bounds connecting to one address: 3 s.
	Dial time.Duration
	// TLS bounds the handshake: 5 s.
	TLS time.Duration
	// Header bounds the wait for one response's header: 15 s.
	Header time.Duration
	// Answer bounds a whole call up to the header of its answer, all tries,
	// redirects and tokens included (an image manifest's body too): 20 s.
	// containerd gives a mirror 30 s before it goes elsewhere.
	Answer time.Duration
	// Token bounds fetching one token: 10 s.
	Token time.Duration
	// Program bounds a program that is run for a credential: 10 s.
	Program time.Duration
	// Stall bounds how long a body may give no byte while it is read: 15 s.
	Stall time.Duration
}

func (t Timeouts) withDefaults() Timeouts {
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&t.Dial, 3 * time.Second},
		{&t.TLS, 5 * time.Second},
		{&t.Header, 15 * time.Second},
		{&t.Answer, 20 * time.Second},
		{&t.Token, 10 * time.Second},
		{&t.Program, 10 * time.Second},
		{&t.Stall, 15 * time.Second},
	} {
		if *d.field <= 0 {
			*d.field = d.value
		}
	}
	return t
}

// Client asks upstream registries. Its methods may be called from many
// goroutines.
type Client struct {
	userAgent string
	timeouts  Timeouts
	now       func() time.Time
	label     func(string) string
	log       *logrus.Entry
	metrics   *metrics

	entries  map[string][]*entry // by host; the longest prefix first
	anyone   *exchange           // for registries without an entry
	env      func(string) string
	found    *found
	tokens   *tokens
	breakers *breakers
	limits   *limits
	fetched  *fetched
	known    *knownWays
}

// New makes a Client. It reads DockerConfig and the certificate files the entries
// name, and fails on one it cannot read and on an entry that makes no sense; it contacts
// nobody. Close it when done.
func New(cfg Config) (*Client, error) {
	c := &Client{
		userAgent: cfg.UserAgent,
		timeouts:  cfg.Timeouts.withDefaults(),
		now:       cfg.Now,
		label:     cfg.Label,
		log:       cfg.Log,
		metrics:   newMetrics(cfg.Registerer),
		entries:   map[string][]*entry{},
	}
	if c.userAgent == "" {
		c.userAgent = "larder"
	}
	if c.now == nil {
		c.now = time.Now
	}
	if c.label == nil {
		c.label = func(string) string { return "other" }
	}
	if c.log == nil {
		logger := logrus.New()
		logger.SetOutput(io.Discard)
		c.log = logrus.NewEntry(logger)
	}
	c.env = cfg.Env
	var err error
	if c.found, err = c.newFound(cfg); err != nil {
		return nil, err
	}
	c.tokens = newTokens(c.timeouts.Token, c.now)
	c.breakers = newBreakers(c.now, c.metrics, c.log)
	c.limits = newLimits(c.now)
	c.fetched = newFetched(c.now)
	c.known = newKnownWays(c.now)

	net := network{timeouts: c.timeouts, resolver: cfg.Resolver, proxy: cfg.Proxy, metrics: c.metrics}
	if c.anyone, err = net.exchange(Registry{}, &guard{}); err != nil {
		return nil, err
	}
	if err := c.configure(net, cfg.Registries); err != nil {
		return nil, fmt.Errorf("configure upstreams: %w", err)
	}
	return c, nil
}

// Close drops idle connections. Bodies that are still open stay usable.
func (c *Client) Close() {
	c.anyone.close()
	for _, entries := range c.entries {
		for _, e := range entries {
			e.exchange.close()
		}
	}
}
