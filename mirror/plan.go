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
	maxSegment = 64 << 20
	// reach is how far ahead of a stream a follower waits for it rather than
	// having the bytes fetched by a request of their own, in bytes.
	reach = 2 << 20
	// maxUrgent bounds a fill's streams for followers far from any other.
	maxUrgent = 4
	// maxHashLag is how far streams may run ahead of the hash before there is
	// only one of them again, in bytes.
	maxHashLag = 256 << 20
)

// A fetcher claims the missing bytes from pos up to end. Claims never overlap
// each other or what is held, so nothing is fetched twice. Guarded by the
// fill's mu; end may shrink while the fetcher runs.
type fetcher struct {
	pos, end int64
	// extra streams are counted against what their upstream may be asked, and
	// go without a fuss when it refuses them. urgent ones bring what a follower
	// waits for far from the others.
	extra, urgent bool
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
			f.fetchGap(&fetcher{end: f.size})
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
		if urgent < maxUrgent && f.held.run(d.off) == d.off && !f.expected(d.off) {
			f.fetchGap(&fetcher{pos: d.off, end: d.off + d.nextSegment(), urgent: true})
			urgent++
		}
	}
	for f.whole && f.planRest() { //nolint:revive // all the work is in asking
	}
}

// planRest starts one more stream for the rest of the blob in order, and
// reports whether there may be another. The caller holds mu.
func (f *fill) planRest() bool {
	from, left := f.unclaimed()
	if left == 0 {
		return false
	}
	ft := &fetcher{pos: from, end: f.size, extra: len(f.fetchers) > 0}
	if ft.extra {
		// A blob that is not split is one stream's; those for demands end soon.
		if !f.splits() || f.followers == 0 || len(f.fetchers) >= f.m.blobStreams ||
			from-f.hashed > maxHashLag || !f.m.streams.acquire(f.name.Registry) {
			return false
		}
	}
	if f.splits() {
		ft.end = from + segmentOf(left, f.m.blobStreams)
	}
	f.fetchGap(ft)
	return true
}

// splits reports whether the blob is fetched in segments. The caller holds mu.
func (f *fill) splits() bool {
	return f.size >= worthSplitting && f.m.blobStreams > 1 && !f.noRange && f.lead == nil
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

// expected reports whether a stream is about to bring the byte at off.
func (f *fill) expected(off int64) bool {
	for _, ft := range f.fetchers {
		if ft.pos <= off && off < ft.end && off-ft.pos <= reach {
			return true
		}
	}
	return false
}

// fetchGap starts ft for the first missing and unclaimed bytes of its claim. A
// stream whose claim reaches over its start is cut short: it will end there.
func (f *fill) fetchGap(ft *fetcher) {
	ft.pos = f.held.run(ft.pos)
	if ft.pos >= f.size {
		return
	}
	ft.end = f.held.next(ft.pos, min(ft.end, f.size))
	for _, o := range f.fetchers {
		switch {
		case o.pos <= ft.pos && ft.pos < o.end:
			ft.end = min(ft.end, o.end)
			o.end = ft.pos
		case o.pos > ft.pos:
			ft.end = min(ft.end, o.pos)
		}
	}
	f.launch(ft, oci.Body{})
}

// curb lets the streams of a fill nobody follows end within a segment. The
// caller holds mu.
func (f *fill) curb() {
	for _, ft := range f.fetchers {
		ft.end = min(ft.end, ft.pos+segment)
	}
}
