package oci

import (
	"bytes"
	"encoding/json"
	"strings"

	"github.com/opencontainers/go-digest"
)

// Document is what an image manifest or index says: the parts a registry has to
// know of. Anything else in it is kept as bytes and not looked at.
type Document struct {
	// MediaType is what it is served as: its own word, or the Content-Type it
	// came under.
	MediaType string
	// ArtifactType is artifactType, or else the media type of the config (spec
	// section "Listing Referrers"). Indexes have only the former.
	ArtifactType string
	// Annotations are those of the manifest itself, as they are written.
	Annotations json.RawMessage
	// Subject is the manifest it refers to; its Digest is empty when there is
	// none.
	Subject Descriptor
	// Blobs are the config and the layers that a repository has to hold,
	// Manifests the entries of an index. Layers that may be had elsewhere only
	// are left out.
	Blobs, Manifests []Descriptor
}

// Children are the digests of everything the document is made of.
func (d *Document) Children() []digest.Digest {
	var all []digest.Digest
	for _, list := range [][]Descriptor{d.Blobs, d.Manifests} {
		for _, child := range list {
			all = append(all, child.Digest)
		}
	}
	return all
}

// document is the JSON of it.
type document struct {
	SchemaVersion int             `json:"schemaVersion"`
	MediaType     string          `json:"mediaType"`
	ArtifactType  string          `json:"artifactType"`
	Config        *child          `json:"config"`
	Layers        []child         `json:"layers"`
	Blobs         []child         `json:"blobs"`
	Manifests     []child         `json:"manifests"`
	Subject       *child          `json:"subject"`
	Annotations   json.RawMessage `json:"annotations"`
}

// child is a descriptor (image spec, descriptor.md).
type child struct {
	MediaType string   `json:"mediaType"`
	Digest    string   `json:"digest"`
	Size      int64    `json:"size"`
	URLs      []string `json:"urls"`
}

// MaxMediaType bounds a media type: RFC 6838 section 4.2 allows 127 characters
// on either side of the slash.
const MaxMediaType = maxArtifactType

// ParseDocument reads an image manifest, an index, or another document of that
// kind: a JSON object of at most MaxManifestSize bytes whose descriptors are
// valid. contentType is what it was sent under. It fails with
// ErrManifestInvalid, whose text says what to do about it.
//
// What two readers could take for two things is refused: a media type that is
// not the Content-Type, layers beside manifests (CVE-2021-41190), and a field, of
// the document or of a descriptor in it, that is there twice. What was taken once
// is taken again, under the MediaType it got: garbage is collected by it.
func ParseDocument(content []byte, contentType string) (*Document, error) {
	if len(content) > MaxManifestSize {
		return nil, Errorf(ErrManifestInvalid, "the manifest has %d bytes; at most %d are taken", len(content), MaxManifestSize)
	}
	if err := checkFields(content, documentFields[:]); err != nil {
		return nil, err
	}
	var doc document
	if err := json.Unmarshal(content, &doc); err != nil {
		return nil, Errorf(ErrManifestInvalid, "the manifest is not the JSON it should be: %s", reasonOf(err))
	}
	mediaType, err := doc.mediaType(contentType)
	if err != nil {
		return nil, err
	}
	d := &Document{MediaType: mediaType, ArtifactType: doc.ArtifactType, Annotations: doc.Annotations}
	if err := doc.checkShape(mediaType); err != nil {
		return nil, err
	}
	if doc.Config != nil {
		if d.ArtifactType == "" && !IsIndexType(mediaType) {
			d.ArtifactType = doc.Config.MediaType
		}
		doc.Layers = append([]child{*doc.Config}, doc.Layers...)
	}
	if len(d.ArtifactType) > MaxMediaType || !printable(d.ArtifactType) {
		return nil, Errorf(ErrManifestInvalid, "artifactType is a media type of at most %d characters", MaxMediaType)
	}
	if doc.Subject != nil {
		if d.Subject, err = doc.Subject.descriptor("subject"); err != nil {
			return nil, err
		}
	}
	for _, part := range []struct {
		list []child
		to   *[]Descriptor
		what string
	}{{doc.Layers, &d.Blobs, "layer"}, {doc.Blobs, &d.Blobs, "blob"}, {doc.Manifests, &d.Manifests, "manifest"}} {
		for _, c := range part.list {
			desc, err := c.descriptor(part.what)
			if err != nil {
				return nil, err
			}
			if !c.elsewhere() {
				*part.to = append(*part.to, desc)
			}
		}
	}
	return d, nil
}

// mediaType settles what the document is.
func (doc *document) mediaType(contentType string) (string, error) {
	sent := essence(contentType)
	switch {
	case len(sent) > MaxMediaType || len(doc.MediaType) > MaxMediaType || !printable(sent) || !printable(doc.MediaType):
		return "", Errorf(ErrManifestInvalid, "the media type is longer than %d characters, or not plain text", MaxMediaType)
	case isSchema1(sent) || isSchema1(essence(doc.MediaType)):
		return "", Errorf(ErrManifestInvalid, "Docker's schema 1 is not taken: its digest is not that of its bytes; push schema 2 or OCI")
	case doc.MediaType == "" && sent == "":
		return "", Errorf(ErrManifestInvalid, "send the manifest's media type as Content-Type")
	case doc.MediaType == "":
		return sent, nil
	case sent != "" && sent != essence(doc.MediaType) && sent != MediaTypeOctetStream && sent != "application/json":
		return "", Errorf(ErrManifestInvalid, "the manifest says it is %s, its Content-Type is %s", quote(doc.MediaType), quote(sent))
	}
	return doc.MediaType, nil
}

