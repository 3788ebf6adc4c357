package central

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/internal/oci"
	"github.com/larder-registry/larder/store"
)

// Collected is what a collection removed, or, of a dry run, would.
type Collected struct {
	// DryRun: nothing was changed.
	DryRun bool `json:"dry_run"`
	// Uploads were given up.
	Uploads []string `json:"uploads"`
	// Tags and Manifests went by a rule of retention, or pointed nowhere. They
	// are written <repository>:<tag> and <repository>@<digest>.
	Tags      []string `json:"tags"`
	Manifests []string `json:"manifests"`
	// Blobs were taken out of a repository, <repository>@<digest>: nothing
	// there refers to them.
	Blobs []string `json:"blobs"`
	// Waiting is how many blobs nothing refers to since a short while: they go
	// at a later collection, unless a push needs them.
	Waiting int `json:"waiting"`
	// Content was removed from disk, Bytes long all together.
	Content []string `json:"content"`
	Bytes   int64    `json:"bytes"`
}

// settle is how long a blob that nothing refers to is still kept once that was
// noticed, when Config.Grace is longer: time for a push that has been told that
// it is there to say so.
const settle = time.Hour

// collection is one run of Collect.
type collection struct {
	c      *Central
	dry    bool
	now    time.Time
	report Collected
	// needed holds a hash of (repository, digest) for everything that an image
	// manifest refers to. Two that share one only keep a blob too long.
	needed map[uint64]struct{}
	seed   maphash.Seed
	// marks are changes of marks that are noted, and not made yet.
	marks []candidate
}

// Collect removes garbage, while pushes and pulls go on: uploads nobody goes on
// with, what the rules of retention name, blobs that no image manifest of their
// repository refers to, and content that no repository holds. A dry run only
// reports. What was done before a failure is reported with it.
func (c *Central) Collect(ctx context.Context, dry bool) (Collected, error) {
	c.collecting.Lock()
	defer c.collecting.Unlock()
	c.flushPulled(ctx)
	g := &collection{c: c, dry: dry, now: c.now(), needed: map[uint64]struct{}{}, seed: maphash.MakeSeed()}
	g.report.DryRun = dry
	err := g.run(ctx)
	took := c.now().Sub(g.now)
	r := g.report
	if !dry {
		c.metrics.seconds.Set(took.Seconds())
		c.metrics.ended(c.now(), err)
		c.metrics.freed.Add(float64(r.Bytes))
		for kind, n := range map[string]int{
			"upload": len(r.Uploads), "tag": len(r.Tags), "manifest": len(r.Manifests), "blob": len(r.Blobs), "content": len(r.Content),
		} {
			c.metrics.collected.WithLabelValues(kind).Add(float64(n))
		}
		c.log.WithField("uploads", len(r.Uploads)).WithField("tags", len(r.Tags)).WithField("manifests", len(r.Manifests)).
			WithField("blobs", len(r.Blobs)).WithField("content", len(r.Content)).WithField("bytes", r.Bytes).
			WithField("duration", took.Round(time.Millisecond).String()).Info("garbage collected")
	}
	if err != nil {
		err = fmt.Errorf("collect garbage: %w", err)
	}
	return r, err
}

func (g *collection) run(ctx context.Context) error {
	if err := g.uploads(ctx); err != nil {
		return err
	}
	const page = 500
	for after := ""; ; {
		list, err := g.c.ledger.List(ctx, catalogPrefix, after, page)
		if err != nil {
			return err
		}
		for _, r := range list {
			if err := g.repository(ctx, strings.TrimPrefix(r.Key, catalogPrefix)); err != nil {
				return err
			}
			after = r.Key
		}
		if len(list) < page {
			break
		}
	}
	if err := g.blobs(ctx); err != nil {
		return err
	}
	if err := g.holders(ctx); err != nil {
		return err
	}
	return g.content(ctx)
}

