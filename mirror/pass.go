package mirror

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/internal/oci"
)

// opener asks an upstream for a part of one blob, on behalf of one request.
type opener func(want oci.Span) (oci.Body, error)

// opener binds upstream.Blob to a request.
func (m *Mirror) opener(ctx context.Context, name oci.Name, dgst digest.Digest) opener {
	return func(want oci.Span) (oci.Body, error) {
		return m.upstream.Blob(ctx, name, dgst, want)
	}
}

// passage is a blob read straight from upstream and kept nowhere: what a
// request gets when the disk will not take the blob. Like a fill it resumes a
// broken stream and holds the last byte back until the digest was found right;
// that can only be done for a reader that reads all of it, in order. It
// implements oci.Blob for one goroutine.
type passage struct {
	dgst   digest.Digest
	size   int64
	open   opener
	off    int64
	body   oci.Body
	barren int

	hash   hash.Hash
	hashed int64 // hash holds the blob's first hashed bytes
}

// newPassage returns a passage that stands at the blob's start.
func newPassage(dgst digest.Digest, size int64, open opener) *passage {
	return &passage{dgst: dgst, size: size, open: open, hash: dgst.Algorithm().Hash()}
}

// passage returns one that goes on at off where a spilled fill ends. The caller
// knows that the fill has ended.
func (f *fill) passage(off int64, open opener) *passage {
	p := newPassage(f.dgst, f.size, open)
	p.off = off
	cloner, ok := f.prefix.(hash.Cloner)
	if off != f.prefixLen || !ok {
		return p
	}
	if state, err := cloner.Clone(); err == nil {
		p.hash, p.hashed = state, off
	}
	return p
}

// Descriptor is complete.
func (p *passage) Descriptor() oci.Descriptor {
	return oci.Descriptor{Digest: p.dgst, Size: p.size}
}

// Seek moves to any offset; the upstream is asked again from there.
func (p *passage) Seek(offset int64, whence int) (int64, error) {
	pos, err := seek(p.off, p.size, offset, whence)
	if err != nil || pos == p.off {
		return pos, err
	}
	err = p.Close()
	p.off = pos
	if pos == 0 {
		p.hash.Reset()
		p.hashed = 0
	}
	return pos, err
}

// Read reads on from upstream.
func (p *passage) Read(buf []byte) (int, error) {
	for {
		if p.off >= p.size {
			return 0, io.EOF
		}
		n, err := p.read(buf)
		if n > 0 {
			p.barren = 0
			return p.release(buf[:n])
		}
		if err == nil {
			continue
		}
		_ = p.Close()
		if p.barren++; p.barren >= maxBarren || !errors.Is(err, io.ErrUnexpectedEOF) {
			return 0, fmt.Errorf("pass blob %s on: %w", p.dgst, err)
		}
	}
}

// read reads from the body, opening it where the passage stands if need be.
func (p *passage) read(buf []byte) (int, error) {
	if p.body.ReadCloser == nil {
		want := oci.Span{Start: p.off, End: -1}
		body, err := p.open(want)
		if err != nil {
			return 0, err
		}
		p.body = body
		if body.Offset > p.off {
			return 0, oci.Errorf(oci.ErrUnavailable, "upstream sent bytes from %d, asked for %d", body.Offset, p.off)
		}
		if _, err := io.CopyN(io.Discard, body, p.off-body.Offset); err != nil {
			return 0, fmt.Errorf("skip to byte %d: %w", p.off, err)
		}
	}
	n, err := p.body.Read(buf[:min(int64(len(buf)), p.size-p.off)])
	if errors.Is(err, io.EOF) && p.off+int64(n) < p.size {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// release hands read bytes to the reader, the last one only if the whole blob
// went by in order and has its digest; read in parts it cannot be told.
func (p *passage) release(buf []byte) (int, error) {
	inOrder := p.hashed == p.off
	if inOrder {
		p.hash.Write(buf)
		p.hashed += int64(len(buf))
	}
	p.off += int64(len(buf))
	if inOrder && p.off == p.size && digest.NewDigest(p.dgst.Algorithm(), p.hash) != p.dgst {
		p.off--
		return len(buf) - 1, fmt.Errorf("%w: %w", io.ErrUnexpectedEOF, oci.ErrDigestInvalid)
	}
	return len(buf), nil
}

// Close lets the upstream go. The passage can be read on, from upstream anew.
func (p *passage) Close() error {
	if p.body.ReadCloser == nil {
		return nil
	}
	body := p.body
	p.body = oci.Body{}
	return body.Close()
}
