package oci

// Span is a run of bytes in a blob: from Start up to, not including, End.
type Span struct {
	Start, End int64
}

// Len is the number of bytes in the span.
func (s Span) Len() int64 { return s.End - s.Start }
