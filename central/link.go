package central

import (
	"context"
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/internal/oci"
	"github.com/larder-registry/larder/store"
)

// keep commits a draft as a blob of a repository.
func (c *Central) keep(ctx context.Context, name oci.Name, id string, desc oci.Descriptor) error {
	// From here on a client that leaves changes nothing.
	ctx = context.WithoutCancel(ctx)
	defer c.digests.lock(string(desc.Digest))()
	if err := c.content.Commit(id, desc.Digest); err != nil {
		return noRoom(err)
	}
	return c.link(ctx, name, desc)
}

// link notes that a repository holds content that is there. The digest's lock is
// held, so that nobody removes the content meanwhile.
func (c *Central) link(ctx context.Context, name oci.Name, desc oci.Descriptor) error {
	key := blobKey(desc.Digest, name.Repository)
	for {
		now, version, found, err := read[blobRecord](ctx, c.ledger, key)
		switch {
		case err != nil:
			return noRoom(err)
		case found && now.Doomed == 0:
			return nil
		case found:
			err = c.ledger.Swap(ctx, key, encode(blobRecord{Size: now.Size, At: c.now().Unix()}), version)
		default:
			err = c.charge(name.Repository, desc.Size)
			if err == nil {
				err = c.ledger.Create(ctx, key, encode(blobRecord{Size: desc.Size, At: c.now().Unix()}))
				if err != nil {
					c.discharge(name.Repository, desc.Size)
				}
			}
		}
		if !errors.Is(err, store.ErrConflict) {
			return noRoom(err)
		}
	}
}

// held returns what a repository says of a blob it holds, oci.ErrBlobUnknown
// when it holds none. A blob that was about to go stays for a while: who asks
// for it may be about to refer to it.
func (c *Central) held(ctx context.Context, name oci.Name, dgst digest.Digest) (blobRecord, error) {
	key := blobKey(dgst, name.Repository)
	for {
		rec, version, found, err := read[blobRecord](ctx, c.ledger, key)
		switch {
		case err != nil:
			return rec, fmt.Errorf("look for blob: %w", err)
		case !found:
			return rec, oci.ErrBlobUnknown
		case rec.Doomed == 0:
			return rec, nil
		}
		rec.Doomed, rec.At = 0, c.now().Unix()
		err = c.ledger.Swap(ctx, key, encode(rec), version)
		switch {
		case errors.Is(err, store.ErrConflict):
		case errors.Is(err, store.ErrNoSpace):
			return rec, nil // the disk is full: nobody can remove it either
		case err != nil:
			return rec, fmt.Errorf("keep blob: %w", err)
		default:
			return rec, nil
		}
	}
}

// Mount makes a blob of another repository one of name, too.
func (c *Central) Mount(ctx context.Context, name oci.Name, dgst digest.Digest, from oci.Name, may func(oci.Name) bool) (oci.Descriptor, error) {
	if from.Repository == "" {
		holder, err := c.holder(ctx, dgst, may)
		if err != nil {
			return oci.Descriptor{}, err
		}
		from = holder
	} else if !may(from) {
		return oci.Descriptor{}, oci.ErrBlobUnknown
	}
	ctx = context.WithoutCancel(ctx)
	defer c.digests.lock(string(dgst))()
	desc, err := c.statBlob(ctx, from, dgst)
	if err != nil {
		return oci.Descriptor{}, err
	}
	return desc, c.link(ctx, name, desc)
}

// holder finds a repository that holds a blob and that may agrees to.
func (c *Central) holder(ctx context.Context, dgst digest.Digest, may func(oci.Name) bool) (oci.Name, error) {
	const page = 100
	prefix, after := blobKey(dgst, ""), ""
	for {
		list, err := c.ledger.List(ctx, prefix, after, page)
		if err != nil {
			return oci.Name{}, fmt.Errorf("look for blob: %w", err)
		}
		for _, r := range list {
			name := oci.Name{Repository: r.Key[len(prefix):]}
			if may(name) {
				return name, nil
			}
			after = r.Key
		}
		if len(list) < page {
			return oci.Name{}, oci.ErrBlobUnknown
		}
	}
}
