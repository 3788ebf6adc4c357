package cluster

import (
	"path/filepath"
	"syscall"
	"testing"

	"github.com/larder-registry/larder/test/authority"
	"github.com/larder-registry/larder/test/kube"
	"github.com/larder-registry/larder/test/process"
)

// What is where. All of it is in the network that the node's script made.
const (
	nodeName   = "n1"
	nodeIP     = "10.1.0.10"
	apiService = "10.0.0.1" // the first of kube.Services is the API server's
	pods       = "10.244.0.0/24"
	kubelet    = "kubelet" // its token
)

// cluster is a control plane and its one node.
type cluster struct {
	*kube.Server
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
func startControlPlane(t testing.TB, ca *authority.Authority) *cluster {
	t.Helper()
	c := &cluster{Server: kube.Start(t, kube.Options{
		Bin: *kubernetesFlag, Dir: t.TempDir(), Logs: *logsFlag, CA: ca, Address: nodeIP, Names: []string{"kubernetes.default.svc", apiService},
		Tokens: kubelet + ",system:node:" + nodeName + "," + nodeName + `,"system:nodes"` + "\n",
		Args:   []string{"--kubelet-preferred-address-types", "InternalIP"},
	})}
	c.Kubeconfig(t, kubelet)
	c.StartControllers(t)
	spawn(t, program("kube-scheduler"), "--kubeconfig", filepath.Join(c.Dir, "admin.kubeconfig"), "--leader-elect=false",
		"--bind-address", "127.0.0.1")
	return c
}
