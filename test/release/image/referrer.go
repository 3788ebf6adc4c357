package image

import (
	"bytes"
	"encoding/json"
	"fmt"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// attachment is a file that is told of an image.
type attachment struct {
	name      string
	mediaType types.MediaType
	content   []byte
}

// attach makes an artifact that refers to subject (OCI image-spec 1.1, "artifact
// usage"): an image manifest whose layers are the files and whose configuration
// is empty.
func attach(subject v1.Descriptor, artifactType types.MediaType, files []attachment, stamp Stamp) (v1.Image, error) {
	const empty = "application/vnd.oci.empty.v1+json"
	a := &artifact{blobs: map[v1.Hash]v1.Layer{}}
	config, err := a.add([]byte("{}"), empty)
	if err != nil {
		return nil, err
	}
	config.Data = []byte("{}")
	manifest := v1.Manifest{
		SchemaVersion: 2, MediaType: types.OCIManifestSchema1, ArtifactType: string(artifactType), Config: config,
		Subject: &v1.Descriptor{MediaType: subject.MediaType, Size: subject.Size, Digest: subject.Digest},
		Annotations: map[string]string{
			"org.opencontainers.image.created": stamp.Annotations()["org.opencontainers.image.created"],
		},
	}
	for _, f := range files {
		d, err := a.add(f.content, f.mediaType)
		if err != nil {
			return nil, err
		}
		d.Annotations = map[string]string{"org.opencontainers.image.title": f.name}
		manifest.Layers = append(manifest.Layers, d)
	}
	if a.manifest, err = json.Marshal(manifest); err != nil {
		return nil, fmt.Errorf("write artifact: %w", err)
	}
	return partial.CompressedToImage(a)
}

// artifact is what partial needs to see an image in it.
type artifact struct {
	manifest []byte
	blobs    map[v1.Hash]v1.Layer
}

func (a *artifact) add(content []byte, mediaType types.MediaType) (v1.Descriptor, error) {
	digest, size, err := v1.SHA256(bytes.NewReader(content))
	if err != nil {
		return v1.Descriptor{}, fmt.Errorf("hash %s: %w", mediaType, err)
	}
	a.blobs[digest] = static.NewLayer(content, mediaType)
	return v1.Descriptor{MediaType: mediaType, Size: size, Digest: digest}, nil
}

// MediaType is that of an image manifest.
func (a *artifact) MediaType() (types.MediaType, error) { return types.OCIManifestSchema1, nil }

// RawManifest is the image manifest as it is pushed.
func (a *artifact) RawManifest() ([]byte, error) { return a.manifest, nil }

// RawConfigFile is the empty configuration.
func (a *artifact) RawConfigFile() ([]byte, error) { return []byte("{}"), nil }

// LayerByDigest is one of the files, or the configuration.
func (a *artifact) LayerByDigest(h v1.Hash) (partial.CompressedLayer, error) {
	blob, ok := a.blobs[h]
	if !ok {
		return nil, fmt.Errorf("the artifact has no blob %s", h)
	}
	return blob, nil
}
