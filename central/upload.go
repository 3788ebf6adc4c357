package central

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/internal/oci"
	"github.com/larder-registry/larder/store"
)

// checkpoint is how many bytes of one body are taken in before it is noted how
// far it came, so that a crash costs no more than that.
const checkpoint = 64 << 20

// Start begins an upload.
func (c *Central) Start(ctx context.Context, name oci.Name, algorithm digest.Algorithm) (string, error) {
	id := rand.Text()
	u := uploadRecord{Repository: name.Repository, Algorithm: algorithmOr(algorithm), At: c.now().Unix()}
	if err := c.roomFor(name.Repository, 0); err != nil {
		return "", err
	}
	if err := c.ledger.Create(context.WithoutCancel(ctx), uploadKey(id), encode(u)); err != nil {
		return "", fmt.Errorf("start upload: %w", noRoom(err))
	}
	return id, nil
}

// Size is how many bytes of an upload have arrived.
func (c *Central) Size(ctx context.Context, name oci.Name, id string) (int64, error) {
	u, err := c.openUpload(ctx, name, id)
	if errors.Is(err, oci.ErrRangeInvalid) {
		// Somebody is adding to it: what is known is what was noted.
		rec, _, recErr := c.uploadRecord(ctx, name, id)
		return rec.Done.Size, recErr
	}
	if err != nil {
		return 0, err
	}
	defer u.close()
	return u.size, nil
}

// Append adds a chunk to an upload.
func (c *Central) Append(ctx context.Context, name oci.Name, id string, chunk oci.Chunk) (int64, error) {
	u, err := c.openUpload(ctx, name, id)
	if err != nil {
		return 0, err
	}
	defer u.close()
	added := u.add(ctx, chunk)
	if gone, err := u.giveUp(ctx, added); gone {
		return 0, err
	}
	// Also what a broken connection left is kept, and can be gone on with.
	if err := u.save(context.WithoutCancel(ctx)); err != nil {
		return 0, errors.Join(added, err)
	}
	return u.size, added
}

// Finish adds the last chunk to an upload and makes it a blob.
func (c *Central) Finish(ctx context.Context, name oci.Name, id string, chunk oci.Chunk, dgst digest.Digest) (oci.Descriptor, error) {
	u, err := c.openUpload(ctx, name, id)
	if err != nil {
		return oci.Descriptor{}, err
	}
	defer u.close()
	if err := u.add(ctx, chunk); err != nil {
		gone, err := u.giveUp(ctx, err)
		if !gone {
			err = errors.Join(err, u.save(context.WithoutCancel(ctx)))
		}
		return oci.Descriptor{}, err
	}
	if err := u.check(ctx, u.record.Algorithm, dgst); err != nil {
		if errors.Is(err, oci.ErrDigestInvalid) {
			u.close()
			err = errors.Join(err, c.drop(context.WithoutCancel(ctx), id))
		}
		return oci.Descriptor{}, err
	}
	desc := oci.Descriptor{Digest: dgst, Size: u.size}
	if err := errors.Join(u.draft.Sync(false), u.draft.Close()); err != nil {
		return oci.Descriptor{}, noRoom(err)
	}
	if err := c.keep(ctx, name, id, desc); err != nil {
		return oci.Descriptor{}, err
	}
	c.metrics.received.Add(float64(desc.Size))
	// The blob is there; an upload without a draft is none, and goes in time.
	if _, err := c.remove(context.WithoutCancel(ctx), uploadKey(id)); err != nil {
		c.log.WithError(err).Warn("cannot remove the record of a finished upload")
	}
	return desc, nil
}

// Cancel drops an upload.
func (c *Central) Cancel(ctx context.Context, name oci.Name, id string) error {
	if _, _, err := c.uploadRecord(ctx, name, id); err != nil {
		return err
	}
	if !c.use(id) {
		return errBusy()
	}
	defer c.unuse(id)
	return c.drop(context.WithoutCancel(ctx), id)
}

// drop removes an upload that nobody else uses: its record first, so that
// nobody goes on with a draft that is gone.
func (c *Central) drop(ctx context.Context, id string) error {
	_, err := c.remove(ctx, uploadKey(id))
	return errors.Join(err, c.drafts.Discard(id))
}

