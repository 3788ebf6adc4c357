package chart

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

// TestReferences: whatever names something else names what is there. The Secrets
// that the user brings are the only exception, and are named by values.
func TestReferences(t *testing.T) {
	brought := map[string]bool{"hub.password": true, "users": true, "registry": true, "registry-tls": true, "my-certificate": true, "larder-registry": true}
	for _, set := range valueSets(t) {
		t.Run(set.name, func(t *testing.T) {
			objects := render(t, release, set.args...)
			there := byID(t, objects)
			has := func(by, kind, name string) {
				t.Helper()
				if there[kind+" "+namespace+"/"+name] == nil {
					t.Errorf("%s names %s %s, which is not there", by, kind, name)
				}
			}
			for _, w := range workloads(objects) {
				has(w.id(), "ServiceAccount", w.text("spec", "template", "spec", "serviceAccountName"))
				volumes := map[string]bool{}
				for _, v := range w.list("spec", "template", "spec", "volumes") {
					volumes[v.text("name")] = true
					if name := v.text("configMap", "name"); name != "" {
						has(w.id(), "ConfigMap", name)
					}
					// A certificate is made by cert-manager, the rest by the user.
					if name := v.text("secret", "secretName"); name != "" && !brought[name] && !slices.ContainsFunc(of(objects, "Certificate"), func(c object) bool { return c.text("spec", "secretName") == name }) {
						t.Errorf("%s names Secret %s, which nobody makes", w.id(), name)
					}
				}
				for _, v := range w.list("spec", "volumeClaimTemplates") {
					volumes[v.name()] = true
				}
				mounted := map[string]bool{}
				for _, c := range w.containers() {
					for _, m := range c.list("volumeMounts") {
						mounted[m.text("name")] = true
						if !volumes[m.text("name")] {
							t.Errorf("%s mounts %s, which is no volume", w.id(), m.text("name"))
						}
					}
					named := map[string]bool{}
					for _, p := range c.list("ports") {
						named[p.text("name")] = true
					}
					for _, probe := range []string{"startupProbe", "livenessProbe", "readinessProbe"} {
						if port := c.text(probe, "httpGet", "port"); port != "" && !named[port] {
							t.Errorf("%s probes the port %s, which is not there", w.id(), port)
						}
					}
				}
				if !maps.Equal(volumes, mounted) {
					t.Errorf("%s has volumes %v and mounts %v", w.id(), volumes, mounted)
				}
				if same(w.at("spec", "selector", "matchLabels"), w.at("spec", "template", "metadata", "labels")) < 3 {
					t.Errorf("%s does not select its own pods", w.id())
				}
			}
			// What selects pods selects those of one workload.
			for _, o := range objects {
				selector := o.at("spec", "selector", "matchLabels")
				switch o.kind() {
				case "Service":
					selector = o.at("spec", "selector")
				case "NetworkPolicy":
					selector = o.at("spec", "podSelector", "matchLabels")
				case "PodDisruptionBudget", "PodMonitor":
				default:
					continue
				}
				var selected []object
				for _, w := range workloads(objects) {
					if m, ok := selector.(map[string]any); ok && same(selector, w.at("spec", "template", "metadata", "labels")) == len(m) {
						selected = append(selected, w)
					}
				}
				if len(selected) != 1 {
					t.Errorf("%s selects %d workloads", o.id(), len(selected))
					continue
				}
				for _, port := range portsOf(o) {
					if !slices.Contains(portNames(selected[0]), port) {
						t.Errorf("%s names the port %s of %s, which is not there", o.id(), port, selected[0].id())
					}
				}
			}
			for _, b := range append(of(objects, "RoleBinding"), of(objects, "ClusterRoleBinding")...) {
				role := b.text("roleRef", "kind")
				if name := b.text("roleRef", "name"); name != "system:auth-delegator" {
					ns := map[string]string{"Role": namespace}[role]
					if there[role+" "+ns+"/"+name] == nil {
						t.Errorf("%s binds %s %s, which is not there", b.id(), role, name)
					}
				}
				for _, s := range b.list("subjects") {
					has(b.id(), "ServiceAccount", s.text("name"))
					if s.text("namespace") != namespace {
						t.Errorf("%s binds an account of namespace %s", b.id(), s.text("namespace"))
					}
				}
			}
			for _, i := range of(objects, "Ingress") {
				service := i.list("spec", "rules")[0].list("http", "paths")[0]
				has(i.id(), "Service", service.text("backend", "service", "name"))
			}
		})
	}
}