// uploads gives up what nothing was added to for long, and drafts that nobody
// knows of any more.
func (g *collection) uploads(ctx context.Context) error {
	c := g.c
	list, err := c.ledger.List(ctx, uploadsPrefix, "", -1)
	if err != nil {
		return err
	}
	known := map[string]bool{}
	for _, r := range list {
		id := strings.TrimPrefix(r.Key, uploadsPrefix)
		known[id] = true
		// One that cannot be read is of no use to anybody.
		u, err := parseUpload(r.Value)
		if err == nil && g.now.Sub(time.Unix(u.At, 0)) < c.cfg.UploadAge {
			continue
		}
		if err := g.dropUpload(ctx, id); err != nil {
			return err
		}
	}
	drafts, err := c.drafts.Drafts()
	if err != nil {
		return err
	}
	for id, changed := range drafts {
		// A draft is made after its record, so one without is left behind, or
		// belongs to a request that goes on.
		if !known[id] && g.now.Sub(changed) >= min(c.cfg.UploadAge, settle) {
			if err := g.dropUpload(ctx, id); err != nil {
				return err
			}
		}
	}
	return nil
}

func (g *collection) dropUpload(ctx context.Context, id string) error {
	if !g.c.use(id) {
		return nil
	}
	defer g.c.unuse(id)
	g.report.Uploads = append(g.report.Uploads, id)
	if g.dry {
		return nil
	}
	return g.c.drop(ctx, id)
}

// repository applies the rules to one repository, notes what its image manifests
// need, and clears away hints that lead nowhere.
func (g *collection) repository(ctx context.Context, repository string) error {
	defer g.c.repositories.lock(repository)()
	stock, err := g.c.takeStock(ctx, repository)
	if err != nil {
		return err
	}
	gone := stock.retire(g.c, g.now)
	for _, tag := range gone.tags {
		if err := g.dropTag(ctx, repository, tag); err != nil {
			return err
		}
	}
	for _, dgst := range gone.manifests {
		g.report.Manifests = append(g.report.Manifests, repository+"@"+string(dgst))
		if !g.dry {
			if err := g.c.forget(ctx, repository, dgst, stock.manifests[dgst].record); err != nil {
				return err
			}
		}
		delete(stock.manifests, dgst)
	}
	for _, m := range stock.manifests {
		for _, child := range m.children {
			g.needed[g.hash(repository, child)] = struct{}{}
		}
	}
	if g.dry {
		return nil
	}
	if err := g.hints(ctx, repository, stock); err != nil {
		return err
	}
	if len(stock.manifests) == 0 {
		_, err = g.c.remove(ctx, catalogKey(repository))
	}
	return err
}

func (g *collection) dropTag(ctx context.Context, repository, tag string) error {
	g.report.Tags = append(g.report.Tags, repository+":"+tag)
	if g.dry {
		return nil
	}
	_, err := g.c.remove(ctx, tagKey(repository, tag))
	return err
}

// hints removes those of a repository whose image manifest is gone. The
// repository's lock is held: none is just being made.
func (g *collection) hints(ctx context.Context, repository string, stock *stock) error {
	for _, prefix := range []string{"repos/" + repository + "/_referrers/", pulledPrefix(repository)} {
		list, err := g.c.ledger.List(ctx, prefix, "", -1)
		if err != nil {
			return err
		}
		for _, r := range list {
			dgst := digest.Digest(r.Key[strings.LastIndexByte(r.Key, '/')+1:])
			if _, ok := stock.manifests[dgst]; ok {
				continue
			}
			if err := g.c.ledger.Delete(ctx, r.Key, r.Version); err != nil && !errors.Is(err, store.ErrConflict) {
				return err
			}
		}
	}
	return nil
}

// hash is what needed knows a repository's need for a digest by.
func (g *collection) hash(repository string, dgst digest.Digest) uint64 {
	return maphash.Comparable(g.seed, [2]string{repository, string(dgst)})
}

// children gives what the content of an image manifest refers to: what it is
// made of, and what it is about is not part of that.
func (c *Central) children(dgst digest.Digest, rec manifestRecord) ([]digest.Digest, error) {
	content, err := c.readContent(dgst, rec.Size)
	if errors.Is(err, oci.ErrBlobUnknown) {
		return nil, nil // reported; without it nothing of the image can be had
	}
	if err != nil {
		return nil, err
	}
	doc, err := oci.ParseDocument(content, rec.MediaType)
	if err != nil {
		return nil, fmt.Errorf("read manifest %s: %w", dgst, err)
	}
	return slices.Compact(slices.Sorted(slices.Values(doc.Children()))), nil
}
