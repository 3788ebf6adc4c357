package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/larder-registry/larder/test/kube"
	"github.com/larder-registry/larder/test/process"
)

// refused is done when the events of a namespace tell that each of these
// workloads could not make its pods.
func (w *webhook) refused(namespace string, names ...string) func(context.Context) error {
	return func(ctx context.Context) error {
		var events struct {
			Items []struct {
				Message        string
				InvolvedObject struct{ Name string }
			}
		}
		if err := w.Get(ctx, "/api/v1/namespaces/"+namespace+"/events", &events); err != nil {
			return err
		}
		for _, name := range names {
			told := false
			for _, e := range events.Items {
				told = told || strings.HasPrefix(e.InvolvedObject.Name, name) && strings.Contains(e.Message, "the image policy of this cluster does not let this run")
			}
			if !told {
				return fmt.Errorf("no event tells of %s", name)
			}
		}
		return nil
	}
}

// TestViolatorsAreNeverStuck makes pods that violate the policy while nothing is
// enforced, and then does with them all that must not be blocked.
func TestViolatorsAreNeverStuck(t *testing.T) {
	w := enforce(t, 2, rules)
	w.makeNamespace(t, "team")
	bad := func(name, finalizer string) string {
		return fmt.Sprintf(`{apiVersion: v1, kind: Pod, metadata: {name: %s, finalizers: [%s]}, spec: {containers: [{name: c, image: quay.io/evil/app}, {name: d, image: nginx}]}}`, name, finalizer)
	}
	w.unenforced(t, func() {
		for _, name := range []string{"labelled", "held", "freed"} {
			w.DoWith(t, bad(name, "example.com/hold"), "create", "-n", "team", "-f", "-")
		}
		w.DoWith(t, bad("full", ""), "create", "-n", "team", "-f", "-")
		for _, kind := range kinds() {
			w.DoWith(t, workload(kind, strings.ToLower(kind), "quay.io/evil/app"), "create", "-n", "team", "-f", "-")
		}
		process.Await(t, "the deployment's pod", func(context.Context) error {
			if pods := w.names(t, "pods", "team"); !strings.Contains(strings.Join(pods, " "), "pod/deployment-") {
				return fmt.Errorf("there are %v", pods)
			}
			return nil
		})
	})
	t.Run("labels and annotations", func(t *testing.T) {
		w.Do(t, "label", "-n", "team", "pod", "labelled", "a=b")
		w.Do(t, "annotate", "-n", "team", "pod", "labelled", "a=b")
	})
	t.Run("a good image in another container", func(t *testing.T) {
		w.Do(t, "set", "image", "-n", "team", "pod/labelled", "d=ghcr.io/org/app")
	})
	t.Run("a bad image in another container", func(t *testing.T) {
		out, err := w.Kubectl(t, "", "set", "image", "-n", "team", "pod/labelled", "d=quay.io/other/app")
		if err == nil || !strings.Contains(out, `image "quay.io/other/app" (quay.io/other/app:latest) at spec.containers[1].image`) || strings.Contains(out, "quay.io/evil/app") {
			t.Errorf("%v: %s", err, out)
		}
	})
	t.Run("a finalizer of one that lives", func(t *testing.T) {
		w.Do(t, "patch", "-n", "team", "pod", "freed", "--type=merge", "-p", `{"metadata":{"finalizers":null}}`)
	})
	t.Run("deleted, then its finalizer", func(t *testing.T) {
		w.Do(t, "delete", "-n", "team", "pod", "held", "--wait=false", "--grace-period=0", "--force")
		w.Do(t, "patch", "-n", "team", "pod", "held", "--type=merge", "-p", `{"metadata":{"finalizers":null}}`)
		process.Await(t, "it to be gone", w.gone("/api/v1/namespaces/team/pods/held"))
	})
	t.Run("scale", func(t *testing.T) {
		for _, kind := range []string{"deployment", "statefulset", "replicaset", "replicationcontroller"} {
			if out := w.Do(t, "scale", "-n", "team", kind, kind, "--replicas=2"); strings.Contains(out, "Warning") {
				t.Errorf("scaling a %s said %s", kind, out)
			}
			w.Do(t, "scale", "-n", "team", kind, kind, "--replicas=0")
		}
	})
	t.Run("an edit of a workload", func(t *testing.T) {
		for _, kind := range kinds() {
			if out := w.Do(t, "annotate", "-n", "team", strings.ToLower(kind), strings.ToLower(kind), "a=b"); strings.Contains(out, "Warning") {
				t.Errorf("annotating a %s said %s", kind, out)
			}
		}
	})
	t.Run("a namespace full of them", func(t *testing.T) {
		// The pods have no node, so nothing but the finalizer holds them.
		w.Do(t, "patch", "-n", "team", "pod", "labelled", "--type=merge", "-p", `{"metadata":{"finalizers":null}}`)
		w.Do(t, "delete", "namespace", "team", "--wait=false")
		process.Await(t, "the namespace to be gone", w.gone("/api/v1/namespaces/team"))
	})
}

