package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/larder-registry/larder/internal/oci"
)

// Commit makes the content visible, whole: Verify if that has not been done,
// fsync, rename into blobs/, fsync of the directory, index. When the content
// has been committed by another path meanwhile, that one stays. After a failure
// the ingest is as it was, so that its owner can abort or close it. ReadAt
// works on until Close. ctx ends the verifying only.
func (i *Ingest) Commit(ctx context.Context) (oci.Descriptor, error) {
	if err := i.Verify(ctx); err != nil {
		return oci.Descriptor{}, err
	}
	if err := i.settle(); err != nil {
		return oci.Descriptor{}, noSpace(fmt.Errorf("commit: %w", err))
	}
	return i.Descriptor(), i.publish(nil)
}

// settle brings the data file to disk as it will stay. No lock is held: readers
// go on opening it.
func (i *Ingest) settle() error {
	i.mu.RLock()
	ended := i.ended
	i.mu.RUnlock()
	if ended {
		return ErrClosed
	}
	i.store.at("before fsync")
	if err := i.file.Chmod(0o444); err != nil {
		return err
	}
	if err := i.store.files.sync(i.file); err != nil {
		return err
	}
	i.store.at("after fsync")
	return i.store.makeBlobDir(filepath.Dir(i.store.blobPath(i.dgst)))
}

// publish renames the data file into blobs/ and enters the blob, with what is
// known of it as an image manifest.
func (i *Ingest) publish(m *manifest) error {
	s, path := i.store, i.store.blobPath(i.dgst)
	if err := i.enter(path, m); err != nil {
		return noSpace(fmt.Errorf("commit: %w", err))
	}
	s.removeIngest(i.id)
	s.mu.Lock()
	delete(s.ingests, i.id)
	s.mu.Unlock()
	if err := s.syncDir(filepath.Dir(path)); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	s.at("before index")
	return s.persist()
}

// enter moves the data file to path and the blob into the table, unless the
// blob is there.
func (i *Ingest) enter(path string, m *manifest) error {
	s := i.store
	s.tree.Lock()
	defer s.tree.Unlock()
	s.mu.Lock()
	rec := s.blobs[i.dgst]
	s.mu.Unlock()

	i.mu.Lock()
	defer i.mu.Unlock()
	if rec == nil {
		if err := s.files.rename(i.path, path); err != nil {
			return err
		}
		s.at("after rename")
	}
	i.path, i.ended = path, true

	s.mu.Lock()
	defer s.mu.Unlock()
	if rec == nil {
		rec = &record{size: i.size}
		s.blobs[i.dgst] = rec
		s.bytes += i.size
	}
	rec.touch(time.Now())
	s.learn(i.dgst, rec, m)
	s.dirty(useKey(i.dgst))
	s.dirty(manifestKey(i.dgst))
	i.published = true
	return nil
}

// makeBlobDir makes the directory a blob goes to, durably.
func (s *Store) makeBlobDir(dir string) error {
	err := os.Mkdir(dir, 0o755)
	if errors.Is(err, fs.ErrNotExist) {
		if err := s.makeBlobDir(filepath.Dir(dir)); err != nil {
			return err
		}
		err = os.Mkdir(dir, 0o755)
	}
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return s.syncDir(filepath.Dir(dir))
}

// Put keeps small content that is at hand as a whole, an image manifest above
// all: it is verified against desc's digest and size (-1: any), committed
// whole, and, when it parses as an image manifest or index, its children are
// noted so that it goes when one of them does. It fails like Ingest and Commit;
// content the store holds already is fine.
func (s *Store) Put(ctx context.Context, desc oci.Descriptor, content []byte) error {
	if err := checkDigest(desc.Digest); err != nil {
		return err
	}
	if desc.Size >= 0 && desc.Size != int64(len(content)) {
		return oci.Errorf(oci.ErrSizeInvalid, "content has %d bytes, not %d", len(content), desc.Size)
	}
	if got := desc.Digest.Algorithm().FromBytes(content); got != desc.Digest {
		return oci.Errorf(oci.ErrDigestInvalid, "content is %s, not %s", got, desc.Digest)
	}
	m := parseManifest(content)
	if m != nil && desc.MediaType != "" {
		m.mediaType = desc.MediaType
	}
	s.mu.Lock()
	rec := s.blobs[desc.Digest]
	if rec != nil {
		rec.touch(time.Now())
		s.learn(desc.Digest, rec, m)
		s.dirty(manifestKey(desc.Digest))
	}
	s.mu.Unlock()
	if rec != nil {
		return s.persist()
	}

	// A name of its own: two requests may put the same manifest at once, and
	// a fill of it may be under way too.
	i, err := s.ingest(ctx, s.uniqueID(), desc.Digest, int64(len(content)))
	if err != nil {
		return err
	}
	return errors.Join(i.put(ctx, content, m), i.Abort())
}

// put writes, verifies and commits all of the content.
func (i *Ingest) put(ctx context.Context, content []byte, m *manifest) error {
	if _, err := i.WriteAt(content, 0); err != nil {
		return err
	}
	if err := i.Verify(ctx); err != nil {
		return err
	}
	if err := i.settle(); err != nil {
		return noSpace(fmt.Errorf("commit: %w", err))
	}
	return i.publish(m)
}