// same counts the labels of want that have has.
func same(want, has any) int {
	w, _ := want.(map[string]any)
	h, _ := has.(map[string]any)
	n := 0
	for k, v := range w {
		if h[k] == v {
			n++
		}
	}
	return n
}

// portNames are the ports that a workload's containers have.
func portNames(w object) []string {
	var names []string
	for _, c := range w.containers() {
		for _, p := range c.list("ports") {
			names = append(names, p.text("name"))
		}
	}
	return names
}

// portsOf are the names of ports that an object mentions.
func portsOf(o object) []string {
	var ports []string
	add := func(v any) {
		if s, ok := v.(string); ok {
			ports = append(ports, s)
		}
	}
	for _, p := range o.list("spec", "ports") {
		add(p.at("targetPort"))
	}
	for _, p := range o.list("spec", "podMetricsEndpoints") {
		add(p.at("port"))
	}
	for _, rule := range o.list("spec", "ingress") {
		for _, p := range rule.list("ports") {
			add(p.at("port"))
		}
	}
	return ports
}

// TestInitAndMirrorAgree on port and directory, whatever they are set to.
func TestInitAndMirrorAgree(t *testing.T) {
	mirrors := 0
	for _, set := range valueSets(t) {
		for _, ds := range of(render(t, release, set.args...), "DaemonSet") {
			mirrors++
			containers := ds.containers()
			mirror := containers[len(containers)-1]
			host, port, _ := strings.Cut(mirror.flag("listen"), ":")
			if host != "127.0.0.1" {
				t.Errorf("%s: the mirror listens on %s", set.name, host)
			}
			declared := map[string]string{}
			for _, p := range mirror.list("ports") {
				declared[p.text("name")] = fmt.Sprint(p.at("containerPort"))
				if p.at("hostPort") != p.at("containerPort") {
					t.Errorf("%s: port %s is another on the host", set.name, p.text("name"))
				}
			}
			if declared["mirror"] != port || !strings.HasSuffix(mirror.flag("admin-listen"), ":"+declared["admin"]) {
				t.Errorf("%s: the mirror listens on %s and %s, and declares %v", set.name, mirror.flag("listen"), mirror.flag("admin-listen"), declared)
			}
			init := containers[0]
			if init.flag("port") != port || init.flag("address") != "loopback" {
				t.Errorf("%s: init names port %s at %s, the mirror listens on %s", set.name, init.flag("port"), init.flag("address"), port)
			}
			if slices.Contains(init.args(), "--undo") {
				// The mirror keeps nothing on a node that it is taken from.
				if !slices.ContainsFunc(ds.list("spec", "template", "spec", "volumes"), func(v object) bool { return v.text("name") == "cache" && v.at("emptyDir") != nil }) {
					t.Errorf("%s: the mirror still has a directory of the node", set.name)
				}
				continue
			}
			prepared := init.flag("prepare-data")
			user := fmt.Sprintf("%v:%v", mirror.at("securityContext", "runAsUser"), mirror.at("securityContext", "runAsGroup"))
			if want := mirror.flag("data-dir") + ":" + user; prepared != want {
				t.Errorf("%s: init prepares %s, the mirror needs %s", set.name, prepared, want)
			}
			if !mounts(init, "/host"+mirror.flag("data-dir")) || !mounts(mirror, mirror.flag("data-dir")) {
				t.Errorf("%s: %s is not mounted", set.name, mirror.flag("data-dir"))
			}
		}
	}
	if mirrors < 8 {
		t.Errorf("only %d mirrors were looked at", mirrors)
	}
}

// mounts reports whether a container may write at a path.
func mounts(c object, path string) bool {
	return slices.ContainsFunc(c.list("volumeMounts"), func(m object) bool {
		return m.text("mountPath") == path && m.at("readOnly") == nil
	})
}

