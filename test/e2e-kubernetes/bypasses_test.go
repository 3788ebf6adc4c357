package kubernetes

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/larder-registry/larder/test/process"
)

// TestBypasses tries every way to bring a bad image in, by kubectl.
func TestBypasses(t *testing.T) {
	w := enforce(t, 2, rules)
	w.Do(t, "run", "good", "--image=ghcr.io/org/app:1")
	w.Do(t, "run", "copied", "--image=ghcr.io/org/app:1")
	deployment := `{apiVersion: apps/v1, kind: Deployment, metadata: {name: d}, spec: {selector: {matchLabels: {a: d}}, template: {metadata: {labels: {a: d}}, spec: {containers: [{name: c, image: ghcr.io/org/app}]}}}}`
	w.DoWith(t, deployment, "apply", "-f", "-")
	volume := `{apiVersion: v1, kind: Pod, metadata: {name: v}, spec: {containers: [{name: c, image: ghcr.io/org/app}], volumes: [{name: v, image: {reference: "%s"}}]}}`
	pod := `{apiVersion: v1, kind: Pod, metadata: {name: %s}, spec: {%s}}`
	for _, c := range []struct {
		name  string
		stdin string
		args  string
		// place is where the image is said to be.
		place string
	}{
		{"run", "", "run bad --image=quay.io/evil/app", "spec.containers[0].image"},
		{"run, dry", "", "run bad --image=quay.io/evil/app --dry-run=server", "spec.containers[0].image"},
		{"set image", "", "set image pod/good good=quay.io/evil/app", "spec.containers[0].image"},
		{"debug", "", "debug good --image=quay.io/evil/app", "spec.ephemeralContainers[0].image"},
		{"debug of a copy", "", "debug copied --image=quay.io/evil/app --copy-to=copy", "spec.containers[1].image"},
		{"patch", "", `patch pod good --type=json -p [{"op":"replace","path":"/spec/containers/0/image","value":"quay.io/evil/app"}]`, "spec.containers[0].image"},
		{"apply", fmt.Sprintf(pod, "bad", "containers: [{name: c, image: quay.io/evil/app}]"), "apply -f -", "spec.containers[0].image"},
		{"server-side apply", fmt.Sprintf(pod, "bad", "containers: [{name: c, image: quay.io/evil/app}]"), "apply --server-side -f -", "spec.containers[0].image"},
		{"server-side apply over a good one", fmt.Sprintf(pod, "good", "containers: [{name: good, image: quay.io/evil/app}]"), "apply --server-side --force-conflicts -f -", "spec.containers[0].image"},
		{"create", fmt.Sprintf(pod, "bad", "containers: [{name: c, image: quay.io/evil/app}]"), "create -f -", "spec.containers[0].image"},
		{"an init container", fmt.Sprintf(pod, "bad", "containers: [{name: c, image: nginx}], initContainers: [{name: i, image: quay.io/evil/app}]"), "apply -f -", "spec.initContainers[0].image"},
		{"a sidecar", fmt.Sprintf(pod, "bad", "containers: [{name: c, image: nginx}], initContainers: [{name: i, image: quay.io/evil/app, restartPolicy: Always}]"), "apply -f -", "spec.initContainers[0].image"},
		{"an image volume", fmt.Sprintf(volume, "quay.io/evil/app"), "apply -f -", "spec.volumes[0].image.reference"},
		{"a host that begins alike", fmt.Sprintf(pod, "bad", "containers: [{name: c, image: ghcr.io.evil.com/org/app}]"), "apply -f -", "ghcr.io.evil.com/org/app"},
		{"an organisation that begins alike", fmt.Sprintf(pod, "bad", "containers: [{name: c, image: ghcr.io/organisation/app}]"), "apply -f -", "ghcr.io/organisation/app"},
		{"a host in capitals", fmt.Sprintf(pod, "bad", "containers: [{name: c, image: GHCR.IO/org/secret/app}]"), "apply -f -", "ghcr.io/org/secret/app"},
		{"a port that says nothing", fmt.Sprintf(pod, "bad", `containers: [{name: c, image: "ghcr.io:443/org/secret/app"}]`), "apply -f -", "ghcr.io/org/secret/app"},
		{"an image ID", fmt.Sprintf(pod, "bad", "containers: [{name: c, image: 'sha256:"+strings.Repeat("a", 64)+"'}]"), "apply -f -", "an image ID"},
		{"an owner that is claimed", `{apiVersion: v1, kind: Pod, metadata: {name: bad, ownerReferences: [{apiVersion: apps/v1, kind: ReplicaSet, name: x, uid: x, controller: true}]}, spec: {containers: [{name: c, image: quay.io/evil/app}]}}`, "create -f -", "spec.containers[0].image"},
		{"a static pod that is claimed", `{apiVersion: v1, kind: Pod, metadata: {name: bad, annotations: {kubernetes.io/config.mirror: x}}, spec: {nodeName: n1, containers: [{name: c, image: quay.io/evil/app}]}}`, "create -f -", "spec.containers[0].image"},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, err := w.Kubectl(t, c.stdin, strings.Fields(c.args)...)
			if err == nil || !strings.Contains(out, `admission webhook "pods.images.larder" denied the request: the image policy of this cluster does not let this run in namespace default: image `) || !strings.Contains(out, c.place) {
				t.Errorf("%v: %s; want a denial that names %s", err, out, c.place)
			}
		})
	}
	for _, name := range w.names(t, "pods", "default") {
		images := w.Do(t, "get", name, "-n", "default", "-o", "jsonpath={..image} {..reference}")
		if strings.Contains(images, "evil") || strings.Contains(images, "secret") {
			t.Errorf("%s has %s", name, images)
		}
	}
	t.Run("the audit log", func(t *testing.T) {
		process.Await(t, "the decisions to be there", func(context.Context) error {
			log, err := os.ReadFile(filepath.Join(w.Dir, "audit.log"))
			for _, want := range []string{
				`"pods.images.larder/decision":"denied"`, `"pods.images.larder/images":"\"quay.io/evil/app\" (default Deny)"`,
				`"pods.images.larder/decision":"allowed"`, `"pods.images.larder/policy":"`,
			} {
				if err == nil && !strings.Contains(string(log), want) {
					err = fmt.Errorf("no %s", want)
				}
			}
			return err
		})
	})
	t.Run("allowed", func(t *testing.T) {
		w.Do(t, "debug", "good", "--image=nginx")
		w.Do(t, "set", "image", "pod/good", "good=ghcr.io/org/app:2")
		w.DoWith(t, fmt.Sprintf(volume, "ghcr.io/org/data:1"), "apply", "-f", "-")
	})
}

