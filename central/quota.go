package central

import (
	"context"
	"errors"
	"fmt"

	"github.com/larder-registry/larder/internal/oci"
	"github.com/larder-registry/larder/store"
)

// Quota bounds what repositories hold together. A blob counts once for each
// repository that holds it, however often it lies on disk.
type Quota struct {
	Repositories []oci.Pattern
	// Bytes is the most they may hold.
	Bytes int64
}

// Check says what is wrong with the quota, if anything.
func (q Quota) Check() error {
	if q.Bytes <= 0 {
		return errors.New("it needs a size above nothing")
	}
	return oci.CheckPatterns(q.Repositories)
}

// measure counts what is held under each quota.
func (c *Central) measure(ctx context.Context) error {
	c.used = make([]int64, len(c.cfg.Quotas))
	if len(c.cfg.Quotas) == 0 {
		return nil
	}
	return c.ledger.Each(ctx, func(r store.Record) error {
		if _, repository, ok := splitHolder("blobs/", r.Key); ok {
			rec, err := decode[blobRecord](r)
			c.count(repository, rec.Size)
			return err
		}
		if repository, ok := manifestRepository(r.Key); ok {
			rec, err := decode[manifestRecord](r)
			c.count(repository, rec.Size)
			return err
		}
		return nil
	})
}

// count adds bytes to every quota that a repository is under.
func (c *Central) count(repository string, n int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, q := range c.cfg.Quotas {
		if oci.MatchAny(q.Repositories, repository) {
			c.used[i] += n
		}
	}
}

// charge counts bytes that a repository is about to hold, or fails with
// oci.ErrDenied when that is too much.
func (c *Central) charge(repository string, n int64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.overQuota(repository, n); err != nil {
		return err
	}
	for i, q := range c.cfg.Quotas {
		if oci.MatchAny(q.Repositories, repository) {
			c.used[i] += n
		}
	}
	return nil
}

// discharge takes bytes back that a repository does not hold any more.
func (c *Central) discharge(repository string, n int64) { c.count(repository, -n) }

// overQuota fails when n bytes more are too much for a quota. mu is held.
func (c *Central) overQuota(repository string, n int64) error {
	for i, q := range c.cfg.Quotas {
		if oci.MatchAny(q.Repositories, repository) && c.used[i]+n > q.Bytes {
			return oci.Errorf(oci.ErrDenied, "the quota of this repository is %d bytes, and %d are used", q.Bytes, c.used[i])
		}
	}
	return nil
}

// roomFor fails when a repository cannot take a draft that has grown to n bytes:
// for its quota, or for the disk.
func (c *Central) roomFor(repository string, n int64) error {
	c.mu.Lock()
	err := c.overQuota(repository, n)
	c.mu.Unlock()
	if err != nil {
		return err
	}
	free, err := c.drafts.Free()
	if err != nil {
		return fmt.Errorf("look for room: %w", err)
	}
	if free == 0 {
		return oci.ErrInsufficientStorage
	}
	return nil
}
