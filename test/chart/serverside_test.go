package chart

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/larder-registry/larder/test/kube"
	"github.com/larder-registry/larder/test/process"
)

// TestARealAPIServerTakesEveryObject: each that is rendered, for each set of
// values and as kustomize builds the bases, passes a server-side dry run; strictly,
// and without a word of warning.
func TestARealAPIServerTakesEveryObject(t *testing.T) {
	a := startAPIServer(t)
	a.installCRDs(t)
	for _, ns := range []string{namespace, "strict"} {
		level := map[string]string{namespace: "privileged", "strict": "restricted"}[ns]
		a.make(t, object{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": ns, "labels": map[string]any{
			"pod-security.kubernetes.io/enforce": level, "pod-security.kubernetes.io/warn": level,
		}}})
	}
	kinds := map[string]bool{}
	dry := func(t *testing.T, objects []object) {
		t.Helper()
		for _, o := range objects {
			kinds[o.kind()] = true
			warnings, err := a.apply(t.Context(), o, true)
			if err != nil || len(warnings) > 0 {
				t.Errorf("%s: %v %s", o.id(), err, strings.Join(warnings, "; "))
			}
			if pod := podOf(o); pod != nil {
				if warnings, err := a.apply(t.Context(), pod, true); err != nil || len(warnings) > 0 {
					t.Errorf("the pod of %s: %v %s", o.id(), err, strings.Join(warnings, "; "))
				}
			}
		}
	}
	for _, set := range valueSets(t) {
		t.Run("chart/"+set.name, func(t *testing.T) { dry(t, render(t, release, set.args...)) })
	}
	for _, base := range rendered() {
		t.Run("kustomize/"+base, func(t *testing.T) {
			out := program(t, *kustomizeFlag, "build", filepath.Join(root, "manifests", base))
			if out.code != 0 {
				t.Fatal(out.stderr)
			}
			dry(t, parse(t, out.stdout))
		})
	}
	t.Run("rendered policies", func(t *testing.T) {
		out := program(t, *larderFlag, "policy", "render", "--format=vap", "--config", "testdata/policy.yaml")
		if out.code != 0 {
			t.Fatal(out.stderr)
		}
		dry(t, parse(t, out.stdout))
	})
	for _, kind := range []string{
		"Namespace", "ServiceAccount", "ConfigMap", "Secret", "Service", "DaemonSet", "StatefulSet", "Deployment", "Ingress", "NetworkPolicy",
		"PodDisruptionBudget", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding", "ValidatingWebhookConfiguration",
		"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding", "PodMonitor", "PrometheusRule", "Issuer", "Certificate",
	} {
		if !kinds[kind] {
			t.Errorf("no %s was looked at", kind)
		}
	}
	t.Run("pod security", func(t *testing.T) {
		objects := render(t, release, "--namespace", "strict", "--set", "central.enabled=true,webhook.enabled=true")
		for _, w := range workloads(objects) {
			_, err := a.apply(t.Context(), podOf(w), true)
			agent := w.kind() == "DaemonSet"
			if agent && (err == nil || !strings.Contains(err.Error(), `violates PodSecurity \"restricted:`)) {
				t.Errorf("a namespace that forbids node agents takes %s: %v", w.id(), err)
			}
			if !agent && err != nil {
				t.Errorf("%s is not restricted: %v", w.id(), err)
			}
		}
	})
	t.Run("a field that is none", func(t *testing.T) {
		o := one(t, render(t, release), "DaemonSet", "larder-mirror")
		o["spec"].(map[string]any)["replicas"] = 1
		if _, err := a.apply(t.Context(), o, true); err == nil || !strings.Contains(err.Error(), "replicas") {
			t.Errorf("a DaemonSet with replicas: %v", err)
		}
	})
}

// podOf is a pod as the controllers would make it of a workload; nil for other
// objects.
func podOf(o object) object {
	template, ok := o.at("spec", "template").(map[string]any)
	if !ok || o.at("spec", "template", "spec") == nil {
		return nil
	}
	spec := map[string]any{}
	for k, v := range template["spec"].(map[string]any) {
		spec[k] = v
	}
	for _, claim := range o.list("spec", "volumeClaimTemplates") {
		volumes, _ := spec["volumes"].([]any)
		spec["volumes"] = append(append([]any{}, volumes...), map[string]any{
			"name": claim.name(), "persistentVolumeClaim": map[string]any{"claimName": claim.name()},
		})
	}
	return object{"apiVersion": "v1", "kind": "Pod", "spec": spec, "metadata": map[string]any{
		"name": o.name() + "-0", "namespace": o.text("metadata", "namespace"), "labels": object(template).at("metadata", "labels"),
	}}
}

// make makes an object for the rest of the test.
func (a *apiserver) make(t *testing.T, o object) {
	t.Helper()
	if _, err := a.apply(t.Context(), o, false); err != nil {
		t.Fatalf("%s: %v", o.id(), err)
	}
}

// installCRDs makes the kinds of the Prometheus operator and of cert-manager that
// the chart uses. testdata/crds.yaml has only the fields that are used, so that any
// other is an error.
func (a *apiserver) installCRDs(t *testing.T) {
	t.Helper()
	text, err := os.ReadFile("testdata/crds.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, crd := range parse(t, string(text)) {
		a.make(t, crd)
		probe := object{
			"apiVersion": crd.text("spec", "group") + "/" + crd.list("spec", "versions")[0].text("name"),
			"kind":       crd.text("spec", "names", "kind"), "metadata": map[string]any{"name": "probe", "namespace": "default"},
		}
		process.Await(t, crd.name(), func(ctx context.Context) error {
			path, err := a.path(ctx, probe)
			if err != nil {
				return err
			}
			// Served, though there is none of that name.
			answer, err := a.Call(ctx, kube.Admin, "GET", path, "application/json", "")
			if err == nil && (answer.Status != 404 || !strings.Contains(answer.Body, `"name":"probe"`)) {
				err = fmt.Errorf("status %d: %.300s", answer.Status, answer.Body)
			}
			return err
		})
	}
}
