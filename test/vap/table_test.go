package vap

import (
	"strings"
	"testing"

	"github.com/larder-registry/larder/internal/policy"
	"github.com/larder-registry/larder/internal/policy/policytest"
)

// oldest is the first version whose expressions do, those of an API server of
// 1.31; newest the last that this module's evaluator knows.
const oldest, newest = 30, 37

func TestTheTable(t *testing.T) {
	for _, minor := range []uint{oldest, newest} {
		all := map[string][]evaluator{}
		for name, cfg := range policytest.Policies() {
			all[name] = evaluators(t, cfg, policy.AdmissionOptions{}, minor)
		}
		for _, c := range policytest.Cases() {
			t.Run(c.Name, func(t *testing.T) {
				got, message := word(t, all[c.Policy], podReview(c.Namespace, pod(c.Image), nil))
				if got != c.Want {
					t.Errorf("got %s (%s), want %s", got, message, c.Want)
				}
				if got != "allow" && !strings.Contains(c.Image, "\n") && !strings.Contains(message, strings.TrimSpace(c.Image)) {
					t.Errorf("%q does not name the image", message)
				}
			})
		}
	}
}

// TestSpellingsAgree asks both for some thousand images more, many in one pod
// where all are allowed, so that it takes no longer than it has to.
func TestSpellingsAgree(t *testing.T) {
	for _, name := range []string{"closed", "namespaces"} {
		cfg := policytest.Policies()[name]
		p, err := policy.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		all := evaluators(t, cfg, policy.AdmissionOptions{}, newest)
		namespace := "table-a"
		byWord := map[string][]string{}
		for _, image := range policytest.Spellings() {
			w := p.DecideImage(namespace, image).Word()
			byWord[w] = append(byWord[w], image)
		}
		for want, images := range byWord {
			for len(images) > 0 {
				n := 1
				if want == "allow" {
					n = min(100, len(images))
				}
				if got, message := word(t, all, podReview(namespace, pod(images[:n]...), nil)); got != want {
					t.Errorf("%s: %q: got %s (%s), want %s", name, images[:n], got, message, want)
				}
				images = images[n:]
			}
		}
	}
}

// FuzzTheMatchersAgree lets the fuzzer look for an image on which they do not.
func FuzzTheMatchersAgree(f *testing.F) {
	for _, c := range policytest.Cases() {
		f.Add(c.Image)
	}
	cfg := policytest.Policies()["namespaces"]
	p, err := policy.New(cfg)
	if err != nil {
		f.Fatal(err)
	}
	all := evaluators(f, cfg, policy.AdmissionOptions{}, newest)
	f.Fuzz(func(t *testing.T, image string) {
		for _, namespace := range policytest.Namespaces() {
			want := p.DecideImage(namespace, image)
			if got, message := word(t, all, podReview(namespace, pod(image), nil)); got != want.Word() {
				t.Errorf("%q in %s: got %s (%s), want %s (%s)", image, namespace, got, message, want.Word(), want.Reason)
			}
		}
	})
}
