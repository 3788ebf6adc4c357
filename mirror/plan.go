package mirror

import (
	"context"

	"github.com/larder-registry/larder/internal/oci"
)

const (
	// segment is how much is fetched for a follower that asks for bytes far
	// from any stream, in bytes. Each time the same follower comes back for
	// more it doubles, up to maxSegment.
	segment    = 8 << 20
	maxSegment = 64 << 20
	// reach is how far ahead of a stream a follower waits for it rather than
	// having the bytes fetched by a request of their own, in bytes.
	reach = 2 << 20
	// maxFetchers bounds the streams of one fill.
	maxFetchers = 4
)

// A fetcher claims the missing bytes from pos up to end. Claims never overlap
// each other or what is held, so nothing is fetched twice. Guarded by the
// fill's mu; end may shrink while the fetcher runs.
type fetcher struct {
	pos, end int64
}

// start begins fetching with the body the fill was opened with. ctx bounds
// every fetcher the fill will ever start.
func (f *fill) start(ctx context.Context, body oci.Body) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.launch = func(ft *fetcher, body oci.Body) {
		f.fetchers = append(f.fetchers, ft)
		// Ends when its claim is fetched, or with ctx.
		f.fetching.Go(func() { f.fetch(ctx, ft, body) })
	}
	if body.ReadCloser != nil {
		from := f.held.run(body.Offset)
		end := f.held.next(from, f.size)
		if f.noRange {
			end = f.size
		} else if body.Length >= 0 {
			end = min(end, body.Offset+body.Length)
		}
		f.launch(&fetcher{pos: from, end: end}, body)
	}
	f.plan()
}

// plan starts the fetchers that are missing: one for each follower whose bytes
// no stream is about to bring, and, if somebody wants the whole blob, one for
// the rest in order. The caller holds mu.
func (f *fill) plan() {
	if f.launch == nil || f.err != nil || f.spill != nil || f.verified {
		return
	}
	if f.noRange {
		if len(f.fetchers) == 0 && (f.whole || len(f.demands) > 0) {
			f.fetchGap(0, f.size)
		}
		return
	}
	for _, d := range f.demands {
		if len(f.fetchers) >= maxFetchers {
			return
		}
		if f.held.run(d.off) == d.off && !f.expected(d.off) {
			f.fetchGap(d.off, d.off+d.nextSegment())
		}
	}
	// One stream in order is enough for the rest; those for demands end soon.
	if f.whole && len(f.fetchers) == 0 {
		f.fetchGap(0, f.size)
	}
}

// expected reports whether a stream is about to bring the byte at off.
func (f *fill) expected(off int64) bool {
	for _, ft := range f.fetchers {
		if ft.pos <= off && off < ft.end && off-ft.pos <= reach {
			return true
		}
	}
	return false
}

// fetchGap starts a fetcher for the first missing and unclaimed bytes at or
// after from, up to limit. A stream whose claim reaches over from is cut short:
// it will end there.
func (f *fill) fetchGap(from, limit int64) {
	from = f.held.run(from)
	if from >= f.size {
		return
	}
	end := f.held.next(from, min(limit, f.size))
	for _, ft := range f.fetchers {
		switch {
		case ft.pos <= from && from < ft.end:
			end = min(end, ft.end)
			ft.end = from
		case ft.pos > from:
			end = min(end, ft.pos)
		}
	}
	f.launch(&fetcher{pos: from, end: end}, oci.Body{})
}

// curb lets the streams of a fill nobody follows end within a segment. The
// caller holds mu.
func (f *fill) curb() {
	for _, ft := range f.fetchers {
		ft.end = min(ft.end, ft.pos+segment)
	}
}
