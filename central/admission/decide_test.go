package admission_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/larder-registry/larder/central/admission"
)

// expect is what becomes of a review.
type expect struct {
	denied bool
	// message and warning are parts of what people read; empty means nothing
	// is said.
	message, warning string
	decision         string
}

func check(t *testing.T, a answer, want expect) {
	t.Helper()
	r := a.Response
	message := ""
	if r.Status != nil {
		message = r.Status.Message
		if r.Status.Code != 403 || r.Status.Reason != "Forbidden" {
			t.Errorf("status %+v", r.Status)
		}
	}
	warning := strings.Join(r.Warnings, "\n")
	for _, c := range [][2]string{{message, want.message}, {warning, want.warning}} {
		if (c[0] == "") != (c[1] == "") || !strings.Contains(c[0], c[1]) {
			t.Errorf("said %q, want %q in it", c[0], c[1])
		}
	}
	if r.Allowed == want.denied || r.AuditAnnotations["decision"] != want.decision {
		t.Errorf("allowed %v, decision %q, want denied %v, decision %q", r.Allowed, r.AuditAnnotations["decision"], want.denied, want.decision)
	}
}

func TestPods(t *testing.T) {
	ok, bad := "ghcr.io/org/app:1", "quay.io/x/app:1"
	in := func(namespace string, a asked) asked { a.namespace = namespace; return a }
	for _, c := range []struct {
		name string
		asked
		want expect
	}{
		{"allowed", pod(m{"containers": containers(ok, "nginx")}), expect{decision: "allowed"}},
		{"nothing in it", pod(m{}), expect{decision: "allowed"}},
		{"no image", pod(m{"containers": l{m{"name": "x"}}}), expect{decision: "allowed"}},
		{"a container", pod(m{"containers": containers(ok, bad)}), expect{
			denied: true, decision: "denied",
			message: `the image policy of this cluster does not let this run in namespace team: image "quay.io/x/app:1" at spec.containers[1].image: denied by default: no entry allows it`,
		}},
		{"an init container", pod(m{"initContainers": containers(bad)}), expect{denied: true, decision: "denied", message: "spec.initContainers[0].image"}},
		{"an ephemeral container", pod(m{"ephemeralContainers": containers(bad)}), expect{denied: true, decision: "denied", message: "spec.ephemeralContainers[0].image"}},
		{"an image volume", pod(m{"containers": containers(ok), "volumes": l{m{"name": "e", "emptyDir": m{}}, m{"name": "v", "image": m{"reference": bad, "pullPolicy": "Always"}}}}), expect{
			denied: true, decision: "denied", message: "spec.volumes[1].image.reference",
		}},
		{"a short name", pod(m{"containers": containers("evil/app")}), expect{
			denied: true, decision: "denied", message: `image "evil/app" (docker.io/evil/app:latest) at`,
		}},
		{"denied by an entry", pod(m{"containers": containers("ghcr.io/org/secret/x")}), expect{
			denied: true, decision: "denied", message: `denied by the entry "ghcr.io/org/secret"`,
		}},
		{"like an allowed one", pod(m{"containers": containers("ghcr.io/organisation/app")}), expect{
			denied: true, decision: "denied", message: `the nearest that is allowed is "ghcr.io/org"`,
		}},
		{"an image ID", pod(m{"containers": containers("sha256:" + strings.Repeat("a", 64))}), expect{
			denied: true, decision: "denied", message: "not a valid image reference: an image ID",
		}},
		{"no image reference", pod(m{"containers": containers("ghcr.io/org/app:a b")}), expect{
			denied: true, decision: "denied", message: "not a valid image reference",
		}},
		{"all of the bad ones", pod(m{"containers": containers(bad, ok, "evil/b"), "initContainers": containers("evil/c")}), expect{
			denied: true, decision: "denied",
			message: "in namespace team (3 images):\n- image \"evil/c\" (docker.io/evil/c:latest) at spec.initContainers[0].image: denied by default: no entry allows it; the nearest that is allowed is \"docker.io/library/*\"\n- image \"quay.io/x/app:1\" at spec.containers[0].image: denied",
		}},
		{"one image in many places", pod(m{"containers": containers(bad, bad, bad)}), expect{
			denied: true, decision: "denied", message: "at spec.containers[0].image, spec.containers[1].image, spec.containers[2].image: denied",
		}},
		{"where it is a warning", in("lab", pod(m{"containers": containers(bad)})), expect{
			decision: "would_deny", warning: `image "quay.io/x/app:1" at spec.containers[0].image is against the image policy of this cluster, which will deny it once it is enforced: denied by default`,
		}},
		{"where it is only noted", in("old", pod(m{"containers": containers(bad)})), expect{decision: "would_deny"}},
		{"a rule that warns", pod(m{"containers": containers("quay.io/half/app:1")}), expect{
			decision: "would_deny", warning: "a tag may change: name the image by digest",
		}},
		{"a warning beside a denial", pod(m{"containers": containers("quay.io/half/app:1", bad)}), expect{
			denied: true, decision: "denied", message: `run in namespace team: image "quay.io/x/app:1"`, warning: `image "quay.io/half/app:1"`,
		}},
		{"owned by what was allowed", func() asked {
			a := pod(m{"containers": containers(bad)})
			a.object.(m)["metadata"] = m{"name": "p", "ownerReferences": l{m{"kind": "ReplicaSet", "name": "x", "controller": true}}}
			return a
		}(), expect{denied: true, decision: "denied", message: bad}},
		{"made with a deletion timestamp", func() asked {
			a := pod(m{"containers": containers(bad)})
			a.object.(m)["metadata"] = m{"deletionTimestamp": "2026-01-01T00:00:00Z"}
			return a
		}(), expect{denied: true, decision: "denied", message: bad}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := start(t, rules(t, ""))
			check(t, w.review(t, c.asked.String()), c.want)
		})
	}
}

