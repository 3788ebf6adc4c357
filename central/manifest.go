package central

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/internal/oci"
)

// PutManifest keeps an image manifest and points tags at it.
func (c *Central) PutManifest(ctx context.Context, put oci.ManifestPut) (oci.ManifestStored, error) {
	algorithm := digest.Canonical
	if put.Digest != "" {
		algorithm = put.Digest.Algorithm()
	}
	dgst := algorithm.FromBytes(put.Bytes)
	if put.Digest != "" && put.Digest != dgst {
		return oci.ManifestStored{}, oci.Errorf(oci.ErrDigestInvalid, "the manifest is %s, not %s", dgst, put.Digest)
	}
	doc, err := oci.ParseDocument(put.Bytes, put.MediaType)
	if err != nil {
		return oci.ManifestStored{}, err
	}
	for _, tag := range put.Tags {
		if err := c.mayMove(ctx, put.Name, tag, dgst); err != nil {
			return oci.ManifestStored{}, err
		}
	}
	if err := c.checkChildren(ctx, put.Name, doc); err != nil {
		return oci.ManifestStored{}, err
	}
	id, err := c.draftOf(put.Name, dgst, put.Bytes)
	if err != nil {
		return oci.ManifestStored{}, err
	}
	defer c.unuse(id)
	// From here on a client that leaves changes nothing.
	if err := c.enter(context.WithoutCancel(ctx), put, dgst, doc, id); err != nil {
		return oci.ManifestStored{}, errors.Join(noRoom(err), c.drafts.Discard(id))
	}
	return oci.ManifestStored{
		Descriptor: oci.Descriptor{MediaType: doc.MediaType, Digest: dgst, Size: int64(len(put.Bytes))},
		Subject:    doc.Subject.Digest,
	}, nil
}

// draftOf has content that is at hand on disk, as a draft. The caller calls
// unuse once it is committed or discarded.
func (c *Central) draftOf(name oci.Name, dgst digest.Digest, content []byte) (string, error) {
	if err := c.roomFor(name.Repository, int64(len(content))); err != nil {
		return "", err
	}
	r, id, err := c.newDraft(name, dgst.Algorithm())
	if err != nil {
		return "", err
	}
	_, err = r.draft.WriteAt(content, 0)
	if err == nil {
		err = r.draft.Sync(false)
	}
	if err = errors.Join(err, r.draft.Close()); err != nil {
		err = errors.Join(noRoom(err), c.drafts.Discard(id))
		c.unuse(id)
		return "", err
	}
	return id, nil
}

// enter makes an image manifest, whose content is a draft, one of a repository,
// in the order that keys.go gives.
func (c *Central) enter(ctx context.Context, put oci.ManifestPut, dgst digest.Digest, doc *oci.Document, id string) error {
	defer c.repositories.lock(put.Name.Repository)()
	repository, now := put.Name.Repository, c.now()
	if err := c.place(ctx, repository, dgst, id); err != nil {
		return err
	}
	hints := []string{catalogKey(repository)}
	if doc.Subject.Digest != "" {
		hints = append(hints, referrersPrefix(repository, doc.Subject.Digest)+string(dgst))
	}
	if err := each(hints, func(key string) error { return c.ensure(ctx, key, hint{At: now.Unix()}) }); err != nil {
		return err
	}
	rec := manifestRecord{
		MediaType: doc.MediaType, Size: int64(len(put.Bytes)), ArtifactType: doc.ArtifactType,
		Subject: doc.Subject.Digest, At: now.Unix(), By: put.By,
	}
	_, _, known, err := read[manifestRecord](ctx, c.ledger, manifestKey(repository, dgst))
	if err != nil {
		return err
	}
	if !known {
		if err := c.charge(repository, rec.Size); err != nil {
			return err
		}
	}
	if err := c.write(ctx, manifestKey(repository, dgst), rec); err != nil {
		if !known {
			c.discharge(repository, rec.Size)
		}
		return err
	}
	// What it is made of may have been removed since it was looked at; now that
	// the manifest can be seen, it will not be any more.
	if err := c.checkChildren(ctx, put.Name, doc); err != nil {
		if !known {
			err = errors.Join(err, c.forget(ctx, repository, dgst, rec))
		}
		return err
	}
	return each(put.Tags, func(tag string) error {
		return c.setTag(ctx, put.Name, tag, tagRecord{Digest: dgst, At: now.UnixNano(), By: put.By})
	})
}

// place commits the content of an image manifest and notes who may hold it.
func (c *Central) place(ctx context.Context, repository string, dgst digest.Digest, id string) error {
	defer c.digests.lock(string(dgst))()
	if err := c.content.Commit(id, dgst); err != nil {
		return err
	}
	return c.ensure(ctx, holderKey(dgst, repository), hint{At: c.now().Unix()})
}

// each calls f with every item at once, so that their writes share the wait for
// the disk.
func each[T any](items []T, f func(T) error) error {
	if len(items) == 1 {
		return f(items[0])
	}
	errs := make([]error, len(items))
	var running sync.WaitGroup
	for i, item := range items {
		running.Go(func() { errs[i] = f(item) }) // ends by itself
	}
	running.Wait()
	return errors.Join(errs...)
}

// checkChildren fails with ErrManifestBlobUnknown when a repository lacks
// something that a document is made of. What is there and was about to go,
// stays.
func (c *Central) checkChildren(ctx context.Context, name oci.Name, doc *oci.Document) error {
	var missing []string
	for _, blob := range doc.Blobs {
		switch _, err := c.statBlob(ctx, name, blob.Digest); {
		case errors.Is(err, oci.ErrBlobUnknown):
			missing = append(missing, string(blob.Digest))
		case err != nil:
			return err
		}
	}
	for _, child := range doc.Manifests {
		// Some indexes list blobs, such as a build cache's.
		found, err := c.holds(ctx, name, child.Digest)
		if err != nil {
			return err
		}
		if !found && !c.cfg.SparseIndexes {
			missing = append(missing, string(child.Digest))
		}
	}
	if len(missing) == 0 {
		return nil
	}
	const shown = 8
	more := ""
	if len(missing) > shown {
		more = fmt.Sprintf(" and %d more", len(missing)-shown)
		missing = missing[:shown]
	}
	return oci.Errorf(oci.ErrManifestBlobUnknown, "the repository does not hold %s%s: push that first", strings.Join(missing, ", "), more)
}

// holds reports whether a repository has content as an image manifest or a blob.
func (c *Central) holds(ctx context.Context, name oci.Name, dgst digest.Digest) (bool, error) {
	_, _, found, err := read[manifestRecord](ctx, c.ledger, manifestKey(name.Repository, dgst))
	if err != nil || found {
		return found, err
	}
	_, err = c.statBlob(ctx, name, dgst)
	if errors.Is(err, oci.ErrBlobUnknown) {
		return false, nil
	}
	return err == nil, err
}
