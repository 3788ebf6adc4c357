// Package image makes the OCI image that the Dockerfile describes, for all
// architectures at once and without Docker, so that anybody can build it and
// gets the same digest.
//
// An image has one layer, what [rootfs.Build] returns. The same source, version and time give
// the same bytes: no clock is read, and nothing depends on where it is built.
// [Make] builds it, with what
// is attached to it; [Set] saves and pushes that.
package image

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/larder-registry/larder/test/release/rootfs"
)

// Repository is where images are published.
const Repository = "ghcr.io/larder-registry/larder"

// Source is where the project is.
const Source = "https://github.com/larder-registry/larder"

// Stamp is what an image says of its own origin.
type Stamp struct {
	Version  string
	Revision string // the commit
	Created  time.Time
}

// Labels are what the image's configuration says, and in the Dockerfile LABEL.
func (s Stamp) Labels() map[string]string {
	return map[string]string{
		"org.opencontainers.image.title":         "Larder",
		"org.opencontainers.image.description":   "Keeps container images near the nodes that run them",
		"org.opencontainers.image.source":        Source,
		"org.opencontainers.image.documentation": Source + "/tree/main/docs",
		"org.opencontainers.image.licenses":      "Apache-2.0",
		"org.opencontainers.image.version":       s.Version,
		"org.opencontainers.image.revision":      s.Revision,
	}
}

// Annotations are the labels and the time, for image manifests and the index.
func (s Stamp) Annotations() map[string]string {
	all := s.Labels()
	all["org.opencontainers.image.created"] = s.Created.UTC().Format(time.RFC3339)
	return all
}

// New makes the image of one architecture with the files of tree.
func New(arch string, tree []rootfs.File, stamp Stamp) (v1.Image, error) {
	layer, err := pack(tree, stamp.Created)
	if err != nil {
		return nil, err
	}
	img := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
	img = mutate.ConfigMediaType(img, types.OCIConfigJSON)
	img, err = mutate.Append(img, mutate.Addendum{Layer: layer, History: v1.History{
		Created: v1.Time{Time: stamp.Created.UTC()}, CreatedBy: "make image", Comment: Source,
	}})
	if err != nil {
		return nil, fmt.Errorf("add layer: %w", err)
	}
	had, err := img.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("read image configuration: %w", err)
	}
	config := had.DeepCopy()
	config.OS, config.Architecture = "linux", arch
	config.Created = v1.Time{Time: stamp.Created.UTC()}
	config.Config = v1.Config{
		User:       fmt.Sprintf("%d:%d", rootfs.User, rootfs.User),
		Env:        []string{"PATH=/usr/local/bin"},
		Entrypoint: []string{"/" + rootfs.Binary},
		WorkingDir: "/" + rootfs.Home,
		Labels:     stamp.Labels(),
	}
	img, err = mutate.ConfigFile(img, config)
	if err != nil {
		return nil, fmt.Errorf("set image configuration: %w", err)
	}
	return mutate.Annotations(img, stamp.Annotations()).(v1.Image), nil
}

// pack compresses the tree to a layer.
func pack(tree []rootfs.File, created time.Time) (v1.Layer, error) {
	var packed bytes.Buffer
	// The header's time and name stay empty: they would differ each time.
	z, err := gzip.NewWriterLevel(&packed, gzip.BestCompression)
	if err != nil {
		return nil, fmt.Errorf("compress layer: %w", err)
	}
	if err := rootfs.Tar(z, tree, created); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, fmt.Errorf("compress layer: %w", err)
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(packed.Bytes())), nil
	}, tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return nil, fmt.Errorf("read layer: %w", err)
	}
	return layer, nil
}

// Index is the image for all architectures.
func Index(images []v1.Image, stamp Stamp) (v1.ImageIndex, error) {
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, img := range images {
		config, err := img.ConfigFile()
		if err != nil {
			return nil, fmt.Errorf("read image configuration: %w", err)
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: config.Platform()}})
	}
	return mutate.Annotations(index, stamp.Annotations()).(v1.ImageIndex), nil
}
