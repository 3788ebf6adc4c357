package monitoring

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/larder-registry/larder/test/process"
)

const rulesFile = "../../manifests/chart/monitoring/larder-alerts.yaml"

// rule is one alert of the file.
type rule struct {
	Alert, Expr, For    string
	Labels, Annotations map[string]string
}

func readRules(t *testing.T) (rules []rule) {
	t.Helper()
	raw, err := os.ReadFile(rulesFile)
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Groups []struct {
			Name  string
			Rules []rule
		}
	}
	if err := yaml.Unmarshal(raw, &file); err != nil {
		t.Fatal(err)
	}
	for _, g := range file.Groups {
		rules = append(rules, g.Rules...)
	}
	return rules
}

// TestEveryAlertHasARunbook: one section each, in the same order, and a link to
// it; and a test of promtool's.
func TestEveryAlertHasARunbook(t *testing.T) {
	raw, err := os.ReadFile("../../docs/runbooks.md")
	if err != nil {
		t.Fatal(err)
	}
	var sections, alerts []string
	for _, m := range regexp.MustCompile(`(?m)^## (\w+)$`).FindAllStringSubmatch(string(raw), -1) {
		sections = append(sections, m[1])
	}
	tests, err := os.ReadFile("rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range readRules(t) {
		alerts = append(alerts, r.Alert)
		want := "https://github.com/larder-registry/larder/blob/main/docs/runbooks.md#" + strings.ToLower(r.Alert)
		if r.Annotations["runbook_url"] != want {
			t.Errorf("%s links to %s", r.Alert, r.Annotations["runbook_url"])
		}
		if r.Annotations["summary"] == "" || r.Annotations["description"] == "" || !slices.Contains([]string{"warning", "critical"}, r.Labels["severity"]) {
			t.Errorf("%s lacks words or a severity", r.Alert)
		}
		firing := regexp.MustCompile(`alertname: ` + r.Alert + `\n +exp_alerts: \[\]`)
		silent := regexp.MustCompile(`alertname: ` + r.Alert + `\n +exp_alerts:\n`)
		if !firing.Match(tests) || !silent.Match(tests) {
			t.Errorf("rules.yaml does not have %s fire and stay silent", r.Alert)
		}
	}
	if !slices.Equal(sections, alerts) {
		t.Errorf("the runbook has %v, the rules %v", sections, alerts)
	}
}

// testAlerts looks at what became of the rules on what was scraped: none fails to
// be evaluated, and those whose event happened are pending or firing, and no
// others.
func testAlerts(t *testing.T, w *world) {
	happened := []string{
		"LarderMirrorsDown", "LarderCannotKeep", "LarderEvictingHard", "LarderServingStale", "LarderUpstreamErrors",
		"LarderBreakerOpen", "LarderRateLimitLow", "LarderDigestMismatch", "LarderPrivateDenials",
		"LarderWebhookCertificateEnds", "LarderWebhookCertificateTrouble", "LarderWebhookErrors",
		"LarderPolicyReloadFailed", "LarderPolicyRevisionsDiffer", "LarderLoginsLimited",
	}
	w.expectAlerts(t, happened)
	// They are down together; what they showed is forgotten six hours later.
	w.webhooks[0].Kill()
	w.central.Kill()
	w.expectAlerts(t, append(slices.DeleteFunc(happened, func(name string) bool {
		// One webhook is left, which is well.
		return slices.Contains([]string{"LarderWebhookCertificateTrouble", "LarderPolicyReloadFailed", "LarderPolicyRevisionsDiffer", "LarderWebhookErrors", "LarderLoginsLimited"}, name)
	}), "LarderWebhookDown", "LarderCentralDown"))
}

// unsettled may be active or not: what they say is about minutes that a process
// may be gone for, or about hours, of which there are minutes here, or about this
// machine's disk.
var unsettled = []string{"LarderCentralFillsUp", "LarderWebhookCertificateTrouble", "LarderPolicyReloadFailed", "LarderWebhookErrors", "LarderLoginsLimited", "LarderDiskLow"}

func (w *world) expectAlerts(t *testing.T, want []string) {
	t.Helper()
	process.Await(t, "the alerts to be as they should", func(context.Context) error {
		var data struct {
			Groups []struct {
				Rules []struct{ Name, State, Health, LastError string }
			}
		}
		if err := w.api(t, "rules", nil, &data); err != nil {
			return err
		}
		rules := 0
		for _, g := range data.Groups {
			for _, r := range g.Rules {
				rules++
				active := r.State == "pending" || r.State == "firing"
				switch {
				case r.Health != "ok":
					return fmt.Errorf("%s is %s: %s", r.Name, r.Health, r.LastError)
				case slices.Contains(want, r.Name) && !active:
					return fmt.Errorf("%s is %s", r.Name, r.State)
				case !slices.Contains(want, r.Name) && active && !slices.Contains(unsettled, r.Name):
					return fmt.Errorf("%s is %s", r.Name, r.State)
				}
			}
		}
		if rules != len(readRules(t)) {
			return fmt.Errorf("there are %d rules", rules)
		}
		return nil
	})
}
