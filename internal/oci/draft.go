package oci

import (
	"io"

	"github.com/opencontainers/go-digest"
)

// Draft is content that is still being written and has no digest yet. It is used
// by one goroutine at a time; whoever opened it closes it.
type Draft interface {
	io.WriterAt
	io.ReaderAt
	// Resize cuts the draft off, or extends it with zeros.
	Resize(size int64) error
	// Size is how many bytes there are.
	Size() (int64, error)
	// Sync returns once everything written is on disk. Unless it is told to
	// settle, too, it may still be forgotten that there is a draft of this id:
	// enough before a commit.
	Sync(settle bool) error
	// Close lets go of the draft, which stays as it is. It may be called more
	// than once.
	Close() error
}

// Kept is committed content as a listing shows it.
type Kept struct {
	Digest digest.Digest
	// Size in bytes.
	Size int64
	// At is the Unix time, in seconds, of the last commit of this content.
	At int64
}