// Push takes a blob in one request.
func (c *Central) Push(ctx context.Context, name oci.Name, body io.Reader, dgst digest.Digest) (oci.Descriptor, error) {
	r, id, err := c.newDraft(name, dgst.Algorithm())
	if err != nil {
		return oci.Descriptor{}, err
	}
	defer c.unuse(id)
	if _, err := c.statBlob(ctx, name, dgst); err == nil {
		r.limit = func(int64) error { return c.roomFor(name.Repository, 0) } // it is counted already
	}
	desc, err := c.pushDraft(ctx, r, name, id, body, dgst)
	err = errors.Join(err, r.draft.Close())
	if err != nil {
		// After a commit there is no draft any more.
		return oci.Descriptor{}, errors.Join(err, c.drafts.Discard(id))
	}
	c.metrics.received.Add(float64(desc.Size))
	return desc, nil
}

// newDraft makes a draft without a record: what is left of it by a crash is of
// no use. The caller closes it and calls unuse.
func (c *Central) newDraft(name oci.Name, algorithm digest.Algorithm) (*receipt, string, error) {
	id := rand.Text()
	c.use(id)
	draft, err := c.drafts.Draft(id, true)
	if err != nil {
		c.unuse(id)
		return nil, "", noRoom(err)
	}
	limit := func(size int64) error { return c.roomFor(name.Repository, size) }
	return &receipt{draft: draft, buffers: &c.buffers, h: algorithm.Hash(), limit: limit}, id, nil
}

func (c *Central) pushDraft(ctx context.Context, r *receipt, name oci.Name, id string, body io.Reader, dgst digest.Digest) (oci.Descriptor, error) {
	if err := r.add(ctx, &bodyReader{Reader: body}); err != nil {
		return oci.Descriptor{}, err
	}
	if err := r.check(ctx, dgst.Algorithm(), dgst); err != nil {
		return oci.Descriptor{}, err
	}
	if err := errors.Join(r.draft.Sync(false), r.draft.Close()); err != nil {
		return oci.Descriptor{}, noRoom(err)
	}
	desc := oci.Descriptor{Digest: dgst, Size: r.size}
	return desc, c.keep(ctx, name, id, desc)
}

// use takes a draft for one request; false when another has it.
func (c *Central) use(id string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.active[id] {
		return false
	}
	c.active[id] = true
	return true
}

func (c *Central) unuse(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.active, id)
}

// upload is an upload that one request works on.
type upload struct {
	receipt
	c       *Central
	id      string
	record  uploadRecord
	version string
	closed  bool
}

// uploadRecord reads what is known of an upload of this repository.
func (c *Central) uploadRecord(ctx context.Context, name oci.Name, id string) (uploadRecord, string, error) {
	r, err := c.ledger.Get(ctx, uploadKey(id))
	if errors.Is(err, store.ErrNoRecord) {
		return uploadRecord{}, "", oci.ErrBlobUploadUnknown
	}
	if err != nil {
		return uploadRecord{}, "", fmt.Errorf("look for upload: %w", err)
	}
	u, err := parseUpload(r.Value)
	if err == nil && u.Repository != name.Repository {
		err = oci.ErrBlobUploadUnknown
	}
	return u, r.Version, err
}

// openUpload takes an upload, with ErrRangeInvalid when another request has it,
// and finds out how far it came.
func (c *Central) openUpload(ctx context.Context, name oci.Name, id string) (_ *upload, err error) {
	if !c.use(id) {
		return nil, errBusy()
	}
	u := &upload{c: c, id: id}
	u.buffers = &c.buffers
	u.limit = func(size int64) error { return c.roomFor(name.Repository, size) }
	u.passed = func(size int64) { u.note(context.WithoutCancel(ctx), size) }
	defer func() {
		if err != nil {
			u.close()
		}
	}()
	if u.record, u.version, err = c.uploadRecord(ctx, name, id); err != nil {
		return nil, err
	}
	begun := u.record.Done.Size > 0 || u.record.Ahead.Size > 0
	u.draft, err = c.drafts.Draft(id, !begun)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, oci.ErrBlobUploadUnknown
	}
	if err != nil {
		return nil, noRoom(err)
	}
	return u, u.resume(ctx)
}

