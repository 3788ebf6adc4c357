package mirror

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/larder-registry/larder/internal/oci"
)

const (
	// maxBarren is how often a stream is asked for again without a byte of
	// progress before the fill fails; maxResumes how often in all.
	maxBarren  = 3
	maxResumes = 64
	// resumePause is waited before the second barren try, and doubles up to
	// mostPause.
	resumePause = 250 * time.Millisecond
	mostPause   = 2 * time.Second
	// maxThrottle is how long an upstream may ask to be left alone in the
	// middle of a blob before its followers are cut instead.
	maxThrottle = 10 * time.Second
)

// errRangeIgnored: the upstream sent the blob from its start to a request for a
// part of it, while another stream is doing just that.
var errRangeIgnored = errors.New("upstream ignores range")

// fetch brings the bytes ft claims, first from body when it has one, and
// resumes at the missing offset when the stream breaks. It gives up by failing
// the fill.
func (f *fill) fetch(ctx context.Context, ft *fetcher, body oci.Body) {
	buf := f.m.buffers.get(f.size)
	defer f.m.buffers.put(buf)
	defer f.retire(ft)
	barren := 0
	for {
		claim, ok := f.claim(ctx, ft, body.ReadCloser == nil)
		if !ok {
			closeBody(body)
			return
		}
		var err error
		refused := false
		if body.ReadCloser == nil {
			body, err = f.request(ctx, claim)
			refused = err != nil
			if !refused && !f.answered(ft, body) {
				closeBody(body)
				body = oci.Body{}
				continue
			}
		}
		if err == nil {
			var n int
			n, err = body.Read((*buf)[:min(int64(len(*buf)), claim.Len())])
			if n > 0 {
				barren = 0
				f.keep(ctx, ft, (*buf)[:n])
				f.m.streams.note(f.name.Registry, int64(n))
			}
			if err == nil {
				continue
			}
			// With the last bytes may come the end, or what broke after it.
			if claim, ok = f.claim(ctx, ft, false); !ok {
				closeBody(body)
				return
			}
			if errors.Is(err, io.EOF) {
				err = oci.Errorf(oci.ErrUnavailable, "upstream sent %d bytes too few", claim.Len())
			}
		}
		closeBody(body)
		body = oci.Body{}
		if f.hasYielded(ft) {
			continue
		}
		if refused && f.giveBack(ft) || errors.Is(err, errRangeIgnored) {
			return
		}
		if refused && ft.extra {
			f.m.streams.refused(f.name.Registry)
			return
		}
		if barren++; !f.mayResume(ctx, err, barren) {
			return
		}
	}
}

// claim returns what ft still has to fetch, and is about to ask for if asking;
// ok is false when that is nothing, or the fill is over.
func (f *fill) claim(ctx context.Context, ft *fetcher, asking bool) (s oci.Span, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if asking {
		ft.body, ft.yields = oci.Body{}, false
	}
	over := f.err != nil || f.spill != nil || ctx.Err() != nil
	return oci.Span{Start: ft.pos, End: ft.end}, !over && ft.pos < ft.end
}

// request opens a body that starts at the first byte of want. An upstream that
// ignores Range is remembered: from then on the fill has one stream, which is
// read from the blob's start, what comes before want thrown away.
func (f *fill) request(ctx context.Context, want oci.Span) (oci.Body, error) {
	body, err := f.m.upstream.Blob(ctx, f.name, f.dgst, want)
	if err != nil {
		return oci.Body{}, err
	}
	switch {
	case body.Size >= 0 && body.Size != f.size:
		err = oci.Errorf(oci.ErrSizeInvalid, "upstream says the blob has %d bytes, before it had %d", body.Size, f.size)
	case body.Offset > want.Start:
		err = oci.Errorf(oci.ErrUnavailable, "upstream sent bytes from %d, asked for %d", body.Offset, want.Start)
	case ignoresRange(body, want):
		if f.learnNoRange() {
			err = errRangeIgnored
			break
		}
		_, err = io.CopyN(io.Discard, body, want.Start-body.Offset)
		body.Offset = want.Start
	}
	if err != nil {
		closeBody(body)
		return oci.Body{}, fmt.Errorf("open blob at byte %d: %w", want.Start, err)
	}
	return body, nil
}

