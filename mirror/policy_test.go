package mirror

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/larder-registry/larder/internal/oci"
	"github.com/larder-registry/larder/internal/policy"
	"github.com/larder-registry/larder/test/registry"
)

// TestGate asks for each kind of content of repositories that are allowed,
// denied, denied in a mode that lets pass, and allowed in one namespace only.
func TestGate(t *testing.T) {
	up := registry.Start(t, registry.Options{})
	reg := prometheus.NewRegistry()
	fx := start(t, up, t.TempDir(), func(c *configs) {
		c.mirror.Registerer = reg
		c.mirror.Label = func(string) string { return "r" }
	})
	host := up.Host()
	p, err := policy.New(policy.Config{
		Default:    policy.Allow,
		Deny:       []policy.Rule{{Image: host + "/denied"}, {Image: host + "/audited", Mode: policy.Audit}, {Image: host + "/elsewhere"}},
		Namespaces: map[string]policy.Namespace{"a": {Allow: []policy.Rule{{Image: host + "/elsewhere"}}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	gate := NewGate(fx.Mirror, p)
	for repository, allowed := range map[string]bool{"fine/app": true, "denied/app": false, "audited/app": true, "elsewhere/app": true} {
		image := up.AddImage(repository, "v1", registry.NewLayer(1, 1000))
		name := oci.Name{Registry: host, Repository: repository}
		layer := image.Layers[0].Digest
		for _, ask := range []struct {
			what string
			of   func(context.Context) error
		}{
			{"manifest by tag", func(ctx context.Context) error {
				_, err := gate.Manifest(ctx, oci.Reference{Name: name, Tag: "v1"})
				return err
			}},
			{"manifest by digest", func(ctx context.Context) error {
				_, err := gate.Manifest(ctx, oci.Reference{Name: name, Digest: image.Digest})
				return err
			}},
			{"size of a blob", func(ctx context.Context) error {
				_, err := gate.StatBlob(ctx, name, layer)
				return err
			}},
			{"blob", func(ctx context.Context) error {
				b, err := gate.Blob(ctx, name, layer)
				if err == nil {
					err = b.Close()
				}
				return err
			}},
			{"referrers", func(ctx context.Context) error {
				_, err := gate.Referrers(ctx, name, image.Digest, "")
				return err
			}},
			{"tags", func(ctx context.Context) error {
				_, err := gate.Tags(ctx, name, -1, "")
				return err
			}},
		} {
			var access oci.Access
			err := ask.of(oci.WithAccess(t.Context(), &access))
			switch {
			case allowed && err != nil:
				t.Errorf("%s of %s: %v", ask.what, repository, err)
			case allowed:
			case !errors.Is(err, oci.ErrDenied) || !strings.Contains(err.Error(), `denied by the entry "`+host+`/denied"`):
				t.Errorf("%s of %s: %v", ask.what, repository, err)
			case access.Outcome != oci.OutcomeMiss || access.Reason != "policy":
				t.Errorf("%s of %s: %+v", ask.what, repository, access)
			}
		}
		for _, asked := range up.Requests() {
			if asked.Repo == "denied/app" {
				t.Errorf("the upstream was asked for %+v", asked)
			}
		}
	}
	if held, err := gate.Repositories(t.Context(), -1, ""); err != nil || len(held) != 3 {
		t.Errorf("%q, %v", held, err)
	}
	want := `# HELP larder_policy_denied_total Requests that the image policy denies: refused in mode enforce, answered all the same in modes warn and audit.
# TYPE larder_policy_denied_total counter
larder_policy_denied_total{mode="audit",registry="r"} 6
larder_policy_denied_total{mode="enforce",registry="r"} 6
`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "larder_policy_denied_total"); err != nil {
		t.Error(err)
	}
}
