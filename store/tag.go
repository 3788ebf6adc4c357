package store

import (
	"fmt"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/internal/oci"
)

// Tag is what a tag points to, and when an upstream last said so.
type Tag struct {
	oci.Descriptor
	Confirmed time.Time
}

// repository is what memory holds about one repository. Store.mu guards it.
type repository struct {
	tags  map[string]Tag
	links map[digest.Digest]string // media type by digest
	// exposure is what was noted of it.
	exposure Exposure
}

// Tag returns what ref's tag points to; the store holds that image manifest. It
// fails with oci.ErrManifestUnknown.
func (s *Store) Tag(ref oci.Reference) (Tag, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if repo := s.repos[ref.Name]; repo != nil {
		// An eviction under way takes the blob first and the tag a moment later.
		if t, ok := repo.tags[ref.Tag]; ok && s.blobs[t.Digest] != nil {
			return t, nil
		}
	}
	return Tag{}, oci.ErrManifestUnknown
}

// SetTag points ref's tag to an image manifest. It fails with
// oci.ErrManifestUnknown when the store does not hold that, so that no tag
// dangles: blob first, tag second.
func (s *Store) SetTag(ref oci.Reference, t Tag) error {
	if ref.Tag == "" {
		return oci.Errorf(oci.ErrManifestInvalid, "reference %s has no tag", ref)
	}
	if err := checkEntry(tagKey(ref), t.MediaType); err != nil {
		return err
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return fmt.Errorf("set tag: %w", ErrClosed)
	}
	if s.blobs[t.Digest] == nil {
		s.mu.Unlock()
		return oci.ErrManifestUnknown
	}
	repo := s.repository(ref.Name)
	if _, known := repo.tags[ref.Tag]; !known {
		s.shed()
		repo = s.repository(ref.Name) // it may have been shed with its last name
	}
	repo.tags[ref.Tag] = t
	s.dirty(tagKey(ref))
	s.mu.Unlock()
	return s.persist()
}

// ConfirmTag notes that an upstream said at that time what ref's tag points to.
// It is kept in memory and written in batches. A tag that is gone stays gone.
func (s *Store) ConfirmTag(ref oci.Reference, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if repo := s.repos[ref.Name]; repo != nil {
		if t, ok := repo.tags[ref.Tag]; ok && at.After(t.Confirmed) {
			t.Confirmed = at
			repo.tags[ref.Tag] = t
			s.dirty(tagKey(ref))
		}
	}
}

// DeleteTag forgets ref's tag; the image manifest stays. Forgetting a tag that
// is not there is fine.
func (s *Store) DeleteTag(ref oci.Reference) error {
	s.mu.Lock()
	if s.repos[ref.Name] != nil {
		s.dropName(tagKey(ref))
	}
	s.mu.Unlock()
	return s.persist()
}

// Tags lists the tags of a repository in lexical order, at most n (n < 0: all),
// those after last when last is not empty. It fails with oci.ErrNameUnknown for
// a repository the store holds nothing of.
func (s *Store) Tags(name oci.Name, n int, last string) ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	repo := s.repos[name]
	if repo == nil {
		return nil, oci.ErrNameUnknown
	}
	var all []string
	for tag := range repo.tags {
		if tag > last {
			all = append(all, tag)
		}
	}
	return firstN(all, n), nil
}

// Repositories lists the repositories the store holds something of, in the form
// <registry>/<repository>; n and last as in Tags.
func (s *Store) Repositories(n int, last string) ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []string
	for name := range s.repos {
		if full := name.String(); full > last {
			all = append(all, full)
		}
	}
	return firstN(all, n), nil
}

// firstN sorts list and cuts it to n entries; never nil, for JSON.
func firstN(list []string, n int) []string {
	slices.Sort(list)
	if n >= 0 && len(list) > n {
		list = list[:n]
	}
	return append([]string{}, list...)
}

// repository returns the entry for name, made when there is none. Store.mu is
// held, and the caller puts something in.
func (s *Store) repository(name oci.Name) *repository {
	repo := s.repos[name]
	if repo == nil {
		repo = &repository{tags: make(map[string]Tag), links: make(map[digest.Digest]string)}
		s.repos[name] = repo
	}
	return repo
}

// dropName drops a tag or link of a repository, which goes with its last one.
// Store.mu is held.
func (s *Store) dropName(k key) {
	repo := s.repos[k.name]
	if k.kind == kindTag {
		delete(repo.tags, k.item)
	} else {
		delete(repo.links, digest.Digest(k.item))
	}
	s.dirty(k)
	if len(repo.tags) == 0 && len(repo.links) == 0 {
		delete(s.repos, k.name)
		s.dirty(exposureKey(k.name))
	}
}

// dropNames drops every tag and link of content that is gone, and was not
// committed again since. One pass serves many. Store.mu is held.
func (s *Store) dropNames(gone map[digest.Digest]bool) {
	if len(gone) == 0 {
		return
	}
	for name, repo := range s.repos {
		for tag, t := range repo.tags {
			if gone[t.Digest] && s.blobs[t.Digest] == nil {
				s.dropName(tagKey(oci.Reference{Name: name, Tag: tag}))
			}
		}
		for dgst := range gone {
			if _, ok := repo.links[dgst]; ok && s.blobs[dgst] == nil {
				s.dropName(linkKey(name, dgst))
			}
		}
	}
}
