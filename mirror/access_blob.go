package mirror

import (
	"context"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/internal/oci"
)

// maxVouchers bounds the blobs remembered for which another repository speaks
// than the one they are asked under.
const maxVouchers = 8192

// mayHave reports, as an error, whether the caller may have a blob the store
// holds under the name of the repository granted. The upstream is asked where
// nothing else tells.
func (m *Mirror) mayHave(ctx context.Context, g grant, dgst digest.Digest) error {
	m.awaitLink(ctx, g.name, dgst)
	if m.readable(g.name, dgst) {
		m.recheck(g, func(ctx context.Context) error {
			_, err := m.upstream.StatBlob(ctx, g.name, dgst)
			return err
		})
		return nil
	}
	if g.must {
		if err := m.proveBlob(ctx, g, dgst); err != nil {
			return err
		}
	}
	if !g.admits() {
		return errUnproven
	}
	if m.vouchedFor(g.name, dgst) {
		return nil
	}
	if g.mute {
		return errUnproven
	}
	// The caller may have what the repository holds, which has yet to be said
	// of this blob.
	_, err := m.statUpstream(g.lasting().with(ctx), g, dgst)
	return err
}

// awaitLink waits for a fill that has just committed a blob to note that its
// repository holds it, so that the upstream is not asked about that again.
func (m *Mirror) awaitLink(ctx context.Context, name oci.Name, dgst digest.Digest) {
	m.fills.mu.Lock()
	f := m.fills.of[dgst]
	m.fills.mu.Unlock()
	if f == nil || f.name != name {
		return
	}
	select {
	case <-f.done:
	case <-ctx.Done():
	}
}

// mayFetch reports, as an error, whether a blob may be brought in for the
// caller. Where nothing is known of the repository, bringing it in will tell.
func (m *Mirror) mayFetch(ctx context.Context, g grant, dgst digest.Digest) error {
	if g.mute {
		return errUnproven
	}
	if !g.must || !g.closed() {
		return nil
	}
	if err := m.proveBlob(ctx, g, dgst); err != nil {
		return err
	}
	if !g.admits() {
		return errUnproven
	}
	return nil
}

// mayFollow reports, as an error, whether the caller may have what an opened
// fill brings in. For one of a repository that not everybody may read, the
// repository granted has to vouch itself. A fill that resumes a partial which
// lacks nothing asks the upstream nothing: then that has yet to be done.
func (m *Mirror) mayFollow(ctx context.Context, g grant, f *fill) error {
	s := m.gate.standing(f.name)
	if s.open() {
		return nil
	}
	if !s.closed() {
		if err := m.proveBlob(ctx, g, f.dgst); err != nil {
			return err
		}
	}
	if f.name != g.name {
		if _, err := m.statUpstream(g.lasting().with(ctx), g, f.dgst); err != nil {
			return err
		}
	}
	if !g.admits() {
		return errUnproven
	}
	return nil
}

// vouchedFor reports whether a repository is known to hold a blob the store
// holds: it is linked to it, or its fill is about to be.
func (m *Mirror) vouchedFor(name oci.Name, dgst digest.Digest) bool {
	if _, err := m.store.Linked(name, dgst); err == nil {
		return true
	}
	m.fills.mu.Lock()
	f := m.fills.of[dgst]
	m.fills.mu.Unlock()
	if f != nil {
		return f.name == name
	}
	_, err := m.store.Linked(name, dgst) // the fill may just have ended
	return err == nil
}

// proveBlob has the upstream say whether the caller may have a blob.
func (m *Mirror) proveBlob(ctx context.Context, g grant, dgst digest.Digest) error {
	return m.prove(ctx, g, func(ctx context.Context) error {
		desc, err := m.upstream.StatBlob(ctx, g.name, dgst)
		if err == nil {
			m.vouch(g.name, desc)
		}
		return err
	})
}

// vouch notes that the upstream has a blob in a repository, if the store holds
// it. What is linked already stays as it is: it may be an image manifest.
func (m *Mirror) vouch(name oci.Name, desc oci.Descriptor) {
	if _, err := m.store.Linked(name, desc.Digest); err == nil {
		return
	}
	if _, err := m.store.Stat(desc.Digest); err != nil {
		return
	}
	if err := m.link(name, oci.Descriptor{Digest: desc.Digest, Size: desc.Size}); err != nil {
		m.log.WithError(err).WithFields(fields(name, desc.Digest)).Debug("blob could not be noted as the repository's")
	}
}

// readable reports whether everybody may read a blob the store holds: because
// the repository it is asked under is open and vouches for it, or because
// another one is and does.
func (m *Mirror) readable(name oci.Name, dgst digest.Digest) bool {
	g := m.gate
	speaks := func(name oci.Name) bool {
		return g.standing(name).open() && m.vouchedFor(name, dgst)
	}
	if speaks(name) {
		return true
	}
	if voucher, ok := g.voucher(dgst); ok && speaks(voucher) {
		return true
	}
	for _, other := range m.store.Vouchers(dgst) {
		if g.standing(other).open() {
			g.noteVoucher(dgst, other)
			return true
		}
	}
	return false
}

// voucher is the open repository that spoke for dgst last.
func (g *gate) voucher(dgst digest.Digest) (oci.Name, bool) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	name, ok := g.vouchers[dgst]
	return name, ok
}

func (g *gate) noteVoucher(dgst digest.Digest, name oci.Name) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.vouchers == nil || len(g.vouchers) >= maxVouchers {
		g.vouchers = make(map[digest.Digest]oci.Name)
	}
	g.vouchers[dgst] = name
}