// TestInitMayWriteWhereItHasTo, for each kind of node, and nowhere else.
func TestInitMayWriteWhereItHasTo(t *testing.T) {
	for target, want := range map[string][]string{
		"containerd": {"/host/etc/containerd"},
		"k3s":        {"/host/etc/rancher/k3s", "/host/var/lib/rancher/k3s/agent/etc/containerd"},
		"rke2":       {"/host/etc/rancher/rke2", "/host/var/lib/rancher/rke2/agent/etc/containerd"},
		"crio":       {"/host/etc/containers"},
		"none":       nil,
	} {
		t.Run(target, func(t *testing.T) {
			ds := one(t, render(t, release, "--set", "init.target="+target), "DaemonSet", "larder-mirror")
			var writable []string
			for _, m := range ds.containers()[0].list("volumeMounts") {
				if m.at("readOnly") == nil {
					writable = append(writable, m.text("mountPath"))
				}
			}
			slices.Sort(writable)
			want := slices.Sorted(slices.Values(append(want, "/host/var/lib/larder")))
			if !slices.Equal(writable, want) {
				t.Errorf("it may write to %v, want %v", writable, want)
			}
		})
	}
}

// TestTheWebhookKnowsItsNames: registration, Secret, Service and rights belong
// together, in the configuration file as well.
func TestTheWebhookKnowsItsNames(t *testing.T) {
	for _, name := range []string{"larder", "blue"} {
		t.Run(name, func(t *testing.T) {
			objects := render(t, name, "--set", "webhook.enabled=true")
			full := map[string]string{"larder": "larder-webhook", "blue": "blue-larder-webhook"}[name]
			registration := one(t, objects, "ValidatingWebhookConfiguration", full)
			config := parse(t, one(t, objects, "ConfigMap", full).text("data", "larder.yaml"))[0]
			if config.text("webhook", "registration") != full || config.text("webhook", "secret") != full+"-authority" || config.text("webhook", "certificate") != "self" {
				t.Errorf("the configuration file says %v", config["webhook"])
			}
			one(t, objects, "Secret", full+"-authority")
			rights := one(t, objects, "Role", full).list("rules")[0]
			if fmt.Sprint(rights.at("resourceNames")) != "["+full+"-authority]" || fmt.Sprint(rights.at("verbs")) != "[get update]" {
				t.Errorf("its rights to Secrets: %v", rights)
			}
			rights = one(t, objects, "ClusterRole", namespace+"-"+full).list("rules")[0]
			if fmt.Sprint(rights.at("resourceNames")) != "["+full+"]" || fmt.Sprint(rights.at("verbs")) != "[get patch]" {
				t.Errorf("its rights to registrations: %v", rights)
			}
			for _, w := range registration.list("webhooks") {
				service := one(t, objects, "Service", w.text("clientConfig", "service", "name"))
				if w.text("clientConfig", "service", "namespace") != namespace || w.at("clientConfig", "service", "port") != service.list("spec", "ports")[0].at("port") {
					t.Errorf("%s asks %v", w.text("name"), w.at("clientConfig"))
				}
				if exempt := fmt.Sprint(w.list("namespaceSelector", "matchExpressions")[0].at("values")); exempt != "[kube-system kube-public kube-node-lease "+namespace+"]" {
					t.Errorf("%s does not look at %s", w.text("name"), exempt)
				}
			}
		})
	}
}

// TestCertManagerMakesTheCertificate that the registration is annotated with, for
// the name by which the API server calls.
func TestCertManagerMakesTheCertificate(t *testing.T) {
	objects := render(t, release, "--values", "testdata/values/cert-manager.yaml")
	registration := one(t, objects, "ValidatingWebhookConfiguration", "larder-webhook")
	ns, name, _ := strings.Cut(registration.text("metadata", "annotations", "cert-manager.io/inject-ca-from"), "/")
	certificate := one(t, objects, "Certificate", name)
	if ns != namespace || certificate.text("metadata", "namespace") != ns {
		t.Errorf("the annotation names %s/%s", ns, name)
	}
	one(t, objects, "Issuer", certificate.text("spec", "issuerRef", "name"))
	service := registration.list("webhooks")[0]
	want := service.text("clientConfig", "service", "name") + "." + service.text("clientConfig", "service", "namespace") + ".svc"
	if fmt.Sprint(certificate.at("spec", "dnsNames")) != "["+want+"]" {
		t.Errorf("the certificate is for %v, want %s", certificate.at("spec", "dnsNames"), want)
	}
	// The webhook has no rights then, and no Secret of its own.
	for _, kind := range []string{"Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding", "Secret"} {
		if have := of(objects, kind); len(have) > 0 {
			t.Errorf("there is %s", have[0].id())
		}
	}
}
