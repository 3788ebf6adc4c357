package mirror

import (
	"slices"

	"github.com/larder-registry/larder/internal/oci"
)

// spans is a set of byte ranges: sorted, disjoint, never touching.
type spans []oci.Span

// add returns the set with s in it.
func (h spans) add(s oci.Span) spans {
	if s.Len() <= 0 {
		return h
	}
	// The common case: the stream goes on where it was.
	if n := len(h); n > 0 && h[n-1].End == s.Start {
		h[n-1].End = s.End
		return h
	}
	from, _ := slices.BinarySearchFunc(h, s.Start, func(e oci.Span, start int64) int {
		if e.End < start {
			return -1
		}
		return 1
	})
	to := from
	for to < len(h) && h[to].Start <= s.End {
		s.Start, s.End = min(s.Start, h[to].Start), max(s.End, h[to].End)
		to++
	}
	return slices.Replace(h, from, to, s)
}

// run returns how far the set reaches without a gap from off: off itself when
// off is missing.
func (h spans) run(off int64) int64 {
	for _, s := range h {
		if s.Start <= off && off < s.End {
			return s.End
		}
	}
	return off
}

// next returns the start of the first range at or after off, or limit when
// there is none before it.
func (h spans) next(off, limit int64) int64 {
	for _, s := range h {
		if s.End > off {
			return min(max(s.Start, off), limit)
		}
	}
	return limit
}

// total is the number of bytes in the set.
func (h spans) total() (n int64) {
	for _, s := range h {
		n += s.Len()
	}
	return n
}
