package store

import (
	"context"
	// The algorithms that a digest may name; go-digest finds them by
	// registration.
	_ "crypto/sha256"
	_ "crypto/sha512"
	"errors"
	"fmt"
	"hash"
	"io"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/internal/oci"
)

// hashChunk is how much is read at a time: from the page cache, since the bytes
// have just been written.
const hashChunk = 512 << 10

// hashing is the running state of an ingest's digest.
type hashing struct {
	busy sync.Mutex // one Hash at a time

	mu       sync.Mutex // guards h and at, for HashClone
	h        hash.Hash
	at       int64 // bytes hashed
	verified bool
}

func newHashing(dgst digest.Digest) hashing {
	return hashing{h: dgst.Algorithm().Hash()}
}

// Hash carries the running hash on, in order, from where it stands up to byte
// to, which must be held. Those bytes cannot be written any more. It does
// nothing when they are hashed already. ctx ends it between chunks; it can then
// be called again.
func (i *Ingest) Hash(ctx context.Context, to int64) error {
	if to > i.size {
		return oci.Errorf(oci.ErrSizeInvalid, "hash up to %d of %d bytes", to, i.size)
	}
	i.sum.busy.Lock()
	defer i.sum.busy.Unlock()
	return i.hashTo(ctx, to)
}

// hashTo is Hash with sum.busy held.
func (i *Ingest) hashTo(ctx context.Context, to int64) error {
	at := i.sum.at
	if to <= at {
		return nil
	}
	// From here on no write can touch these bytes: the lock waits for the
	// writes that are under way.
	i.mu.Lock()
	i.sealed.Store(max(i.sealed.Load(), to))
	i.mu.Unlock()

	buf := i.store.buffers.Get().(*[]byte) //nolint:errcheck // the pool holds nothing else
	defer i.store.buffers.Put(buf)
	for at < to {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("hash content: %w", err)
		}
		chunk := (*buf)[:min(to-at, int64(len(*buf)))]
		n, err := i.ReadAt(chunk, at)
		if n < len(chunk) {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return fmt.Errorf("hash content: %w", err)
		}
		i.sum.mu.Lock()
		i.sum.h.Write(chunk)
		i.sum.at += int64(n)
		at = i.sum.at
		i.sum.mu.Unlock()
	}
	return nil
}

// HashNext carries the running hash on with bytes that the caller has just
// written at off and has at hand still, so that they need not be read back. Who
// calls it makes sure that nobody else writes there. It reports false, and has
// done nothing, when the hash stands elsewhere or is being carried on already.
func (i *Ingest) HashNext(p []byte, off int64) bool {
	if !i.sum.busy.TryLock() {
		return false
	}
	defer i.sum.busy.Unlock()
	if i.sum.at != off || off+int64(len(p)) > i.size {
		return false
	}
	i.sealed.Store(max(i.sealed.Load(), off+int64(len(p))))
	i.sum.mu.Lock()
	defer i.sum.mu.Unlock()
	i.sum.h.Write(p)
	i.sum.at += int64(len(p))
	return true
}

// HashClone returns a copy of the running hash and how many bytes went into it.
// The copy is the caller's.
func (i *Ingest) HashClone() (h hash.Hash, at int64) {
	i.sum.mu.Lock()
	defer i.sum.mu.Unlock()
	return cloneHash(i.sum.h), i.sum.at
}

// Verify hashes what is left, all of which must be held, and compares. It fails
// with oci.ErrDigestInvalid when the bytes are not what the digest says.
func (i *Ingest) Verify(ctx context.Context) error {
	i.sum.busy.Lock()
	defer i.sum.busy.Unlock()
	if i.sum.verified {
		return nil
	}
	if err := i.hashTo(ctx, i.size); err != nil {
		return err
	}
	i.sum.mu.Lock()
	got := digest.NewDigest(i.dgst.Algorithm(), i.sum.h)
	i.sum.mu.Unlock()
	if got != i.dgst {
		return oci.Errorf(oci.ErrDigestInvalid, "content is %s, not %s", got, i.dgst)
	}
	i.sum.verified = true
	return nil
}

// cloneHash copies a running hash. Every hash of the standard library is a
// hash.Cloner, and checkDigest lets no other in.
func cloneHash(h hash.Hash) hash.Hash {
	c, err := h.(hash.Cloner).Clone() //nolint:errcheck // see above
	if err != nil {
		panic(fmt.Sprintf("clone %T: %v", h, err))
	}
	return c
}
