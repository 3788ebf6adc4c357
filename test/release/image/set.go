package image

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/larder-registry/larder/test/release/compile"
	"github.com/larder-registry/larder/test/release/licences"
	"github.com/larder-registry/larder/test/release/rootfs"
	"github.com/larder-registry/larder/test/release/sbom"
)

// Platform is the image of one architecture, with what is in it.
type Platform struct {
	Arch   string
	Image  v1.Image
	Binary []byte
	SBOM   []byte // CycloneDX, JSON
}

// Set is everything that is published under one tag.
type Set struct {
	Stamp     Stamp
	Index     v1.ImageIndex
	Platforms []Platform
	// Licences is the file that goes with the binaries.
	Licences []byte
	// Referrers are the components' lists, attached: one for each image, and one
	// for the index with all of them.
	Referrers []v1.Image
}

// Make builds the project at root for all architectures. ctx ends compilers.
func Make(ctx context.Context, root string, stamp Stamp) (*Set, error) {
	modules, err := licences.Of(ctx, root)
	if err != nil {
		return nil, err
	}
	set := &Set{Stamp: stamp}
	var images []v1.Image
	var all []attachment
	for _, arch := range compile.Arches() {
		tree, err := rootfs.Build(ctx, root, arch, stamp.Version, modules)
		if err != nil {
			return nil, err
		}
		p := Platform{Arch: arch, Binary: rootfs.Content(tree, rootfs.Binary)}
		set.Licences = rootfs.Content(tree, rootfs.Licences)
		if p.Image, err = New(arch, tree, stamp); err != nil {
			return nil, err
		}
		if p.SBOM, err = sbom.Of(p.Binary, stamp.Version, arch, stamp.Created, modules); err != nil {
			return nil, err
		}
		list := attachment{name: "larder-linux-" + arch + ".cdx.json", mediaType: sbom.MediaType, content: p.SBOM}
		if err := set.attach(p.Image, list); err != nil {
			return nil, err
		}
		set.Platforms = append(set.Platforms, p)
		images, all = append(images, p.Image), append(all, list)
	}
	if set.Index, err = Index(images, stamp); err != nil {
		return nil, err
	}
	if err := set.attach(set.Index, all...); err != nil {
		return nil, err
	}
	return set, nil
}

func (s *Set) attach(to partial.Describable, files ...attachment) error {
	subject, err := partial.Descriptor(to)
	if err != nil {
		return fmt.Errorf("describe image: %w", err)
	}
	referrer, err := attach(*subject, sbom.MediaType, files, s.Stamp)
	if err != nil {
		return err
	}
	s.Referrers = append(s.Referrers, referrer)
	return nil
}

// Save writes to the directory dir, which is made if need be: the OCI archive
// larder-image.tar, and for each architecture larder-image-<arch>.tar for docker
// load and larder-image-<arch>.cdx.json. They are imported as ref.
func (s *Set) Save(dir string, ref name.Tag) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	for _, p := range s.Platforms {
		base := filepath.Join(dir, "larder-image-"+p.Arch)
		if err := DockerArchive(base+".tar", p.Image, ref); err != nil {
			return err
		}
		if err := replaceWith(base+".cdx.json", p.SBOM); err != nil {
			return err
		}
	}
	return s.Archive(filepath.Join(dir, "larder-image.tar"), ref)
}

// Push pushes everything, and ref last, so that it never names what is not all
// there. It logs in as docker and podman do; registries on loopback are spoken
// to in plain HTTP. ctx bounds it.
func (s *Set) Push(ctx context.Context, ref name.Tag) error {
	options := []remote.Option{remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain)}
	digest, err := s.Index.Digest()
	if err != nil {
		return fmt.Errorf("push %s: %w", ref, err)
	}
	if err := remote.WriteIndex(ref.Digest(digest.String()), s.Index, options...); err != nil {
		return fmt.Errorf("push %s: %w", ref, err)
	}
	for _, r := range s.Referrers {
		digest, err := r.Digest()
		if err != nil {
			return fmt.Errorf("push list of components: %w", err)
		}
		if err := remote.Write(ref.Digest(digest.String()), r, options...); err != nil {
			return fmt.Errorf("push list of components: %w", err)
		}
	}
	if err := remote.Tag(ref, s.Index, options...); err != nil {
		return fmt.Errorf("push %s: %w", ref, err)
	}
	return nil
}

// Size is how many bytes a node pulls for one image, its configuration included.
func Size(img v1.Image) (int64, error) {
	m, err := img.Manifest()
	if err != nil {
		return 0, fmt.Errorf("read image manifest: %w", err)
	}
	size := m.Config.Size
	for _, l := range m.Layers {
		size += l.Size
	}
	return size, nil
}

func replaceWith(path string, content []byte) error {
	return replace(path, bytes.NewReader(content))
}
