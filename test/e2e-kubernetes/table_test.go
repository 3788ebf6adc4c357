package kubernetes

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/larder-registry/larder/internal/policy"
	"github.com/larder-registry/larder/internal/policy/policytest"
	"github.com/larder-registry/larder/test/kube"
	"github.com/larder-registry/larder/test/process"
)

// configOf writes a policy as a configuration file; JSON is YAML.
func configOf(t testing.TB, cfg policy.Config) string {
	t.Helper()
	rules := func(list []policy.Rule) (out []any) {
		for _, r := range list {
			rule := map[string]any{"image": r.Image}
			if r.Mode != "" {
				rule["mode"] = r.Mode
			}
			if r.RequireDigest != nil {
				rule["require_digest"] = *r.RequireDigest
			}
			out = append(out, rule)
		}
		return out
	}
	set := func(m map[string]any, key string, empty bool, value any) {
		if !empty {
			m[key] = value
		}
	}
	section := map[string]any{}
	set(section, "default", cfg.Default == "", cfg.Default)
	set(section, "mode", cfg.Mode == "", cfg.Mode)
	set(section, "require_digest", !cfg.RequireDigest, true)
	set(section, "allow", len(cfg.Allow) == 0, rules(cfg.Allow))
	set(section, "deny", len(cfg.Deny) == 0, rules(cfg.Deny))
	set(section, "aliases", len(cfg.Aliases) == 0, cfg.Aliases)
	namespaces := map[string]any{}
	for name, n := range cfg.Namespaces {
		ns := map[string]any{}
		set(ns, "default", n.Default == "", n.Default)
		set(ns, "mode", n.Mode == "", n.Mode)
		set(ns, "require_digest", n.RequireDigest == nil, n.RequireDigest)
		set(ns, "allow", len(n.Allow) == 0, rules(n.Allow))
		set(ns, "deny", len(n.Deny) == 0, rules(n.Deny))
		namespaces[name] = ns
	}
	set(section, "namespaces", len(namespaces) == 0, namespaces)
	text, err := json.Marshal(section)
	if err != nil {
		t.Fatal(err)
	}
	return "image_validation: " + string(text) + "\n"
}

// word is what the cluster says of a pod with that image: deny, warn, or allow
// for the rest; refused if the API server does not take it by itself.
func (c *cluster) word(namespace, image string) (string, error) {
	status, answer, err := c.call(kube.Admin, http.MethodPost, "/api/v1/namespaces/"+namespace+"/pods?dryRun=All", podJSON("table", image))
	ours := strings.Contains(answer, "denied the request") || strings.Contains(answer, "ValidatingAdmissionPolicy")
	switch {
	case err != nil:
		return "", err
	case status == 201 && strings.Contains(answer, "\nWarning: "):
		return "warn", nil
	case status == 201:
		return "allow", nil
	case status >= 500 || strings.Contains(answer, "failed calling webhook") || strings.Contains(answer, "failed to evaluate") || strings.Contains(answer, "expression"):
		return "", fmt.Errorf("status %d: %.500s", status, answer)
	case ours:
		return "deny", nil
	}
	return "refused", nil
}

// shownAs is the part of a verdict that a cluster shows.
func shownAs(word string) string {
	if word == "audit" {
		return "allow"
	}
	return word
}

// rows are the cases of a policy that can be in a pod.
func rows(name string) (list []policytest.Case) {
	for _, c := range policytest.Cases() {
		if c.Policy == name && !c.Unpodded {
			list = append(list, c)
		}
	}
	return list
}

