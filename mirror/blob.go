package mirror

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/internal/oci"
	"github.com/larder-registry/larder/internal/tracing"
)

// errClosing answers requests that come while the mirror is being closed.
var errClosing = &oci.Error{Code: oci.CodeUnavailable, Message: "the mirror is stopping", Reason: "stopping"}

// fills are the blobs being brought in: at most one fill a digest.
type fills struct {
	mu sync.Mutex
	of map[digest.Digest]*fill
}

// forget lets the next request for the blob start afresh.
func (fs *fills) forget(f *fill) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	delete(fs.of, f.dgst)
	f.m.metrics.fills.Dec()
}

// Blob opens a blob from disk, or follows the fill that brings it in. See
// oci.Reader for its errors.
func (m *Mirror) Blob(ctx context.Context, name oci.Name, dgst digest.Digest) (oci.Blob, error) {
	access := oci.AccessOf(ctx)
	m.bypassed.wanted(dgst)
	var blob oci.Blob
	err := m.admitted(ctx, oci.Reference{Name: name}, access, func(g grant) (err error) {
		blob, err = m.blob(ctx, g, dgst, access)
		return err
	})
	if err != nil {
		access.Outcome, access.Reason = oci.OutcomeMiss, oci.Reason(err)
		return nil, err
	}
	return blob, nil
}

func (m *Mirror) blob(ctx context.Context, g grant, dgst digest.Digest, access *oci.Access) (oci.Blob, error) {
	want, ranged := oci.Span{End: -1}, access.Range != nil
	if ranged {
		want = *access.Range
	}
	target := dgst.String() + g.key()
	for {
		if blob, err := m.store.Blob(dgst); err == nil {
			if err := m.mayHave(ctx, g, dgst); err != nil {
				_ = blob.Close() //nolint:errcheck // it was not read
				return nil, err
			}
			access.Outcome = oci.OutcomeHit
			return heldBlob{blob, m.log}, nil
		}
		if m.offline {
			return nil, errOffline
		}
		if err := m.mayFetch(ctx, g, dgst); err != nil {
			return nil, err
		}
		if err := m.failures.recall(g.name, target); err != nil {
			return nil, err
		}
		f, started, err := m.join(ctx, g, dgst, want, ranged)
		if err != nil {
			return nil, err
		}
		if f == nil {
			continue
		}
		blob, err := m.followOpened(g.with(ctx), f, access)
		switch {
		case err == nil:
			if err := m.mayFollow(ctx, g, f); err != nil {
				_ = blob.Close() //nolint:errcheck // it was not read
				return nil, err
			}
			if f.unkept == nil {
				access.Outcome = oci.OutcomeJoin
				if started {
					access.Outcome = oci.OutcomeFill
				}
			}
			return blob, nil
		case !started && f.isOthers(g) && isRefusal(err):
			// Another repository does not have it, or another caller may not;
			// this one may.
			<-f.done
		case errors.Is(err, errAbandoned):
			<-f.done
		default:
			m.failures.remember(g.name, target, err)
			return nil, err
		}
	}
}

// isOthers reports whether the fill asks for another repository, or on behalf of
// somebody else.
func (f *fill) isOthers(g grant) bool { return f.name != g.name || f.grant.who != g.who }

// join makes the caller a follower of the blob's fill, which is started if
// there is none; started also says that the caller is the first to follow one
// that was started ahead of it. It returns nil when the caller should look again: the store
// has the blob by now, or the fill it had is over.
func (m *Mirror) join(ctx context.Context, g grant, dgst digest.Digest, want oci.Span, ranged bool) (f *fill, started bool, err error) {
	wantsAll := want.Start == 0 && want.End < 0
	m.fills.mu.Lock()
	defer m.fills.mu.Unlock()
	if f := m.fills.of[dgst]; f != nil {
		if ok, first := f.join(wantsAll, ranged); ok {
			tracing.SpanOf(ctx).Link(f.span)
			return f, first, nil
		}
		m.fills.mu.Unlock()
		defer m.fills.mu.Lock()
		select {
		case <-f.done:
			return nil, false, nil
		case <-ctx.Done():
			return nil, false, ctx.Err()
		}
	}
	if _, err := m.store.Stat(dgst); err == nil {
		return nil, false, nil
	}
	f = newFill(m, g, dgst, tracing.SpanOf(ctx))
	f.join(wantsAll, ranged)
	if !m.begin(f, opening(want)) {
		f.leave()
		return nil, false, errClosing
	}
	return f, true, nil
}

// begin starts a fill with the bytes of want. It reports false when the mirror
// is closing. The caller holds fills.mu.
func (m *Mirror) begin(f *fill, want oci.Span) bool {
	if !m.tasks.run(func(ctx context.Context) { f.run(ctx, want) }) {
		return false
	}
	if m.fills.of == nil {
		m.fills.of = make(map[digest.Digest]*fill)
	}
	m.fills.of[f.dgst] = f
	m.metrics.fills.Inc()
	return true
}

