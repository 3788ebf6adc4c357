package oci

import (
	"context"
	"io"

	"github.com/opencontainers/go-digest"
)

// Uploader is a registry that takes blobs (spec section "Pushing blobs"). What
// a method acknowledges by returning without an error is on disk.
//
// Uploads are named by an id that Start makes up. They belong to the repository
// they were started in, and are ErrBlobUploadUnknown in every other. A body
// that breaks off fails with its reader's error; what had arrived stays, and
// Size tells how much that is.
type Uploader interface {
	// Start begins an upload; algorithm may be empty.
	Start(ctx context.Context, name Name, algorithm digest.Algorithm) (id string, err error)
	// Size is how many bytes of an upload have arrived.
	Size(ctx context.Context, name Name, id string) (int64, error)
	// Append adds body to an upload and returns its size then. The chunk says
	// where it belongs; it fails with ErrRangeInvalid when that is not where
	// the upload ends, or when somebody else is just adding to it.
	Append(ctx context.Context, name Name, id string, chunk Chunk) (int64, error)
	// Finish adds the last chunk and makes the upload a blob of the repository,
	// if all of it has this digest; ErrDigestInvalid otherwise, and the upload
	// is gone.
	Finish(ctx context.Context, name Name, id string, chunk Chunk, dgst digest.Digest) (Descriptor, error)
	// Cancel drops an upload.
	Cancel(ctx context.Context, name Name, id string) error
	// Push is Start and Finish in one.
	Push(ctx context.Context, name Name, body io.Reader, dgst digest.Digest) (Descriptor, error)
}

// Chunk is a part of an upload.
type Chunk struct {
	Body io.Reader
	// At is the offset its first byte belongs to; -1 for wherever the upload
	// ends.
	At int64
	// Length is how many bytes the body has to have; -1 when that was not said.
	Length int64
}

// Writer is a registry whose image manifests and tags can be changed. What a
// method acknowledges by returning without an error is on disk.
type Writer interface {
	// PutManifest keeps an image manifest and points tags at it. It fails with
	// ErrManifestInvalid, ErrDigestInvalid, ErrManifestBlobUnknown, and
	// ErrDenied for a tag that must not move.
	PutManifest(ctx context.Context, put ManifestPut) (ManifestStored, error)
	// DeleteManifest removes an image manifest and the tags that point to it.
	DeleteManifest(ctx context.Context, name Name, dgst digest.Digest) error
	// DeleteTag removes a tag; the image manifest stays.
	DeleteTag(ctx context.Context, name Name, tag string) error
	// DeleteBlob takes a blob out of a repository.
	DeleteBlob(ctx context.Context, name Name, dgst digest.Digest) error
	// Mount makes a blob of another repository one of name, too: of from, or,
	// when from is empty, of any that may agrees to. It fails with
	// ErrBlobUnknown when there is none.
	Mount(ctx context.Context, name Name, dgst digest.Digest, from Name, may func(Name) bool) (Descriptor, error)
}

// ManifestPut is an image manifest on its way in.
type ManifestPut struct {
	Name Name
	// Digest is what the bytes must have; empty when a tag was named.
	Digest digest.Digest
	// Tags point to it afterwards.
	Tags []string
	// MediaType is the Content-Type it was sent under; may be empty.
	MediaType string
	Bytes     []byte
	// By names who pushes, for the records.
	By string
}

// ManifestStored says what became of a ManifestPut.
type ManifestStored struct {
	Descriptor
	// Subject is the image manifest it refers to, whether that is here or not;
	// empty when it refers to none.
	Subject digest.Digest
}
