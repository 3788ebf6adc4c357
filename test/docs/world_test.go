package docs

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/larder-registry/larder/test/registry"
)

// world is what a sandbox finds on its network: registries under the names that the
// pages use, with certificates that its machine trusts.
type world struct {
	ca, cert, key []byte
	servers       []*http.Server
	registries    []*registry.Server
	serving       sync.WaitGroup
}

// Addresses of a network that is for documentation (RFC 5737). They exist in the
// sandbox's namespace only.
var (
	publicAddress  = netip.MustParseAddr("198.51.100.1")
	privateAddress = netip.MustParseAddr("198.51.100.2")
	ownAddress     = netip.MustParseAddr("198.51.100.3")
)

func addresses() []netip.Addr { return []netip.Addr{publicAddress, privateAddress, ownAddress} }

// names says who is found where. Own is what the page itself starts.
func names() map[netip.Addr][]string {
	return map[netip.Addr][]string{
		publicAddress:  {"registry-1.docker.io", "docker.io", "index.docker.io", "ghcr.io", "quay.io", "registry.k8s.io"},
		privateAddress: {"private.example"},
		ownAddress:     {"registry.example", "trow.example"},
	}
}

// newWorld starts the registries. The caller calls close, which ends what serves.
func newWorld() (*world, error) {
	w := &world{}
	pair, err := w.certificates()
	if err != nil {
		return nil, fmt.Errorf("make certificates: %w", err)
	}
	for address, opts := range map[netip.Addr]registry.Options{
		publicAddress:  {},
		privateAddress: {Users: map[string]string{"acme": "secret"}, Basic: true},
	} {
		r, err := registry.New(opts)
		if err != nil {
			return nil, err
		}
		w.registries = append(w.registries, r)
		stock(r)
		if err := w.serve(address, pair, r.URL()); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// stock gives a registry the images that pages pull.
func stock(r *registry.Server) {
	for i, name := range []string{"library/alpine:3.20", "library/nginx:1.27", "pause:3.10", "acme/app:v1", "acme/app:v2"} {
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

// certificates makes an authority, and one certificate of it for every name.
func (w *world) certificates() (tls.Certificate, error) {
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "the sandbox's authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	if err != nil {
		return tls.Certificate{}, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "registry.example"},
		NotBefore: ca.NotBefore, NotAfter: ca.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
	}
	for _, list := range names() {
		leaf.DNSNames = append(leaf.DNSNames, list...)
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, ca, key.Public(), caKey)
	if err != nil {
		return tls.Certificate{}, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return tls.Certificate{}, err
	}
	w.ca = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caDER})
	w.cert = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	w.key = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
	return tls.X509KeyPair(w.cert, w.key)
}

// files are the files of the sandbox that the world and its machine consist of, by
// their names without the first slash.
func (w *world) files() map[string]string {
	var hosts bytes.Buffer
	fmt.Fprintln(&hosts, "127.0.0.1 localhost\n::1 localhost")
	for address, list := range names() {
		fmt.Fprintln(&hosts, address, strings.Join(list, " "))
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
