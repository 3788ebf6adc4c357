package store

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
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

// root is what names an image, and its outermost image manifest.
type root struct {
	tag       string // empty: named by its digest
	dgst      digest.Digest
	confirmed time.Time
}

// Holdings calls f with every image the store holds something of, in no order,
// and returns how many there were. It looks at a few at a time, so that nobody
// waits for it long; what changes meanwhile may be missing or not. f is called
// without locks, and what it is given is only good for the call.
func (s *Store) Holdings(f func(*Holding)) (total int) {
	s.mu.Lock()
	names := make([]oci.Name, 0, len(s.repos))
	for name := range s.repos {
		names = append(names, name)
	}
	s.mu.Unlock()
	seen := make(map[*record]bool)
	batch := make([]Holding, 0, holdingsBatch)
	for _, name := range names {
		roots, exposure := s.roots(name)
		for some := range slices.Chunk(roots, holdingsBatch) {
			batch = batch[:0]
			s.mu.Lock()
			for _, r := range some {
				if rec := s.blobs[r.dgst]; rec != nil {
					batch = append(batch, s.measure(name, r, rec, seen))
				}
			}
			s.mu.Unlock()
			for i := range batch {
				batch[i].Exposure = exposure
				f(&batch[i])
			}
			total += len(batch)
		}
	}
	return total
}

// roots lists the images of a repository.
func (s *Store) roots(name oci.Name) (list []root, exposure string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	repo := s.repos[name]
	if repo == nil {
		return nil, ""
	}
	list = make([]root, 0, len(repo.tags))
	tagged := make(map[digest.Digest]bool, len(repo.tags))
	for tag, t := range repo.tags {
		tagged[t.Digest] = true
		list = append(list, root{tag, t.Digest, t.Confirmed})
	}
	for dgst := range repo.links {
		if rec := s.blobs[dgst]; rec == nil || rec.mediaType == "" || tagged[dgst] || s.listedIn(repo, dgst) {
			continue
		}
		list = append(list, root{dgst: dgst})
	}
	return list, repo.exposure.Kind
}

// listedIn reports whether an image manifest that a repository vouches for lists
// dgst. Store.mu is held.
func (s *Store) listedIn(repo *repository, dgst digest.Digest) bool {
	return slices.ContainsFunc(s.parents[dgst], func(parent digest.Digest) bool {
		_, ok := repo.links[parent]
		return ok
	})
}

// measure adds up what is held of an image. seen is for its own use. Store.mu is
// held.
func (s *Store) measure(name oci.Name, r root, rec *record, seen map[*record]bool) Holding {
	h := Holding{Reference: oci.Reference{Name: name, Tag: r.tag}, Root: r.dgst, MediaType: rec.mediaType, Confirmed: r.confirmed}
	if r.tag == "" {
		h.Reference.Digest = r.dgst
	}
	h.Pinned = s.isPinned(h.Reference)
	clear(seen)
	h.Partial = !s.add(&h, rec, seen)
	return h
}

// add adds what is held of an image manifest or index, and reports whether all
// of it is: of an index, all that its image manifests need that are held, as those
// for other platforms are nobody's need here. Store.mu is held.
func (s *Store) add(h *Holding, rec *record, seen map[*record]bool) (complete bool) {
	seen[rec] = true
	h.Size += rec.size
	if rec.used.After(h.Used) {
		h.Used = rec.used
	}
	index := oci.IsIndexType(rec.mediaType)
	held := 0
	complete = true
	for _, child := range rec.children {
		c := s.blobs[child]
		switch {
		case c == nil:
			complete = complete && index
			continue
		case seen[c]:
		case index && c.mediaType != "":
			complete = s.add(h, c, seen) && complete
		default:
			seen[c] = true
			h.Size += c.size
		}
		held++
	}
	return complete && (held > 0 || !index)
}

// Peek reads small content without that counting as a use: for looking at image
// manifests and configs. It fails with oci.ErrBlobUnknown, and with
// oci.ErrSizeInvalid for content of more than most bytes. The bytes are as they
// are on disk; nobody has checked them since they were committed.
func (s *Store) Peek(dgst digest.Digest, most int64) ([]byte, error) {
	s.mu.Lock()
	rec := s.blobs[dgst]
	if rec == nil {
		s.mu.Unlock()
		return nil, oci.ErrBlobUnknown
	}
	size, pending := rec.size, rec.pending
	s.mu.Unlock()
	if size > most {
		return nil, oci.Errorf(oci.ErrSizeInvalid, "%s has %d bytes", dgst, size)
	}
	f, err := s.openFile(dgst, pending)
	if errors.Is(err, os.ErrNotExist) {
		return nil, oci.ErrBlobUnknown
	}
	if err != nil {
		return nil, fmt.Errorf("peek at blob: %w", err)
	}
	defer f.Close()
	content := make([]byte, size)
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
