package central

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/internal/oci"
)

// Retention says what goes although nobody deleted it. A repository follows the
// first rule that names it. Immutable tags always stay.
type Retention struct {
	Repositories []oci.Pattern
	// KeepTags keeps the tags that were set last, so many of them; 0 does not
	// count tags.
	KeepTags int
	// KeepPulled keeps tags whose image was pulled, or that were set, within
	// this time; 0 does not look at that. Where both are given, either keeps.
	KeepPulled time.Duration
	// Untagged removes image manifests that have no tag, are in no index that
	// stays, and refer to nothing that stays, once they are older; 0 keeps
	// them.
	Untagged time.Duration
}

// Check says what is wrong with the rule, if anything.
func (r Retention) Check() error {
	if r.KeepTags < 0 || r.KeepPulled < 0 || r.Untagged < 0 || r.KeepTags == 0 && r.KeepPulled == 0 && r.Untagged == 0 {
		return errors.New("it keeps everything; give keep_tags, keep_pulled or untagged")
	}
	return oci.CheckPatterns(r.Repositories)
}

// retentionOf finds the rule of a repository.
func (c *Central) retentionOf(repository string) (Retention, bool) {
	i := slices.IndexFunc(c.cfg.Retention, func(r Retention) bool { return oci.MatchAny(r.Repositories, repository) })
	if i < 0 {
		return Retention{}, false
	}
	return c.cfg.Retention[i], true
}

// tracksPulls reports whether it matters when something was pulled.
func (c *Central) tracksPulls(repository string) bool {
	r, ok := c.retentionOf(repository)
	return ok && r.KeepPulled > 0
}

// stock is everything a repository has.
type stock struct {
	repository string
	manifests  map[digest.Digest]*stocked
	tags       map[string]tagRecord
	pulled     map[digest.Digest]int64
}

// stocked is one image manifest of a stock.
type stocked struct {
	record   manifestRecord
	children []digest.Digest
}

// takeStock reads what a repository has. Its lock is held.
func (c *Central) takeStock(ctx context.Context, repository string) (*stock, error) {
	s := &stock{
		repository: repository, manifests: map[digest.Digest]*stocked{},
		tags: map[string]tagRecord{}, pulled: map[digest.Digest]int64{},
	}
	list, err := c.ledger.List(ctx, manifestsPrefix(repository), "", -1)
	if err != nil {
		return nil, err
	}
	for _, r := range list {
		dgst := digest.Digest(strings.TrimPrefix(r.Key, manifestsPrefix(repository)))
		rec, err := decode[manifestRecord](r)
		if err != nil {
			return nil, err
		}
		children, err := c.children(dgst, rec)
		if err != nil {
			return nil, err
		}
		s.manifests[dgst] = &stocked{rec, children}
	}
	if list, err = c.ledger.List(ctx, tagsPrefix(repository), "", -1); err != nil {
		return nil, err
	}
	for _, r := range list {
		if s.tags[strings.TrimPrefix(r.Key, tagsPrefix(repository))], err = decode[tagRecord](r); err != nil {
			return nil, err
		}
	}
	if list, err = c.ledger.List(ctx, pulledPrefix(repository), "", -1); err != nil {
		return nil, err
	}
	for _, r := range list {
		rec, err := decode[hint](r)
		if err != nil {
			return nil, err
		}
		s.pulled[digest.Digest(strings.TrimPrefix(r.Key, pulledPrefix(repository)))] = rec.At
	}
	return s, nil
}

// retired is what has to go of a stock.
type retired struct {
	tags      []string
	manifests []digest.Digest
}

// retire works out what has to go, and takes the tags out of the stock.
func (s *stock) retire(c *Central, now time.Time) (gone retired) {
	for tag, rec := range s.tags {
		if s.manifests[rec.Digest] == nil {
			gone.tags = append(gone.tags, tag) // points nowhere
		}
	}
	rule, ok := c.retentionOf(s.repository)
	if ok {
		gone.tags = append(gone.tags, s.outdated(c, rule, now)...)
	}
	for _, tag := range gone.tags {
		delete(s.tags, tag)
	}
	slices.Sort(gone.tags)
	if !ok || rule.Untagged == 0 {
		return gone
	}
	kept := s.kept(rule, now)
	for dgst := range s.manifests {
		if !kept[dgst] {
			gone.manifests = append(gone.manifests, dgst)
		}
	}
	slices.Sort(gone.manifests)
	return gone
}

// outdated are the tags that a rule does not keep.
func (s *stock) outdated(c *Central, rule Retention, now time.Time) (gone []string) {
	if rule.KeepTags == 0 && rule.KeepPulled == 0 {
		return nil
	}
	var candidates []string
	for tag, rec := range s.tags {
		if s.manifests[rec.Digest] != nil {
			candidates = append(candidates, tag)
		}
	}
	// The last set first; by name where that is the same.
	slices.SortFunc(candidates, func(a, b string) int {
		return cmp.Or(cmp.Compare(s.tags[b].At, s.tags[a].At), strings.Compare(a, b))
	})
	for i, tag := range candidates {
		rec := s.tags[tag]
		used := max(rec.At/int64(time.Second), s.pulled[rec.Digest])
		switch {
		case i < rule.KeepTags, c.immutable(s.repository, tag):
		case rule.KeepPulled > 0 && now.Sub(time.Unix(used, 0)) < rule.KeepPulled:
		default:
			gone = append(gone, tag)
		}
	}
	return gone
}

// kept are the image manifests that stay: tagged ones, young ones, what those
// are made of, and what refers to any that stays.
func (s *stock) kept(rule Retention, now time.Time) map[digest.Digest]bool {
	referrers := map[digest.Digest][]digest.Digest{}
	var todo []digest.Digest
	for dgst, m := range s.manifests {
		if subject := m.record.Subject; subject != "" {
			referrers[subject] = append(referrers[subject], dgst)
		}
		if now.Sub(time.Unix(max(m.record.At, s.pulled[dgst]), 0)) < rule.Untagged {
			todo = append(todo, dgst)
		}
	}
	for _, rec := range s.tags {
		todo = append(todo, rec.Digest)
	}
	kept := map[digest.Digest]bool{}
	for len(todo) > 0 {
		dgst := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		m := s.manifests[dgst]
		if m == nil || kept[dgst] {
			continue // a blob, or not here, or seen
		}
		kept[dgst] = true
		todo = append(append(todo, m.children...), referrers[dgst]...)
	}
	return kept
}
