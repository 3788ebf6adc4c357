package mirror

import (
	"context"
	"slices"

	"github.com/larder-registry/larder/internal/oci"
)

const (
	// segment is how much is fetched for a follower that asks for bytes far
	// from any stream, in bytes. Each time the same follower comes back for
	// more it doubles, up to maxSegment.
	segment    = 8 << 20
	maxSegment = 32 << 20
	// reach is how far ahead of a stream a follower waits for it in any case,
	// in bytes.
	reach = 2 << 20
	// maxUrgent bounds a fill's streams for followers far from any other.
	maxUrgent = 4
	// maxHashLag is how far streams may run ahead of the hash before there is
	// only one of them again, in bytes.
	maxHashLag = 256 << 20
)

// A fetcher claims the missing bytes from pos up to end, and asks the upstream
// for just those. Claims never overlap each other or what is held, so nothing is
// fetched twice; and what was asked for is read to its end, since what an
// upstream has sent by the time a stream is cut lies in buffers, and is lost. The
// one exception is a slow stream (yield.go). Guarded by the fill's mu.
type fetcher struct {
	pos, end int64
	// extra streams are counted against what their upstream may be asked, and
	// go without a fuss when it refuses them. urgent ones bring what a follower
	// waits for far from the others.
	extra, urgent bool

	body   oci.Body // what is being read
	speed  speed
	lender *lender // whom the claim was taken from, until the upstream answers
	// yields: the body was closed to be asked for anew, up to end.
	yields bool
}

// start begins fetching with the body the fill was opened with. ctx bounds
// every fetcher the fill will ever start.
func (f *fill) start(ctx context.Context, body oci.Body) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.launch = func(ft *fetcher, body oci.Body) {
		ft.body, ft.speed = body, speedFrom(ft.pos)
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
		from := f.held.run(0)
		if from < f.size && len(f.fetchers) == 0 && (f.whole || len(f.demands) > 0) {
			f.fetchGap(&fetcher{pos: from, end: f.size})
		}
		return
	}
	urgent := 0
	for _, ft := range f.fetchers {
		if ft.urgent {
			urgent++
		}
	}
	for _, d := range f.demands {
		if urgent == maxUrgent {
			break
		}
		if f.held.run(d.off) > d.off {
			continue
		}
		o := f.claimant(d.off)
		if o != nil && !f.takeOver(o, d.off) {
			continue
		}
		ft := &fetcher{pos: d.off, end: aligned(d.off, d.nextSegment()), urgent: true}
		if o != nil {
			ft.lender = lend(o, d.off)
			ft.end = min(ft.end, ft.lender.end)
		}
		f.fetchGap(ft)
		urgent++
	}
	for f.whole && f.planRest() { //nolint:revive // all the work is in asking
	}
}

// planRest starts one more stream for the rest of the blob in order, and
// reports whether there may be another. The caller holds mu.
func (f *fill) planRest() bool {
	from, left := f.unclaimed()
	if left == 0 || f.lead != nil {
		return false
	}
	ft := &fetcher{pos: from, end: f.size, extra: len(f.fetchers) > 0}
	if ft.extra && (f.followers == 0 || len(f.fetchers) >= f.m.blobStreams ||
		from-f.hashed > maxHashLag || !f.m.streams.acquire(f.name.Registry)) {
		return false
	}
	if n := f.partOf(f.size, left); n > 0 {
		ft.end = aligned(from, n)
	}
	f.fetchGap(ft)
	return true
}

// aligned returns where a segment of about n bytes from a place on ends: where
// clients that read in chunks are likely to begin one.
func aligned(from, n int64) int64 {
	end := (from + n) / leastSegment * leastSegment
	if end-from < leastSegment/2 {
		end += leastSegment
	}
	return end
}

// unclaimed returns where the first bytes are that are neither held nor
// claimed, and how many there are of them in all. The caller holds mu.
func (f *fill) unclaimed() (from, left int64) {
	all := slices.Clone(f.held)
	for _, ft := range f.fetchers {
		all = all.add(oci.Span{Start: ft.pos, End: ft.end})
	}
	return all.run(0), f.size - all.total()
}

// claimant is the stream that is going to bring the byte at off; nil if none is.
// The caller holds mu.
func (f *fill) claimant(off int64) *fetcher {
	for _, ft := range f.fetchers {
		if ft.pos <= off && off < ft.end {
			return ft
		}
	}
	return nil
}

// fetchGap starts ft for the missing and unclaimed bytes its claim begins with,
// which are some. The caller holds mu.
func (f *fill) fetchGap(ft *fetcher) {
	ft.end = f.held.next(ft.pos, min(ft.end, f.size))
	for _, o := range f.fetchers {
		if o.pos > ft.pos && o.pos < o.end {
			ft.end = min(ft.end, o.pos)
		}
	}
	f.launch(ft, oci.Body{})
}
