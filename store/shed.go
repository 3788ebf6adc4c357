package store

import (
	"slices"
	"time"

	"github.com/larder-registry/larder/internal/oci"
)

// maxNames bounds tags and links together: whoever can make the mirror ask a
// registry of their own could else fill memory with names for one small image.
const maxNames = 50_000

// shed drops the eighth of all tags and links that has been of use the longest
// time ago, when there are too many: tags by when they were confirmed, links by
// when their content was read. Losing one costs a question to the upstream.
// Store.mu is held.
func (s *Store) shed() {
	if s.names++; s.names <= maxNames {
		return
	}
	type name struct {
		key  key
		used time.Time
	}
	var all []name
	for repo, r := range s.repos {
		for tag, t := range r.tags {
			all = append(all, name{tagKey(oci.Reference{Name: repo, Tag: tag}), t.Confirmed})
		}
		for dgst := range r.links {
			if rec := s.blobs[dgst]; rec != nil {
				all = append(all, name{linkKey(repo, dgst), rec.used})
			}
		}
	}
	// The count above is of names made; many of them may have gone since.
	if s.names = len(all); s.names <= maxNames {
		return
	}
	slices.SortFunc(all, func(a, b name) int { return a.used.Compare(b.used) })
	for _, n := range all[:maxNames/8] {
		s.dropName(n.key)
	}
	s.names -= maxNames / 8
}
