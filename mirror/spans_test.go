package mirror

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/larder-registry/larder/internal/oci"
)

func TestSpansAgreeWithABitmap(t *testing.T) {
	const size = 64
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 1))
		var (
			have spans
			bits [size]bool
		)
		for range 20 {
			start := rng.Int64N(size)
			end := start + rng.Int64N(size-start+1)
			have = have.add(oci.Span{Start: start, End: end})
			for i := start; i < end; i++ {
				bits[i] = true
			}
			checkSpans(t, have, bits[:])
		}
	}
}

// checkSpans compares every question a set answers with the answer of a bitmap.
func checkSpans(t *testing.T, have spans, bits []bool) {
	t.Helper()
	var total int64
	for i, held := range bits {
		off := int64(i)
		end := off
		for end < int64(len(bits)) && bits[end] {
			end++
		}
		if got := have.run(off); got != end {
			t.Fatalf("%v.run(%d) = %d, want %d", have, off, got, end)
		}
		next := off
		for next < int64(len(bits)) && !bits[next] {
			next++
		}
		if got := have.next(off, int64(len(bits))); got != next {
			t.Fatalf("%v.next(%d) = %d, want %d", have, off, got, next)
		}
		if held {
			total++
		}
	}
	if got := have.total(); got != total {
		t.Fatalf("%v.total() = %d, want %d", have, got, total)
	}
	for i := 1; i < len(have); i++ {
		if have[i-1].End >= have[i].Start {
			t.Fatalf("%v is not sorted and apart", have)
		}
	}
	if slices.ContainsFunc(have, func(s oci.Span) bool { return s.Len() <= 0 }) {
		t.Fatalf("%v holds an empty range", have)
	}
}
