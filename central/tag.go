package central

import (
	"context"
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/internal/oci"
	"github.com/larder-registry/larder/store"
)

// TagRule says which tags must not move.
type TagRule struct {
	// Repositories are patterns, see [oci.Pattern].
	Repositories []oci.Pattern
	// Tags are patterns of path.Match: "v*". A tag has no slash, so an
	// asterisk stands for anything.
	Tags []string
}

// tagPattern is what a pattern that some tag can match is made of.
var tagPattern = regexp.MustCompile(`^[a-zA-Z0-9_.*?^\[\]-]+$`)

// Check says what is wrong with the rule, if anything.
func (r TagRule) Check() error {
	if len(r.Tags) == 0 {
		return errors.New("it names no tags")
	}
	for _, tag := range r.Tags {
		if _, err := path.Match(tag, ""); err != nil || !tagPattern.MatchString(tag) {
			return fmt.Errorf("tag pattern %.80q is not one", tag)
		}
	}
	return oci.CheckPatterns(r.Repositories)
}

// immutable reports whether a tag must not move.
func (c *Central) immutable(repository, tag string) bool {
	return slices.ContainsFunc(c.cfg.Immutable, func(r TagRule) bool {
		return oci.MatchAny(r.Repositories, repository) && slices.ContainsFunc(r.Tags, func(p string) bool {
			ok, _ := path.Match(p, tag) //nolint:errcheck // a bad pattern matches nothing; Check finds it
			return ok
		})
	})
}

// mayMove fails with oci.ErrDenied when a tag points elsewhere and must go on
// doing so.
func (c *Central) mayMove(ctx context.Context, name oci.Name, tag string, to digest.Digest) error {
	if !c.immutable(name.Repository, tag) {
		return nil
	}
	now, _, found, err := read[tagRecord](ctx, c.ledger, tagKey(name.Repository, tag))
	if err == nil && found && now.Digest != to {
		err = errImmutable(tag, now.Digest)
	}
	return err
}

func errImmutable(tag string, at digest.Digest) error {
	return oci.Errorf(oci.ErrDenied, "tag %s is immutable and points to %s", tag, at)
}

// setTag points a tag at an image manifest that is there. Of several who do so
// at once, each moves what the one before left.
func (c *Central) setTag(ctx context.Context, name oci.Name, tag string, to tagRecord) error {
	key, immutable := tagKey(name.Repository, tag), c.immutable(name.Repository, tag)
	for {
		now, version, found, err := read[tagRecord](ctx, c.ledger, key)
		switch {
		case err != nil:
		case !found:
			err = c.ledger.Create(ctx, key, encode(to))
		case immutable && now.Digest != to.Digest:
			return errImmutable(tag, now.Digest)
		default:
			err = c.ledger.Swap(ctx, key, encode(to), version)
		}
		if !errors.Is(err, store.ErrConflict) {
			return err
		}
	}
}