// opening turns what a request wants into what a fill asks for first: all of
// the blob if it is read from its start, else a segment around the bytes
// wanted. Bytes counted from the end need the size first, which comes with a few.
func opening(want oci.Span) oci.Span {
	switch {
	case want.Start < 0:
		return oci.Span{End: smallBuffer}
	case want.Start == 0 && want.End < 0:
		return oci.Span{End: -1}
	case want.End < 0:
		return oci.Span{Start: want.Start, End: want.Start + segment}
	default:
		return oci.Span{Start: want.Start, End: max(want.Start+1, min(want.End, want.Start+segment))}
	}
}

// followOpened waits until the fill is opened and returns a reader of it. The
// caller has joined; when no reader comes of it, that is undone.
func (m *Mirror) followOpened(ctx context.Context, f *fill, access *oci.Access) (oci.Blob, error) {
	asked := m.now()
	select {
	case <-f.opened:
		access.Upstream = m.now().Sub(asked)
	case <-ctx.Done():
		f.leave()
		return nil, ctx.Err()
	}
	blob, err := m.follow(ctx, f, access)
	if err != nil {
		f.leave()
		return nil, err
	}
	return blob, nil
}

// follow returns a reader of an opened fill, or one that goes past it when the
// blob cannot be kept.
func (m *Mirror) follow(ctx context.Context, f *fill, access *oci.Access) (oci.Blob, error) {
	if err := f.failure(); err != nil {
		return nil, err
	}
	if f.unkept == nil {
		blob, err := f.follow(ctx)
		if err == nil {
			return blob, nil
		}
		// The fill was over before it could be followed.
		return nil, cmp.Or(f.failure(), errAbandoned)
	}
	access.Outcome, access.Reason = oci.OutcomePass, "disk"
	m.log.WithError(f.unkept).WithFields(fields(f.name, f.dgst)).Debug("blob passes through")
	f.leave()
	return newPassage(f.dgst, f.size, m.opener(ctx, f.name, f.dgst)), nil
}

// isRefusal reports whether an upstream said no, rather than nothing.
func isRefusal(err error) bool {
	return errors.Is(err, oci.ErrBlobUnknown) || errors.Is(err, oci.ErrNameUnknown) ||
		errors.Is(err, oci.ErrUnauthorized) || errors.Is(err, oci.ErrDenied)
}

// StatBlob says what a blob is, from disk or by asking the upstream.
func (m *Mirror) StatBlob(ctx context.Context, name oci.Name, dgst digest.Digest) (oci.Descriptor, error) {
	access := oci.AccessOf(ctx)
	var desc oci.Descriptor
	err := m.admitted(ctx, oci.Reference{Name: name}, access, func(g grant) (err error) {
		if desc, err = m.store.Stat(dgst); err == nil {
			access.Outcome = oci.OutcomeHit
			return m.mayHave(ctx, g, dgst)
		}
		access.Outcome = oci.OutcomePass
		if desc, err = m.statUpstream(g.with(ctx), g, dgst); err == nil && !g.admits() {
			err = errUnproven
		}
		return err
	})
	if err != nil {
		access.Outcome, access.Reason = oci.OutcomeMiss, oci.Reason(err)
		return oci.Descriptor{}, err
	}
	return desc, nil
}

// statUpstream asks the upstream for a blob, which is then vouched for if the
// store holds it.
func (m *Mirror) statUpstream(ctx context.Context, g grant, dgst digest.Digest) (oci.Descriptor, error) {
	if m.offline {
		return oci.Descriptor{}, errOffline
	}
	target := dgst.String() + g.key()
	if err := m.failures.recall(g.name, target); err != nil {
		return oci.Descriptor{}, err
	}
	desc, err := m.upstream.StatBlob(ctx, g.name, dgst)
	if err == nil && desc.Size < 0 {
		desc.Size, err = m.sizeOf(ctx, g.name, dgst, oci.Body{Size: -1})
	}
	if err != nil {
		m.failures.remember(g.name, target, err)
		return oci.Descriptor{}, fmt.Errorf("stat blob %s: %w", dgst, err)
	}
	m.vouch(g.name, desc)
	return desc, nil
}

// sizeOf finds out how large a blob is whose body has been opened: from the
// body, from the image manifest that listed it, or by asking once more. A blob
// of unknown size cannot be answered with an exact length, so it is not.
func (m *Mirror) sizeOf(ctx context.Context, name oci.Name, dgst digest.Digest, body oci.Body) (int64, error) {
	if body.Size >= 0 {
		return body.Size, nil
	}
	if size := m.sizes.recall(name, dgst); size >= 0 {
		return size, nil
	}
	desc, err := m.upstream.StatBlob(ctx, name, dgst)
	if err == nil && desc.Size < 0 {
		err = errors.New("it says no length")
	}
	if err != nil {
		e := oci.Errorf(oci.ErrUnavailable, "upstream did not say how large %s is: %v", dgst, err)
		e.Reason = "length"
		return 0, e
	}
	return desc.Size, nil
}
