package cluster

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/larder-registry/larder/test/process"
)

// What is where. All of it is in the network that the node's script made.
const (
	nodeName   = "n1"
	nodeIP     = "10.1.0.10"
	services   = "10.0.0.0/24"
	apiService = "10.0.0.1" // the first of them is the API server's
	pods       = "10.244.0.0/24"
	etcd       = "http://127.0.0.1:2379"
	server     = "https://127.0.0.1:6443"
	admin      = "admin" // the token of one who may do everything
	kubelet    = "kubelet"
)

// cluster is a control plane and its one node.
type cluster struct {
	dir        string // of certificates and kubeconfigs
	client     *http.Client
	containerd *process.Process
}

// spawn starts a program that ends with the test, and whose last words are
// shown when the test fails.
func spawn(t testing.TB, path string, args ...string) *process.Process {
	t.Helper()
	p, err := process.Start(*logsFlag, filepath.Base(path), path, args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.End(syscall.SIGTERM)
		if t.Failed() {
			t.Logf("the end of what %s said:\n%s", filepath.Base(path), p.Tail())
		}
	})
	return p
}

// program is one of Kubernetes'.
func program(name string) string { return filepath.Join(*kubernetesFlag, name) }

// startControlPlane starts etcd, the API server, the controllers and the
// scheduler, and waits until pods can be made.
func startControlPlane(t testing.TB, ca *authority) *cluster {
	t.Helper()
	c := &cluster{dir: t.TempDir()}
	in := func(name string) string { return filepath.Join(c.dir, name) }
	cert, key := ca.server(t, "kubernetes.default.svc", "127.0.0.1", nodeIP, apiService)
	write(t, in("ca.crt"), string(ca.pem()))
	write(t, in("server.crt"), string(cert))
	write(t, in("server.key"), string(key))
	write(t, in("sa.key"), string(keyPEM(t, newKey(t))))
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	write(t, in("tokens.csv"), admin+`,admin,admin,"system:masters"`+"\n"+
		kubelet+",system:node:"+nodeName+","+nodeName+`,"system:nodes"`+"\n")
	for _, user := range []string{admin, kubelet} {
		write(t, in(user+".kubeconfig"), fmt.Sprintf(`apiVersion: v1
kind: Config
current-context: c
contexts: [{name: c, context: {cluster: c, user: u}}]
clusters: [{name: c, cluster: {server: %q, certificate-authority: %q}}]
users: [{name: u, user: {token: %q}}]
`, server, in("ca.crt"), user))
	}
	etcdPath, err := exec.LookPath("etcd")
	if err != nil {
		t.Fatal(err)
	}
	spawn(t, etcdPath, "--data-dir", in("etcd"), "--unsafe-no-fsync", "--log-level", "warn",
		"--listen-client-urls", etcd, "--advertise-client-urls", etcd)
	// The API server gives up when etcd is not there in time.
	await(t, "etcd", func() error {
		conn, err := net.Dial("tcp", "127.0.0.1:2379")
		if err == nil {
			conn.Close()
		}
		return err
	})
	spawn(t, program("kube-apiserver"), "--etcd-servers", etcd, "--secure-port", "6443",
		"--advertise-address", nodeIP, "--service-cluster-ip-range", services,
		"--authorization-mode", "Node,RBAC", "--enable-admission-plugins", "NodeRestriction",
		"--token-auth-file", in("tokens.csv"), "--tls-cert-file", in("server.crt"), "--tls-private-key-file", in("server.key"),
		"--service-account-issuer", "https://kubernetes.default.svc", "--service-account-signing-key-file", in("sa.key"),
		"--service-account-key-file", in("sa.key"), "--kubelet-preferred-address-types", "InternalIP")
	c.client = &http.Client{Timeout: time.Minute, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, ForceAttemptHTTP2: true,
	}}
	t.Cleanup(c.client.CloseIdleConnections)
	await(t, "the API server", func() error { _, err := c.call(http.MethodGet, "/readyz", "", ""); return err })
	spawn(t, program("kube-controller-manager"), "--kubeconfig", in("admin.kubeconfig"), "--leader-elect=false",
		"--bind-address", "127.0.0.1", "--service-account-private-key-file", in("sa.key"), "--root-ca-file", in("ca.crt"))
	spawn(t, program("kube-scheduler"), "--kubeconfig", in("admin.kubeconfig"), "--leader-elect=false",
		"--bind-address", "127.0.0.1")
	await(t, "the default service account", func() error {
		_, err := c.call(http.MethodGet, "/api/v1/namespaces/default/serviceaccounts/default", "", "")
		return err
	})
	return c
}
