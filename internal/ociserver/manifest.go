package ociserver

import (
	"context"

	"github.com/larder-registry/larder/internal/oci"
)

// manifest answers GET and HEAD for an image manifest or index.
func (h *handler) manifest(ctx context.Context, x *exchange) error {
	m, err := h.reader.Manifest(ctx, x.req.Reference)
	if err != nil {
		return err
	}
	return x.sendManifest(m)
}

// referrers answers GET and HEAD for the list of manifests that refer to one.
func (h *handler) referrers(ctx context.Context, x *exchange) error {
	m, err := h.reader.Referrers(ctx, x.req.Name, x.req.Digest, x.req.ArtifactType)
	if err != nil {
		return err
	}
	if x.req.ArtifactType != "" {
		x.w.Header().Set("OCI-Filters-Applied", "artifactType")
	}
	m.MediaType = oci.MediaTypeIndex
	return x.sendManifest(m)
}

// sendManifest sends the exact bytes under the exact type they came with.
// Clients fail the pull on any other type, so content without one is refused
// and the client goes elsewhere.
func (x *exchange) sendManifest(m oci.Manifest) error {
	if m.MediaType == "" {
		return oci.Errorf(oci.ErrManifestInvalid, "image manifest has no media type")
	}
	m.Size = int64(len(m.Bytes))
	if notModified(x.r, m.Digest) {
		x.describe(m.Descriptor)
		x.sendNotModified()
		return nil
	}
	span, err := x.announce(m.Descriptor, askedRange(x.r, m.Digest))
	if err != nil {
		return err
	}
	return x.write(m.Bytes[span.Start:span.End])
}
