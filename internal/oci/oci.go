// Package oci holds the nouns of the OCI distribution spec as every part of
// Larder uses them: names, references, descriptors, requests, byte ranges,
// media types and the spec's error codes.
//
// It does no I/O and imports none of Larder's other packages, so that every
// floor above it can agree on these words. What a registry *does* is stated
// here as interfaces ([Reader], [Lister], [Blob]); who does it is in package
// mirror (a pull-through cache). The HTTP form of it all is in
// internal/ociserver.
package oci

import (
	"context"
	"io"

	"github.com/opencontainers/go-digest"
)

// Descriptor says what content is without holding it.
type Descriptor struct {
	// MediaType is the exact Content-Type the upstream gave, never rewritten.
	// Empty for a blob means application/octet-stream.
	MediaType string
	// Digest is validated before a Descriptor is made of it.
	Digest digest.Digest
	// Size in bytes; -1 when it is not known (yet).
	Size int64
}

// Manifest is an image manifest or index: its descriptor and its exact bytes,
// which are never re-encoded. At most MaxManifestSize bytes.
type Manifest struct {
	Descriptor
	Bytes []byte
}

// MaxManifestSize bounds an image manifest, in bytes. The distribution spec
// asks registries for at least 4 MiB; containerd refuses more than
// 4*1048*1048 (core/remotes/docker/resolver.go).
const MaxManifestSize = 4 << 20

// Blob is content that is being read. Seek works before the content is
// complete: the end is known as soon as the size is.
//
// A Read blocks until the bytes asked for have arrived; it fails with
// io.ErrUnexpectedEOF (wrapped) when they never will, and never ends cleanly
// before the size that Descriptor announced. The caller closes it; Close may
// be called more than once.
type Blob interface {
	io.ReadSeekCloser
	// Descriptor is complete: its Size is never -1.
	Descriptor() Descriptor
}

// Reader is a registry that can be pulled from.
type Reader interface {
	// Blob opens a blob. It fails with ErrBlobUnknown when nobody has it and
	// ErrUnavailable when nobody could be asked. ctx bounds this reader only,
	// never work that other readers share.
	Blob(ctx context.Context, name Name, dgst digest.Digest) (Blob, error)
	// StatBlob answers what a blob is without fetching it.
	StatBlob(ctx context.Context, name Name, dgst digest.Digest) (Descriptor, error)
	// Manifest returns the image manifest or index ref names, by digest if
	// ref has one, else by tag. It fails with ErrManifestUnknown when nobody
	// has it.
	Manifest(ctx context.Context, ref Reference) (Manifest, error)
	// Referrers returns the index of manifests that refer to dgst (spec
	// section "Listing Referrers"); artifactType filters when not empty.
	Referrers(ctx context.Context, name Name, dgst digest.Digest, artifactType string) (Manifest, error)
}

// Lister is a registry whose content can be listed (spec section "Content
// Discovery"). Both lists are in lexical order, start after last when last is
// not empty, and hold at most n entries; n < 0 means all.
type Lister interface {
	// Tags fails with ErrNameUnknown for a repository nobody has.
	Tags(ctx context.Context, name Name, n int, last string) ([]string, error)
	// Repositories lists names in the path form <registry>/<repository>.
	Repositories(ctx context.Context, n int, last string) ([]string, error)
}

// Body is the content of a blob as an upstream sends it.
type Body struct {
	io.ReadCloser
	// Offset is where in the blob the first byte of the body lies. An
	// upstream that ignores Range answers with 0, whatever was asked.
	Offset int64
	// Length is how many bytes the body announces; -1 if it announces none.
	Length int64
	// Size is the whole blob's size in bytes; -1 if the upstream did not say.
	Size int64
}
