package cluster

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/larder-registry/larder/test/registry"
)

// The registries of the world beyond the node: one server, at the other end of
// the node's wire, under several names.
const (
	upstreamIP = "10.1.0.1"
	ghcr       = "ghcr.io" // where the manifests say that Larder's image is
	example    = "registry.example"
	central    = "registry.cluster" // the name that users give the central registry
	pauseImage = example + "/pause:1"

	user, password = "team", "not for everybody"
)

// startUpstream starts the registries. All but what is below private/ is for
// everybody, against a token.
func startUpstream(t testing.TB) *registry.Server {
	t.Helper()
	up := registry.Start(t, registry.Options{
		Addr: upstreamIP + ":443", TLS: true, Names: []string{ghcr, example, upstreamIP}, TokenOnHost: true,
		Users: map[string]string{user: password},
	})
	appendTo(t, "/etc/hosts", fmt.Sprintf("%s %s %s\n", upstreamIP, ghcr, example))
	trust(t, up.CAPEM())
	return up
}

// trust adds an authority to those that the node's programs trust.
func trust(t testing.TB, ca []byte) {
	t.Helper()
	appendTo(t, "/etc/ssl/certs/ca-certificates.crt", "\n"+string(ca))
}

// appendTo adds text to a file of the node.
func appendTo(t testing.TB, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// asked are the requests for a repository that ask of it what kinds say, by
// Larder or by containerd itself.
func asked(up *registry.Server, repo string, larder bool, kinds ...registry.Kind) []registry.Request {
	return slices.DeleteFunc(up.Requests(), func(r registry.Request) bool {
		return r.Repo != repo || !slices.Contains(kinds, r.Kind) ||
			strings.HasPrefix(strings.ToLower(r.Header.Get("User-Agent")), "larder") != larder
	})
}

// describe lists requests for a failed test.
func describe(all []registry.Request) string {
	var b strings.Builder
	for _, r := range all {
		fmt.Fprintf(&b, "%s %s %q %d, %d bytes, by %s\n", r.Method, r.Path, r.Range(), r.Status, r.Sent, r.Header.Get("User-Agent"))
	}
	return b.String()
}
