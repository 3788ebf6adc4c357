package store

import (
	"encoding/json"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/internal/oci"
)

// manifest is what the store needs to know about an image manifest or index.
type manifest struct {
	mediaType string
	children  []digest.Digest
}

// parseManifest reads the fields of image manifests and indexes, OCI's and
// Docker's (schema 2, and schema 1 with its fsLayers). It returns nil for
// content that is none: a config, a layer, anything that is not JSON.
func parseManifest(content []byte) *manifest {
	type child struct {
		Digest  digest.Digest `json:"digest"`
		BlobSum digest.Digest `json:"blobSum"`
	}
	var doc struct {
		SchemaVersion int     `json:"schemaVersion"`
		MediaType     string  `json:"mediaType"`
		Config        child   `json:"config"`
		Layers        []child `json:"layers"`
		Blobs         []child `json:"blobs"`
		Manifests     []child `json:"manifests"`
		FSLayers      []child `json:"fsLayers"`
	}
	if len(content) > oci.MaxManifestSize || json.Unmarshal(content, &doc) != nil || doc.SchemaVersion == 0 {
		return nil
	}
	m := &manifest{mediaType: doc.MediaType}
	if m.mediaType == "" {
		// The OCI image spec makes the field optional; the shape tells.
		m.mediaType = "application/vnd.oci.image.manifest.v1+json"
		if doc.Manifests != nil {
			m.mediaType = "application/vnd.oci.image.index.v1+json"
		}
	}
	for _, c := range slices.Concat([]child{doc.Config}, doc.Layers, doc.Blobs, doc.Manifests, doc.FSLayers) {
		for _, d := range []digest.Digest{c.Digest, c.BlobSum} {
			if d != "" && checkDigest(d) == nil {
				m.children = append(m.children, d)
			}
		}
	}
	slices.Sort(m.children)
	m.children = slices.Compact(m.children)
	return m
}

// learn notes that a blob is an image manifest; m may be nil. Having it written
// is the caller's part. Store.mu is held.
func (s *Store) learn(dgst digest.Digest, rec *record, m *manifest) {
	if m == nil {
		return
	}
	s.unlearn(dgst, rec)
	rec.mediaType, rec.children = m.mediaType, m.children
	for _, child := range m.children {
		s.parents[child] = append(s.parents[child], dgst)
	}
}

// unlearn takes the edges from dgst to its children back. Store.mu is held.
func (s *Store) unlearn(dgst digest.Digest, rec *record) {
	for _, child := range rec.children {
		left := slices.DeleteFunc(s.parents[child], func(p digest.Digest) bool { return p == dgst })
		if len(left) == 0 {
			delete(s.parents, child)
		} else {
			s.parents[child] = left
		}
	}
	rec.children = nil
}
