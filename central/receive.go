package central

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/internal/oci"
)

const (
	// receiveChunk is how much is read, written and hashed at a time.
	receiveChunk = 256 << 10
	// receiveDepth is how many such chunks are under way at once.
	receiveDepth = 3
)

// receipt is content on its way into a draft, with its running hash.
type receipt struct {
	draft   oci.Draft
	buffers *sync.Pool
	h       hash.Hash
	size    int64 // bytes written, and hashed once no add is running
	// broken: the hash is ahead of the draft, so that only what was noted
	// before counts.
	broken bool
	// limit is asked before each write whether the content may get so long.
	limit func(size int64) error
	// passed is called now and then, from within add, when size bytes have
	// been written and hashed.
	passed func(size int64)
}

// add takes body in until it ends. Hashing runs beside reading and writing, in a
// goroutine that ends before add does. What arrived before a failure is written
// and hashed.
func (r *receipt) add(ctx context.Context, body io.Reader) error {
	free := make(chan []byte, receiveDepth)
	for range receiveDepth {
		free <- nil // taken when it is needed: most bodies are small
	}
	defer func() {
		for range len(free) {
			if buf := <-free; buf != nil {
				r.buffers.Put(&buf)
			}
		}
	}()
	full := make(chan []byte, receiveDepth)
	var hashed sync.WaitGroup
	var hashing sync.WaitGroup
	hashing.Go(func() { // ends when full is closed, below
		for chunk := range full {
			r.h.Write(chunk)
			free <- chunk[:cap(chunk)]
			hashed.Done()
		}
	})
	defer hashing.Wait()
	defer close(full)

	sincePassed := int64(0)
	for {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("receive content: %w", err)
		}
		buf := <-free
		if buf == nil {
			buf = *r.buffers.Get().(*[]byte) //nolint:errcheck // the pool holds nothing else
		}
		n, readErr := io.ReadFull(body, buf)
		if n > 0 {
			if err := r.limit(r.size + int64(n)); err != nil {
				free <- buf
				return err
			}
			hashed.Add(1)
			full <- buf[:n]
			written, err := r.draft.WriteAt(buf[:n], r.size)
			if err != nil {
				r.broken = true
				return fmt.Errorf("receive content: %d of %d bytes written: %w", written, n, noRoom(err))
			}
			r.size += int64(n)
			sincePassed += int64(n)
		} else {
			free <- buf
		}
		switch {
		case errors.Is(readErr, io.EOF), errors.Is(readErr, io.ErrUnexpectedEOF) && endedCleanly(body):
			return nil
		case readErr != nil:
			return fmt.Errorf("receive content: %w", readErr)
		}
		if r.passed != nil && sincePassed >= checkpoint {
			hashed.Wait()
			r.passed(r.size)
			sincePassed = 0
		}
	}
}

// bodyReader remembers how a body ended: io.ReadFull says io.ErrUnexpectedEOF
// both for a body that ends and for a connection that does.
type bodyReader struct {
	io.Reader
	err error
	n   int64
}

func (b *bodyReader) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	b.n += int64(n)
	if err != nil {
		b.err = err
	}
	return n, err
}

// endedCleanly reports whether a body ended because it was over.
func endedCleanly(body io.Reader) bool {
	b, ok := body.(*bodyReader)
	return ok && errors.Is(b.err, io.EOF) && !errors.Is(b.err, io.ErrUnexpectedEOF)
}

// rehash takes the hash of a draft's bytes from one offset to another.
func rehash(ctx context.Context, draft oci.Draft, h hash.Hash, from, to int64) error {
	buf := make([]byte, min(receiveChunk, max(to-from, 1)))
	for at := from; at < to; {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("hash content: %w", err)
		}
		chunk := buf[:min(to-at, int64(len(buf)))]
		n, err := draft.ReadAt(chunk, at)
		if n < len(chunk) {
			return fmt.Errorf("hash content: %w", errors.Join(io.ErrUnexpectedEOF, err))
		}
		h.Write(chunk)
		at += int64(n)
	}
	return nil
}

// check compares content with the digest it should have: by the running hash
// where that is of the same algorithm, else by reading it again.
func (r *receipt) check(ctx context.Context, algorithm digest.Algorithm, want digest.Digest) error {
	got := digest.NewDigest(algorithm, r.h)
	if want.Algorithm() != algorithm {
		h := want.Algorithm().Hash()
		if err := rehash(ctx, r.draft, h, 0, r.size); err != nil {
			return err
		}
		got = digest.NewDigest(want.Algorithm(), h)
	}
	if got != want {
		return oci.Errorf(oci.ErrDigestInvalid, "content is %s, not %s", got, want)
	}
	return nil
}
