package mirror

import (
	"context"
	"errors"
	"sync"

	"github.com/larder-registry/larder/internal/oci"
)

// open asks the upstream for the wanted bytes and the store for a place to
// keep the blob, both at once when the size is known from its image manifest. A
// partial ingest of an earlier life is resumed: then only what it lacks is asked
// for, and nothing at all when it lacks nothing.
func (f *fill) open(ctx context.Context, want oci.Span) (oci.Body, error) {
	size := f.m.sizes.recall(f.name, f.dgst)
	if had, ok := f.m.store.Partial(f.dgst); ok && (size < 0 || size == had) && f.reserve(ctx, had) == nil {
		if want = f.gapFor(want.Start); want.Len() == 0 {
			return oci.Body{}, nil
		}
		switch n := f.firstPart(had); {
		case n > 0 && f.unasked() && f.had >= n:
			return oci.Body{}, nil // enough, until somebody asks
		case n > 0:
			want.End = min(want.End, want.Start+n)
		}
		return f.request(ctx, want)
	}
	if size >= 0 && f.m.store.Degraded() != nil {
		if f.unkept = f.reserve(ctx, size); f.unkept != nil {
			// It is not asked for here: each request will.
			return oci.Body{}, nil //nolint:nilerr // unkept says why, and the requests pass through
		}
	}
	var reserving sync.WaitGroup
	if size >= 0 && f.ingest == nil {
		reserving.Go(func() { f.unkept = f.reserve(ctx, size) })
	}
	body, err := f.ask(ctx, want, size)
	reserving.Wait()
	if err != nil {
		return oci.Body{}, err
	}
	switch {
	case size < 0:
		if size, err = f.m.sizeOf(ctx, f.name, f.dgst, body); err == nil {
			f.unkept = f.reserve(ctx, size)
		}
	case body.Size >= 0 && body.Size != size:
		err = oci.Errorf(oci.ErrSizeInvalid, "upstream says %s has %d bytes, the image manifest says %d", f.dgst, body.Size, size)
	}
	if err == nil && f.unkept == nil {
		return body, nil
	}
	closeBody(body)
	return oci.Body{}, err
}

// ask asks the upstream for the wanted bytes; for a first part of what is wanted
// whole where other streams may bring the rest. An upstream that knows no Range
// sends it all.
func (f *fill) ask(ctx context.Context, want oci.Span, size int64) (oci.Body, error) {
	part := want
	if n := f.firstPart(size); n > 0 && want.Start == 0 && want.End < 0 {
		part.End = n
	}
	body, err := f.m.upstream.Blob(ctx, f.name, f.dgst, part)
	if part != want && errors.Is(err, oci.ErrRangeInvalid) {
		if size > 0 { // else the blob may be empty
			f.m.streams.noteRangeless(f.name.Registry)
		}
		f.noRange = true
		return f.m.upstream.Blob(ctx, f.name, f.dgst, want)
	}
	if err == nil && ignoresRange(body, part) {
		f.m.streams.noteRangeless(f.name.Registry)
		f.noRange = true
	}
	return body, err
}

// firstPart is how much is asked for at first of a blob of that size, which is
// -1 if unknown; 0 for all.
func (f *fill) firstPart(size int64) int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.partOf(size, size)
	if f.lead != nil {
		n = aheadHold
	}
	if f.m.streams.rangeless(f.name.Registry) || size >= 0 && size <= n+n/4 {
		return 0
	}
	return n
}

// partOf is how much is asked for at a time of a blob of that size, left bytes of
// which are missing; 0 for as much as there is in a row. The caller holds mu.
func (f *fill) partOf(size, left int64) int64 {
	switch {
	case size >= worthSplitting && f.m.blobStreams > 1:
		return segmentOf(left, f.m.blobStreams)
	case f.scattered:
		return segment
	}
	return 0
}

// reserve makes a place for size bytes, or says why there is none.
func (f *fill) reserve(ctx context.Context, size int64) error {
	f.size = size
	ingest, err := f.m.store.Ingest(ctx, f.dgst, size)
	if err != nil {
		return err
	}
	f.ingest = ingest
	for _, s := range ingest.Held() {
		f.held = f.held.add(s)
		f.had += s.Len()
	}
	f.resumed = len(f.held) > 0
	return nil
}

// gapFor returns the missing run of bytes to ask for first when somebody wants
// off: the one at off, else the first there is; empty when nothing is missing.
func (f *fill) gapFor(off int64) oci.Span {
	if off < 0 || off >= f.size {
		off = 0
	}
	start := f.held.run(off)
	if start == f.size {
		start = f.held.run(0)
	}
	return oci.Span{Start: start, End: f.held.next(start, f.size)}
}

// ignoresRange reports whether a body is more than the bytes asked for: an
// upstream that does not know Range sends the whole blob.
func ignoresRange(body oci.Body, want oci.Span) bool {
	return body.Offset < want.Start || want.End >= 0 && body.Length > want.Len()
}
