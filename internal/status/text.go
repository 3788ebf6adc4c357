package status

import (
	"math"
	"strconv"
	"strings"
	"time"
)

// Size writes bytes for people: "1.4 GiB"; "?" when it is less than nothing.
func Size(n int64) string {
	const units = "KMGTPE"
	if n < 0 {
		return "?"
	}
	if n < 1024 {
		return strconv.FormatInt(n, 10) + " B"
	}
	value, unit := float64(n)/1024, 0
	for value >= 1023.5 && unit < len(units)-1 {
		value /= 1024
		unit++
	}
	digits := 1
	if value >= 99.95 {
		digits = 0
	}
	return strconv.FormatFloat(value, 'f', digits, 64) + " " + units[unit:unit+1] + "iB"
}

// Percent writes a part of a whole, "–" if that is nothing. Only all of it is
// 100 %.
func Percent(part, whole int64) string {
	if whole <= 0 {
		return "–"
	}
	p := float64(part) / float64(whole) * 100
	if p >= 10 || p == 0 {
		return strconv.FormatFloat(math.Floor(p), 'f', 0, 64) + " %"
	}
	return strconv.FormatFloat(math.Floor(p*10)/10, 'f', 1, 64) + " %"
}

// Span writes a time for people, by its largest unit; nothing less than none.
func Span(d time.Duration) string {
	switch {
	case d < time.Minute:
		return strconv.Itoa(int(max(d, 0)/time.Second)) + " s"
	case d < time.Hour:
		return strconv.Itoa(int(d/time.Minute)) + " min"
	case d < 48*time.Hour:
		return strconv.Itoa(int(d/time.Hour)) + " h"
	}
	return strconv.Itoa(int(d/(24*time.Hour))) + " days"
}

// Since writes how long before now something was; "–" if it never was. Within a
// minute it is all the same, so that what is shown does not change with every
// second.
func Since(at, now time.Time) string {
	switch {
	case at.IsZero() || at.Unix() <= 0:
		return "–"
	case now.Sub(at) < time.Minute:
		return "just now"
	}
	return Span(now.Sub(at)) + " ago"
}

// ShortDigest is enough of a digest to tell it from others.
func ShortDigest(dgst string) string {
	if algorithm, hex, ok := strings.Cut(dgst, ":"); ok && len(hex) > 12 {
		return algorithm + ":" + hex[:12]
	}
	return dgst
}
