package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/larder-registry/larder/test/process"
	"github.com/larder-registry/larder/test/registry"
)

// values are what a user of the chart sets for all three roles.
const (
	values = `
central:
  enabled: true
  userSecret: registry-user
  tlsSecret: registry-tls
  storage: {size: 1Gi, className: node}
webhook:
  enabled: true
  failurePolicy: Fail
  config:
    image_validation:
      mode: enforce
      default: Deny
      allow: [registry.example, registry.cluster/team]
      deny: [registry.example/before]
`
	// A disk of the node, as a storage class without a provisioner has it.
	volume = `
apiVersion: v1
kind: PersistentVolume
metadata: {name: disk}
spec:
  capacity: {storage: 2Gi}
  accessModes: [ReadWriteOnce]
  storageClassName: node
  local: {path: %s}
  nodeAffinity:
    required:
      nodeSelectorTerms:
        - matchExpressions: [{key: kubernetes.io/hostname, operator: In, values: [%s]}]
`
	pusher = "not for the world"
)

// chart installs everything with Helm.
func chart(t *testing.T, s *suite) {
	dir := t.TempDir()
	s.ca.Write(t, dir, central, "larder-central.larder.svc")
	write(t, filepath.Join(s.Dir, "disk", "empty"), "")
	process.Await(t, "the end of the old namespace", func(context.Context) error {
		_, err := s.Kubectl(t, "", "create", "namespace", namespace)
		return err
	})
	s.Do(t, "create", "secret", "tls", "registry-tls", "--namespace", namespace,
		"--cert", filepath.Join(dir, "tls.crt"), "--key", filepath.Join(dir, "tls.key"))
	s.Do(t, "create", "secret", "generic", "registry-user", "--namespace", namespace,
		"--from-literal=username=admin", "--from-literal=password="+pusher)
	s.DoWith(t, fmt.Sprintf(volume, filepath.Join(s.Dir, "disk"), nodeName), "apply", "-f", "-")
	write(t, filepath.Join(s.Dir, "values.yaml"), values)
	s.upgrade(t, "--install", "--values", filepath.Join(s.Dir, "values.yaml"))
	s.mirrorReady(t)
	for _, object := range []string{"statefulset/larder-central", "deployment/larder-webhook"} {
		s.Do(t, "rollout", "status", "--namespace", namespace, object, "--timeout", process.Patience.String())
	}
}

// upgrade is helm upgrade of the release.
func (s *suite) upgrade(t *testing.T, args ...string) {
	t.Helper()
	args = append([]string{"upgrade", "larder", "../../manifests/chart", "--namespace", namespace}, args...)
	if _, err := s.Tool(t, filepath.Join(*binFlag, "helm"), "", args...); err != nil {
		t.Fatal(err)
	}
}

