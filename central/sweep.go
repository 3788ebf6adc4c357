package central

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/internal/oci"
	"github.com/larder-registry/larder/store"
)

// candidate is a blob that nothing seems to refer to any more.
type candidate struct {
	key, version string
	dgst         digest.Digest
	record       blobRecord
}

// blobs takes blobs out of repositories that nothing there refers to. Twice they
// have to be found so, with time in between: a blob is first marked as doomed,
// and whoever asks for it, or refers to it, takes the mark away. The one that is
// removed still has the mark, so nobody did; and an image manifest that was
// entered before the blob is removed is seen, because it is looked for between
// reading the mark and removing it. One that is entered after finds the blob
// missing, and is refused (enter in manifest.go looks twice).
func (g *collection) blobs(ctx context.Context) error {
	const page = 1000
	doomed := map[string][]candidate{} // by repository
	for after := ""; ; {
		list, err := g.c.ledger.List(ctx, "blobs/", after, page)
		if err != nil {
			return err
		}
		for _, r := range list {
			after = r.Key
			dgst, repository, ok := splitHolder("blobs/", r.Key)
			rec, err := decode[blobRecord](r)
			if err != nil || !ok {
				continue // not ours to remove
			}
			if next := g.judge(repository, candidate{r.Key, r.Version, dgst, rec}); next != nil {
				doomed[repository] = append(doomed[repository], *next)
			}
		}
		if err := g.mark(ctx); err != nil {
			return err
		}
		if len(list) < page {
			break
		}
	}
	for repository, list := range doomed {
		if err := g.unlink(ctx, repository, list); err != nil {
			return err
		}
	}
	return nil
}

// together is how many changes are made at once, to share the wait for the disk.
const together = 64

// judge notes that a blob is to be marked, or its mark to be taken away, or
// returns it to be removed.
func (g *collection) judge(repository string, b candidate) *candidate {
	_, needed := g.needed[g.hash(repository, b.dgst)]
	wait := min(g.c.cfg.Grace, settle)
	switch {
	case needed && b.record.Doomed == 0:
		return nil
	case needed:
		b.record.Doomed = 0
	case b.record.Doomed == 0 && g.now.Sub(time.Unix(b.record.At, 0)) < g.c.cfg.Grace:
		g.report.Waiting++
		return nil
	case b.record.Doomed == 0:
		g.report.Waiting++
		b.record.Doomed = max(g.now.Unix(), 1)
	case g.now.Sub(time.Unix(b.record.Doomed, 0)) < wait:
		g.report.Waiting++
		return nil
	default:
		return &b
	}
	g.marks = append(g.marks, b)
	return nil
}

// mark writes the marks that were noted.
func (g *collection) mark(ctx context.Context) error {
	marks := g.marks
	g.marks = nil
	if g.dry {
		return nil
	}
	for part := range slices.Chunk(marks, together) {
		err := each(part, func(b candidate) error {
			err := g.c.ledger.Swap(ctx, b.key, encode(b.record), b.version)
			if errors.Is(err, store.ErrConflict) {
				err = nil // somebody asked for it
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// unlink removes marked blobs from a repository, unless an image manifest has
// come to need them.
func (g *collection) unlink(ctx context.Context, repository string, list []candidate) error {
	needed, err := g.c.neededBy(ctx, repository)
	if err != nil {
		return err
	}
	// The next collection takes the mark away from what is needed again.
	list = slices.DeleteFunc(list, func(b candidate) bool { return needed[b.dgst] })
	var mu sync.Mutex // guards the report
	for part := range slices.Chunk(list, together) {
		err := each(part, func(b candidate) error {
			if !g.dry {
				err := g.c.ledger.Delete(ctx, b.key, b.version)
				if errors.Is(err, store.ErrConflict) {
					return nil // somebody asked for it
				}
				if err != nil {
					return err
				}
				g.c.discharge(repository, b.record.Size)
			}
			mu.Lock()
			defer mu.Unlock()
			g.report.Blobs = append(g.report.Blobs, repository+"@"+string(b.dgst))
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// neededBy gives everything that the image manifests of a repository refer to
// now.
func (c *Central) neededBy(ctx context.Context, repository string) (map[digest.Digest]bool, error) {
	list, err := c.ledger.List(ctx, manifestsPrefix(repository), "", -1)
	if err != nil {
		return nil, err
	}
	needed := map[digest.Digest]bool{}
	for _, r := range list {
		rec, err := decode[manifestRecord](r)
		if err != nil {
			return nil, err
		}
		children, err := c.children(digest.Digest(r.Key[len(manifestsPrefix(repository)):]), rec)
		if err != nil {
			return nil, err
		}
		for _, child := range children {
			needed[child] = true
		}
	}
	return needed, nil
}

// holders removes hints that a repository may hold an image manifest which it
// does not.
func (g *collection) holders(ctx context.Context) error {
	if g.dry {
		return nil
	}
	const page = 1000
	for after := ""; ; {
		list, err := g.c.ledger.List(ctx, "manifests/", after, page)
		if err != nil {
			return err
		}
		for _, r := range list {
			after = r.Key
			if dgst, repository, ok := splitHolder("manifests/", r.Key); ok {
				if err := g.holder(ctx, r, dgst, repository); err != nil {
					return err
				}
			}
		}
		if len(list) < page {
			return nil
		}
	}
}

func (g *collection) holder(ctx context.Context, r store.Record, dgst digest.Digest, repository string) error {
	// Between the hint and the record nobody lets go of the lock.
	defer g.c.repositories.lock(repository)()
	_, err := g.c.ledger.Get(ctx, manifestKey(repository, dgst))
	if !errors.Is(err, store.ErrNoRecord) {
		return err
	}
	err = g.c.ledger.Delete(ctx, r.Key, r.Version)
	if errors.Is(err, store.ErrConflict) {
		err = nil
	}
	return err
}

// content removes from disk what no repository holds.
func (g *collection) content(ctx context.Context) error {
	wait := min(g.c.cfg.Grace, settle)
	return g.c.content.Each(ctx, func(kept oci.Kept) error {
		if g.now.Sub(time.Unix(kept.At, 0)) < wait {
			return nil
		}
		return g.removeContent(ctx, kept, wait)
	})
}

// removeContent removes content that nobody holds, while nobody can begin to.
func (g *collection) removeContent(ctx context.Context, kept oci.Kept, wait time.Duration) error {
	defer g.c.digests.lock(string(kept.Digest))()
	for _, prefix := range []string{blobKey(kept.Digest, ""), holderKey(kept.Digest, "")} {
		list, err := g.c.ledger.List(ctx, prefix, "", 1)
		if err != nil || len(list) > 0 {
			return err
		}
	}
	// It may have been committed again since it was listed.
	now, err := g.c.content.Stat(kept.Digest)
	if errors.Is(err, oci.ErrBlobUnknown) || err == nil && g.now.Sub(time.Unix(now.At, 0)) < wait {
		return nil
	}
	if err != nil {
		return err
	}
	if !g.dry {
		if err := g.c.content.Remove(kept.Digest); err != nil {
			return err
		}
	}
	g.report.Content = append(g.report.Content, string(kept.Digest))
	g.report.Bytes += kept.Size
	return nil
}
