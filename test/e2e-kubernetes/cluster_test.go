package kubernetes

import (
	"context"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"testing"

	"github.com/larder-registry/larder/test/kube"
	"github.com/larder-registry/larder/test/process"
)

// kubelet is the token of node n1's.
const kubelet = "a-kubelet"

// cluster is a running control plane without nodes.
type cluster struct{ *kube.Server }

// auditPolicy has the API server write down what is done to pods.
const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules: [{level: Metadata, verbs: [create, update, patch], resources: [{group: '', resources: [pods]}]}, {level: None}]
`

// startCluster starts etcd, the API server and the controllers, and waits until
// pods can be made.
func startCluster(t testing.TB) *cluster {
	t.Helper()
	dir := t.TempDir()
	bin, err := filepath.Abs(*binFlag)
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{kube.Start(t, kube.Options{
		Bin: bin, Dir: dir, Tokens: kubelet + `,system:node:n1,n1,"system:nodes"` + "\n",
		Args: []string{"--audit-log-path", filepath.Join(dir, "audit.log"), "--audit-policy-file", write(t, dir, "audit.yaml", auditPolicy)},
	})}
	c.StartControllers(t, "--concurrent-deployment-syncs", "2")
	return c
}

// call asks the API server itself. Its warnings are below its answer.
func (c *cluster) call(token, method, path, body string) (status int, answer string, err error) {
	contentType := "application/json"
	if method == http.MethodPatch {
		contentType = "application/merge-patch+json"
	}
	a, err := c.Call(context.Background(), token, method, path, contentType, body)
	for _, w := range a.Warnings {
		a.Body += "\nWarning: " + w
	}
	return a.Status, a.Body, err
}

// makeNamespace makes a namespace in which pods can be made.
func (c *cluster) makeNamespace(t testing.TB, name string) {
	t.Helper()
	c.Do(t, "create", "namespace", name)
	process.Await(t, "the service account of "+name, func(ctx context.Context) error {
		return c.Get(ctx, "/api/v1/namespaces/"+name+"/serviceaccounts/default", &struct{}{})
	})
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