// TestUpdates is about what was there before.
func TestUpdates(t *testing.T) {
	update := func(old, now m) asked {
		a := pod(now)
		a.op, a.old = "UPDATE", m{"kind": "Pod", "spec": old}
		return a
	}
	withMeta := func(a asked, meta m) asked { a.object.(m)["metadata"] = meta; return a }
	bad := m{"containers": containers("quay.io/x/app:1", "evil/z")}
	for _, c := range []struct {
		name string
		asked
		want expect
	}{
		{"nothing changed", update(bad, bad), expect{decision: "allowed"}},
		{"a label", withMeta(update(bad, bad), m{"labels": m{"a": "b"}}), expect{decision: "allowed"}},
		{"a finalizer comes off", withMeta(update(bad, bad), m{"deletionTimestamp": "2026-01-01T00:00:00Z"}), expect{decision: "skipped"}},
		{"an image is set", update(m{"containers": containers("ghcr.io/org/a")}, m{"containers": containers("quay.io/y")}), expect{
			denied: true, decision: "denied", message: "quay.io/y",
		}},
		{"one of two is set", update(bad, m{"containers": containers("quay.io/y", "evil/z")}), expect{
			denied: true, decision: "denied", message: `run in namespace team: image "quay.io/y"`,
		}},
		{"another tag of a bad one", update(bad, m{"containers": containers("quay.io/x/app:2", "evil/z")}), expect{
			denied: true, decision: "denied", message: "quay.io/x/app:2",
		}},
		{"another spelling", update(m{"containers": containers("evil/a")}, m{"containers": containers("index.docker.io/evil/a:latest")}), expect{decision: "allowed"}},
		{"another place", update(bad, m{"containers": containers("ghcr.io/org/a"), "initContainers": containers("quay.io/x/app:1")}), expect{decision: "allowed"}},
		{"a debug container", func() asked {
			a := update(m{"containers": containers("ghcr.io/org/a")}, m{"containers": containers("ghcr.io/org/a"), "ephemeralContainers": containers("evil/debug")})
			a.sub = "ephemeralcontainers"
			return a
		}(), expect{denied: true, decision: "denied", message: "spec.ephemeralContainers[0].image"}},
		{"an invalid one that stays", update(m{"containers": containers("a b")}, m{"containers": containers("a b")}), expect{decision: "allowed"}},
		{"an invalid one for another", update(m{"containers": containers("a b")}, m{"containers": containers("a c")}), expect{
			denied: true, decision: "denied", message: `"a c"`,
		}},
		{"nothing is known of before", func() asked { a := pod(bad); a.op = "UPDATE"; return a }(), expect{
			denied: true, decision: "denied", message: "(2 images)",
		}},
		{"deleted", func() asked {
			a := pod(nil)
			a.op, a.object, a.old = "DELETE", nil, m{"spec": bad}
			return a
		}(), expect{decision: "skipped"}},
		{"connected to", func() asked { a := pod(nil); a.op, a.sub, a.object = "CONNECT", "exec", m{}; return a }(), expect{decision: "skipped"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := start(t, rules(t, ""))
			check(t, w.review(t, c.asked.String()), c.want)
		})
	}
}

