package auth

import (
	"testing"

	"github.com/larder-registry/larder/internal/oci"
)

// BenchmarkAuthorize is what each request of a client costs that is known: by a
// token, and by a password that was right a moment ago.
func BenchmarkAuthorize(b *testing.B) {
	a, _ := authority(b)
	token, _, err := a.grant(b.Context(), Subject{Name: "user:alice"}, scope{{Type: "repository", Name: "team-a/app", Actions: []string{"pull", "push"}}})
	if err != nil {
		b.Fatal(err)
	}
	for _, c := range []struct {
		name string
		from oci.Caller
	}{{"token", withToken(token)}, {"password", withBasic("alice", "wonder")}, {"anonymous", oci.Caller{}}} {
		b.Run(c.name, func(b *testing.B) {
			repository := "team-a/app"
			if c.from.Authorization == "" {
				repository = "public/app"
			}
			for b.Loop() {
				if _, err := a.Authorize(b.Context(), c.from, want(repository, oci.ActionPull)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
