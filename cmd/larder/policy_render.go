package main

import (
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/larder-registry/larder/internal/policy"
)

// renderFlags is what larder policy render is told.
type renderFlags struct {
	config    string
	format    string
	name      string
	exempt    []string
	workloads string
}

func newPolicyRender() *cobra.Command {
	var f renderFlags
	cmd := &cobra.Command{
		Use:   "render",
		Short: "Write the policy as ValidatingAdmissionPolicies",
		Long: `Writes the image policy as Kubernetes ValidatingAdmissionPolicies with their
bindings, which the API server evaluates by itself: no webhook, no certificate,
nothing to be down. Every image gets the verdict that the webhook gives it.

  larder policy render --config larder.yaml | kubectl apply --server-side -f -

There is one policy for each mode that a denial can have, and the same for
workloads. Render and apply again when the policy changes. Kubernetes 1.31 or
later.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runPolicyRender(cmd, f) },
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringVar(&f.config, "config", "", "configuration `FILE` with the policy, in image_validation")
	flags.StringVar(&f.format, "format", "vap", "`FORMAT`: vap")
	flags.StringVar(&f.name, "name", "larder-images", "`NAME` of the objects; those of one mode or of workloads have a suffix")
	flags.StringSliceVar(&f.exempt, "exempt", []string{"kube-system", "kube-public", "kube-node-lease"}, "`NAMESPACES` that are not looked at, a comma list; but for those the policy has rules for")
	flags.StringVar(&f.workloads, "workloads", "warn", "`WHAT` becomes of a Deployment, Job or the like whose pods would be denied: deny, warn or off")
	return cmd
}

func runPolicyRender(cmd *cobra.Command, f renderFlags) error {
	if f.format != "vap" {
		return usageErrorf("--format %q: write vap", f.format)
	}
	modes := map[string]policy.Mode{"deny": policy.Enforce, "warn": policy.Warn, "off": ""}
	workloads, ok := modes[f.workloads]
	if !ok {
		return usageErrorf("--workloads %q: write deny, warn or off", f.workloads)
	}
	p, err := loadPolicy(cmd, f.config)
	if err != nil {
		return err
	}
	judged := p.Summary().Namespaces
	f.exempt = slices.DeleteFunc(f.exempt, func(namespace string) bool {
		if namespace != "" && !slices.Contains(judged, namespace) {
			return false
		}
		if namespace != "" && cmd.Flags().Changed("exempt") {
			warnLine := fmt.Sprintf("warning: namespace %s is not exempt, since the policy has rules for it\n", namespace)
			fmt.Fprint(cmd.ErrOrStderr(), warnLine)
		}
		return true
	})
	return p.WriteAdmissionPolicies(cmd.OutOrStdout(), policy.AdmissionOptions{Name: f.name, Exempt: f.exempt, Workloads: workloads})
}