// push: an image that was pushed to the registry in the cluster runs, and comes
// to the node through its mirror.
func push(t *testing.T, s *suite) {
	// What a user's DNS does. A pod has the node's names as they were when it began.
	ip := s.Do(t, "get", "service", "larder-central", "--namespace", namespace, "-o", "jsonpath={.spec.clusterIP}")
	names, err := os.ReadFile("/etc/hosts")
	if err != nil {
		t.Fatal(err)
	}
	appendTo(t, "/etc/hosts", ip+" "+central+"\n")
	t.Cleanup(func() { write(t, "/etc/hosts", string(names)) })
	s.Do(t, "rollout", "restart", "--namespace", namespace, "daemonset/larder-mirror")
	s.mirrorReady(t)

	const image = central + "/team/app:1"
	crane := filepath.Join(*binFlag, "crane")
	if out, err := s.Tool(t, crane, "", "copy", example+"/pushed:1", image); err == nil {
		t.Fatalf("anybody may push: %s", out)
	}
	if _, err := s.Tool(t, crane, pusher, "auth", "login", central, "--username", "admin", "--password-stdin"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Tool(t, crane, "", "copy", example+"/pushed:1", image); err != nil {
		t.Fatal(err)
	}
	s.namespace(t, "pushed")
	s.secret(t, "pushed", "pull", central, "admin", pusher)
	served := count(t, "larder_served_bytes_total")
	p := pod{namespace: "pushed", name: "app", image: image, secret: "pull"}
	s.start(t, p)
	s.runs(t, p)
	if count(t, "larder_served_bytes_total") == served {
		t.Error("the mirror counts nothing")
	}
	stranger := pod{namespace: "pushed", name: "stranger", image: image}
	s.start(t, stranger)
	s.isRefused(t, stranger)
	s.remove(t, p, stranger)
}

// webhook: the API server asks it by its Service, with the certificate it made,
// also while one of the two is killed.
func webhook(t *testing.T, s *suite) {
	s.namespace(t, "judged")
	good := pod{namespace: "judged", name: "good", image: example + "/app:1"}
	judge := func() {
		t.Helper()
		s.start(t, good)
		s.runs(t, good)
		for name, image := range map[string]string{
			"denied": example + "/before:1", "unknown": "docker.io/library/nginx:1", "neighbour": central + "/teams/app:1",
		} {
			bad := pod{namespace: "judged", name: name, image: image}
			out, err := s.Kubectl(t, bad.object(t), "apply", "-f", "-")
			if err == nil || !strings.Contains(out, `admission webhook "pods.images.larder" denied the request`) || !strings.Contains(out, image) {
				t.Errorf("%s: %v: %s", image, err, out)
			}
		}
		s.remove(t, good)
	}
	judge()
	pids, err := processes("central")
	if err != nil {
		t.Fatal(err)
	}
	killed := 0
	for _, p := range pids {
		if strings.Contains(p.line, "--serve=webhook") && killed == 0 {
			kill(t, p.pid)
			killed++
		}
	}
	if killed != 1 {
		t.Fatalf("no webhook among %v", pids)
	}
	// Until kubelet has noticed, the Service leads to the dead one now and then.
	process.Await(t, "the webhook that is left", func(context.Context) error {
		_, err := s.Kubectl(t, good.object(t), "apply", "--dry-run=server", "-f", "-")
		return err
	})
	process.Await(t, "two webhooks", func(context.Context) error {
		out, err := s.Kubectl(t, "", "get", "deployment", "larder-webhook", "--namespace", namespace, "-o", "jsonpath={.status.availableReplicas}")
		if err == nil && out != "2" {
			err = errors.New(out + " are available")
		}
		return err
	})
	judge()
	// Nobody is kept from repairing Larder itself, or the cluster.
	s.Do(t, "run", "tool", "--namespace", "kube-system", "--image", "docker.io/library/nginx:1", "--dry-run=server")
}

// shared is the control of private: told to share what it keeps, the mirror
// lets a pod without the secret have it. So the refusals seen there are its own.
func shared(t *testing.T, s *suite) {
	addImage(t, s.up, "private/shared", "1", registry.NewLayer(3, mebibyte))
	s.upgrade(t, "--reuse-values", "--set", "mirror.config.registry_proxies.private_images=shared")
	s.mirrorReady(t)
	image := example + "/private/shared:1"
	entitled := pod{namespace: "team", name: "entitled", image: image, secret: "pull"}
	stranger := pod{namespace: "others", name: "stranger", image: image}
	s.start(t, entitled)
	s.runs(t, entitled)
	s.start(t, stranger)
	s.runs(t, stranger)
	s.remove(t, entitled, stranger)
}

// uninstallChart takes the release back, as docs/kubernetes.md says.
func uninstallChart(t *testing.T, s *suite) {
	s.upgrade(t, "--reuse-values", "--set", "init.undo=true")
	s.mirrorReady(t)
	t.Logf("init said:\n%s", s.Do(t, "logs", "--namespace", namespace, "daemonset/larder-mirror", "--container", "init"))
	if _, err := s.Tool(t, filepath.Join(*binFlag, "helm"), "", "uninstall", "larder", "--namespace", namespace, "--wait"); err != nil {
		t.Fatal(err)
	}
	s.Do(t, "delete", "namespace", namespace)
	s.asBefore(t)
}
