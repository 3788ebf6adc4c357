package mirror

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/internal/oci"
)

// warmParallel is how many blobs of an image are warmed at a time.
const warmParallel = 3

// Warm brings in an image as a client's pull does, before any client pulls it:
// the image manifest that ref names now, the one for platform
// ("os/architecture") where that is an index, its config and its layers. What is
// held already costs nothing but the question whether a tag has moved.
//
// It fails when the image cannot be had or cannot be kept, and when ctx is done;
// what was brought in by then stays. Private images that only callers'
// credentials fetch are refused.
func (m *Mirror) Warm(ctx context.Context, ref oci.Reference, platform string) error {
	l, isIndex, err := m.list(ctx, ref)
	if err == nil && isIndex {
		child := oci.Reference{Name: ref.Name}
		if child.Digest, err = l.choose(platform); err == nil {
			l, isIndex, err = m.list(ctx, child)
		}
		if err == nil && isIndex {
			err = errors.New("the index lists another index for the platform")
		}
	}
	if err == nil {
		err = m.warmBlobs(ctx, ref.Name, l.blobs())
	}
	if err != nil {
		return fmt.Errorf("warm %s: %w", ref, err)
	}
	return nil
}

// list fetches an index or image manifest and reads what it lists.
func (m *Mirror) list(ctx context.Context, ref oci.Reference) (l listed, isIndex bool, err error) {
	manifest, err := m.Manifest(oci.WithAccess(ctx, &oci.Access{}), ref)
	if err != nil {
		return l, false, err
	}
	if err := json.Unmarshal(manifest.Bytes, &l); err != nil {
		return l, false, fmt.Errorf("read image manifest: %w", err)
	}
	return l, oci.IsIndexType(manifest.MediaType), nil
}

// choose returns the image manifest an index lists for a platform.
func (l listed) choose(platform string) (digest.Digest, error) {
	var others []string
	for _, child := range l.Manifests {
		is := child.Platform.OS + "/" + child.Platform.Architecture
		if is == platform && child.Digest.Validate() == nil {
			return child.Digest, nil
		}
		others = append(others, is)
	}
	return "", fmt.Errorf("no image for %s, only for %s", platform, strings.Join(others, ", "))
}

// warmBlobs brings in config and layers. Its goroutines end with their blob.
func (m *Mirror) warmBlobs(ctx context.Context, name oci.Name, blobs []digest.Digest) error {
	errs := make([]error, len(blobs))
	slots := make(chan struct{}, warmParallel)
	var group sync.WaitGroup
	for i, dgst := range blobs {
		slots <- struct{}{}
		group.Go(func() {
			defer func() { <-slots }()
			errs[i] = m.warmBlob(ctx, name, dgst)
		})
	}
	group.Wait()
	return errors.Join(errs...)
}

// warmBlob follows a blob's fill to its end without reading what it brings.
func (m *Mirror) warmBlob(ctx context.Context, name oci.Name, dgst digest.Digest) error {
	if err := dgst.Validate(); err != nil {
		return fmt.Errorf("image manifest lists a blob %q: %w", dgst, err)
	}
	blob, err := m.Blob(oci.WithAccess(ctx, &oci.Access{Taken: true}), name, dgst)
	if err != nil {
		return err
	}
	defer blob.Close()
	fw, filling := blob.(*follower)
	if filling {
		select {
		case <-fw.f.done:
			err = fw.f.failure()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if err != nil {
		return err
	}
	if _, err := m.store.Stat(dgst); err != nil {
		return fmt.Errorf("blob %s could not be kept: %w", dgst, err)
	}
	return nil
}
