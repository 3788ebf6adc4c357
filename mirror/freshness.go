package mirror

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/larder-registry/larder/internal/oci"
	"github.com/larder-registry/larder/internal/tracing"
	"github.com/larder-registry/larder/store"
)

// What a tag is answered with (design: "Freshness"):
//
//	confirmed within revalidate_after   what is held
//	upstream says the same digest       what is held
//	upstream says another digest        the new image manifest, fetched and kept
//	upstream says 404                   404, and the tag is forgotten
//	upstream says 401 or 403            that, or a challenge: access.go
//	upstream says 429, 5xx or nothing   what is held if it was confirmed within
//	                                    stale_if_error, else 503
//
// Requests for the same tag share one check. A request for a tag that is held
// waits for it no longer than the revalidate timeout, and not at all while its
// registry is known to be silent: the check goes on without it.

// check is one asking of an upstream about one reference, shared by all who
// want to know. manifest and err are set when done is closed.
type check struct {
	done chan struct{}
	span tracing.Span // requests that join the check link to it
	// taken: a client waits for the content, and what it lists comes next.
	taken    atomic.Bool
	manifest oci.Manifest
	err      error
}

// checks are the checks under way, and the registries that kept one waiting.
type checks struct {
	mu     sync.Mutex
	of     map[string]*check
	silent map[string]int // registry → checks that outlasted the revalidate timeout
}

// join returns the check under way for key, or the one that start makes.
func (cs *checks) join(key string, start func(*check) bool) (c *check, started bool) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if c := cs.of[key]; c != nil {
		return c, false
	}
	c = &check{done: make(chan struct{})}
	if !start(c) {
		c.err = errClosing
		close(c.done)
		return c, true
	}
	if cs.of == nil {
		cs.of, cs.silent = make(map[string]*check), make(map[string]int)
	}
	cs.of[key] = c
	return c, true
}

// finish publishes a check's word.
func (cs *checks) finish(key string, c *check) {
	cs.mu.Lock()
	delete(cs.of, key)
	cs.mu.Unlock()
	close(c.done)
}

// isSilent reports whether the registry has kept a check waiting for longer
// than the revalidate timeout and has not answered any since.
func (cs *checks) isSilent(registry string) bool {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	return cs.silent[registry] > 0
}

// noteSilent marks the registry silent until c is done.
func (m *Mirror) noteSilent(registry string, c *check) {
	m.checks.mu.Lock()
	m.checks.silent[registry]++
	m.checks.mu.Unlock()
	// Ends with the check, which is bounded by the upstream client's timeouts.
	m.tasks.run(func(context.Context) {
		<-c.done
		m.checks.mu.Lock()
		defer m.checks.mu.Unlock()
		if m.checks.silent[registry]--; m.checks.silent[registry] == 0 {
			delete(m.checks.silent, registry)
		}
	})
}

// byTag answers for a tag according to the table above.
func (m *Mirror) byTag(ctx context.Context, ref oci.Reference, g grant, access *oci.Access) (oci.Manifest, error) {
	tag, manifest, err := m.heldTag(ref)
	if err != nil {
		return m.unheld(ctx, ref, g, access)
	}
	age := m.now().Sub(tag.Confirmed)
	// What is held may go out although nobody confirms it.
	servable := age < m.staleIfError && (!g.must || g.grace)
	switch {
	case m.offline && (!g.must || g.grace):
		return m.stale(ref, manifest, age, "offline", access), nil
	case m.offline:
		return oci.Manifest{}, errOffline
	case age < m.revalidateAfter && !g.must:
		access.Outcome = oci.OutcomeHit
		return manifest, nil
	case g.mute && servable:
		return m.stale(ref, manifest, age, "shared", access), nil
	case g.mute:
		return oci.Manifest{}, errUnproven
	}
	c, _ := m.check(ctx, ref, g, &manifest)
	if access.Taken {
		c.taken.Store(true)
	}
	if servable && m.checks.isSilent(ref.Registry) {
		return m.stale(ref, manifest, age, "timeout", access), nil
	}
	patience := time.NewTimer(m.revalidateTimeout)
	defer patience.Stop()
	timeout := patience.C
	if !servable {
		timeout = nil
	}
	asked := m.now()
	select {
	case <-c.done:
		access.Upstream = m.now().Sub(asked)
	case <-timeout:
		m.noteSilent(ref.Registry, c)
		return m.stale(ref, manifest, age, "timeout", access), nil
	case <-ctx.Done():
		return oci.Manifest{}, ctx.Err()
	}
	switch {
	case c.err == nil && c.manifest.Digest == manifest.Digest:
		access.Outcome = oci.OutcomeHit
		return c.manifest, nil
	case c.err == nil:
		access.Outcome = oci.OutcomeFill
		return c.manifest, nil
	case servable && (excusesStale(c.err) || g.shared && unlet(c.err)):
		return m.stale(ref, manifest, age, oci.Reason(c.err), access), nil
	default:
		return oci.Manifest{}, c.err
	}
}

