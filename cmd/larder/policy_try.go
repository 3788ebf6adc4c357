package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/larder-registry/larder/internal/policy"
	"github.com/larder-registry/larder/internal/policy/workload"
)

// tryFlags is what larder policy test is told.
type tryFlags struct {
	config    string
	namespace string
	files     []string
	output    string
}

func newPolicyTest() *cobra.Command {
	var f tryFlags
	cmd := &cobra.Command{
		Use:   "test [IMAGE...]",
		Short: "Tell what the policy says of images and manifests",
		Long: `Tells what the image policy says of each IMAGE, and of each image in the
manifests that -f names: YAML of one or many documents, JSON, or a list as
kubectl prints it. Without either it reads manifests from standard input, so
that a policy can be tried on a whole cluster before it is put in force:

  kubectl get pods -A -o json | larder policy test --config larder.yaml

Each line has the verdict, the image, what it was decided as, the rule that
decided, where the image stands, and for what is not allowed the reason. The
verdict is allow, deny, or for a denial that comes to nothing more warn or
audit. Contacts nobody.

Exit codes: 0 nothing is denied, 1 something is, 2 usage, configuration, or a
manifest that cannot be read.`,
		RunE: func(cmd *cobra.Command, args []string) error { return runPolicyTest(cmd, f, args) },
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringVar(&f.config, "config", "", "configuration `FILE` with the policy, in image_validation")
	flags.StringVar(&f.namespace, "namespace", "default", "`NAMESPACE` of each IMAGE, and of objects that name none")
	flags.StringArrayVarP(&f.files, "filename", "f", nil, "manifest `FILE`, - for standard input; may be repeated")
	flags.StringVar(&f.output, "output", "text", "`FORMAT`: text or json")
	return cmd
}

// tried is one image and what became of it.
type tried struct {
	Verdict    string `json:"verdict"`
	Image      string `json:"image"`
	Normalized string `json:"normalized,omitempty"`
	Namespace  string `json:"namespace"`
	Rule       string `json:"rule"`
	Reason     string `json:"reason"`
	Nearest    string `json:"nearest,omitempty"`
	// Object and Path say where the image stands, if in a manifest.
	Object string `json:"object,omitempty"`
	Path   string `json:"path,omitempty"`
}

func runPolicyTest(cmd *cobra.Command, f tryFlags, images []string) error {
	if f.output != "text" && f.output != "json" {
		return usageErrorf("--output %q: write text or json", f.output)
	}
	p, err := loadPolicy(cmd, f.config)
	if err != nil {
		return err
	}
	if len(images) == 0 && len(f.files) == 0 {
		if in, ok := cmd.InOrStdin().(*os.File); ok && isTerminal(in) {
			return usageErrorf("name an image, a manifest with -f, or pipe manifests in")
		}
		f.files = []string{"-"}
	}
	results := []tried{}
	for _, image := range images {
		results = append(results, try(p, f.namespace, image))
	}
	for _, file := range f.files {
		objects, err := readManifests(cmd, file)
		if err != nil {
			return usageErrorf("%s: %v", file, err)
		}
		if len(objects) == 0 {
			// Most likely what should have written them has failed.
			return usageErrorf("%s: no object in it", file)
		}
		for _, o := range objects {
			o.Namespace = cmp.Or(o.Namespace, f.namespace)
			for _, image := range o.Images {
				r := try(p, o.Namespace, image.Ref)
				r.Object, r.Path = o.String(), image.Path
				results = append(results, r)
			}
		}
	}
	if f.output == "json" {
		err = printJSON(cmd.OutOrStdout(), results)
	} else {
		err = printTried(cmd.OutOrStdout(), results)
	}
	if err != nil {
		return err
	}
	denied := 0
	for _, r := range results {
		if r.Verdict == "deny" {
			denied++
		}
	}
	if denied > 0 {
		return fmt.Errorf("%d of %d images denied", denied, len(results))
	}
	return nil
}

func try(p *policy.Policy, namespace, image string) tried {
	v := p.DecideImage(namespace, image)
	return tried{
		Verdict: v.Word(), Image: image, Normalized: v.Normalized, Namespace: namespace,
		Rule: v.Rule, Reason: v.Reason, Nearest: v.Nearest,
	}
}

// readManifests reads file, or standard input for "-".
func readManifests(cmd *cobra.Command, file string) ([]workload.Object, error) {
	if file == "-" {
		return workload.Read(cmd.InOrStdin())
	}
	in, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	return workload.Read(in)
}

func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && f.Name() != os.DevNull
}

// printTried writes a line for each image, in columns.
func printTried(w io.Writer, results []tried) error {
	var table bytes.Buffer
	columns := tabwriter.NewWriter(&table, 0, 8, 2, ' ', 0)
	fmt.Fprintln(columns, "VERDICT\tIMAGE\tDECIDED AS\tRULE\tWHERE\tREASON")
	for _, r := range results {
		reason := ""
		if r.Verdict != "allow" {
			reason = r.Reason
		}
		where := strings.TrimSpace(r.Object + " " + r.Path)
		fmt.Fprintf(columns, "%s\t%s\t%s\t%s\t%s\t%s\n", r.Verdict, visible(r.Image), cmp.Or(r.Normalized, "-"), r.Rule, cmp.Or(visible(where), "-"), visible(reason))
	}
	if err := columns.Flush(); err != nil {
		return err
	}
	for line := range bytes.Lines(table.Bytes()) {
		if _, err := fmt.Fprintf(w, "%s\n", bytes.TrimRight(line, " \n")); err != nil {
			return err
		}
	}
	return nil
}

// visible quotes what a manifest could use to write over other lines.
func visible(s string) string {
	for _, r := range s {
		if !strconv.IsPrint(r) {
			return strconv.Quote(s)
		}
	}
	return s
}

// printJSON writes v for other programs, and for people who look on.
func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}
