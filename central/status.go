package central

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/internal/oci"
	"github.com/larder-registry/larder/internal/status"
	"github.com/larder-registry/larder/store"
)

// maxListedImages bounds the images and the repositories that a Survey lists.
const maxListedImages = 20_000

// Survey is what the registry holds.
type Survey struct {
	Repositories []status.Repository
	// Images are the tags. Total is how many there are, if they are too many.
	Images []status.Image
	Total  int
	// Bytes is the size of all content, each counted once, of Blobs pieces.
	Bytes int64
	Blobs int

	known map[digest.Digest]detail
}

// detail is what has to be read from an image manifest, and never changes.
type detail struct {
	size      int64
	platforms []string
	listed    int
}

// Survey looks at every record of the ledger once, and into the image manifests
// that before, which may be nil, did not look into. That takes a while: half a
// second for ten thousand images.
func (c *Central) Survey(ctx context.Context, before *Survey) (*Survey, error) {
	s := survey{repositories: map[string]*status.Repository{}, sizes: map[digest.Digest]int64{}, manifests: map[string]manifestRecord{}, referrers: map[string]int{}}
	if err := c.ledger.Each(ctx, s.take); err != nil {
		return nil, fmt.Errorf("survey registry: %w", err)
	}
	out := &Survey{Total: len(s.tags), Blobs: len(s.sizes), known: map[digest.Digest]detail{}}
	for _, size := range s.sizes {
		out.Bytes += size
	}
	for _, r := range s.repositories {
		if r.Manifests > 0 && len(out.Repositories) < maxListedImages {
			out.Repositories = append(out.Repositories, *r)
		}
	}
	for _, t := range s.tags[:min(len(s.tags), maxListedImages)] {
		rec, ok := s.manifests[t.repository+"@"+string(t.Digest)]
		if !ok {
			continue
		}
		d, ok := out.known[t.Digest]
		if !ok && before != nil {
			d, ok = before.known[t.Digest]
		}
		if !ok {
			if err := ctx.Err(); err != nil {
				return nil, fmt.Errorf("survey registry: %w", err)
			}
			d = c.look(t.repository, t.Digest, &s)
		}
		out.known[t.Digest] = d
		out.Images = append(out.Images, status.Image{
			Repository: t.repository, Tag: t.tag, Digest: string(t.Digest), Kind: kindOf(rec),
			Size: d.size, Platforms: d.platforms, Listed: d.listed, Pushed: time.Unix(0, t.At),
			Referrers: s.referrers[t.repository+"@"+string(t.Digest)],
		})
	}
	return out, nil
}

// survey is what is learnt from the records, one by one.
type survey struct {
	repositories map[string]*status.Repository
	sizes        map[digest.Digest]int64
	manifests    map[string]manifestRecord // by repository@digest
	referrers    map[string]int            // by repository@subject
	tags         []surveyedTag
}

type surveyedTag struct {
	tagRecord
	repository, tag string
}

func (s *survey) repository(name string) *status.Repository {
	r := s.repositories[name]
	if r == nil {
		r = &status.Repository{Name: name}
		s.repositories[name] = r
	}
	return r
}

// take learns from a record.
func (s *survey) take(r store.Record) error {
	if dgst, name, ok := splitHolder("blobs/", r.Key); ok {
		rec, err := decode[blobRecord](r)
		s.sizes[dgst] = rec.Size
		s.repository(name).Size += rec.Size
		return err
	}
	rest, ok := strings.CutPrefix(r.Key, "repos/")
	if !ok {
		return nil
	}
	if name, item, ok := strings.Cut(rest, "/_manifests/"); ok {
		rec, err := decode[manifestRecord](r)
		repo := s.repository(name)
		repo.Manifests++
		repo.Size += rec.Size
		if at := time.Unix(rec.At, 0); at.After(repo.Pushed) {
			repo.Pushed = at
		}
		if rec.Subject != "" {
			repo.Referrers++
			s.referrers[name+"@"+string(rec.Subject)]++
		}
		s.sizes[digest.Digest(item)] = rec.Size
		s.manifests[name+"@"+item] = rec
		return err
	}
	if name, item, ok := strings.Cut(rest, "/_tags/"); ok {
		rec, err := decode[tagRecord](r)
		s.repository(name).Tags++
		s.tags = append(s.tags, surveyedTag{rec, name, item})
		return err
	}
	return nil
}

// kindOf is what an image manifest is, in a word.
func kindOf(rec manifestRecord) string {
	switch {
	case oci.IsIndexType(rec.MediaType):
		return "index"
	case rec.ArtifactType != "" && !strings.HasPrefix(rec.ArtifactType, "application/vnd.oci.image.config") && !strings.HasPrefix(rec.ArtifactType, "application/vnd.docker.container.image"):
		return rec.ArtifactType
	}
	return "image"
}

// look reads an image manifest of a repository, and of an index those it lists.
// What cannot be read adds nothing.
func (c *Central) look(repository string, dgst digest.Digest, s *survey) (d detail) {
	seen := map[digest.Digest]bool{}
	d.size = c.weigh(repository, dgst, s, seen)
	read := func(dgst digest.Digest) []byte {
		content, err := c.readContent(dgst, s.sizes[dgst])
		if err != nil {
			return nil
		}
		return content
	}
	index := oci.IsIndexType(s.manifests[repository+"@"+string(dgst)].MediaType)
	d.platforms, d.listed = status.Platforms(dgst, index, read, func(dgst digest.Digest) bool { return seen[dgst] })
	return d
}

// weigh is the size of an image manifest and all it is made of, but for what was
// seen already.
func (c *Central) weigh(repository string, dgst digest.Digest, s *survey, seen map[digest.Digest]bool) int64 {
	size, held := s.sizes[dgst]
	if !held || seen[dgst] {
		return 0
	}
	seen[dgst] = true
	rec, ok := s.manifests[repository+"@"+string(dgst)]
	if !ok {
		return size // a blob
	}
	content, err := c.readContent(dgst, rec.Size)
	if err != nil {
		return size
	}
	doc, err := oci.ParseDocument(content, rec.MediaType)
	if err != nil {
		return size
	}
	for _, child := range doc.Children() {
		size += c.weigh(repository, child, s, seen)
	}
	return size
}
