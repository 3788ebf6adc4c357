package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/larder-registry/larder/test/process"
)

// mirror is a running `larder mirror`.
type mirror struct {
	addr, admin string
	dir         string
	*process.Process
}

// pathName is what clients that put the registry's name into the path call the
// upstream. A name with a port cannot stand there: their grammar for references
// has no colon in a path.
const pathName = "127.0.0.1"

// startMirror starts a mirror for the registry at upstream, under that name and
// as pathName, with further settings of registry_proxies, and waits until it is
// ready.
func startMirror(t *testing.T, upstream string, settings ...string) *mirror {
	t.Helper()
	m := &mirror{addr: process.Addr(t), admin: process.Addr(t), dir: scratch(t)}
	write(t, m.dir, "larder.yaml", fmt.Sprintf(`registry_proxies:
  max_size: 1GiB
  min_free: 1%%
  %s
  registries:
    - host: %q
      insecure: true
    - host: %q
      insecure: true
      endpoints: ["http://%s"]
`, strings.Join(settings, "\n  "), upstream, pathName, upstream))
	m.start(t)
	return m
}

// start starts the mirror on the data it has, at the address it had.
func (m *mirror) start(t *testing.T) {
	t.Helper()
	m.Process = spawn(t, m.dir, bin(t, "larder"), "mirror", "--config", m.dir+"/larder.yaml",
		"--listen", m.addr, "--admin-listen", m.admin, "--data-dir", m.dir+"/data", "--log-format", "json")
	m.Await(t, "the mirror to be ready", process.Answers("http://"+m.admin+"/readyz"))
}
