package store

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/internal/oci"
)

// holdingsBatch is how many images are looked at before others may have the
// store again.
const holdingsBatch = 64

// Holding is one image the store holds something of.
type Holding struct {
	// Reference has a tag, or else a digest: of an image manifest that no tag
	// of its repository points to and no other image manifest of it lists.
	oci.Reference
	// Root is the image manifest or index, MediaType its type.
	Root      digest.Digest
	MediaType string
	// Size is the sum of what is held of it, in bytes, each content once.
	Size int64
	// Used is when one of its image manifests was last used, Confirmed when
	// an upstream last said what the tag points to.
	Used, Confirmed time.Time
	// Pinned: a glob of Config.Pin matches.
	Pinned bool
	// Partial: something that a held image manifest of it lists is not held,
	// or no image manifest is but the index.
	Partial bool
	// Exposure is the Kind noted for the repository.
	Exposure string
}

// Holdings lists the images the store holds something of, at most n, in no
// order, and counts all. It looks at a few at a time, so that nobody waits for
// it long; what changes meanwhile may be missing or not.
func (s *Store) Holdings(n int) (list []Holding, total int) {
	s.mu.Lock()
	names := make([]oci.Name, 0, len(s.repos))
	for name := range s.repos {
		names = append(names, name)
	}
	s.mu.Unlock()
	seen := make(map[digest.Digest]bool)
	for _, name := range names {
		roots, exposure := s.roots(name)
		total += len(roots)
		roots = roots[:min(len(roots), max(n-len(list), 0))]
		for len(roots) > 0 {
			batch := roots[:min(len(roots), holdingsBatch)]
			roots = roots[len(batch):]
			s.mu.Lock()
			for _, root := range batch {
				h := Holding{Reference: root.Reference, Root: root.Root, Confirmed: root.Confirmed, Exposure: exposure}
				if s.measure(&h, seen) {
					list = append(list, h)
				}
			}
			s.mu.Unlock()
		}
	}
	return list, total
}

// roots lists the images of a repository: with the tag or digest that names
// each, and when it was confirmed.
func (s *Store) roots(name oci.Name) (list []Holding, exposure string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	repo := s.repos[name]
	if repo == nil {
		return nil, ""
	}
	tagged := make(map[digest.Digest]bool, len(repo.tags))
	for tag, t := range repo.tags {
		tagged[t.Digest] = true
		list = append(list, Holding{Reference: oci.Reference{Name: name, Tag: tag}, Root: t.Digest, Confirmed: t.Confirmed})
	}
	for dgst := range repo.links {
		if rec := s.blobs[dgst]; rec == nil || rec.mediaType == "" || tagged[dgst] || s.listedIn(repo, dgst) {
			continue
		}
		list = append(list, Holding{Reference: oci.Reference{Name: name, Digest: dgst}, Root: dgst})
	}
	return list, repo.exposure.Kind
}

// listedIn reports whether an image manifest that a repository vouches for lists
// dgst. Store.mu is held.
func (s *Store) listedIn(repo *repository, dgst digest.Digest) bool {
	for _, parent := range s.parents[dgst] {
		if _, ok := repo.links[parent]; ok {
			return true
		}
	}
	return false
}

// measure adds up what is held of an image; false when its root is gone. seen
// is for its own use. Store.mu is held.
func (s *Store) measure(h *Holding, seen map[digest.Digest]bool) bool {
	root := s.blobs[h.Root]
	if root == nil {
		return false
	}
	h.MediaType = root.mediaType
	h.Pinned = s.isPinned(h.Reference)
	clear(seen)
	complete := s.add(h, h.Root, root, seen)
	h.Partial = !complete
	return true
}

// add adds what is held of an image manifest or index, and reports whether all
// of it is: of an index, all that one of its image manifests needs, as those for
// other platforms are nobody's need here. Store.mu is held.
func (s *Store) add(h *Holding, dgst digest.Digest, rec *record, seen map[digest.Digest]bool) (complete bool) {
	seen[dgst] = true
	h.Size += rec.size
	if rec.used.After(h.Used) {
		h.Used = rec.used
	}
	if !oci.IsIndexType(rec.mediaType) {
		complete = true
		for _, child := range rec.children {
			c := s.blobs[child]
			if c == nil {
				complete = false
			} else if !seen[child] {
				seen[child] = true
				h.Size += c.size
			}
		}
		return complete
	}
	held, whole := 0, 0
	for _, child := range rec.children {
		if c := s.blobs[child]; c != nil && !seen[child] {
			held++
			if c.mediaType == "" {
				seen[child] = true
				h.Size += c.size
				whole++
			} else if s.add(h, child, c, seen) {
				whole++
			}
		}
	}
	return held > 0 && held == whole
}

// Peek reads small content without that counting as a use: for looking at image
// manifests and configs. It fails with oci.ErrBlobUnknown, and with
// oci.ErrSizeInvalid for content of more than most bytes. The bytes are as they
// are on disk; nobody has checked them since they were committed.
func (s *Store) Peek(dgst digest.Digest, most int64) ([]byte, error) {
	desc, err := s.Stat(dgst)
	if err != nil {
		return nil, err
	}
	if desc.Size > most {
		return nil, oci.Errorf(oci.ErrSizeInvalid, "%s has %d bytes", dgst, desc.Size)
	}
	f, err := os.Open(s.blobPath(dgst))
	if errors.Is(err, os.ErrNotExist) {
		return nil, oci.ErrBlobUnknown
	}
	if err != nil {
		return nil, fmt.Errorf("peek at blob: %w", err)
	}
	defer f.Close()
	content := make([]byte, desc.Size)
	if _, err := io.ReadFull(f, content); err != nil {
		return nil, fmt.Errorf("peek at blob: %w", err)
	}
	return content, nil
}

// Space is how much room there is on the file system, in bytes, and how much of
// it has to stay free; Free and Total are -1 when the file system does not say.
type Space struct{ Free, Total, MinFree int64 }

// Space looks how much room there is.
func (s *Store) Space() Space {
	r := s.free.room(s, time.Second)
	if !r.known {
		return Space{-1, -1, r.minFree}
	}
	return Space{r.avail, r.total, r.minFree}
}

// Space looks how much room there is for a depot.
func (d *Depot) Space() (Space, error) {
	free, total, err := freeBytes(d.files, d.dir)
	if err != nil {
		return Space{}, fmt.Errorf("look for room: %w", err)
	}
	return Space{free, total, max(d.minFree.of(total), depotRoom)}, nil
}
