package docs

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"strings"
	"sync"

	"github.com/larder-registry/larder/test/registry"
)

// world is what a sandbox finds on its network: registries under the names that the
// pages use, with certificates that its machine trusts.
type world struct {
	ca, cert, key []byte // what the machine trusts, and a pair for a page's own server
	servers       []*http.Server
	registries    []*registry.Server
	serving       sync.WaitGroup
}

// site is one registry of the world.
type site struct {
	name string   // for people
	dns  []string // the names by which it is found
	// certificate is the world's own unless it says stranger or expired.
	certificate string
	opts        registry.Options
	faults      func() []registry.Fault
	// silent has nobody listening: connections are refused.
	silent bool
}

// sites are the registries there are; each has an address of its own.
func sites() []site {
	always := func(f registry.Fault) func() []registry.Fault {
		return func() []registry.Fault { return []registry.Fault{f} }
	}
	return []site{
		{name: "public", dns: []string{"registry-1.docker.io", "docker.io", "index.docker.io", "ghcr.io", "quay.io", "registry.k8s.io", "public.ecr.aws"}},
		{name: "private", dns: []string{"private.example"}, opts: registry.Options{Users: map[string]string{"acme": "secret"}, Basic: true}},
		{name: "what a page starts itself", dns: []string{"registry.example", "trow.example", "larder.example"}, silent: true},
		{name: "nobody there", dns: []string{"down.example"}, silent: true},
		{name: "too many requests", dns: []string{"busy.example"}, faults: always(registry.Fault{Status: http.StatusTooManyRequests, RetryAfter: "3600"})},
		{name: "wrong bytes", dns: []string{"corrupt.example"}, faults: always(registry.Fault{On: registry.Blobs, Flip: true, At: -1})},
		{name: "a stranger's certificate", dns: []string{"internal.example"}, certificate: "stranger"},
		{name: "an old certificate", dns: []string{"expired.example"}, certificate: "expired"},
		{name: "down once one has its images", dns: []string{"fading.example"}, faults: always(registry.Fault{On: registry.Manifests, Method: http.MethodHead, Status: http.StatusServiceUnavailable})},
	}
}

// address of the i-th site, in a network that is for documentation (RFC 5737). It
// exists in the sandbox's namespace only.
func address(i int) netip.Addr { return netip.AddrFrom4([4]byte{198, 51, 100, byte(i + 1)}) }

// newWorld starts the registries. The caller calls close, which ends what serves.
func newWorld() (*world, error) {
	w := &world{}
	pairs, err := w.certificates()
	if err != nil {
		return nil, fmt.Errorf("make certificates: %w", err)
	}
	for i, s := range sites() {
		if s.silent {
			continue
		}
		r, err := registry.New(s.opts)
		if err != nil {
			return nil, err
		}
		w.registries = append(w.registries, r)
		stock(r)
		if s.faults != nil {
			r.Set(s.faults()...)
		}
		if err := w.serve(address(i), pairs[s.certificate], r.URL()); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// stock gives a registry the images that pages pull.
func stock(r *registry.Server) {
	for i, name := range []string{"library/alpine:3.20", "docker/library/alpine:3.20", "library/nginx:1.27", "pause:3.10", "acme/app:v1", "acme/app:v2"} {
		repo, tag, _ := strings.Cut(name, ":")
		seed := uint64(10 * i)
		image := r.AddImage(repo, "", registry.NewLayer(seed, 64<<10), registry.NewLayer(seed+1, 32<<10))
		r.AddIndex(repo, tag, image)
	}
}

// serve is TLS in front of a registry that has none. The goroutine it starts ends
// with close.
func (w *world) serve(address netip.Addr, pair tls.Certificate, backend string) error {
	to, err := url.Parse(backend)
	if err != nil {
		return err
	}
	proxy := &httputil.ReverseProxy{
		Rewrite:  func(r *httputil.ProxyRequest) { r.SetURL(to); r.Out.Host = r.In.Host },
		ErrorLog: log.New(io.Discard, "", 0),
	}
	server := &http.Server{
		Handler: proxy, ReadHeaderTimeout: patience, ErrorLog: proxy.ErrorLog,
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12},
	}
	listener, err := net.Listen("tcp", netip.AddrPortFrom(address, 443).String())
	if err != nil {
		return err
	}
	w.servers = append(w.servers, server)
	w.serving.Go(func() {
		if err := server.ServeTLS(listener, "", ""); !errors.Is(err, http.ErrServerClosed) {
			fmt.Println("sandbox: serve:", err)
		}
	})
	return nil
}

func (w *world) close() {
	for _, s := range w.servers {
		s.Close()
	}
	w.serving.Wait()
	for _, r := range w.registries {
		r.Close()
	}
}

// files are the files of the sandbox that the world and its machine consist of, by
// their names without the first slash.
func (w *world) files() map[string]string {
	var hosts bytes.Buffer
	fmt.Fprintln(&hosts, "127.0.0.1 localhost\n::1 localhost")
	for i, site := range sites() {
		fmt.Fprintln(&hosts, address(i), strings.Join(site.dns, " "))
	}
	return map[string]string{
		"etc/hosts":                         hosts.String(),
		"etc/passwd":                        "root:x:0:0:root:/root:/bin/bash\nlarder:x:65532:65532::/nonexistent:/usr/sbin/nologin\n",
		"etc/group":                         "root:x:0:\nlarder:x:65532:\n",
		"etc/nsswitch.conf":                 "passwd: files\ngroup: files\nhosts: files\n",
		"etc/resolv.conf":                   "",
		"etc/ssl/certs/ca-certificates.crt": string(w.ca),
		"fixtures/ca.crt":                   string(w.ca),
		"fixtures/tls.crt":                  string(w.cert),
		"fixtures/tls.key":                  string(w.key),
	}
}
