// Package client pulls images the way containerd does, and keeps account of
// what it was sent: which requests it made, when each object's first byte came,
// and whether every byte was right. The demo, the benchmarks and the tests that
// need a pulling node use it.
//
// It follows containerd 2.x where that matters to a mirror: HEAD for the tag,
// GET for index and image manifest, config and layers three at a time; a list
// of hosts tried in order for every object; a cut connection resumed with Range
// from the start of that list. It is stricter in one point, since it is a
// judge: a Content-Range that does not say what was asked for is an error.
//
// It keeps nothing: bodies are hashed and thrown away, in constant memory. It
// refuses to log in anywhere. What one request looks like is in host.go, how an
// object survives failures in fetch.go.
package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/larder-registry/larder/internal/oci"
)

// Config says how to pull. Hosts is required; the rest has defaults.
type Config struct {
	// Hosts are tried in this order for every object, as the entries of
	// containerd's hosts.toml are.
	Hosts []Host
	// Platform chooses from an index, "os/architecture"; "linux/amd64" when
	// empty.
	Platform string
	// Parallel is how many blobs are fetched at a time; containerd's default,
	// 3, when zero.
	Parallel int
	// Unchecked leaves blobs unhashed, for measurements in which the client must
	// not be what is measured. Their length is still checked.
	Unchecked bool
	// Transport carries the requests. When nil, the client makes one with
	// containerd's timeouts (30 s to connect, 30 s to the answer's header).
	Transport http.RoundTripper
}

// Client pulls images. It may be used by several goroutines at once, which then
// share connections; a Client each gives each its own, as separate nodes have.
type Client struct {
	hosts     []Host
	platform  string
	parallel  int
	unchecked bool
	http      *http.Client
}

// New makes a Client. It fails when cfg names no host.
func New(cfg Config) (*Client, error) {
	if len(cfg.Hosts) == 0 {
		return nil, errors.New("make client: no hosts")
	}
	c := &Client{
		hosts:     cfg.Hosts,
		platform:  cfg.Platform,
		parallel:  cfg.Parallel,
		unchecked: cfg.Unchecked,
		http:      &http.Client{Transport: cfg.Transport},
	}
	if c.platform == "" {
		c.platform = "linux/amd64"
	}
	if c.parallel == 0 {
		c.parallel = 3
	}
	if cfg.Transport == nil {
		c.http.Transport = &http.Transport{
			DialContext:           (&net.Dialer{Timeout: 30 * time.Second}).DialContext,
			TLSHandshakeTimeout:   10 * time.Second,
			ResponseHeaderTimeout: 30 * time.Second,
			MaxIdleConnsPerHost:   c.parallel,
			IdleConnTimeout:       30 * time.Second,
		}
	}
	return c, nil
}

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Object is the account of one thing a pull asked for.
type Object struct {
	oci.Descriptor
	// Kind is "resolve", "index", "manifest", "config" or "layer".
	Kind string
	// Host is the URL of the host that sent the end of it.
	Host string
	// First is the time from asking to the first byte of the body; for a
	// "resolve", which has no body, to the answer's header.
	First time.Duration
	// Total is the time from asking to the last byte.
	Total time.Duration
	// Bytes counts what was received, with what was sent twice.
	Bytes int64
	// Requests counts the attempts, at all hosts together.
	Requests int
}

// Report is the account of one pull.
type Report struct {
	// Root is what the reference resolved to.
	Root oci.Descriptor
	// Objects are in the order in which they ended. A failed pull's hold what
	// failed, as far as it came.
	Objects []Object
	// Total is how long the pull took.
	Total time.Duration
}

// Size adds up the sizes of the objects that were fetched, in bytes: what the
// pull had to bring in at least.
func (r Report) Size() int64 {
	var n int64
	for _, o := range r.Objects {
		if o.Kind != "resolve" {
			n += max(o.Size, 0)
		}
	}
	return n
}

// Bytes adds up the bytes received.
func (r Report) Bytes() int64 {
	var n int64
	for _, o := range r.Objects {
		n += o.Bytes
	}
	return n
}

// Requests adds up the requests made.
func (r Report) Requests() int {
	var n int
	for _, o := range r.Objects {
		n += o.Requests
	}
	return n
}

// index holds what is read of an image manifest or an index. JSON's field names
// match oci.Descriptor's without regard to case.
type index struct {
	Manifests []struct {
		oci.Descriptor
		Platform struct{ OS, Architecture string }
	}
	Config oci.Descriptor
	Layers []oci.Descriptor
}

// Pull fetches everything ref needs on the client's platform and checks every
// byte. The Report is filled in as far as the pull came, also on error. ctx
// bounds the whole pull.
func (c *Client) Pull(ctx context.Context, ref oci.Reference) (Report, error) {
	p := &pull{Client: c, ref: ref, start: time.Now()}
	err := p.run(ctx)
	p.report.Total = time.Since(p.start)
	if err != nil {
		return p.report, fmt.Errorf("pull %s: %w", ref, err)
	}
	return p.report, nil
}

// pull is one pull under way.
type pull struct {
	*Client
	ref   oci.Reference
	start time.Time

	mu     sync.Mutex // guards report.Objects while blobs are fetched
	report Report
}

func (p *pull) run(ctx context.Context) error {
	root, err := p.resolve(ctx)
	if err != nil {
		return err
	}
	p.report.Root = root

	var top index
	kind := "manifest"
	if isIndex(root.MediaType) {
		kind = "index"
	}
	if err := p.manifest(ctx, kind, root, &top); err != nil {
		return err
	}
	image := top
	if kind == "index" {
		child, err := p.choose(top)
		if err != nil {
			return err
		}
		image = index{}
		if err := p.manifest(ctx, "manifest", child, &image); err != nil {
			return err
		}
	}
	return p.blobs(ctx, image)
}

func isIndex(mediaType string) bool {
	return strings.Contains(mediaType, "image.index") || strings.Contains(mediaType, "manifest.list")
}

// choose finds the image manifest for the client's platform.
func (p *pull) choose(idx index) (oci.Descriptor, error) {
	for _, m := range idx.Manifests {
		if m.Platform.OS+"/"+m.Platform.Architecture == p.platform {
			return m.Descriptor, nil
		}
	}
	return oci.Descriptor{}, fmt.Errorf("choose image manifest: none for %s", p.platform)
}

// blobs fetches config and layers, p.parallel at a time. The first failure
// stops the others, as it does in containerd. The goroutines end with their
// blob, and blobs waits for all of them.
func (p *pull) blobs(ctx context.Context, image index) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	slots := make(chan struct{}, p.parallel)
	var wg sync.WaitGroup
	for i, d := range append([]oci.Descriptor{image.Config}, image.Layers...) {
		kind := "layer"
		if i == 0 {
			kind = "config"
		}
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			if err := p.blob(ctx, kind, d); err != nil {
				cancel(err)
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// note adds a finished object to the report.
func (p *pull) note(o Object) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.report.Objects = append(p.report.Objects, o)
}
