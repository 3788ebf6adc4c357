package chart

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// TestEveryContainerIsConfined: nobody gains rights, writes to its image or has a
// capability, but for init's one; only init is root.
func TestEveryContainerIsConfined(t *testing.T) {
	seen := map[string]int{}
	for _, set := range valueSets(t) {
		for _, w := range workloads(render(t, release, set.args...)) {
			pod := object(w.at("spec", "template", "spec").(map[string]any))
			if pod.text("securityContext", "seccompProfile", "type") != "RuntimeDefault" {
				t.Errorf("%s: %s has no seccomp profile", set.name, w.id())
			}
			for _, c := range w.containers() {
				name := c.text("name")
				seen[name]++
				who := fmt.Sprintf("%s: %s %s", set.name, w.id(), name)
				if c.at("securityContext", "allowPrivilegeEscalation") != false || c.at("securityContext", "readOnlyRootFilesystem") != true {
					t.Errorf("%s is not confined: %v", who, c["securityContext"])
				}
				capabilities, user := "map[drop:[ALL]]", any(float64(65532))
				if name == "init" {
					capabilities, user = "map[add:[CHOWN] drop:[ALL]]", float64(0)
				}
				if got := fmt.Sprint(c.at("securityContext", "capabilities")); got != capabilities {
					t.Errorf("%s has capabilities %s", who, got)
				}
				runs, nonRoot := c.at("securityContext", "runAsUser"), c.at("securityContext", "runAsNonRoot")
				if runs == nil {
					runs, nonRoot = pod.at("securityContext", "runAsUser"), pod.at("securityContext", "runAsNonRoot")
				}
				if runs != user || (nonRoot == true) == (name == "init") {
					t.Errorf("%s runs as %v (non-root: %v)", who, runs, nonRoot)
				}
				if c.at("resources", "requests", "memory") == nil || c.at("resources", "limits", "memory") == nil {
					t.Errorf("%s has no bounds on its memory", who)
				}
				if c.at("resources", "limits", "cpu") != nil {
					t.Errorf("%s is throttled", who)
				}
				if name != "init" && c.list("env")[0].text("valueFrom", "resourceFieldRef", "resource") != "requests.memory" {
					t.Errorf("%s: GOMEMLIMIT is %v", who, c["env"])
				}
			}
		}
	}
	for _, name := range []string{"init", "mirror", "registry", "webhook"} {
		if seen[name] == 0 {
			t.Errorf("no container %s was looked at", name)
		}
	}
}

// TestTheMirrorsPod is as a node agent's that pulls depend on has to be.
func TestTheMirrorsPod(t *testing.T) {
	ds := one(t, render(t, release), "DaemonSet", "larder-mirror")
	for _, c := range []struct {
		what string
		got  any
		want string
	}{
		{"network", ds.at("spec", "template", "spec", "hostNetwork"), "true"},
		{"class", ds.at("spec", "template", "spec", "priorityClassName"), "system-node-critical"},
		{"tolerations", ds.at("spec", "template", "spec", "tolerations"), "[map[operator:Exists]]"},
		{"token", ds.at("spec", "template", "spec", "automountServiceAccountToken"), "false"},
		{"grace", ds.at("spec", "template", "spec", "terminationGracePeriodSeconds"), "30"},
		{"unavailable", ds.at("spec", "updateStrategy", "rollingUpdate", "maxUnavailable"), "10%"},
		{"surge", ds.at("spec", "updateStrategy", "rollingUpdate", "maxSurge"), "0"},
		{"DNS", ds.at("spec", "template", "spec", "dnsPolicy"), "Default"},
	} {
		if fmt.Sprint(c.got) != c.want {
			t.Errorf("%s: %v, want %s", c.what, c.got, c.want)
		}
	}
	mirror := ds.containers()[1]
	if mirror.flag("allow") != "local" {
		t.Errorf("it serves %s", mirror.flag("allow"))
	}
}

// TestProbesAskNobodyElse: they ask the process whether it runs, which no upstream
// has a part in (docs/operations.md, "The ports").
func TestProbesAskNobodyElse(t *testing.T) {
	probes := 0
	for _, set := range valueSets(t) {
		for _, w := range workloads(render(t, release, set.args...)) {
			for _, c := range w.containers() {
				for probe, path := range map[string]string{"startupProbe": "/healthz", "livenessProbe": "/healthz", "readinessProbe": "/readyz"} {
					if c.at(probe) == nil {
						continue
					}
					probes++
					if got := c.text(probe, "httpGet", "path"); got != path {
						t.Errorf("%s: %s of %s asks %s", set.name, probe, w.id(), got)
					}
					// With the admin port on loopback the kubelet has to be told.
					host, local := c.text(probe, "httpGet", "host"), strings.HasPrefix(c.flag("admin-listen"), "127.0.0.1:")
					if local != (host == "127.0.0.1") || local != (w.kind() == "DaemonSet") {
						t.Errorf("%s: %s of %s asks %q, and it listens on %s", set.name, probe, w.id(), host, c.flag("admin-listen"))
					}
				}
			}
		}
	}
	if probes < 20 {
		t.Errorf("only %d probes were looked at", probes)
	}
}

