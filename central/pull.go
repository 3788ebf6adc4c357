package central

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/internal/oci"
	"github.com/larder-registry/larder/store"
)

// Blob opens a blob that a repository holds.
func (c *Central) Blob(ctx context.Context, name oci.Name, dgst digest.Digest) (oci.Blob, error) {
	rec, err := c.held(ctx, name, dgst)
	if err != nil {
		return nil, err
	}
	blob, err := c.content.Open(dgst)
	if err != nil {
		return nil, err
	}
	if got := blob.Descriptor().Size; got != rec.Size {
		blob.Close()
		return nil, c.damaged(dgst, rec.Size, got)
	}
	oci.AccessOf(ctx).Outcome = oci.OutcomeHit
	return blob, nil
}

// StatBlob answers what a blob is that a repository holds. It looks at the
// content, too: who is told that a blob is there does not push it again, and so
// never mends it.
func (c *Central) StatBlob(ctx context.Context, name oci.Name, dgst digest.Digest) (oci.Descriptor, error) {
	desc, err := c.statBlob(ctx, name, dgst)
	if err == nil {
		oci.AccessOf(ctx).Outcome = oci.OutcomeHit
	}
	return desc, err
}

func (c *Central) statBlob(ctx context.Context, name oci.Name, dgst digest.Digest) (oci.Descriptor, error) {
	rec, err := c.held(ctx, name, dgst)
	if err != nil {
		return oci.Descriptor{}, err
	}
	kept, err := c.content.Stat(dgst)
	if err != nil {
		return oci.Descriptor{}, err
	}
	if kept.Size != rec.Size {
		return oci.Descriptor{}, c.damaged(dgst, rec.Size, kept.Size)
	}
	return oci.Descriptor{Digest: dgst, Size: rec.Size}, nil
}

// damaged reports content that is not as it was committed, and is as good as
// none.
func (c *Central) damaged(dgst digest.Digest, want, got int64) error {
	c.log.WithField("digest", dgst).WithField("size", got).WithField("committed_size", want).Error("content is damaged; push it again")
	return oci.ErrBlobUnknown
}

// Manifest returns an image manifest or index, its bytes checked against its
// digest.
func (c *Central) Manifest(ctx context.Context, ref oci.Reference) (oci.Manifest, error) {
	dgst := ref.Digest
	if dgst == "" {
		tag, _, found, err := read[tagRecord](ctx, c.ledger, tagKey(ref.Repository, ref.Tag))
		if err != nil {
			return oci.Manifest{}, fmt.Errorf("read tag: %w", err)
		}
		if !found {
			return oci.Manifest{}, oci.ErrManifestUnknown
		}
		dgst = tag.Digest
	}
	rec, _, found, err := read[manifestRecord](ctx, c.ledger, manifestKey(ref.Repository, dgst))
	if err != nil {
		return oci.Manifest{}, fmt.Errorf("look for manifest: %w", err)
	}
	if !found {
		return oci.Manifest{}, oci.ErrManifestUnknown
	}
	content, err := c.readContent(dgst, rec.Size)
	if errors.Is(err, oci.ErrBlobUnknown) {
		return oci.Manifest{}, oci.ErrManifestUnknown
	}
	if err != nil {
		return oci.Manifest{}, err
	}
	access := oci.AccessOf(ctx)
	if access.Outcome = oci.OutcomeHit; access.Taken {
		c.notePull(ref.Repository, dgst)
	}
	return oci.Manifest{
		Descriptor: oci.Descriptor{MediaType: rec.MediaType, Digest: dgst, Size: rec.Size},
		Bytes:      content,
	}, nil
}

// readContent reads small content and checks it.
func (c *Central) readContent(dgst digest.Digest, size int64) ([]byte, error) {
	blob, err := c.content.Open(dgst)
	if err != nil {
		return nil, err
	}
	defer blob.Close()
	if got := blob.Descriptor().Size; got != size || size > oci.MaxManifestSize {
		return nil, c.damaged(dgst, size, got)
	}
	content := make([]byte, size)
	if _, err := io.ReadFull(blob, content); err != nil {
		return nil, fmt.Errorf("read content: %w", err)
	}
	if dgst.Algorithm().FromBytes(content) != dgst {
		return nil, c.damaged(dgst, size, size)
	}
	return content, nil
}

// Tags lists the tags of a repository.
func (c *Central) Tags(ctx context.Context, name oci.Name, n int, last string) ([]string, error) {
	prefix, after := tagsPrefix(name.Repository), ""
	if last != "" {
		after = prefix + last
	}
	list, err := c.ledger.List(ctx, prefix, after, n)
	if err != nil {
		return nil, fmt.Errorf("list tags: %w", err)
	}
	if len(list) == 0 {
		if _, err := c.ledger.Get(ctx, catalogKey(name.Repository)); errors.Is(err, store.ErrNoRecord) {
			return nil, oci.ErrNameUnknown
		} else if err != nil {
			return nil, fmt.Errorf("list tags: %w", err)
		}
	}
	return suffixes(list, prefix), nil
}

// Repositories lists the repositories that have, or had a moment ago, an image
// manifest.
func (c *Central) Repositories(ctx context.Context, n int, last string) ([]string, error) {
	after := ""
	if last != "" {
		after = catalogPrefix + last
	}
	list, err := c.ledger.List(ctx, catalogPrefix, after, n)
	if err != nil {
		return nil, fmt.Errorf("list repositories: %w", err)
	}
	return suffixes(list, catalogPrefix), nil
}

// suffixes gives the keys without what they all start with.
func suffixes(list []store.Record, prefix string) []string {
	names := make([]string, len(list))
	for i, r := range list {
		names[i] = strings.TrimPrefix(r.Key, prefix)
	}
	return names
}

// maxPulled bounds what is remembered of pulls between two flushes.
const maxPulled = 100_000

// notePull remembers that an image manifest was pulled, if a rule asks for that.
func (c *Central) notePull(repository string, dgst digest.Digest) {
	if !c.tracksPulls(repository) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.pulled) < maxPulled {
		c.pulled[pulledKey(repository, dgst)] = c.now().Unix()
	}
}

// flushPulled writes down what was pulled when.
func (c *Central) flushPulled(ctx context.Context) {
	c.mu.Lock()
	pulled := c.pulled
	c.pulled = map[string]int64{}
	c.mu.Unlock()
	for key, at := range pulled {
		if err := c.write(ctx, key, hint{At: at}); err != nil {
			c.log.WithError(err).Warn("cannot note what was pulled")
			return
		}
	}
}
