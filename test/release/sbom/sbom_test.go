package sbom

import (
	"bytes"
	"debug/buildinfo"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	cdx "github.com/CycloneDX/cyclonedx-go"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/larder-registry/larder/test/release/licences"
)

// built is a small binary of this module, and what it is made of.
func built(t *testing.T) ([]byte, []licences.Module) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "rootfs")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", name, "../cmd/rootfs").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	binary, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	info, err := buildinfo.Read(bytes.NewReader(binary))
	if err != nil {
		t.Fatal(err)
	}
	known := []licences.Module{{Path: "std", Version: info.GoVersion, IDs: []string{"BSD-3-Clause"}}}
	for _, m := range info.Deps {
		known = append(known, licences.Module{Path: m.Path, Version: m.Version, IDs: []string{"MIT"}})
	}
	return binary, known
}

func TestOf(t *testing.T) {
	binary, known := built(t)
	data := licences.Module{Path: "example.org/Data", Version: "v1.0.0+incompatible", IDs: []string{"MIT"}}
	created := time.Unix(1_700_000_000, 0)
	document, err := Of(binary, "v1.2.3", runtime.GOARCH, created, append(known, data))
	if err != nil {
		t.Fatal(err)
	}
	again, err := Of(binary, "v1.2.3", runtime.GOARCH, created, append(known, data))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(document, again) {
		t.Error("the same binary gives two documents")
	}
	var bom cdx.BOM
	if err := cdx.NewBOMDecoder(bytes.NewReader(document), cdx.BOMFileFormatJSON).Decode(&bom); err != nil {
		t.Fatal(err)
	}
	var got, want []string
	for _, c := range *bom.Components {
		got = append(got, string(c.Type)+" "+c.PackageURL)
	}
	for _, m := range known {
		want = append(want, "library pkg:golang/"+strings.ToLower(m.Path)+"@"+strings.ReplaceAll(m.Version, "+", "%2B"))
	}
	want = append(want, "data pkg:golang/example.org/data@v1.0.0%2Bincompatible")
	if !slices.Equal(got, want) {
		t.Errorf("components\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if err := schema(t).Validate(parsed(t, document)); err != nil {
		t.Errorf("the document breaks CycloneDX' schema: %v", err)
	}
	if bom.Metadata.Timestamp != "2023-11-14T22:13:20Z" {
		t.Errorf("made at %s", bom.Metadata.Timestamp)
	}
}

// schema is CycloneDX' own, as the library brings it along for its tests.
func schema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	dir, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "github.com/CycloneDX/cyclonedx-go").Output()
	if err != nil {
		t.Fatal(err)
	}
	const base = "http://cyclonedx.org/schema/"
	c := jsonschema.NewCompiler()
	for url, file := range map[string]string{"bom-1.6.schema.json": "bom-1.6.schema.json", "spdx.schema.json": "spdx.schema.json", "jsf-0.82.schema.json": "jsf-0.82.schemax.json"} {
		content, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(dir)), "schema", file))
		if err != nil {
			t.Fatal(err)
		}
		if err := c.AddResource(base+url, parsed(t, content)); err != nil {
			t.Fatal(err)
		}
	}
	compiled, err := c.Compile(base + "bom-1.6.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return compiled
}

func parsed(t *testing.T, document []byte) any {
	t.Helper()
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(document))
	if err != nil {
		t.Fatal(err)
	}
	return value
}

// TestRefused: a document that does not fit the binary is none.
func TestRefused(t *testing.T) {
	binary, known := built(t)
	if len(known) < 2 {
		t.Fatalf("the binary has %d modules", len(known))
	}
	other := slices.Clone(known)
	other[1].Version = "v0.0.0"
	for _, tt := range []struct {
		name   string
		binary []byte
		known  []licences.Module
		want   string
	}{
		{"no binary", []byte("text"), known, "read what the binary is made of"},
		{"a module without a licence", binary, known[:len(known)-1], "whose licence is not known"},
		{"another version's licence", binary, other, "the licences are of"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := Of(tt.binary, "v1.2.3", "amd64", time.Unix(0, 0), tt.known); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one that says %q", err, tt.want)
			}
		})
	}
}
