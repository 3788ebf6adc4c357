package policy_test

import (
	"strconv"
	"strings"
	"testing"

	"github.com/larder-registry/larder/internal/oci"
	"github.com/larder-registry/larder/internal/policy"
	"github.com/larder-registry/larder/internal/policy/policytest"
)

func TestTheTable(t *testing.T) {
	policies := map[string]*policy.Policy{}
	for name, cfg := range policytest.Policies() {
		policies[name] = mustNew(t, cfg)
	}
	for _, c := range policytest.Cases() {
		t.Run(c.Name, func(t *testing.T) {
			v := policies[c.Policy].DecideImage(c.Namespace, c.Image)
			if v.Word() != c.Want || v.Normalized != c.Normalized {
				t.Errorf("got %s, %q (%s: %s); want %s, %q", v.Word(), v.Normalized, v.Rule, v.Reason, c.Want, c.Normalized)
			}
		})
	}
}

// consistent holds one image to the two properties every policy has: the one
// spelling is decided like the one that was asked for, and so is a reference
// made of either.
func consistent(t *testing.T, p *policy.Policy, namespace, image string) {
	t.Helper()
	v := p.DecideImage(namespace, image)
	if len(v.Reason) > 1000 || strings.ContainsFunc(v.Reason, func(r rune) bool { return !strconv.IsPrint(r) }) {
		t.Errorf("%q: nobody can read the reason %q", image, v.Reason)
	}
	if v.Normalized == "" {
		if v.Allowed && image != "" {
			t.Errorf("%q has no one spelling, and is allowed: %+v", image, v)
		}
		return
	}
	if again := p.DecideImage(namespace, v.Normalized); again != v {
		t.Errorf("%q: %+v\n%q: %+v", image, v, v.Normalized, again)
	}
	for _, text := range []string{image, v.Normalized} {
		ref, err := oci.ParseReference(text)
		if err != nil {
			continue // narrower: no sha384
		}
		if again := p.Decide(namespace, ref); again != v {
			t.Errorf("%q: %+v\nas the reference %s: %+v", image, v, ref, again)
		}
	}
}

func TestSpellingsAreConsistent(t *testing.T) {
	p := mustNew(t, policytest.Policies()["namespaces"])
	valid := 0
	for _, image := range policytest.Spellings() {
		consistent(t, p, "table-a", image)
		if p.DecideImage("table", image).Normalized != "" {
			valid++
		}
	}
	if valid < 1000 {
		t.Errorf("only %d spellings are images", valid)
	}
}

// FuzzDecide adds to the properties of consistent the one of segments: an entry
// made of an image's own name allows it and what is below it, and nothing that
// only begins alike.
func FuzzDecide(f *testing.F) {
	for _, c := range policytest.Cases() {
		f.Add(c.Image)
	}
	for i, image := range policytest.Spellings() {
		if i%97 == 0 {
			f.Add(image)
		}
	}
	f.Add("A\n" + strings.Repeat("ä", 300))
	p, err := policy.New(policytest.Policies()["namespaces"])
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, image string) {
		consistent(t, p, "table", image)
		consistent(t, p, "table-a", image)
		name, _, _ := strings.Cut(p.DecideImage("x", image).Normalized, "@")
		if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
			name = name[:i]
		}
		if name == "" {
			return
		}
		own, err := policy.New(policy.Config{Allow: rules(name), Aliases: policytest.Policies()["namespaces"].Aliases})
		if err != nil {
			t.Fatalf("%q is no entry: %v", name, err)
		}
		if v := own.DecideImage("x", image); !v.Allowed {
			t.Errorf("the entry %q does not allow %q: %+v", name, image, v)
		}
		if v := own.DecideImage("x", name+"/below"); v.Normalized != "" && !v.Allowed {
			t.Errorf("the entry %q does not allow what is below: %+v", name, v)
		}
		if v := own.DecideImage("x", name+"x"); v.Allowed {
			t.Errorf("the entry %q allows %q: %+v", name, name+"x", v)
		}
	})
}
