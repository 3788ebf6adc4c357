package vap

import (
	"fmt"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/larder-registry/larder/internal/policy"
	"github.com/larder-registry/larder/internal/policy/policytest"
)

// allPlaces is a pod with a good image everywhere but in one place.
func allPlaces(bad int) *corev1.Pod {
	image := func(i int) string {
		if i == bad {
			return "quay.io/evil"
		}
		return "nginx"
	}
	p := pod(image(0))
	p.Spec.InitContainers = []corev1.Container{{Image: image(1)}}
	p.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Image: image(2)}}}
	p.Spec.Volumes = []corev1.Volume{
		{VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
		{VolumeSource: corev1.VolumeSource{Image: &corev1.ImageVolumeSource{Reference: image(3)}}},
	}
	return p
}

func TestEveryPlaceForAnImage(t *testing.T) {
	all := evaluators(t, policytest.Policies()["closed"], policy.AdmissionOptions{}, newest)
	for _, subresource := range []string{"", "ephemeralcontainers"} {
		for bad, want := range []string{"deny", "deny", "deny", "deny", "allow"} {
			r := podReview("x", allPlaces(bad), nil)
			r.subresource = subresource
			if got, message := word(t, all, r); got != want {
				t.Errorf("place %d of pods/%s: %s (%s)", bad, subresource, got, message)
			}
		}
	}
}

func TestOnlyWhatIsNewIsJudged(t *testing.T) {
	all := evaluators(t, policytest.Policies()["closed"], policy.AdmissionOptions{}, newest)
	deleting := pod("quay.io/evil", "quay.io/evil/two")
	deleting.DeletionTimestamp = &metav1.Time{Time: time.Unix(1, 0)}
	mirror := pod("quay.io/evil")
	mirror.Annotations = map[string]string{"kubernetes.io/config.mirror": "x"}
	for name, c := range map[string]struct {
		now, before *corev1.Pod
		user        string
		want        string
	}{
		"a denied image stays":              {pod("quay.io/evil"), pod("quay.io/evil"), "someone", "allow"},
		"it moves":                          {pod("nginx", "quay.io/evil"), pod("quay.io/evil", "nginx"), "someone", "allow"},
		"it is spelt otherwise":             {pod("QUAY.io:443/evil:latest"), pod("quay.io/evil"), "someone", "allow"},
		"another comes":                     {pod("quay.io/evil/2"), pod("quay.io/evil"), "someone", "deny"},
		"its tag changes":                   {pod("quay.io/evil:2"), pod("quay.io/evil"), "someone", "deny"},
		"one that is no image stays":        {pod("a//b"), pod("a//b"), "someone", "allow"},
		"one that is no image follows such": {pod("a//c"), pod("a//b"), "someone", "deny"},
		"a good one comes":                  {pod("quay.io/evil", "nginx"), pod("quay.io/evil"), "someone", "allow"},
		"being deleted":                     {deleting, pod("quay.io/evil"), "someone", "allow"},
		"a mirror pod of a kubelet":         {mirror, nil, "system:node:a", "allow"},
		"a mirror pod of a user":            {mirror, nil, "someone", "deny"},
	} {
		t.Run(name, func(t *testing.T) {
			r := podReview("x", c.now, c.before)
			r.user = c.user
			if got, message := word(t, all, r); got != c.want {
				t.Errorf("got %s (%s), want %s", got, message, c.want)
			}
		})
	}
}

