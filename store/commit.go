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
	if err := i.commit(nil); err != nil {
		return oci.Descriptor{}, err
	}
	return i.Descriptor(), nil
}

// commit is Commit of bytes that have been verified, with what is known of them
// as an image manifest.
func (i *Ingest) commit(m *manifest) error {
	if err := i.settle(); err != nil {
		return noSpace(fmt.Errorf("commit: %w", err))
	}
	return i.publish(m)
}

// settle brings the data file to disk as it will stay, and the directories it
// goes to. No lock is held: readers go on opening it.
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
	dir := filepath.Dir(i.store.blobPath(i.dgst))
	i.store.tree.Lock()
	err := i.store.makeBlobDir(dir)
	i.store.tree.Unlock()
	if err != nil {
		return err
	}
	return i.store.syncNewDirs(dir)
}

// publish renames the data file into blobs/ and enters the blob, with what is
// known of it as an image manifest.
func (i *Ingest) publish(m *manifest) error {
	s, path := i.store, i.store.blobPath(i.dgst)
	if err := i.enter(path, m); err != nil {
		return noSpace(fmt.Errorf("commit: %w", err))
	}
	i.leave()
	if err := s.syncDir(filepath.Dir(path)); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	s.at("before index")
	return s.persist()
}

// leave takes an ingest that owns nothing on disk any more out of the running
// ones, and what is left of its directory.
func (i *Ingest) leave() {
	s := i.store
	s.removeIngest(i.id)
	s.mu.Lock()
	delete(s.ingests, i.id)
	s.mu.Unlock()
}

// enter moves the data file to path and the blob into the table, unless the
// blob is there and on disk.
func (i *Ingest) enter(path string, m *manifest) error {
	s := i.store
	s.tree.Lock()
	defer s.tree.Unlock()
	s.mu.Lock()
	rec := s.blobs[i.dgst]
	held := rec != nil && rec.pending == nil
	s.mu.Unlock()
	if err := i.move(path, !held); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.note(i, m).pending = nil // this file is on disk
	return nil
}

// move renames the data file to path, or leaves it where it is when another has
// been committed; then the ingest owns nothing below ingest/ any more. tree is
// held.
func (i *Ingest) move(path string, rename bool) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if rename {
		if err := i.store.files.rename(i.path, path); err != nil {
			return err
		}
		i.store.at("after rename")
	}
	i.path, i.ended = path, true
	return nil
}

// note enters the blob of i into the table, unless it is there, and what is
// known of it as an image manifest. tree and Store.mu are held.
func (s *Store) note(i *Ingest, m *manifest) *record {
	rec := s.blobs[i.dgst]
	if rec == nil {
		rec = &record{size: i.size, pending: i}
		s.blobs[i.dgst] = rec
		s.bytes += i.size
	}
	rec.touch(time.Now())
	s.learn(i.dgst, rec, m)
	s.dirty(useKey(i.dgst))
	s.dirty(manifestKey(i.dgst))
	i.published = true
	return rec
}

// makeBlobDir makes the directory a blob goes to; syncNewDirs makes it last.
// tree is held.
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
	if err == nil {
		s.newDirs[dir] = struct{}{}
	}
	return err
}

// syncNewDirs brings a directory below blobs/, and those it lies in, to disk
// where that has not been done. Whoever made them may be another commit.
func (s *Store) syncNewDirs(dir string) error {
	alg := filepath.Dir(dir)
	for _, made := range []string{filepath.Dir(alg), alg, dir} {
		parent := filepath.Dir(made)
		var synced []string // one sync is good for all that were made
		s.tree.Lock()
		if _, due := s.newDirs[made]; due {
			for d := range s.newDirs {
				if filepath.Dir(d) == parent {
					synced = append(synced, d)
				}
			}
		}
		s.tree.Unlock()
		if synced == nil {
			continue
		}
		if err := s.syncDir(parent); err != nil {
			return err
		}
		s.tree.Lock()
		for _, d := range synced {
			delete(s.newDirs, d)
		}
		s.tree.Unlock()
	}
	return nil
}

// Put keeps small content that is at hand as a whole, an image manifest above
// all: it is verified against desc's digest and size (-1: any), and, when it
// parses as an image manifest or index, its children are noted so that it goes
// when one of them does. When Put returns the store holds the content, for every
// question there is; bringing it to disk goes on, see pending.go, unless the
// configuration says SyncWrites. Put fails like Ingest and Commit; content the
// store holds already is fine.
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
	if _, err = i.WriteAt(content, 0); err == nil {
		if !s.syncWrites && i.enterEarly(m) {
			s.at("put")
			return nil
		}
		err = i.commit(m)
	}
	return errors.Join(err, i.Abort())
}
