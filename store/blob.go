package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/internal/oci"
)

// Blob is committed content, open for reading. It embeds the file so that a
// server can use sendfile. While it is open the store does not evict it. The
// caller closes it.
type Blob struct {
	*os.File
	store  *Store
	desc   oci.Descriptor
	rec    *record
	closed atomic.Bool
}

// Blob opens committed content and notes its use. It fails with
// oci.ErrBlobUnknown for content the store does not hold, also when it should:
// a file that vanished or has another size is forgotten here, so that the
// caller fetches it again.
func (s *Store) Blob(dgst digest.Digest) (*Blob, error) {
	s.mu.Lock()
	rec := s.blobs[dgst]
	if rec == nil {
		s.mu.Unlock()
		return nil, oci.ErrBlobUnknown
	}
	rec.readers++
	rec.touch(time.Now())
	b := &Blob{store: s, rec: rec, desc: oci.Descriptor{MediaType: rec.mediaType, Digest: dgst, Size: rec.size}}
	pending := rec.pending
	s.mu.Unlock()

	f, err := s.openFile(dgst, pending)
	if err != nil {
		b.release()
		if errors.Is(err, fs.ErrNotExist) {
			s.log.WithField("digest", dgst).Warn("file of a blob vanished; forgetting the blob")
			s.heal(dgst, rec, nil)
			return nil, oci.ErrBlobUnknown
		}
		return nil, fmt.Errorf("open blob: %w", err)
	}
	b.File = f
	info, err := f.Stat()
	if err != nil {
		b.Close()
		return nil, fmt.Errorf("stat blob: %w", err)
	}
	if info.Size() != b.desc.Size {
		s.log.WithField("digest", dgst).WithField("size", info.Size()).Warn("file of a blob has another size; removing the blob")
		b.Close()
		s.heal(dgst, rec, info)
		return nil, oci.ErrBlobUnknown
	}
	return b, nil
}

// openFile opens the file of content: in ingest/ while it is pending, if it has
// not been moved a moment ago.
func (s *Store) openFile(dgst digest.Digest, pending *Ingest) (*os.File, error) {
	if pending != nil {
		f, err := os.Open(s.dataPath(pending.id))
		if !errors.Is(err, fs.ErrNotExist) {
			return f, err
		}
	}
	return os.Open(s.blobPath(dgst))
}

// Stat describes committed content without opening it or counting as a use.
// MediaType is set for image manifests and indexes only. It fails with
// oci.ErrBlobUnknown.
func (s *Store) Stat(dgst digest.Digest) (oci.Descriptor, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	rec := s.blobs[dgst]
	if rec == nil {
		return oci.Descriptor{}, oci.ErrBlobUnknown
	}
	return oci.Descriptor{MediaType: rec.mediaType, Digest: dgst, Size: rec.size}, nil
}

// Descriptor says what the blob is. MediaType is set for image manifests only;
// what a repository calls the content is in Linked.
func (b *Blob) Descriptor() oci.Descriptor { return b.desc }

// Close closes the file and lets the store evict the blob. It may be called
// more than once.
func (b *Blob) Close() error {
	if b.closed.Swap(true) {
		return nil
	}
	b.releaseReader()
	if err := b.File.Close(); err != nil {
		return fmt.Errorf("close blob: %w", err)
	}
	return nil
}

// Discard removes the blob, because its reader found it unreadable or wrong. It
// removes this very file only: content that was committed since stays. The
// caller still closes b, and other readers keep what they have open.
func (b *Blob) Discard() error {
	info, err := b.File.Stat()
	if err != nil {
		return fmt.Errorf("stat blob: %w", err)
	}
	b.store.heal(b.desc.Digest, b.rec, info)
	return nil
}

func (b *Blob) release() {
	if !b.closed.Swap(true) {
		b.releaseReader()
	}
}

func (b *Blob) releaseReader() {
	b.store.mu.Lock()
	b.rec.readers--
	b.store.mu.Unlock()
}

// heal forgets dgst when rec still is what memory holds about it, and removes
// its file when that still is the one info was taken from.
func (s *Store) heal(dgst digest.Digest, rec *record, info os.FileInfo) {
	s.tree.Lock()
	defer s.tree.Unlock()
	s.mu.Lock()
	if s.blobs[dgst] != rec {
		s.mu.Unlock()
		return
	}
	gone := s.forget(dgst)
	s.dropNames(gone)
	s.mu.Unlock()
	path := s.blobPath(dgst)
	if now, err := os.Lstat(path); info != nil && err == nil && os.SameFile(info, now) {
		if err := os.Remove(path); err != nil {
			s.log.WithError(err).Warn("cannot remove a broken blob")
		}
	}
	s.index.wake()
}

// touch notes a use. Store.mu is held.
func (r *record) touch(now time.Time) {
	r.used, r.dirty = now, true
}

// blobPath is where a digest's file lies: blobs/<algorithm>/<two digits>/<hex>.
// dgst has been validated by whoever made it.
func (s *Store) blobPath(dgst digest.Digest) string {
	hex := dgst.Encoded()
	return filepath.Join(s.dir, "blobs", string(dgst.Algorithm()), hex[:2], hex)
}

// dataPath is where an ingest's bytes lie.
func (s *Store) dataPath(id string) string { return filepath.Join(s.ingestDir(id), "data") }

// checkDigest refuses what must not become a path.
func checkDigest(dgst digest.Digest) error {
	if err := dgst.Validate(); err != nil {
		return oci.Errorf(oci.ErrDigestInvalid, "invalid digest: %v", err)
	}
	if alg := dgst.Algorithm(); alg != digest.SHA256 && alg != digest.SHA512 {
		return oci.Errorf(oci.ErrDigestInvalid, "unsupported digest algorithm %q", alg)
	}
	return nil
}
