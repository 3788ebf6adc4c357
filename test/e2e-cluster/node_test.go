package cluster

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/larder-registry/larder/test/process"
)

// The settings of the node's programs. containerd's are those of a node as it
// comes: one config_path, with nothing in it.
const (
	containerdConfig = `version = 3
[plugins."io.containerd.cri.v1.images".registry]
  config_path = "/etc/containerd/certs.d"
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = %q
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true # not every machine lets root lower it
[plugins."io.containerd.cri.v1.runtime".cni]
  bin_dirs = ["/usr/lib/cni"]
  conf_dir = "/etc/cni/net.d"
`
	cniConfig = `{"cniVersion": "1.0.0", "name": "pods", "plugins": [{
  "type": "bridge", "bridge": "cni0", "isDefaultGateway": true, "hairpinMode": true,
  "ipam": {"type": "host-local", "ranges": [[{"subnet": %q}]]}}]}
`
	kubeletConfig = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
cgroupDriver: cgroupfs
failCgroupV1: false
failSwapOn: false
oomScoreAdj: 0
podLogsDir: %s
serializeImagePulls: false
maxParallelImagePulls: 4
# So that the mirror can be killed again before minutes have passed.
crashLoopBackOff: {maxContainerRestartPeriod: 1s}
# The API server comes as nobody; only the node itself can reach this port.
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
`
	proxyConfig = `apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: iptables
clusterCIDR: %s
oomScoreAdj: 0
hostnameOverride: %s
clientConnection: {kubeconfig: %q}
conntrack: {maxPerCore: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
`
)

// startNode starts containerd, kubelet and kube-proxy, and waits until the node
// is ready. The sandboxes of pods run the image pause.
func (c *cluster) startNode(t testing.TB, pause string) {
	t.Helper()
	write(t, "/etc/containerd/config.toml", fmt.Sprintf(containerdConfig, pause))
	write(t, "/etc/cni/net.d/10-pods.conflist", fmt.Sprintf(cniConfig, pods))
	c.containerd = spawn(t, filepath.Join(*binFlag, "containerd"))
	c.containerd.Await(t, "containerd", process.Listens("unix", "/run/containerd/containerd.sock"))
	in := func(name string) string { return filepath.Join(c.Dir, name) }
	write(t, in("kubelet.yaml"), fmt.Sprintf(kubeletConfig, filepath.Join(*logsFlag, "pods")))
	write(t, in("proxy.yaml"), fmt.Sprintf(proxyConfig, pods, nodeName, in("admin.kubeconfig")))
	spawn(t, program("kube-proxy"), "--config", in("proxy.yaml"))
	spawn(t, program("kubelet"), "--config", in("kubelet.yaml"), "--kubeconfig", in("kubelet.kubeconfig"),
		"--hostname-override", nodeName, "--node-ip", nodeIP)
	process.Await(t, "the node", func(context.Context) error {
		out, err := c.Kubectl(t, "", "get", "node", nodeName, "-o",
			`jsonpath={.status.conditions[?(@.type=="Ready")].status} {.status.conditions[?(@.type=="Ready")].message} {.spec.taints}`)
		if err == nil && out[:min(5, len(out))] != "True " {
			err = fmt.Errorf("%s", out)
		}
		return err
	})
}
