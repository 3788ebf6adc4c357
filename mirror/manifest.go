package mirror

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/internal/oci"
	"github.com/larder-registry/larder/store"
)

// errOffline answers what is not held when no upstream may be asked: with 404
// the client goes elsewhere.
var errOffline = &oci.Error{Code: oci.CodeManifestUnknown, Message: "not held, and the mirror is set to be offline", Reason: "offline"}

// Manifest returns an image manifest or index. By digest it is immutable and
// comes from disk if it is there; by tag see freshness.go. See oci.Reader for
// the errors.
func (m *Mirror) Manifest(ctx context.Context, ref oci.Reference) (oci.Manifest, error) {
	access := oci.AccessOf(ctx)
	get := m.byTag
	if ref.Digest != "" {
		get = m.byDigest
	}
	var manifest oci.Manifest
	err := m.admitted(ctx, ref, access, func(g grant) (err error) {
		if manifest, err = get(ctx, ref, g, access); err == nil && !g.admits() {
			return errUnproven
		}
		if err == nil && access.Taken {
			m.lookAhead(ctx, g, manifest)
			m.bypassed.taken(ref.Name, manifest, g.now)
		}
		return err
	})
	if err != nil {
		access.Outcome, access.Reason = oci.OutcomeMiss, oci.Reason(err)
		return oci.Manifest{}, err
	}
	return manifest, nil
}

// byDigest serves from disk what the repository is known to hold, and has the
// upstream vouch for the rest.
func (m *Mirror) byDigest(ctx context.Context, ref oci.Reference, g grant, access *oci.Access) (oci.Manifest, error) {
	manifest, err := m.held(ref.Name, ref.Digest, g.now)
	if err != nil {
		return m.unheld(ctx, ref, g, access)
	}
	resolve := func(ctx context.Context) error {
		_, err := m.upstream.Resolve(ctx, ref)
		return err
	}
	if g.must {
		if err := m.prove(ctx, g, resolve); err != nil {
			return oci.Manifest{}, err
		}
	}
	m.recheck(g, resolve)
	access.Outcome = oci.OutcomeHit
	return manifest, nil
}

// unheld answers for a reference of which nothing is held.
func (m *Mirror) unheld(ctx context.Context, ref oci.Reference, g grant, access *oci.Access) (oci.Manifest, error) {
	switch {
	case m.offline:
		return oci.Manifest{}, errOffline
	case g.mute:
		return oci.Manifest{}, errUnproven
	}
	c, started := m.check(ctx, ref, g, nil)
	if access.Taken {
		c.taken.Store(true)
	}
	access.Outcome = oci.OutcomeJoin
	if started {
		access.Outcome = oci.OutcomeFill
	}
	asked := m.now()
	select {
	case <-c.done:
		access.Upstream = m.now().Sub(asked)
		return c.manifest, c.err
	case <-ctx.Done():
		return oci.Manifest{}, ctx.Err()
	}
}

// held returns an image manifest that is on disk, if the repository is known to
// hold it; from memory when it has been read lately.
func (m *Mirror) held(name oci.Name, dgst digest.Digest, now time.Time) (oci.Manifest, error) {
	desc, err := m.store.Use(name, dgst, now)
	if err != nil {
		return oci.Manifest{}, err
	}
	if manifest, ok := m.manifests.get(name, dgst); ok {
		return manifest, nil
	}
	blob, err := m.store.Blob(dgst)
	if err != nil {
		return oci.Manifest{}, err
	}
	defer blob.Close()
	desc.Size = blob.Descriptor().Size
	if desc.Size > oci.MaxManifestSize || !oci.IsManifestType(desc.MediaType) {
		return oci.Manifest{}, oci.ErrManifestUnknown
	}
	content := make([]byte, desc.Size)
	if _, err := io.ReadFull(blob, content); err != nil {
		return oci.Manifest{}, fmt.Errorf("read image manifest %s: %w", dgst, err)
	}
	manifest := oci.Manifest{Descriptor: desc, Bytes: content}
	m.manifests.put(name, manifest)
	m.noteSizes(name, manifest)
	return manifest, nil
}

// keep has the store keep an image manifest, which comes to disk a moment later,
// and notes that its repository holds it. That it cannot be kept is no reason not
// to serve it.
func (m *Mirror) keep(ctx context.Context, name oci.Name, manifest oci.Manifest) bool {
	m.noteSizes(name, manifest)
	err := m.store.Put(ctx, manifest.Descriptor, manifest.Bytes)
	if err == nil {
		err = m.link(name, manifest.Descriptor)
	}
	if err != nil && !errors.Is(err, store.ErrNoSpace) {
		m.log.WithError(err).WithFields(fields(name, manifest.Digest)).Warn("image manifest was served but could not be kept")
	}
	return err == nil
}

// noteSizes remembers the sizes an image manifest states for its blobs, and its
// own as a sign that this has been done. What does not parse states none.
func (m *Mirror) noteSizes(name oci.Name, manifest oci.Manifest) {
	if m.sizes.recall(name, manifest.Digest) >= 0 {
		return
	}
	m.sizes.note(name, manifest.Digest, manifest.Size)
	type descriptor struct {
		Digest digest.Digest `json:"digest"`
		Size   int64         `json:"size"`
	}
	var image struct {
		Config descriptor   `json:"config"`
		Layers []descriptor `json:"layers"`
	}
	if json.Unmarshal(manifest.Bytes, &image) != nil {
		return
	}
	for _, d := range append(image.Layers, image.Config) {
		if d.Size > 0 && d.Digest.Validate() == nil {
			m.sizes.note(name, d.Digest, d.Size)
		}
	}
}