func TestWorkloads(t *testing.T) {
	template := func(image string) corev1.PodTemplateSpec {
		return corev1.PodTemplateSpec{Spec: pod(image).Spec}
	}
	kinds := []struct {
		gvk      schema.GroupVersionKind
		resource string
		object   func(image string, meta metav1.ObjectMeta) runtime.Object
	}{
		{appsv1.SchemeGroupVersion.WithKind("Deployment"), "deployments", func(i string, m metav1.ObjectMeta) runtime.Object {
			return &appsv1.Deployment{ObjectMeta: m, Spec: appsv1.DeploymentSpec{Template: template(i)}}
		}},
		{appsv1.SchemeGroupVersion.WithKind("StatefulSet"), "statefulsets", func(i string, m metav1.ObjectMeta) runtime.Object {
			return &appsv1.StatefulSet{ObjectMeta: m, Spec: appsv1.StatefulSetSpec{Template: template(i)}}
		}},
		{appsv1.SchemeGroupVersion.WithKind("DaemonSet"), "daemonsets", func(i string, m metav1.ObjectMeta) runtime.Object {
			return &appsv1.DaemonSet{ObjectMeta: m, Spec: appsv1.DaemonSetSpec{Template: template(i)}}
		}},
		{appsv1.SchemeGroupVersion.WithKind("ReplicaSet"), "replicasets", func(i string, m metav1.ObjectMeta) runtime.Object {
			return &appsv1.ReplicaSet{ObjectMeta: m, Spec: appsv1.ReplicaSetSpec{Template: template(i)}}
		}},
		{batchv1.SchemeGroupVersion.WithKind("Job"), "jobs", func(i string, m metav1.ObjectMeta) runtime.Object {
			return &batchv1.Job{ObjectMeta: m, Spec: batchv1.JobSpec{Template: template(i)}}
		}},
		{batchv1.SchemeGroupVersion.WithKind("CronJob"), "cronjobs", func(i string, m metav1.ObjectMeta) runtime.Object {
			return &batchv1.CronJob{ObjectMeta: m, Spec: batchv1.CronJobSpec{JobTemplate: batchv1.JobTemplateSpec{Spec: batchv1.JobSpec{Template: template(i)}}}}
		}},
		{corev1.SchemeGroupVersion.WithKind("ReplicationController"), "replicationcontrollers", func(i string, m metav1.ObjectMeta) runtime.Object {
			pt := template(i)
			return &corev1.ReplicationController{ObjectMeta: m, Spec: corev1.ReplicationControllerSpec{Template: &pt}}
		}},
	}
	yes := true
	owned := metav1.ObjectMeta{OwnerReferences: []metav1.OwnerReference{{Kind: "Other"}, {Kind: "Deployment", Controller: &yes}}}
	for _, c := range []struct {
		workloads  policy.Mode
		image      string
		want       string
		policyName string
	}{
		{policy.Warn, "quay.io/evil", "warn", "closed"},
		{policy.Enforce, "quay.io/evil", "deny", "closed"},
		{policy.Audit, "quay.io/evil", "audit", "closed"},
		{"", "quay.io/evil", "allow", "closed"},
		{policy.Warn, "nginx", "allow", "closed"},
		{policy.Warn, "ghcr.io/org/never", "warn", "modes"},
		{policy.Warn, "ghcr.io/org/soon", "warn", "modes"},
		{policy.Warn, "ghcr.io/org/old", "audit", "modes"},
		{policy.Enforce, "ghcr.io/org/never", "deny", "modes"},
		{policy.Enforce, "ghcr.io/org/soon", "warn", "modes"},
		{policy.Enforce, "ghcr.io/org/old", "audit", "modes"},
	} {
		all := evaluators(t, policytest.Policies()[c.policyName], policy.AdmissionOptions{Workloads: c.workloads}, newest)
		for _, k := range kinds {
			r := review{object: k.object(c.image, metav1.ObjectMeta{}), kind: k.gvk, resource: k.resource, namespace: "x", user: "someone"}
			if got, message := word(t, all, r); got != c.want {
				t.Errorf("%s of %s with workloads %q: got %s (%s), want %s", c.image, k.resource, c.workloads, got, message, c.want)
			}
			r.old = r.object
			if got, message := word(t, all, r); got != "allow" {
				t.Errorf("%s of %s unchanged: %s (%s)", c.image, k.resource, got, message)
			}
			r.old, r.object = nil, k.object(c.image, owned)
			if got, message := word(t, all, r); got != "allow" {
				t.Errorf("%s of %s owned by another: %s (%s)", c.image, k.resource, got, message)
			}
		}
	}
}

// TestMessages: all that is denied is named, or the first where that is too long.
func TestMessages(t *testing.T) {
	all := evaluators(t, policytest.Policies()["closed"], policy.AdmissionOptions{}, newest)
	_, message := word(t, all, podReview("x", pod("nginx", "Quay.io/evil", "sha256:0123", "mcr.microsoft.com/x", "secret"), nil))
	want := `Quay.io/evil (quay.io/evil:latest): denied by the entry "quay.io/evil"; sha256:0123: not a valid image reference; ` +
		`mcr.microsoft.com/x (mcr.microsoft.com/x:latest): denied by default: no entry allows it; secret (docker.io/library/secret:latest): denied by the entry "docker.io/library/secret"`
	if message != want {
		t.Errorf("got  %s\nwant %s", message, want)
	}
	many := make([]string, 100)
	for i := range many {
		many[i] = fmt.Sprintf("quay.io/evil/%d", i)
	}
	if _, message := word(t, all, podReview("x", pod(many...), nil)); message != `quay.io/evil/0 (quay.io/evil/0:latest): denied by the entry "quay.io/evil" (and 99 more)` {
		t.Error(message)
	}
}

// TestBounds asks for what docs/policy.md says the API server's budget is enough
// for.
func TestBounds(t *testing.T) {
	for _, c := range []struct{ entries, containers int }{{100, 500}, {500, 100}} {
		cfg := policy.Config{Default: policy.Deny}
		for i := range c.entries {
			cfg.Allow = append(cfg.Allow, policy.Rule{Image: fmt.Sprintf("registry-%d.example.com/team-%d/group", i, i)})
		}
		all := evaluators(t, cfg, policy.AdmissionOptions{}, newest)
		images := make([]string, c.containers)
		for i := range images {
			images[i] = fmt.Sprintf("registry-%d.example.com/team-%d/group/application-%d:v1.2.3@sha256:%s", i%c.entries, i%c.entries, i, strings.Repeat("0", 64))
		}
		// decide fails the test when the budget is exceeded.
		got, message := word(t, all, podReview("x", pod(images...), nil))
		if got != "allow" {
			t.Errorf("%d entries, %d containers: %s (%s)", c.entries, c.containers, got, message)
		}
	}
}