// workload is a manifest of each kind that makes pods.
func workload(kind, name, image string) string {
	apiVersion := map[string]string{"Job": "batch/v1", "CronJob": "batch/v1", "ReplicationController": "v1"}[kind]
	if apiVersion == "" {
		apiVersion = "apps/v1"
	}
	template := fmt.Sprintf(`{metadata: {labels: {a: %s}}, spec: {containers: [{name: c, image: "%s"}]}}`, name, image)
	spec := fmt.Sprintf("selector: {matchLabels: {a: %s}}, template: %s", name, template)
	switch kind {
	case "StatefulSet":
		spec += ", serviceName: " + name
	case "ReplicationController":
		spec = fmt.Sprintf("selector: {a: %s}, template: %s", name, template)
	case "Job":
		spec = "template: " + strings.Replace(template, "spec: {", "spec: {restartPolicy: Never, ", 1)
	case "CronJob":
		spec = `schedule: "0 0 1 1 *", jobTemplate: {spec: {template: ` + strings.Replace(template, "spec: {", "spec: {restartPolicy: Never, ", 1) + "}}"
	}
	return fmt.Sprintf("{apiVersion: %s, kind: %s, metadata: {name: %s}, spec: {%s}}", apiVersion, kind, name, spec)
}

func kinds() []string {
	return []string{"Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "ReplicationController", "Job", "CronJob"}
}

// TestWorkloadsAreToldEarly applies each kind: a warning by default, which
// kubectl prints, and a denial where that is asked for.
func TestWorkloadsAreToldEarly(t *testing.T) {
	w := enforce(t, 1, rules)
	w.DoWith(t, `{apiVersion: v1, kind: Node, metadata: {name: n1}}`, "create", "-f", "-") // for the DaemonSet
	for _, kind := range kinds() {
		t.Run(kind, func(t *testing.T) {
			name := strings.ToLower(kind)
			out := w.DoWith(t, workload(kind, name, "quay.io/evil/app"), "apply", "-f", "-")
			if !strings.Contains(out, `Warning: image "quay.io/evil/app" at spec.`) || !strings.Contains(out, "will not run, its pods will be denied") {
				t.Errorf("kubectl apply said %s", out)
			}
			if out := w.DoWith(t, workload(kind, name+"-good", "nginx"), "apply", "-f", "-"); strings.Contains(out, "Warning") {
				t.Errorf("kubectl apply of a good one said %s", out)
			}
		})
	}
	t.Run("no pod came of it", func(t *testing.T) {
		process.Await(t, "the controllers to be told", w.refused("default", "deployment", "statefulset", "daemonset"))
		for _, pod := range w.names(t, "pods", "default") {
			if images := w.Do(t, "get", pod, "-o", "jsonpath={..image}"); strings.Contains(images, "evil") {
				t.Errorf("%s has %s", pod, images)
			}
		}
	})

	denying := w.write(t, rules+"webhook: {workloads: deny}\n")
	r := w.start(t, denying)
	w.serve(t, r)
	w.replicas[0].Stop(t) // the API server keeps its connections
	for _, kind := range kinds() {
		t.Run(kind+" denied", func(t *testing.T) {
			name := strings.ToLower(kind)
			out, err := w.Kubectl(t, workload(kind, name+"-denied", "quay.io/evil/app"), "apply", "-f", "-")
			if err == nil || !strings.Contains(out, `admission webhook "workloads.images.larder" denied the request`) {
				t.Errorf("%v: %s", err, out)
			}
			// What was there before can still be changed.
			w.Do(t, "label", strings.ToLower(kind), name, "x=y")
		})
	}
}