// TestMetricsAreReached from elsewhere when asked for, and from the node always:
// runbooks ask there. What the operator chooses by labels has them.
func TestMetricsAreReached(t *testing.T) {
	for sets, want := range map[string]string{
		"metrics.operator=false": "--admin-listen=127.0.0.1:8001",
		"metrics.expose=true":    "--admin-listen=127.0.0.1:8001 --admin-listen=[$(HOST_IP)]:8001",
		"metrics.operator=true,metrics.labels.release=prometheus": "--admin-listen=127.0.0.1:8001 --admin-listen=[$(HOST_IP)]:8001",
	} {
		objects := render(t, release, "--set", sets)
		args := one(t, objects, "DaemonSet", "larder-mirror").containers()[1].args()
		args = slices.DeleteFunc(args, func(arg string) bool { return !strings.HasPrefix(arg, "--admin-listen=") })
		if got := strings.Join(args, " "); got != want {
			t.Errorf("%s: %s, want %s", sets, got, want)
		}
		monitors := append(of(objects, "PodMonitor"), of(objects, "PrometheusRule")...)
		if (len(monitors) == 2) != strings.Contains(sets, "operator=true") {
			t.Errorf("%s: %d objects for the operator", sets, len(monitors))
		}
		for _, o := range monitors {
			if o.text("metadata", "labels", "release") != "prometheus" {
				t.Errorf("%s has labels %v", o.id(), o.at("metadata", "labels"))
			}
		}
	}
}

// TestNoTokenThatIsNotUsed: only who asks the API server something can.
func TestNoTokenThatIsNotUsed(t *testing.T) {
	for _, c := range []struct {
		name, kind, workload string
		args                 []string
		want                 bool
	}{
		{"mirror", "DaemonSet", "larder-mirror", nil, false},
		{"registry", "StatefulSet", "larder-central", []string{"--set", "central.enabled=true"}, false},
		{"registry that reviews tokens", "StatefulSet", "larder-central", []string{"--set", "central.enabled=true,central.config.central.kubernetes.audiences[0]=a"}, true},
		{"webhook", "Deployment", "larder-webhook", []string{"--set", "webhook.enabled=true"}, true},
		{"webhook with cert-manager's certificate", "Deployment", "larder-webhook", []string{"--set", "webhook.enabled=true,webhook.certificate.source=cert-manager"}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			objects := render(t, release, c.args...)
			w := one(t, objects, c.kind, c.workload)
			if got := w.at("spec", "template", "spec", "automountServiceAccountToken"); got != c.want {
				t.Errorf("its token is mounted: %v", got)
			}
			account := one(t, objects, "ServiceAccount", w.text("spec", "template", "spec", "serviceAccountName"))
			if account.at("automountServiceAccountToken") != false {
				t.Errorf("%s has its token mounted by whoever uses it", account.id())
			}
		})
	}
}

// TestConfigurationRestartsPods: a change of a configuration file, and nothing
// else, changes the template of the pods that read it.
func TestConfigurationRestartsPods(t *testing.T) {
	sums := func(args ...string) map[string]string {
		all := map[string]string{}
		for _, w := range workloads(render(t, release, append(args, "--set", "central.enabled=true,webhook.enabled=true")...)) {
			all[w.name()] = w.text("spec", "template", "metadata", "annotations", "checksum/config")
		}
		return all
	}
	before := sums()
	for name, set := range map[string]string{
		"larder-mirror":  "mirror.config.registry_proxies.offline=true",
		"larder-central": "central.config.central.anonymous_pull=true",
		"larder-webhook": "webhook.config.image_validation.default=Deny",
	} {
		for workload, sum := range sums("--set", set) {
			if changed := sum != before[workload]; changed != (workload == name) || sum == "" {
				t.Errorf("%s: the checksum of %s is %q, and was %q", set, workload, sum, before[workload])
			}
		}
	}
}

// TestOwnImage is asked for by tag, or by digest, and never at a registry of
// Larder's own.
func TestOwnImage(t *testing.T) {
	const digest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	for want, args := range map[string][]string{
		"ghcr.io/larder-registry/larder:v0.1.0": nil,
		"ghcr.io/larder-registry/larder:v9":     {"--set", "image.tag=v9"},
		"registry.example/a/larder:v0.1.0":      {"--set", "image.repository=registry.example/a/larder"},
		"127.0.0.1:5000/b/larder:v9@" + digest:  {"--set", "image.repository=127.0.0.1:5000/b/larder,image.tag=v9@" + digest},
	} {
		for _, w := range workloads(render(t, release, append(args, "--set", "central.enabled=true,webhook.enabled=true")...)) {
			for _, c := range w.containers() {
				if c.text("image") != want {
					t.Errorf("%s has image %s, want %s", w.id(), c.text("image"), want)
				}
			}
		}
	}
}

// TestIngressTakesLargeBodies, or pushes end with 413.
func TestIngressTakesLargeBodies(t *testing.T) {
	objects := render(t, release, "--set", "central.enabled=true,central.ingress.host=registry.example,central.ingress.tlsSecret=tls")
	ingress := one(t, objects, "Ingress", "larder-central")
	if got := ingress.text("metadata", "annotations", "nginx.ingress.kubernetes.io/proxy-body-size"); got != "0" {
		t.Errorf("bodies are limited to %q", got)
	}
	// Clients have to be sent to the ingress for their tokens.
	config := parse(t, one(t, objects, "ConfigMap", "larder-central").text("data", "larder.yaml"))[0]
	if got := config.text("central", "tokens", "public_url"); got != "https://registry.example" {
		t.Errorf("tokens are had at %q", got)
	}
	own := render(t, release, "--set", "central.enabled=true,central.ingress.host=registry.example,central.ingress.tlsSecret=tls,central.config.central.tokens.public_url=https://other.example")
	config = parse(t, one(t, own, "ConfigMap", "larder-central").text("data", "larder.yaml"))[0]
	if got := config.text("central", "tokens", "public_url"); got != "https://other.example" {
		t.Errorf("what is configured became %q", got)
	}
}
