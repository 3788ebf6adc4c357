package chart

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/larder-registry/larder/test/kube"
	"github.com/larder-registry/larder/test/process"
)

// cluster is an API server that helm talks to.
type cluster struct{ *apiserver }

func startCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{startAPIServer(t)}
	for _, ns := range []string{namespace, "other"} {
		c.make(t, object{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": ns}})
	}
	return c
}

// helm runs helm in a namespace, and returns what it said and whether it
// succeeded.
func (c *cluster) helm(t *testing.T, ns string, args ...string) (string, bool) {
	t.Helper()
	name, err := filepath.Abs(*helmFlag)
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.Tool(t, name, "", append(args, "--namespace", ns)...)
	return out, err == nil
}

// patch is a merge patch.
func (c *cluster) patch(t *testing.T, path, body string) {
	t.Helper()
	answer, err := c.Call(t.Context(), kube.Admin, http.MethodPatch, path, "application/merge-patch+json", body)
	if err != nil || answer.Status != http.StatusOK {
		t.Fatalf("PATCH %s: status %d, %v: %s", path, answer.Status, err, answer.Body)
	}
}

const (
	chartDir     = root + "/manifests/chart"
	authority    = "/api/v1/namespaces/larder/secrets/larder-webhook-authority"
	registration = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/larder-webhook"
)

// TestAReleasesLife: installed, upgraded, beside others, and uninstalled.
func TestAReleasesLife(t *testing.T) {
	c := startCluster(t)
	said, ok := c.helm(t, namespace, "install", release, chartDir, "--set", "webhook.enabled=true,central.enabled=true")
	if !ok {
		t.Fatal(said)
	}
	for _, want := range []string{"rollout status daemonset/larder-mirror", "larder doctor --root /host --port 8000", "rollout status deployment/larder-webhook", "docs/kubernetes.md"} {
		if !strings.Contains(said, want) {
			t.Errorf("it is not told %q: %s", want, said)
		}
	}
	t.Run("an upgrade leaves what the webhook wrote", func(t *testing.T) {
		const bundle = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0t"
		c.patch(t, authority, `{"data":{"ca.crt":"`+bundle+`"}}`)
		hooks := object{}
		if err := c.Get(t.Context(), registration, &hooks); err != nil {
			t.Fatal(err)
		}
		// As larder central does it: all webhooks, with their authority.
		for i := range hooks.list("webhooks") {
			hooks.list("webhooks")[i]["clientConfig"].(map[string]any)["caBundle"] = bundle
		}
		path := registration + "?fieldManager=larder-central"
		if answer, err := c.Call(t.Context(), kube.Admin, http.MethodPut, path, "application/json", marshal(t, hooks)); err != nil || answer.Status != http.StatusOK {
			t.Fatalf("status %d, %v: %s", answer.Status, err, answer.Body)
		}
		for _, set := range []string{"webhook.failurePolicy=Fail", "webhook.exemptNamespaces[0]=flux-system"} {
			if said, ok := c.helm(t, namespace, "upgrade", release, chartDir, "--reuse-values", "--set", set); !ok {
				t.Fatal(said)
			}
		}
		secret, now := object{}, object{}
		if err := c.Get(t.Context(), authority, &secret); err != nil || secret.text("data", "ca.crt") != bundle {
			t.Errorf("the authority is %v, %v", secret["data"], err)
		}
		if err := c.Get(t.Context(), registration, &now); err != nil {
			t.Fatal(err)
		}
		for _, w := range now.list("webhooks") {
			if w.text("clientConfig", "caBundle") != bundle || len(w.list("namespaceSelector", "matchExpressions")[0]["values"].([]any)) != 5 {
				t.Errorf("%s trusts %q and exempts %v", w.text("name"), w.text("clientConfig", "caBundle"), w.at("namespaceSelector"))
			}
		}
	})
	t.Run("another in the namespace", func(t *testing.T) {
		if said, ok := c.helm(t, namespace, "install", "blue", chartDir, "--set", "webhook.enabled=true,central.enabled=true"); !ok {
			t.Error(said)
		}
	})
	t.Run("one of that name elsewhere", func(t *testing.T) {
		said, ok := c.helm(t, "other", "install", release, chartDir, "--set", "webhook.enabled=true")
		if ok || !strings.Contains(said, "invalid ownership metadata") || !strings.Contains(said, `ValidatingWebhookConfiguration "larder-webhook"`) {
			t.Errorf("it may: %v: %s", ok, said)
		}
		if said, ok := c.helm(t, "other", "install", release, chartDir); !ok {
			t.Errorf("without a webhook: %s", said)
		}
	})
	t.Run("the first step of an uninstall", func(t *testing.T) {
		said, ok := c.helm(t, namespace, "upgrade", release, chartDir, "--reuse-values", "--set", "init.undo=true")
		if !ok || !strings.Contains(said, "helm -n larder uninstall larder") {
			t.Fatal(said)
		}
		mirror := object{}
		if err := c.Get(t.Context(), "/apis/apps/v1/namespaces/larder/daemonsets/larder-mirror", &mirror); err != nil {
			t.Fatal(err)
		}
		if args := strings.Join(mirror.containers()[0].args(), " "); !strings.Contains(args, "--undo --remove-data=/var/lib/larder") {
			t.Errorf("init is told %s", args)
		}
	})
	t.Run("uninstalled", func(t *testing.T) {
		objects := render(t, release, "--set", "webhook.enabled=true,central.enabled=true")
		if said, ok := c.helm(t, namespace, "uninstall", release); !ok {
			t.Fatal(said)
		}
		for _, o := range objects {
			path, err := c.path(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			process.Await(t, o.id()+" to be gone", func(ctx context.Context) error {
				answer, err := c.Call(ctx, kube.Admin, http.MethodGet, path, "application/json", "")
				if err == nil && answer.Status != http.StatusNotFound {
					err = fmt.Errorf("status %d: %.200s", answer.Status, answer.Body)
				}
				return err
			})
		}
	})
}