// heldTag returns what the mirror holds under a tag, all of it or an error.
func (m *Mirror) heldTag(ref oci.Reference) (store.Tag, oci.Manifest, error) {
	tag, err := m.store.Tag(ref)
	if err != nil {
		return store.Tag{}, oci.Manifest{}, err
	}
	manifest, err := m.held(ref.Name, tag.Digest, m.now())
	return tag, manifest, err
}

// stale serves what is held although its upstream did not confirm it.
func (m *Mirror) stale(ref oci.Reference, manifest oci.Manifest, age time.Duration, reason string, access *oci.Access) oci.Manifest {
	access.Outcome, access.Reason, access.Age = oci.OutcomeStale, reason, age
	m.metrics.stale(ref.Registry, reason)
	return manifest
}

// excusesStale reports whether err is the upstream's trouble rather than its
// answer.
func excusesStale(err error) bool {
	return !isRefusal(err) && !errors.Is(err, oci.ErrManifestUnknown)
}

// check joins the check of ref, or starts one as a task of the mirror's; held is
// what the mirror has under a tag, if anything. Of ctx it takes no more than the
// span.
func (m *Mirror) check(ctx context.Context, ref oci.Reference, g grant, held *oci.Manifest) (c *check, started bool) {
	key := ref.String() + g.key()
	parent := tracing.SpanOf(ctx)
	c, started = m.checks.join(key, func(c *check) bool {
		c.span = startSpan(parent, "check", ref.Name, ref.Digest, tracing.String("larder.tag", ref.Tag))
		return m.tasks.run(func(ctx context.Context) {
			defer m.checks.finish(key, c)
			defer func() { endSpan(c.span, c.err) }()
			ctx = c.span.With(ctx)
			target := ref.Target() + g.key()
			if c.err = m.failures.recall(ref.Name, target); c.err != nil {
				return
			}
			c.manifest, c.err = m.ask(g.with(ctx), ref, g, held, c)
			if c.err != nil {
				m.failures.remember(ref.Name, target, c.err)
			}
		})
	})
	if !started {
		parent.Link(c.span)
	}
	return c, started
}

// ask asks the upstream about ref, fetches what is new and brings the store up
// to date. Content goes first, the tag last, and so they come to disk: a crash
// between the two leaves content nobody refers to, never a tag without content.
func (m *Mirror) ask(ctx context.Context, ref oci.Reference, g grant, held *oci.Manifest, c *check) (oci.Manifest, error) {
	fetch := ref
	if held != nil {
		desc, err := m.upstream.Resolve(ctx, ref)
		if err != nil {
			return oci.Manifest{}, m.forgetIfGone(ref, err)
		}
		if desc.Digest == held.Digest {
			m.store.ConfirmTag(ref, m.now())
			return *held, nil
		}
		fetch.Tag, fetch.Digest = "", desc.Digest
	}
	manifest, err := m.vouched(ctx, fetch)
	if fetch != ref && errors.Is(err, oci.ErrManifestUnknown) {
		// The tag moved on, or its HEAD named a digest that is not there.
		manifest, err = m.upstream.Manifest(ctx, ref)
	}
	if err != nil {
		return oci.Manifest{}, m.forgetIfGone(ref, err)
	}
	if c.taken.Load() {
		m.lookAhead(ctx, g, manifest)
	}
	if m.keep(ctx, ref.Name, manifest) && ref.Tag != "" {
		if err := m.store.SetTag(ref, store.Tag{Descriptor: manifest.Descriptor, Confirmed: m.now()}); err != nil {
			m.log.WithError(err).WithFields(fields(ref.Name, manifest.Digest)).Warn("tag could not be kept")
		}
	}
	return manifest, nil
}

// vouched returns ref's image manifest with the upstream's word that the
// repository holds it. Bytes that are on disk for another repository's sake are
// not fetched again.
func (m *Mirror) vouched(ctx context.Context, ref oci.Reference) (oci.Manifest, error) {
	if ref.Digest == "" {
		return m.upstream.Manifest(ctx, ref)
	}
	if _, err := m.store.Stat(ref.Digest); err == nil {
		desc, err := m.upstream.Resolve(ctx, ref)
		if err != nil {
			return oci.Manifest{}, err
		}
		if desc.Digest == ref.Digest && m.link(ref.Name, desc) == nil {
			if manifest, err := m.held(ref.Name, ref.Digest, m.now()); err == nil {
				return manifest, nil
			}
		}
	}
	return m.upstream.Manifest(ctx, ref)
}

// forgetIfGone drops a tag whose upstream says that it is gone.
func (m *Mirror) forgetIfGone(ref oci.Reference, err error) error {
	if ref.Tag == "" || !errors.Is(err, oci.ErrManifestUnknown) && !errors.Is(err, oci.ErrNameUnknown) {
		return err
	}
	if e := m.store.DeleteTag(ref); e != nil {
		m.log.WithError(e).WithField("reference", ref.String()).Warn("forget tag")
	}
	return err
}
