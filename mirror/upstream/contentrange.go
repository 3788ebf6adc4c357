package upstream

import (
	"math"
	"strings"

	"github.com/larder-registry/larder/internal/oci"
)

// contentRange reads a Content-Range header (RFC 9110 section 14.4), strictly:
// "bytes first-last/size" with size "*" if it is not known, given as -1. An
// unsatisfied range ("bytes */size") is none.
func contentRange(header string) (span oci.Span, size int64, ok bool) {
	rest, found := strings.CutPrefix(header, "bytes ")
	if !found {
		return oci.Span{}, 0, false
	}
	bounds, whole, found := strings.Cut(rest, "/")
	first, last, dash := strings.Cut(bounds, "-")
	if !found || !dash {
		return oci.Span{}, 0, false
	}
	start, okStart := decimal(first)
	end, okEnd := decimal(last)
	if !okStart || !okEnd || end < start {
		return oci.Span{}, 0, false
	}
	size = -1
	if whole != "*" {
		if size, ok = decimal(whole); !ok || end >= size {
			return oci.Span{}, 0, false
		}
	}
	return oci.Span{Start: start, End: end + 1}, size, true
}

// decimal reads digits and nothing else; math.MaxInt64 is out of bounds, so
// that one may be added.
func decimal(s string) (n int64, ok bool) {
	if s == "" {
		return 0, false
	}
	for i := range len(s) {
		d := int64(s[i]) - '0'
		if d < 0 || d > 9 || n > (math.MaxInt64-1-d)/10 {
			return 0, false
		}
		n = n*10 + d
	}
	return n, true
}