// learnNoRange notes that the upstream ignores Range. It reports whether
// another stream is running, which then has to bring everything.
func (f *fill) learnNoRange() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.noRange = true
	return len(f.fetchers) > 1
}

// keep writes p where ft stands and moves it on. What is held already is not
// written again: it may have been hashed. When the ingest would not take the
// bytes the fill spills: nothing more can be kept.
func (f *fill) keep(ctx context.Context, ft *fetcher, p []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	defer f.changed.Broadcast()
	for len(p) > 0 && f.spill == nil {
		n := min(int64(len(p)), f.held.run(ft.pos)-ft.pos)
		if n == 0 {
			n = min(int64(len(p)), f.held.next(ft.pos, f.size)-ft.pos)
			pos := ft.pos
			f.mu.Unlock()
			_, err := f.ingest.WriteAt(p[:n], pos)
			f.mu.Lock()
			if err != nil {
				f.spill = err
				return
			}
			f.held = f.held.add(oci.Span{Start: pos, End: pos + n})
			f.unsaved += n
			f.hashHere(ctx, p[:n], pos)
		}
		ft.pos += n
		p = p[n:]
	}
	ft.speed.note(ft.pos)
}

// hashHere hashes p, which was just written at pos, if the hash stands there, or
// almost. The caller holds mu, which is let go of meanwhile: followers need not
// wait for the hash.
func (f *fill) hashHere(ctx context.Context, p []byte, pos int64) {
	if f.hashing || pos-f.hashed > hashLag || f.held.run(f.hashed) < pos+int64(len(p)) {
		return
	}
	f.hashing = true
	f.changed.Broadcast()
	f.mu.Unlock()
	err := f.ingest.Hash(ctx, pos)
	done := err == nil && f.ingest.HashNext(p, pos)
	f.mu.Lock()
	f.hashing = false
	if done {
		f.hashed = pos + int64(len(p))
	}
}

// mayResume decides whether a broken stream is asked for again, after a pause.
// An upstream that says no is not asked again. One that asks to be left alone for
// a moment is: a client cut now would be told the same there.
func (f *fill) mayResume(ctx context.Context, err error, barren int) bool {
	throttled := errors.Is(err, oci.ErrTooManyRequests)
	// An endpoint that is not asked just now may have refused this blob's other
	// streams only, which were one too many for it.
	resting := oci.Reason(err) == "breaker"
	f.mu.Lock()
	f.resumes++
	tooMany := barren >= maxBarren && !throttled && !resting || barren >= 3*maxBarren || f.resumes >= maxResumes
	f.mu.Unlock()
	if ctx.Err() != nil {
		return false
	}
	wait := oci.RetryAfter(err)
	final := errors.Is(err, oci.ErrBlobUnknown) || errors.Is(err, oci.ErrUnauthorized) ||
		errors.Is(err, oci.ErrDenied) || errors.Is(err, oci.ErrRangeInvalid) || throttled && (wait <= 0 || wait > maxThrottle)
	if final || tooMany {
		f.fail(fmt.Errorf("fetch blob %s: %w", f.dgst, err))
		return false
	}
	if barren > 1 {
		wait = max(wait, min(resumePause<<(barren-2), mostPause))
	}
	if barren > 1 || throttled {
		pause := time.NewTimer(wait)
		defer pause.Stop()
		select {
		case <-pause.C:
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// retire takes ft out of the fill and lets plan decide what comes next.
func (f *fill) retire(ft *fetcher) {
	if ft.extra {
		f.m.streams.release(f.name.Registry)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fetchers = slices.DeleteFunc(f.fetchers, func(o *fetcher) bool { return o == ft })
	f.plan()
	f.changed.Broadcast()
}

// closeBody closes what there is to close. A body is read only, so what its
// close may complain of changes nothing.
func closeBody(body oci.Body) {
	if body.ReadCloser != nil {
		_ = body.Close()
	}
}
