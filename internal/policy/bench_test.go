package policy_test

import "testing"

// BenchmarkDecideImage decides on images under a long policy: one that is
// allowed, one that is denied by default and compared with every entry.
func BenchmarkDecideImage(b *testing.B) {
	p := mustNew(b, many(200))
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
