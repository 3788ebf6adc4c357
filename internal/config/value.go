package config

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/larder-registry/larder/store"
)

// Duration is a length of time as a file writes it: "800ms", "168h". Never
// negative.
type Duration time.Duration

// parse reads Go's form of a duration.
func (d *Duration) parse(s string) error {
	v, err := time.ParseDuration(s)
	if err != nil {
		if n, ok := strings.CutSuffix(s, "d"); ok {
			if days, err := strconv.Atoi(n); err == nil && days >= 0 && days < 10000 {
				return fmt.Errorf("bad duration %q; there is no unit for days: write %q", s, strconv.Itoa(days*24)+"h")
			}
		}
		return fmt.Errorf(`bad duration %q; write a number and a unit: "800ms", "15s", "10m", "168h"`, s)
	}
	if v < 0 {
		return fmt.Errorf("bad duration %q; it cannot be negative", s)
	}
	*d = Duration(v)
	return nil
}

// String gives the shortest form: "168h", not "168h0m0s".
func (d Duration) String() string {
	s := time.Duration(d).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// MarshalYAML writes the form that parse reads.
func (d Duration) MarshalYAML() (any, error) { return d.String(), nil }

// Limit is an amount of disk space as a file writes it: "50GiB", "20%", or
// "auto" for the store's own default, which is the zero Limit.
type Limit struct{ store.Limit }

// parse reads what [store.ParseLimit] does, and "auto".
func (l *Limit) parse(s string) (err error) {
	if s == "auto" {
		l.Limit = store.Limit{}
		return nil
	}
	l.Limit, err = store.ParseLimit(s)
	return err
}

// String gives the form that parse reads.
func (l Limit) String() string { return cmp.Or(l.Limit.String(), "auto") }

// MarshalYAML writes the form that parse reads.
func (l Limit) MarshalYAML() (any, error) {
	n := &yaml.Node{Kind: yaml.ScalarNode, Value: l.String()}
	if l.IsZero() {
		n.LineComment = "20% of the file system, at most 50GiB"
	}
	return n, nil
}

// Secret is a text that must not be seen: it prints, logs and marshals as
// asterisks. Convert it to a string where it is used.
type Secret string

const mask = "********"

// String masks the secret.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return mask
}

// GoString masks the secret from %#v too.
func (s Secret) GoString() string { return s.String() }

// MarshalYAML masks the secret.
func (s Secret) MarshalYAML() (any, error) { return s.String(), nil }

func (s *Secret) parse(v string) error {
	*s = Secret(v)
	return nil
}

// Rate is an amount of bytes a second as a file writes it: "100MiB"; zero for no
// bound.
type Rate int64

// parse reads what [store.ParseLimit] does, but for percentages.
func (r *Rate) parse(s string) error {
	l, err := store.ParseLimit(s)
	if err != nil || strings.Contains(s, "%") {
		return fmt.Errorf("bad rate %q; write bytes a second with a unit: \"100MiB\"; 0 for no bound", s)
	}
	if l.Bytes() > 0 && l.Bytes() < 64<<10 {
		return fmt.Errorf("rate %q is too slow for a pull to end; write at least \"64KiB\", or 0 for no bound", s)
	}
	*r = Rate(l.Bytes())
	return nil
}

// String gives the form that parse reads.
func (r Rate) String() string { return store.Bytes(int64(r)).String() }

// MarshalYAML writes the form that parse reads.
func (r Rate) MarshalYAML() (any, error) {
	return &yaml.Node{Kind: yaml.ScalarNode, Value: r.String()}, nil
}
