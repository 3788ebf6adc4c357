// Package kube starts what suites need of Kubernetes: Debian's etcd, an API server
// of the caller's choice before it, and the controllers; and it asks them. All are
// on loopback unless the caller says otherwise, and end with the test.
//
// It builds nothing: test/kubernetes does that, a script beside this directory.
// There are no nodes; test/e2e-cluster adds one.
package kube

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/larder-registry/larder/test/authority"
	"github.com/larder-registry/larder/test/process"
)

// Admin is the token of one who may do everything.
const Admin = "admin"

// Services is where Services get their addresses, in CIDR notation.
const Services = "10.0.0.0/24"

// Options say what API server to start.
type Options struct {
	// Bin is a directory with kube-apiserver, kube-controller-manager and kubectl,
	// or with those of them that are asked for.
	Bin string
	// Dir is where their files go; it is there already.
	Dir string
	// Logs is where their output goes; Dir if it is empty.
	Logs string
	// Address is where pods and other nodes reach the API server. If it is empty,
	// only loopback does.
	Address string
	// Names are those of its certificate, besides 127.0.0.1 and Address.
	Names []string
	// CA signs its certificate; one of its own if it is nil.
	CA *authority.Authority
	// Tokens are further lines of the file of tokens: token, user, ID, groups.
	Tokens string
	// Args are further arguments of kube-apiserver.
	Args []string
}

// Server is a running API server. Its Dir has its authority as ca.crt, and the
// admin's kubeconfig as admin.kubeconfig.
type Server struct {
	Options
	Addr   string // host:port
	client *http.Client
}

// Start starts etcd and the API server, and waits until that is ready.
func Start(t testing.TB, o Options) *Server {
	t.Helper()
	if o.Logs == "" {
		o.Logs = o.Dir
	}
	listen := []string{"--bind-address", "127.0.0.1", "--advertise-address", "127.0.0.1", "--endpoint-reconciler-type", "none"}
	if o.Address != "" {
		listen = []string{"--advertise-address", o.Address}
		o.Names = append(o.Names, o.Address)
	}
	if o.CA == nil {
		var err error
		if o.CA, err = authority.New("cluster"); err != nil {
			t.Fatal(err)
		}
	}
	o.CA.Write(t, o.Dir, append([]string{"127.0.0.1"}, o.Names...)...)
	_, key, err := o.CA.Issue(time.Now().Add(time.Hour), "service accounts")
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{Options: o, Addr: process.Addr(t)}
	s.write(t, "sa.key", string(key))
	s.write(t, "tokens.csv", Admin+`,admin,admin,"system:masters"`+"\n"+o.Tokens)
	s.Kubeconfig(t, Admin)
	etcd := s.startEtcd(t)
	_, port, err := net.SplitHostPort(s.Addr)
	if err != nil {
		t.Fatal(err)
	}
	p := process.Spawn(t, o.Logs, nil, s.program(t, "kube-apiserver"), append(append(listen,
		"--etcd-servers", etcd, "--secure-port", port, "--service-cluster-ip-range", Services,
		"--authorization-mode", "Node,RBAC", "--enable-admission-plugins", "NodeRestriction",
		"--token-auth-file", s.in("tokens.csv"), "--tls-cert-file", s.in("tls.crt"), "--tls-private-key-file", s.in("tls.key"),
		"--service-account-issuer", "https://kubernetes.default.svc",
		"--service-account-signing-key-file", s.in("sa.key"), "--service-account-key-file", s.in("sa.key")), o.Args...)...)
	s.client = &http.Client{Timeout: time.Minute, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: o.CA.Pool(), MinVersion: tls.VersionTLS12}, ForceAttemptHTTP2: true, MaxIdleConnsPerHost: 100,
	}}
	t.Cleanup(s.client.CloseIdleConnections)
	p.Await(t, "the API server", s.answers("/readyz"))
	return s
}

// startEtcd starts etcd, and returns its URL. The API server gives up when it is
// not there in time.
func (s *Server) startEtcd(t testing.TB) string {
	t.Helper()
	program, err := exec.LookPath("etcd")
	if err != nil {
		t.Fatalf("%v; install the package etcd-server", err)
	}
	addr, peer := process.Addr(t), "http://"+process.Addr(t)
	client := "http://" + addr
	p := process.Spawn(t, s.Logs, nil, program, "--data-dir", s.in("etcd"), "--unsafe-no-fsync", "--log-level", "warn",
		"--listen-client-urls", client, "--advertise-client-urls", client,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "default="+peer)
	p.Await(t, "etcd", process.Listens("tcp", addr))
	return client
}

// StartControllers starts the controllers, and waits until pods can be made in the
// namespace default.
func (s *Server) StartControllers(t testing.TB, args ...string) {
	t.Helper()
	_, port, err := net.SplitHostPort(process.Addr(t))
	if err != nil {
		t.Fatal(err)
	}
	p := process.Spawn(t, s.Logs, nil, s.program(t, "kube-controller-manager"), append([]string{
		"--kubeconfig", s.in(Admin + ".kubeconfig"), "--leader-elect=false", "--bind-address", "127.0.0.1", "--secure-port", port,
		"--service-account-private-key-file", s.in("sa.key"), "--root-ca-file", s.in("ca.crt"),
	}, args...)...)
	p.Await(t, "the default service account", s.answers("/api/v1/namespaces/default/serviceaccounts/default"))
}

// Kubeconfig makes a file with which whoever has that token asks the API server.
func (s *Server) Kubeconfig(t testing.TB, token string) string {
	t.Helper()
	return s.write(t, token+".kubeconfig", fmt.Sprintf(`apiVersion: v1
kind: Config
current-context: c
contexts: [{name: c, context: {cluster: c, user: u}}]
clusters: [{name: c, cluster: {server: "https://%s", certificate-authority: %q}}]
users: [{name: u, user: {token: %q}}]
`, s.Addr, s.in("ca.crt"), token))
}

// program is one of Kubernetes', which has to be there.
func (s *Server) program(t testing.TB, name string) string {
	t.Helper()
	file := filepath.Join(s.Bin, name)
	if _, err := os.Stat(file); err != nil {
		t.Fatalf("%v; test/kubernetes builds it", err)
	}
	return file
}

func (s *Server) in(name string) string { return filepath.Join(s.Dir, name) }

func (s *Server) write(t testing.TB, name, content string) string {
	t.Helper()
	if err := os.WriteFile(s.in(name), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return s.in(name)
}
