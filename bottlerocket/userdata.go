package bottlerocket

import (
	"encoding/json"
	"slices"
	"strings"
)

// StaticUserData is user data that has the node use endpoints for every
// registry from its first boot on, and for each of registries besides. It needs
// nothing to run on the node, so it is the first choice where the mirror's
// address is the same on all nodes, as 127.0.0.1 is.
func StaticUserData(endpoints, registries []string) string {
	var b strings.Builder
	for _, m := range (Registry{}).With(endpoints, registries) {
		b.WriteString("[[settings.container-registry.mirrors]]\n")
		b.WriteString("registry = " + quote(m.Registry) + "\n")
		b.WriteString("endpoint = " + list(m.Endpoints) + "\n\n")
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// BootstrapUserData is user data that runs command, the whole argument vector,
// in image at every boot before containerd starts: for addresses that only the
// node itself knows. It is not essential, so that a node boots without it.
// Bottlerocket takes a command from release 1.47 (core kit 10.4) on, and passes
// it on as a list with commas: no argument may hold one.
func BootstrapUserData(image string, command []string) string {
	return "[settings.bootstrap-containers.larder]\n" +
		"source = " + quote(image) + "\n" +
		"mode = \"always\"\n" +
		"essential = false\n" +
		"command = " + list(command) + "\n"
}

// quote writes a TOML basic string. JSON's escapes are among TOML's.
func quote(s string) string {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(s) // a string always encodes
	// DEL is the one character TOML wants escaped and JSON does not.
	return strings.ReplaceAll(strings.TrimSuffix(b.String(), "\n"), "\x7f", `\u007F`)
}

func list(all []string) string {
	quoted := slices.Clone(all)
	for i := range quoted {
		quoted[i] = quote(quoted[i])
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}
