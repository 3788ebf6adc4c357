package kubernetes

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// The users of the cluster, by token.
const (
	admin   = "admin"     // may do everything
	kubelet = "a-kubelet" // of node n1
)

// cluster is a running control plane without nodes.
type cluster struct {
	dir    string
	server string // host:port
	ca     string // file
	pool   *x509.CertPool
	client *http.Client
}

// process is a program that a test started; it ends with the test, even when
// the test binary is killed.
type process struct {
	cmd    *exec.Cmd
	log    string
	exited chan struct{} // closed when it has ended
}

// spawn starts a program whose output goes to a file in dir.
func spawn(t testing.TB, dir string, env []string, program string, args ...string) *process {
	t.Helper()
	log, err := os.CreateTemp(dir, filepath.Base(program)+"-*.log")
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	p := &process{cmd: exec.Command(program, args...), log: log.Name(), exited: make(chan struct{})}
	p.cmd.Env, p.cmd.Dir = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir}, env...), dir
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// Ends with the process, which the cleanup sees to.
	go func() {
		defer close(p.exited)
		_ = p.cmd.Wait()
	}()
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("the end of what %s said:\n%s", filepath.Base(program), p.tail(4000))
		}
	})
	return p
}

func (p *process) kill() {
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	<-p.exited
}

// stop asks a process to end, and waits.
func (p *process) stop(t testing.TB) {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-p.exited:
	case <-time.After(patience):
		t.Fatalf("%s does not end", p.cmd.Path)
	}
}

func (p *process) text() string {
	content, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(content)
}

func (p *process) tail(n int) string {
	s := p.text()
	return s[max(0, len(s)-n):]
}

// freePort is a port of loopback that nobody listens on now.
func freePort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// startCluster starts etcd, the API server and the controllers, and waits until
// pods can be made.
func startCluster(t testing.TB) *cluster {
	t.Helper()
	c := &cluster{dir: t.TempDir()}
	c.ca = c.certificates(t)
	write(t, c.dir, "tokens.csv", admin+`,admin,admin,"system:masters"`+"\n"+kubelet+`,system:node:n1,n1,"system:nodes"`+"\n")
	port, etcd, peer := freePort(t), freePort(t), freePort(t)
	c.server = "127.0.0.1:" + port
	etcdPath, err := exec.LookPath("etcd")
	if err != nil {
		t.Fatal(err)
	}
	spawn(t, c.dir, nil, etcdPath, "--data-dir", filepath.Join(c.dir, "etcd"), "--unsafe-no-fsync",
		"--listen-client-urls", "http://127.0.0.1:"+etcd, "--advertise-client-urls", "http://127.0.0.1:"+etcd,
		"--listen-peer-urls", "http://127.0.0.1:"+peer, "--initial-advertise-peer-urls", "http://127.0.0.1:"+peer,
		"--initial-cluster", "default=http://127.0.0.1:"+peer)
	// The API server gives up when etcd is not there in time.
	await(t, "etcd", func(ctx context.Context) error { return dial(ctx, "127.0.0.1:"+etcd) })
	in := func(name string) string { return filepath.Join(c.dir, name) }
	spawn(t, c.dir, nil, path(t, *binFlag, "kube-apiserver"),
		"--etcd-servers", "http://127.0.0.1:"+etcd, "--bind-address", "127.0.0.1", "--secure-port", port,
		"--advertise-address", "127.0.0.1", "--endpoint-reconciler-type", "none",
		"--service-cluster-ip-range", "10.0.0.0/24", "--authorization-mode", "Node,RBAC",
		"--enable-admission-plugins", "NodeRestriction", "--token-auth-file", in("tokens.csv"),
		"--tls-cert-file", in("server.crt"), "--tls-private-key-file", in("server.key"),
		"--service-account-issuer", "https://kubernetes.default.svc", "--service-account-signing-key-file", in("sa.key"),
		"--service-account-key-file", in("sa.key"), "--audit-log-path", in("audit.log"), "--audit-policy-file",
		write(t, c.dir, "audit.yaml", "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules: [{level: Metadata, verbs: [create, update, patch], resources: [{group: '', resources: [pods]}]}, {level: None}]\n"))
	c.client = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: c.pool, MinVersion: tls.VersionTLS12}, ForceAttemptHTTP2: true, MaxIdleConnsPerHost: 100}}
	t.Cleanup(c.client.CloseIdleConnections)
	await(t, "the API server", func(context.Context) error {
		status, body, err := c.call(admin, http.MethodGet, "/readyz", "")
		if err == nil && status != 200 {
			err = fmt.Errorf("status %d: %.300s", status, body)
		}
		return err
	})
	write(t, c.dir, "kubeconfig", c.kubeconfig(admin))
	write(t, c.dir, "kubelet.kubeconfig", c.kubeconfig(kubelet))
	spawn(t, c.dir, nil, path(t, *binFlag, "kube-controller-manager"),
		"--kubeconfig", in("kubeconfig"), "--leader-elect=false", "--bind-address", "127.0.0.1", "--secure-port", freePort(t),
		"--service-account-private-key-file", in("sa.key"), "--root-ca-file", c.ca, "--concurrent-deployment-syncs", "2")
	await(t, "the default service account", func(context.Context) error {
		status, body, err := c.call(admin, http.MethodGet, "/api/v1/namespaces/default/serviceaccounts/default", "")
		if err == nil && status != 200 {
			err = fmt.Errorf("status %d: %.300s", status, body)
		}
		return err
	})
	return c
}

