package chart

import (
	"strings"
	"testing"
)

// TestTwoReleases beside each other, in one namespace, with everything turned on:
// no object of one is the other's, and nobody selects the other's pods.
func TestTwoReleases(t *testing.T) {
	args := []string{"--values", "testdata/values/everything.yaml"}
	blue, green := byID(t, render(t, "blue", args...)), byID(t, render(t, "green", args...))
	if len(blue) < 20 || len(blue) != len(green) {
		t.Fatalf("there are %d and %d objects", len(blue), len(green))
	}
	for id := range blue {
		if green[id] != nil {
			t.Errorf("both have %s", id)
		}
	}
	for _, o := range blue {
		selector := o.at("spec", "selector", "matchLabels")
		switch o.kind() {
		case "Service":
			selector = o.at("spec", "selector")
		case "NetworkPolicy":
			selector = o.at("spec", "podSelector", "matchLabels")
		}
		want, ok := selector.(map[string]any)
		if !ok {
			continue
		}
		for _, w := range workloads(values(green)) {
			if same(want, w.at("spec", "template", "metadata", "labels")) == len(want) {
				t.Errorf("%s selects the pods of %s", o.id(), w.id())
			}
		}
	}
}

// TestTwoReleasesInTwoNamespaces by one name: what has no namespace does not
// collide, but for the registration, whose name says which policy is in force.
func TestTwoReleasesInTwoNamespaces(t *testing.T) {
	const sets = "webhook.enabled=true,central.enabled=true,central.config.central.kubernetes.audiences[0]=a"
	one := byID(t, render(t, release, "--set", sets))
	two := byID(t, render(t, release, "--set", sets, "--namespace", "other"))
	both := []string{}
	for id := range one {
		if two[id] != nil {
			both = append(both, id)
		}
	}
	if len(both) != 1 || both[0] != "ValidatingWebhookConfiguration /larder-webhook" {
		t.Errorf("both have %s", strings.Join(both, ", "))
	}
}

// TestLongNames: what Kubernetes bounds stays within its bounds.
func TestLongNames(t *testing.T) {
	name := strings.Repeat("a", 53) // helm allows no longer ones
	for _, o := range render(t, name, "--values", "testdata/values/everything.yaml") {
		bound := 253
		if o.kind() == "Service" || len(o.list("spec", "volumeClaimTemplates")) > 0 {
			bound = 63
		}
		if len(o.name()) > bound {
			t.Errorf("the name of %s has %d characters", o.id(), len(o.name()))
		}
		labels, _ := o.at("metadata", "labels").(map[string]any)
		for key, value := range labels {
			if s, ok := value.(string); !ok || len(s) > 63 {
				t.Errorf("%s has label %s: %v", o.id(), key, value)
			}
		}
	}
}

func values(all map[string]object) []object {
	var objects []object
	for _, o := range all {
		objects = append(objects, o)
	}
	return objects
}
