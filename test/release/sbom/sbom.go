// Package sbom says what a binary is made of, as a CycloneDX document: every Go
// module that the linker put into it, by what the binary itself tells, with its
// licence, and the certificates that lie beside it in the image.
//
// The same binary gives the same document: no clock and no chance goes into it.
package sbom

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"debug/buildinfo"
	"fmt"
	"slices"
	"strings"
	"time"

	cdx "github.com/CycloneDX/cyclonedx-go"

	"github.com/larder-registry/larder/test/release/licences"
)

// MediaType is the document's, and the artifact's that it is attached as.
const MediaType = "application/vnd.cyclonedx+json"

// product is the module that the binary is built from.
const product = "github.com/larder-registry/larder"

// Of describes a binary of the given version and architecture, made at created.
// known is what is shipped of others; what the binary contains and known does not
// is an error. What is known and not in the binary is in the image only.
func Of(binary []byte, version, arch string, created time.Time, known []licences.Module) ([]byte, error) {
	info, err := buildinfo.Read(bytes.NewReader(binary))
	if err != nil {
		return nil, fmt.Errorf("read what the binary is made of: %w", err)
	}
	sum := sha256.Sum256(binary)
	subject := purl(product, version) + "?goarch=" + arch + "&goos=linux"
	root := cdx.Component{
		BOMRef: subject, Type: cdx.ComponentTypeApplication, Name: "larder", Version: version, PackageURL: subject,
		Hashes:   &[]cdx.Hash{{Algorithm: cdx.HashAlgoSHA256, Value: fmt.Sprintf("%x", sum)}},
		Licenses: &cdx.Licenses{{License: &cdx.License{ID: "Apache-2.0"}}},
	}
	linked := map[string]string{"std": info.GoVersion}
	for _, m := range info.Deps {
		linked[m.Path] = m.Version
	}
	var components []cdx.Component
	dependencies := []cdx.Dependency{{Ref: root.BOMRef}}
	var all []string
	for _, m := range known {
		v, isLinked := linked[m.Path]
		if isLinked && v != m.Version {
			return nil, fmt.Errorf("the binary has %s %s, the licences are of %s", m.Path, v, m.Version)
		}
		delete(linked, m.Path)
		ref := purl(m.Path, m.Version)
		component := cdx.Component{BOMRef: ref, Type: cdx.ComponentTypeLibrary, Name: m.Path, Version: m.Version, PackageURL: ref, Licenses: &cdx.Licenses{}}
		if !isLinked {
			component.Type, component.Description = cdx.ComponentTypeData, "certificates, in the image only"
		}
		for _, id := range m.IDs {
			*component.Licenses = append(*component.Licenses, cdx.LicenseChoice{License: &cdx.License{ID: id}})
		}
		components = append(components, component)
		dependencies = append(dependencies, cdx.Dependency{Ref: ref})
		all = append(all, ref)
	}
	for path := range linked {
		return nil, fmt.Errorf("the binary contains %s, whose licence is not known", path)
	}
	dependencies[0].Dependencies = &all
	slices.SortFunc(dependencies[1:], func(a, b cdx.Dependency) int { return cmp.Compare(a.Ref, b.Ref) })

	bom := cdx.NewBOM()
	bom.SerialNumber = serial(sum)
	bom.Metadata = &cdx.Metadata{Timestamp: created.UTC().Format(time.RFC3339), Component: &root}
	bom.Components, bom.Dependencies = &components, &dependencies
	var out bytes.Buffer
	if err := cdx.NewBOMEncoder(&out, cdx.BOMFileFormatJSON).SetPretty(true).EncodeVersion(bom, cdx.SpecVersion1_6); err != nil {
		return nil, fmt.Errorf("write list of components: %w", err)
	}
	return out.Bytes(), nil
}

// purl is a Go module's package URL.
func purl(path, version string) string {
	return "pkg:golang/" + strings.ToLower(path) + "@" + strings.ReplaceAll(version, "+", "%2B")
}

// serial makes the document's number, a UUID, out of the binary's sum (RFC 9562,
// version 8): one binary, one number.
func serial(sum [sha256.Size]byte) string {
	u := [16]byte(sum[:16])
	u[6] = u[6]&0x0f | 0x80
	u[8] = u[8]&0x3f | 0x80
	return fmt.Sprintf("urn:uuid:%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
}
