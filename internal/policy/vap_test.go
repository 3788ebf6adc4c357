package policy_test

import (
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/larder-registry/larder/internal/policy"
)

// many makes n allow entries of a usual length.
func many(n int) policy.Config {
	cfg := policy.Config{Default: policy.Deny}
	for i := range n {
		cfg.Allow = append(cfg.Allow, policy.Rule{Image: fmt.Sprintf("registry-%d.example.com/team-%d/group", i, i)})
	}
	return cfg
}

// TestWriteAdmissionPolicies looks at which objects there are; what they decide
// is tested with the API server's evaluator, in test/vap.
func TestWriteAdmissionPolicies(t *testing.T) {
	modes := policy.Config{Mode: policy.Warn, Allow: rules("ghcr.io"), Deny: []policy.Rule{{Image: "ghcr.io/a", Mode: policy.Enforce}, {Image: "ghcr.io/b", Mode: policy.Audit}}}
	for name, c := range map[string]struct {
		cfg  policy.Config
		opts policy.AdmissionOptions
		want string // names and actions, or an error
	}{
		"one mode":           {policy.Config{Allow: rules("ghcr.io")}, policy.AdmissionOptions{}, "larder-images Deny"},
		"all modes":          {modes, policy.AdmissionOptions{Name: "x"}, "x Deny, x-warn Warn, x-audit Audit"},
		"workloads deny":     {modes, policy.AdmissionOptions{Name: "x", Workloads: policy.Enforce}, "x Deny, x-warn Warn, x-audit Audit, x-workloads Deny, x-workloads-warn Warn, x-workloads-audit Audit"},
		"workloads warn":     {modes, policy.AdmissionOptions{Name: "x", Workloads: policy.Warn}, "x Deny, x-warn Warn, x-audit Audit, x-workloads-warn Warn, x-workloads-audit Audit"},
		"workloads audit":    {modes, policy.AdmissionOptions{Name: "x", Workloads: policy.Audit}, "x Deny, x-warn Warn, x-audit Audit, x-workloads-audit Audit"},
		"a namespace's mode": {policy.Config{Allow: rules("ghcr.io"), Namespaces: map[string]policy.Namespace{"a": {Mode: policy.Audit}}}, policy.AdmissionOptions{}, "larder-images Deny, larder-images-audit Audit"},
		"a bad name":         {policy.Config{Allow: rules("ghcr.io")}, policy.AdmissionOptions{Name: "X"}, `"X" is not a name for an object`},
		"many entries":       {many(600), policy.AdmissionOptions{}, "larder-images Deny"},
		"too many entries":   {many(2000), policy.AdmissionOptions{}, "too many entries for an expression of the API server"},
	} {
		t.Run(name, func(t *testing.T) {
			var out strings.Builder
			err := mustNew(t, c.cfg).WriteAdmissionPolicies(&out, c.opts)
			if err != nil {
				if !strings.Contains(err.Error(), c.want) || out.Len() > 0 {
					t.Errorf("got %v, want %s; %d bytes were written", err, c.want, out.Len())
				}
				return
			}
			var got []string
			name := ""
			for line := range strings.Lines(out.String()) {
				if rest, ok := strings.CutPrefix(line, "  name: "); ok {
					name = strings.TrimSpace(rest)
				}
				if rest, ok := strings.CutPrefix(line, "  validationActions: "); ok {
					got = append(got, name+" "+strings.Trim(rest, "[]\n"))
				}
			}
			if strings.Join(got, ", ") != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
	cfg := policy.Config{Default: policy.Deny, Namespaces: map[string]policy.Namespace{}}
	for i := range 101 {
		cfg.Namespaces[fmt.Sprintf("n%d", i)] = policy.Namespace{Default: policy.Allow}
	}
	if err := mustNew(t, cfg).WriteAdmissionPolicies(io.Discard, policy.AdmissionOptions{}); err == nil || !strings.Contains(err.Error(), "rules for more than 100 namespaces") {
		t.Error(err)
	}
}
