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
	span, ok, err := parseRange(header)
	if !ok || size <= 0 {
		return nil, false, nil
	}
	switch {
	case err != nil:
		return nil, false, err
	case span.Start < 0:
		span = Span{Start: max(size+span.Start, 0), End: size}
	case span.Start >= size:
		return nil, false, Errorf(ErrRangeInvalid, "range starts at %d, the size is %d", span.Start, size)
	case span.End < 0 || span.End > size:
		span.End = size
	}
	return []Span{span}, true, nil
}

// AskedRange reads a Range header before the size of the content is known, in
// the form of [Access].Range: an End of -1 is an open end, a negative Start
// counts from the end. It is nil where ParseRange would send everything or
// fail whatever the size.
func AskedRange(header string) *Span {
	span, ok, err := parseRange(header)
	if !ok || err != nil {
		return nil
	}
	return &span
}

// parseRange reads a Range header in the form AskedRange gives it. Without ok
// it is none we honour; it fails where no content could satisfy it.
func parseRange(header string) (span Span, ok bool, err error) {
	unit, ranges, found := strings.Cut(header, "=")
	if !found || !strings.EqualFold(strings.TrimSpace(unit), "bytes") || strings.Contains(ranges, ",") {
		return Span{}, false, nil
	}
	first, last, found := strings.Cut(strings.Trim(ranges, " \t"), "-")
	start, startOK := parseOffset(first)
	end, endOK := parseOffset(last)
	switch {
	case found && first == "" && endOK && end > 0:
		return Span{Start: -end, End: -1}, true, nil
	case found && last == "" && startOK:
		return Span{Start: start, End: -1}, true, nil
	case found && startOK && endOK && start <= end:
		return Span{Start: start, End: min(end, math.MaxInt64-1) + 1}, true, nil
	}
	return Span{}, true, Errorf(ErrRangeInvalid, "range %s is not a-b, a- or -n", quote(ranges))
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
