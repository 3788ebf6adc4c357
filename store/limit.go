package store

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// The defaults of Config, chosen above the kubelet's own marks for image
// garbage collection so that the node never evicts because of the cache.
const (
	defaultMaxPercent = 20
	defaultMaxBytes   = 50 << 30
	defaultMinPercent = 25
)

// Limit is a size: bytes, or a part of the file system. The zero Limit says
// nothing and stands for a default; Bytes(0) says zero.
type Limit struct {
	bytes   int64
	percent float64
	set     bool
}

// Bytes returns a Limit of n bytes.
func Bytes(n int64) Limit { return Limit{bytes: n, set: true} }

// Percent returns a Limit of p hundredths of the file system.
func Percent(p float64) Limit { return Limit{percent: p, set: true} }

// Bytes is the limit in bytes; 0 for one that is a part of the file system.
func (l Limit) Bytes() int64 { return l.bytes }

// IsZero reports whether l says nothing.
func (l Limit) IsZero() bool { return !l.set }

// ParseLimit reads "20%", "50GiB", "1.5 TB", "4096": a number with a unit of
// powers of 1024 (KiB…PiB, or K…P alone, as Kubernetes' Ki…Pi) or of 1000
// (KB…PB), or with % (0 to 100). Units are not case sensitive.
func ParseLimit(s string) (Limit, error) {
	number := strings.TrimSpace(s)
	unit := strings.TrimLeft(number, "0123456789.")
	number = number[:len(number)-len(unit)]
	n, err := strconv.ParseFloat(number, 64)
	if err != nil || math.IsInf(n, 0) {
		return Limit{}, fmt.Errorf("parse size %q: want a number with a unit, as 50GiB or 20%%", s)
	}
	unit = strings.ToLower(strings.TrimSpace(unit))
	if unit == "%" {
		if n > 100 {
			return Limit{}, fmt.Errorf("parse size %q: more than 100 %%", s)
		}
		return Percent(n), nil
	}
	factor, ok := unitFactor(unit)
	if !ok {
		return Limit{}, fmt.Errorf("parse size %q: unknown unit %q (KiB, MiB, GiB, TiB, KB, MB, GB, TB or %%)", s, unit)
	}
	if n*factor >= math.MaxInt64 {
		return Limit{}, fmt.Errorf("parse size %q: too large", s)
	}
	return Bytes(int64(n * factor)), nil
}

// unitFactor returns how many bytes a lower-case unit stands for.
func unitFactor(unit string) (float64, bool) {
	if unit == "" || unit == "b" {
		return 1, true
	}
	power := strings.IndexByte("kmgtp", unit[0]) + 1
	if power == 0 {
		return 0, false
	}
	switch unit[1:] {
	case "", "i", "ib":
		return math.Pow(1024, float64(power)), true
	case "b":
		return math.Pow(1000, float64(power)), true
	}
	return 0, false
}

// String gives a form that ParseLimit reads back; empty for the zero Limit.
func (l Limit) String() string {
	switch {
	case !l.set:
		return ""
	case l.percent != 0:
		return strconv.FormatFloat(l.percent, 'f', -1, 64) + "%"
	}
	n, unit := l.bytes, 0
	for n != 0 && n%1024 == 0 && unit < 5 {
		n /= 1024
		unit++
	}
	return strconv.FormatInt(n, 10) + []string{"", "KiB", "MiB", "GiB", "TiB", "PiB"}[unit]
}

// MarshalText is String, for configuration files.
func (l Limit) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText is ParseLimit, for configuration files.
func (l *Limit) UnmarshalText(text []byte) error {
	parsed, err := ParseLimit(string(text))
	if err != nil {
		return err
	}
	*l = parsed
	return nil
}

// of returns the limit in bytes on a file system of total bytes.
func (l Limit) of(total int64) int64 {
	if l.percent != 0 {
		return int64(float64(total) / 100 * l.percent)
	}
	return l.bytes
}
