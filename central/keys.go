package central

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/internal/oci"
	"github.com/larder-registry/larder/store"
)

// The records. A part of a repository's name never starts with '_', so a key can
// be read one way only.
//
//	blobs/<digest>/<repository>                        the repository holds the blob
//	manifests/<digest>/<repository>                    …or may hold this image manifest: a hint
//	repos/<repository>/_manifests/<digest>             the image manifest
//	repos/<repository>/_tags/<tag>                     what the tag points to
//	repos/<repository>/_referrers/<subject>/<digest>   digest may refer to subject: a hint
//	repos/<repository>/_pulled/<digest>                when it was last pulled
//	catalog/<repository>                               the repository may have image manifests: a hint
//	uploads/<id>                                       an upload, see uploadstate.go
//
// What is written before what: content, then who holds it; hints, then the image
// manifest, then its tags. What is removed before what: tags, then the image
// manifest, then hints; who holds content, then the content. So a record always
// finds what it speaks of, and a hint is believed only when that is there.

func blobKey(dgst digest.Digest, repository string) string {
	return "blobs/" + string(dgst) + "/" + repository
}

func holderKey(dgst digest.Digest, repository string) string {
	return "manifests/" + string(dgst) + "/" + repository
}

func manifestsPrefix(repository string) string { return "repos/" + repository + "/_manifests/" }

func manifestKey(repository string, dgst digest.Digest) string {
	return manifestsPrefix(repository) + string(dgst)
}

func tagsPrefix(repository string) string { return "repos/" + repository + "/_tags/" }

func tagKey(repository, tag string) string { return tagsPrefix(repository) + tag }

func referrersPrefix(repository string, subject digest.Digest) string {
	return "repos/" + repository + "/_referrers/" + string(subject) + "/"
}

func pulledPrefix(repository string) string { return "repos/" + repository + "/_pulled/" }

func pulledKey(repository string, dgst digest.Digest) string {
	return pulledPrefix(repository) + string(dgst)
}

const catalogPrefix = "catalog/"

func catalogKey(repository string) string { return catalogPrefix + repository }

const uploadsPrefix = "uploads/"

func uploadKey(id string) string { return uploadsPrefix + id }

// splitHolder reads the key of a blob's or an image manifest's holder.
func splitHolder(prefix, key string) (dgst digest.Digest, repository string, ok bool) {
	rest, ok := strings.CutPrefix(key, prefix)
	first, repository, found := strings.Cut(rest, "/")
	dgst, err := oci.ParseDigest(first)
	return dgst, repository, ok && found && err == nil
}

// The values. Times are Unix seconds, but for tags: their order matters.
type (
	// blobRecord says that a repository holds a blob.
	blobRecord struct {
		Size int64 `json:"s"`
		At   int64 `json:"a"`
		// Doomed is when nothing referred to it any more; 0 while that is not
		// so. It may be removed some time after, unless somebody asks for it.
		Doomed int64 `json:"d,omitempty"`
	}
	// manifestRecord is what is known of an image manifest without reading it.
	manifestRecord struct {
		MediaType    string        `json:"m"`
		Size         int64         `json:"s"`
		ArtifactType string        `json:"t,omitempty"`
		Subject      digest.Digest `json:"j,omitempty"`
		At           int64         `json:"a"`
		By           string        `json:"b,omitempty"`
	}
	// tagRecord is what a tag points to.
	tagRecord struct {
		Digest digest.Digest `json:"d"`
		At     int64         `json:"a"` // Unix nanoseconds
		By     string        `json:"b,omitempty"`
	}
	// hint is a record whose key says it all.
	hint struct {
		At int64 `json:"a"`
	}
)

// encode writes a value: structs of strings and numbers, which cannot fail.
func encode(v any) []byte {
	text, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("encode record: %v", err))
	}
	return text
}

// read gets a record and decodes its value. ok is false when there is none.
func read[T any](ctx context.Context, l Ledger, key string) (value T, version string, ok bool, err error) {
	r, err := l.Get(ctx, key)
	if errors.Is(err, store.ErrNoRecord) {
		return value, "", false, nil
	}
	if err != nil {
		return value, "", false, err
	}
	value, err = decode[T](r)
	return value, r.Version, err == nil, err
}

// decode reads the value of a record.
func decode[T any](r store.Record) (value T, err error) {
	if err := json.Unmarshal(r.Value, &value); err != nil {
		return value, fmt.Errorf("decode record %q: %w", r.Key, err)
	}
	return value, nil
}

// write makes a record say value, whoever wrote it before.
func (c *Central) write(ctx context.Context, key string, value any) error {
	for {
		now, err := c.ledger.Get(ctx, key)
		switch {
		case errors.Is(err, store.ErrNoRecord):
			err = c.ledger.Create(ctx, key, encode(value))
		case err == nil:
			err = c.ledger.Swap(ctx, key, encode(value), now.Version)
		}
		if !errors.Is(err, store.ErrConflict) {
			return err
		}
	}
}

// ensure makes a record if there is none.
func (c *Central) ensure(ctx context.Context, key string, value any) error {
	_, err := c.ledger.Get(ctx, key)
	if errors.Is(err, store.ErrNoRecord) {
		err = c.ledger.Create(ctx, key, encode(value))
	}
	if errors.Is(err, store.ErrConflict) {
		return nil
	}
	return err
}

// remove removes a record if there is one, whatever it says. It reports whether
// there was one.
func (c *Central) remove(ctx context.Context, key string) (bool, error) {
	for {
		now, err := c.ledger.Get(ctx, key)
		if errors.Is(err, store.ErrNoRecord) {
			return false, nil
		}
		if err == nil {
			err = c.ledger.Delete(ctx, key, now.Version)
		}
		if !errors.Is(err, store.ErrConflict) {
			return err == nil, err
		}
	}
}

// manifestRepository reads the key of an image manifest.
func manifestRepository(key string) (repository string, ok bool) {
	rest, ok := strings.CutPrefix(key, "repos/")
	repository, _, found := strings.Cut(rest, "/_manifests/")
	return repository, ok && found
}