func isSchema1(mediaType string) bool {
	return strings.HasPrefix(mediaType, "application/vnd.docker.distribution.manifest.v1")
}

// checkShape holds the known kinds to their own fields.
func (doc *document) checkShape(mediaType string) error {
	switch {
	case doc.Manifests != nil && (doc.Config != nil || doc.Layers != nil):
		return Errorf(ErrManifestInvalid, "the manifest has both manifests and layers: it is ambiguous what it is")
	case !doc.annotated():
		return Errorf(ErrManifestInvalid, "annotations are texts by name")
	case !IsManifestType(mediaType):
		return nil
	case doc.SchemaVersion != 2:
		return Errorf(ErrManifestInvalid, "schemaVersion is %d and not 2", doc.SchemaVersion)
	case IsIndexType(mediaType) && (doc.Config != nil || doc.Layers != nil):
		return Errorf(ErrManifestInvalid, "an index has no config and no layers")
	case !IsIndexType(mediaType) && doc.Manifests != nil:
		return Errorf(ErrManifestInvalid, "an image manifest has no manifests")
	case !IsIndexType(mediaType) && doc.Config == nil:
		return Errorf(ErrManifestInvalid, "an image manifest needs a config")
	}
	return nil
}

// annotated reports whether the annotations are what clients read, who are sent
// those of all that refers to an image in one list.
func (doc *document) annotated() bool {
	return doc.Annotations == nil || json.Unmarshal(doc.Annotations, &map[string]string{}) == nil
}

// descriptor checks a descriptor.
func (c *child) descriptor(what string) (Descriptor, error) {
	dgst, err := ParseDigest(c.Digest)
	if err != nil {
		return Descriptor{}, Errorf(ErrManifestInvalid, "%s: %s is not a digest", what, quote(c.Digest))
	}
	if c.Size < 0 {
		return Descriptor{}, Errorf(ErrManifestInvalid, "%s %s: its size is negative", what, dgst)
	}
	return Descriptor{MediaType: c.MediaType, Digest: dgst, Size: c.Size}, nil
}

// elsewhere reports whether a layer may never be pushed: its type says so
// (image spec, "Non-Distributable Layers"; Docker's foreign layers).
func (c *child) elsewhere() bool {
	return strings.HasPrefix(c.MediaType, "application/vnd.oci.image.layer.nondistributable.") ||
		strings.HasPrefix(c.MediaType, "application/vnd.docker.image.rootfs.foreign.")
}

// The fields that document and child read.
var (
	documentFields = [...]string{
		"schemaVersion", "mediaType", "artifactType", "config", "layers", "blobs", "manifests", "subject", "annotations",
	}
	childFields = [...]string{"mediaType", "digest", "size", "urls"}
)

// checkFields refuses a document that is no object, or that has one field twice,
// itself or in a descriptor: in Go a field's name is compared without case, in
// most other languages not, so "layers" and "Layers" would be one here and two
// there.
func checkFields(content []byte, fields []string) error {
	dec := json.NewDecoder(bytes.NewReader(content))
	first, err := dec.Token()
	if err != nil || first != json.Delim('{') {
		return Errorf(ErrManifestInvalid, "the manifest is not a JSON object")
	}
	seen := map[string]bool{}
	for dec.More() {
		token, err := dec.Token()
		name, ok := token.(string)
		if err != nil || !ok {
			return Errorf(ErrManifestInvalid, "the manifest is not JSON")
		}
		field := fieldLike(name, fields)
		if field != "" && (name != field || seen[field]) {
			return Errorf(ErrManifestInvalid, "the field %s is there twice, or in the wrong case", quote(name))
		}
		seen[field] = true
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return Errorf(ErrManifestInvalid, "the manifest is not JSON: %s", reasonOf(err))
		}
		if err := checkChildren(field, value); err != nil {
			return err
		}
	}
	return nil
}

// checkChildren is checkFields for the descriptors in one field of a document.
// What is no descriptor is found when it is read.
func checkChildren(field string, value json.RawMessage) error {
	list := []json.RawMessage{value}
	switch field {
	case "config", "subject":
	case "layers", "blobs", "manifests":
		list = nil
		_ = json.Unmarshal(value, &list)
	default:
		return nil
	}
	for _, child := range list {
		if len(child) > 0 && child[0] == '{' {
			if err := checkFields(child, childFields[:]); err != nil {
				return err
			}
		}
	}
	return nil
}

// fieldLike gives the one of fields that is read under this name; empty for one
// that is not read.
func fieldLike(name string, fields []string) string {
	for _, field := range fields {
		if strings.EqualFold(name, field) {
			return field
		}
	}
	return ""
}

// reasonOf gives a JSON error's text, which never repeats the content but for a
// character or a field's name.
func reasonOf(err error) string { return quote(err.Error()) }