// agrees asks for every row of the table, and then for every spelling under one
// of the policies, and holds the cluster to what package policy says.
func (c *cluster) agrees(t *testing.T, name string, p *policy.Policy) {
	t.Helper()
	// What was just put in force takes a moment to be so.
	process.Await(t, "the table to be in force", func(context.Context) error {
		var wrong []error
		for _, row := range rows(name) {
			got, err := c.word(row.Namespace, row.Image)
			if err != nil {
				wrong = append(wrong, err)
			} else if got != shownAs(row.Want) {
				wrong = append(wrong, fmt.Errorf("%s: %s, want %s", row.Name, got, row.Want))
			}
		}
		return errors.Join(wrong...)
	})
	t.Logf("%d rows agree", len(rows(name)))
	if name != "closed" {
		return
	}
	images, asked := make(chan string), 0
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() { // ends when images is closed
			for image := range images {
				got, err := c.word("table", image)
				if err != nil {
					t.Errorf("%q: %v", image, err)
					continue
				}
				want := shownAs(p.DecideImage("table", image).Word())
				if got == "refused" && strings.TrimSpace(image) != image || image == "" {
					continue // the API server has rules of its own about spaces
				}
				if got != want {
					t.Errorf("%q: %s, want %s", image, got, want)
				}
			}
		})
	}
	for _, image := range policytest.Spellings() {
		images <- image
		asked++
	}
	close(images)
	all.Wait()
	t.Logf("%d spellings agree", asked)
}

// policies of the table, in order.
func policies(t testing.TB) (names []string, all map[string]policy.Config) {
	t.Helper()
	all = policytest.Policies()
	return slices.Sorted(maps.Keys(all)), all
}

// TestTheTableByTheWebhook puts each policy in force by changing the file of a
// running webhook.
func TestTheTableByTheWebhook(t *testing.T) {
	w := enforce(t, 1, rules)
	for _, ns := range policytest.Namespaces() {
		w.makeNamespace(t, ns)
	}
	names, all := policies(t)
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			p, err := policy.New(all[name])
			if err != nil {
				t.Fatal(err)
			}
			next := w.write(t, configOf(t, all[name]))
			if err := os.Rename(next, w.config); err != nil {
				t.Fatal(err)
			}
			process.Await(t, "the policy to be in force", func(ctx context.Context) error {
				metrics, err := w.replicas[0].metrics(ctx)
				if err == nil && !strings.Contains(metrics, fmt.Sprintf("larder_policy_revision_info{revision=%q} 1", p.Revision())) {
					err = errors.New("it is another one")
				}
				return err
			})
			w.agrees(t, name, p)
		})
	}
	// Once by kubectl, as a person sees it.
	out, err := w.Kubectl(t, "", "run", "x", "--namespace", "table", "--image", "ghcr.io:443/org/secret", "--dry-run=server")
	if err == nil || !strings.Contains(out, `(ghcr.io/org/secret:latest)`) {
		t.Errorf("%v: %s", err, out)
	}
}

// metrics reads a replica's.
func (r *replica) metrics(ctx context.Context) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+r.admin+"/metrics", nil)
	if err != nil {
		return "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return string(body), err
}

// TestTheTableByTheAPIServer renders each policy as ValidatingAdmissionPolicies:
// the same table, the same verdicts, no webhook.
func TestTheTableByTheAPIServer(t *testing.T) {
	c := startCluster(t)
	for _, ns := range policytest.Namespaces() {
		c.makeNamespace(t, ns)
	}
	names, all := policies(t)
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			p, err := policy.New(all[name])
			if err != nil {
				t.Fatal(err)
			}
			file := write(t, c.Dir, filepath.Join(name, "larder.yaml"), configOf(t, all[name]))
			rendered, err := exec.CommandContext(t.Context(), path(t, *larderFlag), "policy", "render", "--format", "vap", "--config", file).Output()
			if err != nil {
				t.Fatal(err)
			}
			c.DoWith(t, string(rendered), "apply", "-f", "-")
			t.Cleanup(func() {
				c.Do(t, "delete", "validatingadmissionpolicybinding", "--all")
				c.Do(t, "delete", "validatingadmissionpolicy", "--all")
			})
			c.agrees(t, name, p)
		})
	}
}
