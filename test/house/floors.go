package house

import (
	"slices"
	"strconv"
	"strings"
)

// floor says what of Larder a package may import. Test files may import more:
// they put real parts together.
type floor struct {
	pkg  string
	ours []string
	// not lists what it must not import although it is in the standard
	// library.
	not []string
}

// house is the picture in docs/how-it-works.md, from the ground up. Every
// package is here or below cmd/ or test/, which may import anything.
func house() []floor {
	return []floor{
		{pkg: "internal/oci", not: []string{"net/http"}},
		{pkg: "internal/policy", ours: []string{"internal/oci"}, not: []string{"net/http"}},
		{pkg: "internal/policy/policytest", ours: []string{"internal/policy"}, not: []string{"net/http"}},
		{pkg: "internal/policy/workload", not: []string{"net/http"}},
		{pkg: "internal/rungroup", not: []string{"net/http"}},
		{pkg: "internal/status", ours: []string{"internal/oci"}, not: []string{"net/http"}},
		{pkg: "internal/tracing"},
		{pkg: "internal/admin", ours: []string{"internal/status"}},
		{pkg: "internal/ociserver", ours: []string{"internal/oci", "internal/tracing"}},
		{pkg: "internal/config", ours: []string{"central", "central/auth", "internal/oci", "internal/policy", "store"}, not: []string{"net/http"}},
		{pkg: "store", ours: []string{"internal/oci"}, not: []string{"net/http"}},
		{pkg: "store/storetest", ours: []string{"internal/oci", "store"}, not: []string{"net/http"}},
		{pkg: "mirror", ours: []string{"internal/oci", "internal/policy", "internal/tracing", "internal/status", "store"}, not: []string{"net/http"}},
		{pkg: "mirror/upstream", ours: []string{"internal/oci", "internal/tracing"}},
		{pkg: "central", ours: []string{"internal/oci", "internal/status", "store"}, not: []string{"net/http"}},
		{pkg: "central/auth", ours: []string{"internal/oci"}},
		{pkg: "central/admission", ours: []string{"internal/policy", "internal/policy/workload"}},
		{pkg: "central/admission/certificate"},
		{pkg: "bottlerocket"},
		{pkg: "nodeconfig", ours: []string{"bottlerocket"}},
	}
}

// floors reports imports that lead to a floor where they may not go.
func floors(f file, module string) []Violation {
	if free(f.pkg()) {
		return nil
	}
	all := house()
	i := slices.IndexFunc(all, func(fl floor) bool { return fl.pkg == f.pkg() })
	if i < 0 {
		return []Violation{f.at(f.ast.Name, "package %s is on no floor; add it to test/house/floors.go", f.pkg())}
	}
	var violations []Violation
	for _, spec := range f.ast.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			continue
		}
		if slices.Contains(all[i].not, imported) && !f.test() {
			violations = append(violations, f.at(spec, "%s must not import %s", f.pkg(), imported))
		}
		ours, ok := strings.CutPrefix(imported, module+"/")
		if !ok {
			continue
		}
		switch {
		case f.test() && (strings.HasPrefix(ours, "test/") || !mode(ours) || !mode(f.pkg())):
		case ours == f.pkg(), slices.Contains(all[i].ours, ours):
		default:
			violations = append(violations, f.at(spec, "%s must not import %s", f.pkg(), ours))
		}
	}
	return violations
}

// free reports whether a package may import anything of ours.
func free(pkg string) bool {
	return pkg == "cmd/larder" || pkg == "test" || strings.HasPrefix(pkg, "test/")
}

// mode reports whether a package is one of the modes, which never import each
// other, not even in tests.
func mode(pkg string) bool {
	return pkg == "mirror" || pkg == "central" || pkg == "nodeconfig"
}

// home says where the packages of one third party may be imported.
type home struct {
	prefix string
	in     []string // packages
	file   string   // or files of this name anywhere
}

func homesOf() []home {
	return []home{
		{prefix: "github.com/dgraph-io/badger", in: []string{"store"}},
		{prefix: "github.com/labstack/echo", in: []string{"internal/ociserver", "internal/admin"}},
		{prefix: "github.com/prometheus/", in: []string{"internal/admin", "cmd/larder"}, file: "metrics.go"},
		{prefix: "oras.land/oras-go", in: []string{"mirror/upstream"}},
		{prefix: "github.com/go-jose/", in: []string{"central/auth"}},
		{prefix: "golang.org/x/crypto/", in: []string{"central/auth"}},
		{prefix: "github.com/spf13/", in: []string{"cmd/larder"}},
		{prefix: "github.com/pelletier/go-toml", in: []string{"nodeconfig"}},
		{prefix: "github.com/containerd/", in: []string{"nodeconfig"}},
		{prefix: "go.opentelemetry.io/", in: []string{"internal/tracing"}},
		{prefix: "github.com/aws/", in: []string{"mirror/upstream", "nodeconfig"}},
		{prefix: "go.yaml.in/yaml", in: []string{"internal/config", "internal/policy/workload", "nodeconfig"}},
	}
}

// registers reports whether f belongs to a package whose Config takes a
// prometheus.Registerer, the one type that may be named outside metrics.go.
func registers(f file) bool {
	return slices.Contains([]string{"mirror", "mirror/upstream", "internal/ociserver", "internal/tracing", "store", "central", "central/auth", "central/admission", "central/admission/certificate"}, f.pkg())
}

// homes reports imports of third parties where they do not belong. Test files
// may read what a library of ours has written.
func homes(f file) []Violation {
	if f.test() {
		return nil
	}
	var violations []Violation
	for _, spec := range f.ast.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			continue
		}
		for _, h := range homesOf() {
			if !strings.HasPrefix(imported, h.prefix) || slices.Contains(h.in, f.pkg()) {
				continue
			}
			if h.file != "" && strings.HasSuffix("/"+f.path, "/"+h.file) {
				continue
			}
			if h.file == "metrics.go" && registers(f) && onlySelects(f, "prometheus", "Registerer") {
				continue
			}
			violations = append(violations, f.at(spec, "%s must not be imported in %s", imported, f.path))
		}
	}
	return violations
}
