package policy_test

import (
	"fmt"
	"testing"

	"github.com/larder-registry/larder/internal/policy"
)

// BenchmarkDecideImage decides on images under a long policy: one that is
// allowed, one that is denied by default and compared with every entry.
func BenchmarkDecideImage(b *testing.B) {
	cfg := policy.Config{Default: policy.Deny}
	for i := range 200 {
		cfg.Allow = append(cfg.Allow, policy.Rule{Image: fmt.Sprintf("registry-%d.example.com/team-%d/group", i, i)})
	}
	p := mustNew(b, cfg)
	for name, image := range map[string]string{
		"allowed": "registry-199.example.com/team-199/group/app:v1.2.3",
		"denied":  "registry-200.example.com/team-200/group/app:v1.2.3",
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if p.DecideImage("default", image).Allowed != (name == "allowed") {
					b.Fatal("the wrong verdict")
				}
			}
		})
	}
}
