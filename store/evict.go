package store

import (
	"cmp"
	"errors"
	"io/fs"
	"os"
	"path"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/internal/oci"
)

// evict frees target bytes, or as many as there are: partial ingests first, the
// oldest first, then blobs by last use, pinned ones last. What is being read or
// filled stays. It returns how many bytes went. admit is held.
func (s *Store) evict(target int64, reason string) (freed int64) {
	for freed < target {
		n := s.evictPartial()
		if n < 0 {
			break
		}
		freed += n
	}
	if freed >= target {
		return freed
	}
	gone := make(map[digest.Digest]bool)
	for _, dgst := range s.candidates() {
		if freed >= target {
			break
		}
		freed += s.evictBlob(dgst, reason, gone)
	}
	s.mu.Lock()
	s.dropNames(gone)
	s.mu.Unlock()
	if len(gone) > 0 {
		s.log.WithField("reason", reason).WithField("blobs", len(gone)).WithField("bytes", freed).Info("evicted to make room")
		s.index.wake()
	}
	return freed
}

// evictable is how many bytes evict could free at most.
func (s *Store) evictable() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	var sum int64
	for _, p := range s.partials {
		sum += p.size
	}
	for dgst, rec := range s.blobs {
		if !s.inUse(dgst, rec) {
			sum += rec.size
		}
	}
	return sum
}

// inUse reports whether a blob is being read or filled. Store.mu is held.
func (s *Store) inUse(dgst digest.Digest, rec *record) bool {
	return rec.readers > 0 || s.ingests[ingestID(dgst)] != nil
}

// candidates lists the blobs in the order in which they are to go.
func (s *Store) candidates() []digest.Digest {
	type candidate struct {
		dgst   digest.Digest
		used   time.Time
		pinned bool
	}
	s.mu.Lock()
	pinned := s.pinned()
	list := make([]candidate, 0, len(s.blobs))
	for dgst, rec := range s.blobs {
		if !s.inUse(dgst, rec) {
			list = append(list, candidate{dgst, rec.used, pinned[dgst]})
		}
	}
	s.mu.Unlock()
	slices.SortFunc(list, func(a, b candidate) int {
		if a.pinned != b.pinned {
			if a.pinned {
				return 1
			}
			return -1
		}
		return cmp.Or(a.used.Compare(b.used), cmp.Compare(a.dgst, b.dgst))
	})
	order := make([]digest.Digest, len(list))
	for n, c := range list {
		order[n] = c.dgst
	}
	return order
}

// pinned returns what the tags that match Config.Pin reach. Store.mu is held.
func (s *Store) pinned() map[digest.Digest]bool {
	reached := make(map[digest.Digest]bool)
	if len(s.pins) == 0 {
		return reached
	}
	for name, repo := range s.repos {
		for tag, t := range repo.tags {
			if s.isPinned(oci.Reference{Name: name, Tag: tag}) {
				s.reach(t.Digest, reached)
			}
		}
	}
	return reached
}

// isPinned reports whether a glob of Config.Pin matches.
func (s *Store) isPinned(ref oci.Reference) bool {
	return slices.ContainsFunc(s.pins, func(glob string) bool {
		ok, err := path.Match(glob, ref.String())
		return ok && err == nil
	})
}

// reach adds dgst and what it lists, directly and not. Store.mu is held.
func (s *Store) reach(dgst digest.Digest, reached map[digest.Digest]bool) {
	if reached[dgst] {
		return
	}
	reached[dgst] = true
	if rec := s.blobs[dgst]; rec != nil {
		for _, child := range rec.children {
			s.reach(child, reached)
		}
	}
}

// evictBlob removes a blob and the image manifests that list it, unless one of
// them is in use; it adds them to gone and returns the bytes freed. The
// manifests go first, so that none is left without its layer.
func (s *Store) evictBlob(dgst digest.Digest, reason string, gone map[digest.Digest]bool) (freed int64) {
	s.tree.Lock()
	defer s.tree.Unlock()
	s.mu.Lock()
	var family []digest.Digest
	ok := s.ancestors(dgst, make(map[digest.Digest]bool), &family)
	s.mu.Unlock()
	if !ok {
		return 0
	}
	for _, member := range family {
		why := "manifest"
		if member == dgst {
			why = reason
		}
		size := s.remove(member)
		if size < 0 {
			return freed
		}
		freed += size
		gone[member] = true
		s.mu.Lock()
		s.evicted[why]++
		s.mu.Unlock()
		s.at("evict")
	}
	return freed
}

// ancestors lists what lists dgst, outermost first, and dgst itself last; false
// when one of them is in use or dgst is not held. Store.mu is held.
func (s *Store) ancestors(dgst digest.Digest, seen map[digest.Digest]bool, list *[]digest.Digest) bool {
	rec := s.blobs[dgst]
	if rec == nil || s.inUse(dgst, rec) {
		return false
	}
	if seen[dgst] {
		return true
	}
	seen[dgst] = true
	for _, parent := range s.parents[dgst] {
		if !s.ancestors(parent, seen, list) {
			return false
		}
	}
	*list = append(*list, dgst)
	return true
}

// remove removes one blob that is not in use, and returns its size; -1 when it
// is in use now or cannot be removed. tree is held.
func (s *Store) remove(dgst digest.Digest) int64 {
	s.mu.Lock()
	rec := s.blobs[dgst]
	if rec == nil || s.inUse(dgst, rec) {
		s.mu.Unlock()
		return -1
	}
	delete(s.blobs, dgst)
	s.mu.Unlock()

	err := os.Remove(s.blobPath(dgst))
	failed := err != nil && !errors.Is(err, fs.ErrNotExist)
	s.mu.Lock()
	s.blobs[dgst] = rec
	if !failed {
		s.forget(dgst)
	}
	s.mu.Unlock()
	if failed {
		s.log.WithError(err).Warn("cannot evict a blob")
		return -1
	}
	return rec.size
}

// forget takes a blob out of memory, and has the index do so. Its tags and
// links are dropNames' part. Store.mu is held.
func (s *Store) forget(dgst digest.Digest) map[digest.Digest]bool {
	rec := s.blobs[dgst]
	delete(s.blobs, dgst)
	s.bytes -= rec.size
	if rec.mediaType != "" {
		s.unlearn(dgst, rec)
		s.dirty(manifestKey(dgst))
	}
	s.dirty(useKey(dgst))
	return map[digest.Digest]bool{dgst: true}
}

// evictPartial removes the partial ingest that was touched least recently and
// returns its size; -1 when there is none. admit is held.
func (s *Store) evictPartial() int64 {
	s.mu.Lock()
	var oldest string
	for id, p := range s.partials {
		if oldest == "" || p.used.Before(s.partials[oldest].used) {
			oldest = id
		}
	}
	p := s.partials[oldest]
	delete(s.partials, oldest)
	s.mu.Unlock()
	if p == nil {
		return -1
	}
	s.removeIngest(oldest)
	return p.size
}

// expirePartials removes partial ingests beyond the bounds. admit is held.
func (s *Store) expirePartials(now time.Time) {
	s.mu.Lock()
	var old []string
	for id, p := range s.partials {
		if now.Sub(p.used) > partialAge {
			old = append(old, id)
			delete(s.partials, id)
		}
	}
	excess := len(s.partials) - partialCount
	s.mu.Unlock()
	for _, id := range old {
		s.removeIngest(id)
	}
	for range excess {
		s.evictPartial()
	}
}