func dial(ctx context.Context, addr string) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err == nil {
		conn.Close()
	}
	return err
}

// certificates makes the cluster's authority, the API server's certificate and
// the key for service accounts, and returns the authority's file.
func (c *cluster) certificates(t testing.TB) string {
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
	keyPEM := func(key *ecdsa.PrivateKey) string {
		der, err := x509.MarshalECPrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		return string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}))
	}
	certPEM := func(cert *x509.Certificate) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}))
	}
	end := time.Now().Add(24 * time.Hour)
	ca, caKey := issue(&x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "cluster"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: end,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}, nil, nil)
	server, serverKey := issue(&x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "server"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: end,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, ca, caKey)
	sa, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	write(t, c.dir, "server.crt", certPEM(server))
	write(t, c.dir, "server.key", keyPEM(serverKey))
	write(t, c.dir, "sa.key", keyPEM(sa))
	c.pool = x509.NewCertPool()
	c.pool.AddCert(ca)
	return write(t, c.dir, "ca.crt", certPEM(ca))
}

func (c *cluster) kubeconfig(token string) string {
	return fmt.Sprintf(`apiVersion: v1
kind: Config
current-context: c
contexts: [{name: c, context: {cluster: c, user: u}}]
clusters: [{name: c, cluster: {server: "https://%s", certificate-authority: %q}}]
users: [{name: u, user: {token: %q}}]
`, c.server, c.ca, token)
}

// call asks the API server itself.
func (c *cluster) call(token, method, path, body string) (status int, answer string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "https://"+c.server+path, strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/json")
	if method == http.MethodPatch {
		req.Header.Set("Content-Type", "application/merge-patch+json")
	}
	resp, err := c.client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	content, err := io.ReadAll(resp.Body)
	answer = string(content)
	for _, w := range resp.Header.Values("Warning") {
		answer += "\nWarning: " + w
	}
	return resp.StatusCode, answer, err
}

// get reads an object into out.
func (c *cluster) get(path string, out any) error {
	status, body, err := c.call(admin, http.MethodGet, path, "")
	if err != nil {
		return err
	}
	if status != 200 {
		return fmt.Errorf("status %d: %.300s", status, body)
	}
	return json.Unmarshal([]byte(body), out)
}

// kubectl runs kubectl as the admin and returns what it said.
func (c *cluster) kubectl(t testing.TB, args ...string) (string, error) {
	t.Helper()
	return c.kubectlIn(t, "", args...)
}

// kubectlIn is kubectl with something on its standard input.
func (c *cluster) kubectlIn(t testing.TB, stdin string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, path(t, *binFlag, "kubectl"), args...)
	cmd.Env = []string{"HOME=" + c.dir, "KUBECONFIG=" + filepath.Join(c.dir, "kubeconfig")}
	cmd.Stdin = strings.NewReader(stdin)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		t.Fatalf("kubectl %s: %v", strings.Join(args, " "), err)
	} else if ok {
		err = fmt.Errorf("exit code %d", exit.ExitCode())
	}
	return out.String(), err
}

// do is kubectl where it has to succeed.
func (c *cluster) do(t testing.TB, args ...string) string {
	t.Helper()
	return c.doIn(t, "", args...)
}

func (c *cluster) doIn(t testing.TB, stdin string, args ...string) string {
	t.Helper()
	out, err := c.kubectlIn(t, stdin, args...)
	if err != nil {
		t.Fatalf("kubectl %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return out
}

// balancer passes connections on to the replicas of the webhook in turn, as a
// Service does.
type balancer struct {
	addr string

	mu      sync.Mutex
	targets []string
	next    int
}

func startBalancer(t testing.TB) *balancer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &balancer{addr: l.Addr().String()}
	var open sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	// Ends when the listener is closed; the connections' goroutines when ctx is.
	open.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			open.Go(func() { b.pass(ctx, conn) })
		}
	})
	t.Cleanup(func() { l.Close(); cancel(); open.Wait() })
	return b
}

// to sends new connections to these addresses.
func (b *balancer) to(targets ...string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.targets, b.next = targets, 0
}

func (b *balancer) pass(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	b.mu.Lock()
	if len(b.targets) == 0 {
		b.mu.Unlock()
		return
	}
	target := b.targets[b.next%len(b.targets)]
	b.next++
	b.mu.Unlock()
	var d net.Dialer
	back, err := d.DialContext(ctx, "tcp", target)
	if err != nil {
		return
	}
	defer back.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close(); back.Close() })
	defer stop()
	var both sync.WaitGroup
	both.Go(func() { _, _ = io.Copy(back, conn); back.Close() })
	both.Go(func() { _, _ = io.Copy(conn, back); conn.Close() })
	both.Wait()
}
