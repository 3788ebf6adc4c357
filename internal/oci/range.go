package oci

import (
	"math"
	"strings"
)

// ParseRange reads a Range header for content of size bytes (RFC 9110 section
// 14.2). With ok, spans holds the one range to send, not empty and inside the
// content. Without ok the header asks for nothing we honour, and the whole
// content is the answer: no header, a unit other than bytes, several ranges,
// or content that is empty (clients that put "bytes=0-" on every request would
// otherwise fail on an empty blob).
//
// It fails with ErrRangeInvalid for a range that is malformed, starts at or
// past the end, or ends before it starts; an end past the end of the content
// is cut there.
func ParseRange(header string, size int64) (spans []Span, ok bool, err error) {
	unit, ranges, found := strings.Cut(header, "=")
	if !found || !strings.EqualFold(strings.TrimSpace(unit), "bytes") || strings.Contains(ranges, ",") || size <= 0 {
		return nil, false, nil
	}
	first, last, found := strings.Cut(strings.Trim(ranges, " \t"), "-")
	if !found {
		return nil, false, Errorf(ErrRangeInvalid, "range %s is not a-b, a- or -n", quote(ranges))
	}
	var span Span
	switch {
	case first == "": // the last n bytes
		n, valid := parseOffset(last)
		if !valid || n == 0 {
			return nil, false, Errorf(ErrRangeInvalid, "range %s names no byte", quote(ranges))
		}
		span = Span{Start: size - min(n, size), End: size}
	default:
		start, valid := parseOffset(first)
		end := int64(math.MaxInt64)
		if last != "" && valid {
			end, valid = parseOffset(last)
		}
		if !valid || end < start {
			return nil, false, Errorf(ErrRangeInvalid, "range %s is not a-b, a- or -n", quote(ranges))
		}
		if start >= size {
			return nil, false, Errorf(ErrRangeInvalid, "range %s starts past the end, the size is %d", quote(ranges), size)
		}
		span = Span{Start: start, End: min(end, size-1) + 1}
	}
	return []Span{span}, true, nil
}

// parseOffset reads decimal digits. A number past int64 becomes the largest
// one, which is past the end of any content.
func parseOffset(s string) (n int64, ok bool) {
	for i := range len(s) {
		c := s[i]
		if c < '0' || c > '9' {
			return 0, false
		}
		d := int64(c - '0')
		if n > (math.MaxInt64-d)/10 {
			n = math.MaxInt64
			continue
		}
		n = n*10 + d
	}
	return n, s != ""
}
