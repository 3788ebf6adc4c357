package central

import (
	"context"
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/internal/oci"
	"github.com/larder-registry/larder/store"
)

// DeleteTag removes a tag; the image manifest stays.
func (c *Central) DeleteTag(ctx context.Context, name oci.Name, tag string) error {
	defer c.repositories.lock(name.Repository)()
	found, err := c.remove(context.WithoutCancel(ctx), tagKey(name.Repository, tag))
	if err == nil && !found {
		err = oci.ErrManifestUnknown
	}
	return noRoom(err)
}

// DeleteManifest removes an image manifest and the tags that point to it. What
// it was made of goes in time, unless something else needs it.
func (c *Central) DeleteManifest(ctx context.Context, name oci.Name, dgst digest.Digest) error {
	ctx = context.WithoutCancel(ctx)
	defer c.repositories.lock(name.Repository)()
	rec, _, found, err := read[manifestRecord](ctx, c.ledger, manifestKey(name.Repository, dgst))
	if err != nil {
		return fmt.Errorf("look for manifest: %w", err)
	}
	if !found {
		return oci.ErrManifestUnknown
	}
	tags, err := c.tagsOf(ctx, name.Repository)
	if err != nil {
		return err
	}
	for _, tag := range tags[dgst] {
		if _, err := c.remove(ctx, tagKey(name.Repository, tag)); err != nil {
			return noRoom(err)
		}
	}
	return noRoom(c.forget(ctx, name.Repository, dgst, rec))
}

// tagsOf gives all tags of a repository by what they point to.
func (c *Central) tagsOf(ctx context.Context, repository string) (map[digest.Digest][]string, error) {
	prefix := tagsPrefix(repository)
	list, err := c.ledger.List(ctx, prefix, "", -1)
	if err != nil {
		return nil, fmt.Errorf("list tags: %w", err)
	}
	tags := map[digest.Digest][]string{}
	for _, r := range list {
		tag, err := decode[tagRecord](r)
		if err != nil {
			return nil, err
		}
		tags[tag.Digest] = append(tags[tag.Digest], r.Key[len(prefix):])
	}
	return tags, nil
}

// forget removes an image manifest that no tag points to: the record, then the
// hints. The repository's lock is held.
func (c *Central) forget(ctx context.Context, repository string, dgst digest.Digest, rec manifestRecord) error {
	found, err := c.remove(ctx, manifestKey(repository, dgst))
	if err != nil {
		return err
	}
	if found {
		c.discharge(repository, rec.Size)
	}
	hints := []string{holderKey(dgst, repository), pulledKey(repository, dgst)}
	if rec.Subject != "" {
		hints = append(hints, referrersPrefix(repository, rec.Subject)+string(dgst))
	}
	return each(hints, func(key string) error {
		_, err := c.remove(ctx, key)
		return err
	})
}

// DeleteBlob takes a blob out of a repository. Image manifests that refer to it
// stay as they are: that is what was asked for.
func (c *Central) DeleteBlob(ctx context.Context, name oci.Name, dgst digest.Digest) error {
	ctx = context.WithoutCancel(ctx)
	key := blobKey(dgst, name.Repository)
	for {
		rec, version, found, err := read[blobRecord](ctx, c.ledger, key)
		if err != nil {
			return fmt.Errorf("look for blob: %w", err)
		}
		if !found {
			return oci.ErrBlobUnknown
		}
		err = c.ledger.Delete(ctx, key, version)
		if errors.Is(err, store.ErrConflict) {
			continue
		}
		if err == nil {
			c.discharge(name.Repository, rec.Size)
		}
		return noRoom(err)
	}
}