// resume takes up what was acknowledged, and what came after that if it is what
// it was. Anything beyond is cut off.
func (u *upload) resume(ctx context.Context) (err error) {
	size, err := u.draft.Size()
	if err != nil {
		return err
	}
	done, ahead := u.record.Done, u.record.Ahead
	if size < done.Size {
		// The disk lost what was acknowledged: nothing can be built on it.
		return errors.Join(oci.ErrBlobUploadUnknown, u.c.drop(ctx, u.id))
	}
	if u.h, err = done.hash(u.record.Algorithm); err != nil {
		return err
	}
	u.size = done.Size
	if ahead.Size > done.Size && ahead.Size <= size {
		if err := rehash(ctx, u.draft, u.h, done.Size, ahead.Size); err != nil {
			return err
		}
		now, err := progressOf(u.h, ahead.Size)
		if err != nil {
			return err
		}
		if bytes.Equal(now.Sum, ahead.Sum) {
			u.size = ahead.Size
		} else if u.h, err = done.hash(u.record.Algorithm); err != nil {
			return err
		}
	}
	if size > u.size {
		return u.draft.Resize(u.size)
	}
	return nil
}

// add takes a chunk in, if it belongs where the upload ends.
func (u *upload) add(ctx context.Context, chunk oci.Chunk) error {
	if chunk.At >= 0 && chunk.At != u.size {
		return oci.Errorf(oci.ErrRangeInvalid, "the chunk starts at %d, the upload ends at %d", chunk.At, u.size)
	}
	if chunk.Body == nil {
		return nil
	}
	start := u.size
	body := &bodyReader{Reader: chunk.Body}
	if chunk.Length >= 0 {
		// One byte more shows that there is more.
		body.Reader = io.LimitReader(chunk.Body, chunk.Length+1)
	}
	if err := u.receipt.add(ctx, body); err != nil {
		return err
	}
	if chunk.Length >= 0 && u.size-start != chunk.Length {
		u.broken = true
		return oci.Errorf(oci.ErrSizeInvalid, "the chunk has %d bytes or more, not %d", u.size-start, chunk.Length)
	}
	return nil
}

// giveUp takes back what a chunk that failed has left: all of the upload when it
// is too large to be ever taken, the bytes that cannot be relied on otherwise.
// It reports whether there is nothing to go on with; err is passed through.
func (u *upload) giveUp(ctx context.Context, err error) (bool, error) {
	switch {
	case errors.Is(err, oci.ErrDenied):
		u.close()
		return true, errors.Join(err, u.c.drop(context.WithoutCancel(ctx), u.id))
	case u.broken:
		return true, errors.Join(err, u.draft.Resize(u.record.Done.Size))
	}
	return false, err
}

// note writes down how far the upload came, without waiting for the bytes to be
// on disk.
func (u *upload) note(ctx context.Context, size int64) {
	ahead, err := progressOf(u.h, size)
	if err == nil {
		u.record.Ahead = ahead
		err = u.write(ctx)
	}
	if err != nil {
		u.c.log.WithError(err).Debug("cannot note the progress of an upload")
	}
}

// save has everything that arrived on disk, and written down.
func (u *upload) save(ctx context.Context) error {
	if u.size == u.record.Done.Size {
		return nil
	}
	if err := u.draft.Sync(true); err != nil {
		return noRoom(err)
	}
	done, err := progressOf(u.h, u.size)
	if err != nil {
		return err
	}
	u.record.Done, u.record.Ahead = done, progress{}
	if err := u.write(ctx); errors.Is(err, store.ErrConflict) {
		return errBusy()
	} else if err != nil {
		return fmt.Errorf("save upload: %w", noRoom(err))
	}
	return nil
}

// write replaces the record, if nobody else did.
func (u *upload) write(ctx context.Context) error {
	u.record.At = u.c.now().Unix()
	key := uploadKey(u.id)
	if err := u.c.ledger.Swap(ctx, key, encode(u.record), u.version); err != nil {
		return err
	}
	now, err := u.c.ledger.Get(ctx, key)
	u.version = now.Version
	return err
}

// close lets go of the upload. It may be called more than once.
func (u *upload) close() {
	if u.closed {
		return
	}
	u.closed = true
	if u.draft != nil {
		if err := u.draft.Close(); err != nil {
			u.c.log.WithError(err).Warn("cannot close a draft")
		}
	}
	u.c.unuse(u.id)
}