// gone is done when nothing is at that path.
func (c *cluster) gone(path string) func(context.Context) error {
	return func(context.Context) error {
		status, body, err := c.call(kube.Admin, "GET", path, "")
		if err == nil && status != 404 {
			err = fmt.Errorf("status %d: %.300s", status, body)
		}
		return err
	}
}

// TestWhatIsNotReviewed is about the kubelet's own and the cluster's own pods.
func TestWhatIsNotReviewed(t *testing.T) {
	w := enforce(t, 1, rules)
	w.DoWith(t, `{apiVersion: v1, kind: Node, metadata: {name: n1}}`, "create", "-f", "-")
	mirror := `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"static-n1","annotations":{"kubernetes.io/config.mirror":"abc"},"ownerReferences":[{"apiVersion":"v1","kind":"Node","name":"n1","uid":"%s","controller":true}]},"spec":{"nodeName":"n1","containers":[{"name":"c","image":"quay.io/evil/app"}]}}`
	uid := w.Do(t, "get", "node", "n1", "-o", "jsonpath={.metadata.uid}")
	t.Run("the picture of a static pod", func(t *testing.T) {
		if status, body, err := w.call(kubelet, "POST", "/api/v1/namespaces/default/pods", fmt.Sprintf(mirror, uid)); err != nil || status != 201 {
			t.Error(status, body, err)
		}
	})
	t.Run("system namespaces", func(t *testing.T) {
		for _, ns := range []string{"kube-system", "kube-public", "kube-node-lease", namespace} {
			if status, body, err := w.probe(ns, "quay.io/evil/app"); err != nil || status != 201 {
				t.Error(ns, status, body, err)
			}
		}
	})
	t.Run("a namespace that says it is one", func(t *testing.T) {
		w.makeNamespace(t, "sly")
		_, _ = w.Kubectl(t, "", "label", "namespace", "sly", "--overwrite", "kubernetes.io/metadata.name=kube-system")
		if status, body, err := w.probe("sly", "quay.io/evil/app"); err != nil || status != 403 {
			t.Error(status, body, err)
		}
	})
	if lines := w.replicas[0].lines("image denied"); len(lines) == 0 {
		t.Error("no denial was logged")
	} else if last := lines[len(lines)-1]; last["namespace"] != "sly" || last["image"] != "quay.io/evil/app" || last["owner"] != "Pod/probe" || last["rule"] != "default Deny" || last["dry_run"] != true {
		t.Errorf("logged %v", last)
	}
}

// TestTheWebhookIsDown shows what failurePolicy does, and the way out.
func TestTheWebhookIsDown(t *testing.T) {
	w := enforce(t, 1, rules)
	r := w.replicas[0]
	r.Stop(t)
	t.Run("Fail", func(t *testing.T) {
		process.Await(t, "pods to be refused", func(context.Context) error {
			status, body, err := w.probe("default", "nginx")
			if err != nil {
				return err
			}
			if status != 500 || !strings.Contains(body, `failed calling webhook \"pods.images.larder\"`) {
				return fmt.Errorf("status %d: %.300s", status, body)
			}
			return nil
		})
		if status, body, err := w.probe("kube-system", "nginx"); err != nil || status != 201 {
			t.Error(status, body, err)
		}
		w.DoWith(t, workload("Deployment", "d", "nginx"), "apply", "-f", "-") // its webhook is ignored
	})
	t.Run("Ignore", func(t *testing.T) {
		w.Do(t, "patch", "validatingwebhookconfiguration", "larder-webhook", "--type=json", "-p", `[{"op":"replace","path":"/webhooks/0/failurePolicy","value":"Ignore"}]`)
		process.Await(t, "pods to be let through", func(context.Context) error {
			status, body, err := w.probe("default", "quay.io/evil/app")
			if err == nil && status != 201 {
				err = fmt.Errorf("status %d: %.300s", status, body)
			}
			return err
		})
	})
	t.Run("back again", func(t *testing.T) {
		w.Do(t, "patch", "validatingwebhookconfiguration", "larder-webhook", "--type=json", "-p", `[{"op":"replace","path":"/webhooks/0/failurePolicy","value":"Fail"}]`)
		w.serve(t, w.start(t, w.config))
		w.reviewed(t)
	})
	t.Run("break-glass", func(t *testing.T) {
		w.balancer.to()
		w.Do(t, "delete", "validatingwebhookconfiguration", "larder-webhook")
		process.Await(t, "pods to be let through", func(context.Context) error {
			status, _, err := w.probe("default", "quay.io/evil/app")
			if err == nil && status != 201 {
				err = errors.New("not yet")
			}
			return err
		})
	})
}