// TestStaticPods: the kubelet shows what it runs, and nobody else can claim to.
func TestStaticPods(t *testing.T) {
	mirror := pod(m{"containers": containers("quay.io/x")})
	mirror.object.(m)["metadata"] = m{"name": "p", "annotations": m{"kubernetes.io/config.mirror": "abc"}}
	node := mirror
	node.user, node.groups = "system:node:n1", []string{"system:authenticated", "system:nodes"}
	person := mirror
	person.user, person.groups = "eve", []string{"system:authenticated"}
	named := mirror
	named.user, named.groups = "system:node:eve", []string{"system:authenticated"}
	plain := pod(m{"containers": containers("quay.io/x")})
	plain.user, plain.groups = node.user, node.groups
	for name, c := range map[string]struct {
		asked
		want expect
	}{
		"of a kubelet":              {node, expect{decision: "skipped"}},
		"of a person":               {person, expect{denied: true, decision: "denied", message: "quay.io/x"}},
		"of one with a node's name": {named, expect{denied: true, decision: "denied", message: "quay.io/x"}},
		"a kubelet's other pod":     {plain, expect{denied: true, decision: "denied", message: "quay.io/x"}},
	} {
		t.Run(name, func(t *testing.T) {
			check(t, start(t, rules(t, "")).review(t, c.asked.String()), c.want)
		})
	}
}

func TestWorkloads(t *testing.T) {
	kinds := []struct{ group, resource, kind, path string }{
		{"apps", "deployments", "Deployment", "spec.template.spec"},
		{"apps", "statefulsets", "StatefulSet", "spec.template.spec"},
		{"apps", "daemonsets", "DaemonSet", "spec.template.spec"},
		{"apps", "replicasets", "ReplicaSet", "spec.template.spec"},
		{"", "replicationcontrollers", "ReplicationController", "spec.template.spec"},
		{"batch", "jobs", "Job", "spec.template.spec"},
		{"batch", "cronjobs", "CronJob", "spec.jobTemplate.spec.template.spec"},
	}
	of := func(path string, spec m) m {
		parts := strings.Split(path, ".")
		var object any = spec
		for _, p := range slices.Backward(parts) {
			object = m{p: object}
		}
		return object.(m)
	}
	for _, k := range kinds {
		a := asked{group: k.group, resource: k.resource, kind: k.kind, namespace: "team", op: "CREATE"}
		a.object = of(k.path, m{"initContainers": containers("ghcr.io/org/a", "quay.io/x")})
		place := k.path + ".initContainers[1].image"
		warned := fmt.Sprintf(`image "quay.io/x" at %s will not run, its pods will be denied: denied by default: no entry allows it`, place)
		t.Run(k.kind, func(t *testing.T) {
			check(t, start(t, rules(t, admission.WorkloadsWarn)).review(t, a.String()), expect{decision: "would_deny", warning: warned})
			check(t, start(t, rules(t, "")).review(t, a.String()), expect{decision: "would_deny", warning: warned})
			check(t, start(t, rules(t, admission.WorkloadsOff)).review(t, a.String()), expect{decision: "skipped"})
			deny := start(t, rules(t, admission.WorkloadsDeny))
			check(t, deny.review(t, a.String()), expect{denied: true, decision: "denied", message: place})

			softer := a
			softer.namespace = "lab"
			check(t, deny.review(t, softer.String()), expect{decision: "would_deny", warning: "once it is enforced"})
			softer.namespace = "old"
			check(t, deny.review(t, softer.String()), expect{decision: "would_deny"})

			scaled := a
			scaled.op, scaled.old = "UPDATE", a.object
			check(t, deny.review(t, scaled.String()), expect{decision: "allowed"})

			owned := a
			owned.object = of(k.path, m{"containers": containers("quay.io/x")})
			owned.object.(m)["metadata"] = m{"ownerReferences": l{m{"kind": "Deployment", "name": "d", "controller": true}}}
			check(t, deny.review(t, owned.String()), expect{decision: "skipped"})

			scale := a
			scale.sub, scale.kind, scale.object = "scale", "Scale", m{"spec": m{"replicas": 3}}
			check(t, deny.review(t, scale.String()), expect{decision: "allowed"})
		})
	}
}

// TestOtherResources: a registration may name more than is known here.
func TestOtherResources(t *testing.T) {
	w := start(t, rules(t, admission.WorkloadsDeny))
	for _, c := range []struct {
		name, group, resource string
		object                m
		want                  expect
	}{
		{"built like a Deployment", "argoproj.io", "rollouts", m{"spec": m{"template": m{"spec": m{"containers": containers("quay.io/x")}}}}, expect{denied: true, decision: "denied", message: "spec.template.spec.containers[0].image"}},
		{"without images", "", "services", m{"spec": m{"ports": l{m{"port": 80}}}}, expect{decision: "allowed"}},
		{"of another form", "example.com", "things", m{"spec": m{"containers": "three"}}, expect{decision: "skipped"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := asked{group: c.group, resource: c.resource, kind: "Thing", namespace: "team", op: "CREATE", object: c.object}
			check(t, w.review(t, a.String()), c.want)
		})
	}
}
