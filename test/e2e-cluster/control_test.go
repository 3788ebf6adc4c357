package cluster

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
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
func startControlPlane(t testing.TB) *cluster {
	t.Helper()
	c := &cluster{dir: t.TempDir()}
	in := func(name string) string { return filepath.Join(c.dir, name) }
	pool := c.certificates(t)
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

// certificates makes the cluster's authority, the API server's certificate and
// the key for service accounts.
func (c *cluster) certificates(t testing.TB) *x509.CertPool {
	t.Helper()
	issue := func(template, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		if parent == nil {
			parent, parentKey = template, key
		}
		der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), parentKey)
		if err != nil {
			t.Fatal(err)
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return cert, key
	}
	save := func(name, kind string, der []byte, err error) {
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(c.dir, name), string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})))
	}
	begin, end := time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	ca, caKey := issue(&x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "cluster"}, NotBefore: begin, NotAfter: end,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}, nil, nil)
	cert, key := issue(&x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "server"}, NotBefore: begin, NotAfter: end,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.ParseIP(nodeIP), net.ParseIP(apiService)},
		DNSNames:    []string{"kubernetes.default.svc"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, ca, caKey)
	accounts, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	save("ca.crt", "CERTIFICATE", ca.Raw, nil)
	save("server.crt", "CERTIFICATE", cert.Raw, nil)
	der, err := x509.MarshalECPrivateKey(key)
	save("server.key", "EC PRIVATE KEY", der, err)
	der, err = x509.MarshalECPrivateKey(accounts)
	save("sa.key", "EC PRIVATE KEY", der, err)
	pool := x509.NewCertPool()
	pool.AddCert(ca)
	return pool
}
