package mirror

import (
	"context"
	"crypto/rand"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/sirupsen/logrus"

	"github.com/larder-registry/larder/internal/oci"
	"github.com/larder-registry/larder/store"
)

// Who may have what the mirror holds (design: "Access to private content"). What
// is known of each repository decides:
//
//	public    its upstream asks for no credentials       everybody
//	node      the configured credentials fetch it        everybody
//	proof     the same, where callers have to prove      callers with a proof
//	          that they may have it (access: caller)
//	private   only callers' own credentials fetch it     callers with a proof
//	unknown   nobody asked yet, or it was lost           the upstream is asked first
//
// A proof is that the upstream let this caller's credentials in for this
// repository a short while ago (proof.go). What is known is learnt from every
// answer of the upstream, and kept with the repository over a restart; losing it
// closes the repository until the upstream has been asked.
//
// A digest is no proof, and a repository that never held it no way to it: a
// blob goes out under the name of a repository only if that vouches for it
// (blob.go), or if it is part of one that everybody may read anyway.

// The values of Config.PrivateImages.
const (
	// PrivateChallenge asks callers for their credentials.
	PrivateChallenge = "challenge"
	// PrivateBypass serves no private content at all: it answers 404, and
	// clients go to the upstream.
	PrivateBypass = "bypass"
	// PrivateShared gives what one caller was let in for to everybody.
	PrivateShared = "shared"
)

const (
	// recheckAfter is how long a repository that everybody may read counts as
	// that while nothing but digests is asked of it, which the upstream need
	// not be asked about. Then it is asked, once an hour, and answers go out
	// meanwhile.
	recheckAfter = 24 * time.Hour
	recheckEvery = time.Hour
	// maxStandings bounds the repositories known in memory; what the store
	// holds something of is known there, too.
	maxStandings = 16384
	// maxMoves is how often one request follows what is learnt of its
	// repository while it is being answered.
	maxMoves = 4
)

// exposure is to whom a repository may be shown; its word is what is stored.
type exposure string

const (
	unknown exposure = ""
	public  exposure = "public"
	node    exposure = "node"
	proof   exposure = "proof"
	private exposure = "private"
)

// closed reports whether callers need a proof.
func (e exposure) closed() bool { return e == proof || e == private }

// open reports whether everybody may have it.
func (e exposure) open() bool { return e == public || e == node }

// standing is what is known of one repository.
type standing struct {
	exposure
	// at is when that was last heard.
	at time.Time
	// refused is when the upstream last refused who has no credentials of
	// their own.
	refused time.Time
	// rechecked and doubted are when recheck and confirm last asked.
	rechecked, doubted time.Time
}

// gate decides who may have what. Its methods may be called from any goroutine.
type gate struct {
	mode       string
	proofTTL   time.Duration
	proofGrace time.Duration
	nodeAccess func(oci.Name) bool
	offline    bool

	store   *store.Store
	now     func() time.Time
	log     *logrus.Entry
	metrics *metrics
	proofs  *proofs

	// learnt counts what was learnt: as long as it stays, so does what a grant
	// was made from.
	learnt atomic.Uint64

	mu sync.RWMutex
	of map[oci.Name]*standing
	// vouchers are open repositories, by a blob each vouches for.
	vouchers map[digest.Digest]oci.Name
}

// newGate makes the gate of a mirror whose other parts are there.
func newGate(m *Mirror, cfg Config) (*gate, error) {
	key := make([]byte, 32)
	if _, err := rand.Read(key); err != nil {
		return nil, fmt.Errorf("make key for proofs: %w", err)
	}
	g := &gate{
		mode:       cfg.PrivateImages,
		proofTTL:   orElse(cfg.ProofTTL, 10*time.Minute),
		proofGrace: orElse(cfg.ProofGrace, 24*time.Hour),
		nodeAccess: cfg.NodeAccess,
		offline:    cfg.Offline,
		store:      m.store, now: m.now, log: m.log, metrics: m.metrics,
		proofs: newProofs(key),
		of:     make(map[oci.Name]*standing),
	}
	switch g.mode {
	case "":
		g.mode = PrivateChallenge
	case PrivateChallenge, PrivateBypass, PrivateShared:
	default:
		return nil, fmt.Errorf("private images %q: unknown mode", g.mode)
	}
	if g.nodeAccess == nil {
		g.nodeAccess = func(oci.Name) bool { return true }
	}
	return g, nil
}

// standing returns what is known of name.
func (g *gate) standing(name oci.Name) standing {
	g.mu.RLock()
	s, ok := g.of[name]
	if ok {
		defer g.mu.RUnlock()
		return *s
	}
	g.mu.RUnlock()
	kept := g.store.Exposure(name)
	if kept.Kind == "" {
		return standing{}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return *g.entry(name)
}

// entry returns what is known of name to be changed; mu is held. What memory
// does not know comes from the store, unless the configuration no longer fits.
func (g *gate) entry(name oci.Name) *standing {
	if s, ok := g.of[name]; ok {
		return s
	}
	if len(g.of) >= maxStandings {
		clear(g.of)
	}
	s := &standing{}
	kept := g.store.Exposure(name)
	switch e := exposure(kept.Kind); {
	case e == public, e == private, e == node && g.nodeAccess(name), e == proof && !g.nodeAccess(name):
		s.exposure, s.at = e, kept.At
	}
	g.of[name] = s
	return s
}

// learn notes what an upstream's answer says about a repository.
func (g *gate) learn(name oci.Name, way oci.Way) {
	now := g.now()
	g.mu.Lock()
	s := g.entry(name)
	before := s.exposure
	switch way {
	case oci.WayAnonymous:
		s.exposure = public
	case oci.WayConfigured:
		s.exposure, s.refused = proof, now
		if g.nodeAccess(name) {
			s.exposure = node
		}
	case oci.WayCaller, oci.WayRefused:
		s.exposure, s.refused = private, now
	}
	s.at = now
	after := s.exposure
	g.learnt.Add(1)
	g.mu.Unlock()
	if before != after && before != unknown {
		g.log.WithFields(logrus.Fields{
			"registry": name.Registry, "repository": name.Repository, "was": string(before), "is": string(after),
		}).Info("who may read the repository has changed")
	}
	g.keep(name)
}

// keep has the store know what is known of name, if it holds something of it.
func (g *gate) keep(name oci.Name) {
	s := g.standing(name)
	if s.exposure == unknown {
		return
	}
	kept := g.store.Exposure(name)
	if kept.Kind == string(s.exposure) && s.at.Sub(kept.At) < recheckEvery {
		return
	}
	if err := g.store.SetExposure(name, store.Exposure{Kind: string(s.exposure), At: s.at}); err != nil {
		g.log.WithError(err).WithField("repository", name.String()).Warn("who may read the repository could not be kept; the upstream is asked again after a restart")
	}
}

// overdue reports whether the upstream should be asked again about a repository
// that everybody may read. It says so to one, and then not for a while.
func (r grant) overdue() bool {
	late := func(s standing) bool {
		return s.open() && r.now.Sub(s.at) >= recheckAfter && r.now.Sub(s.rechecked) >= recheckEvery
	}
	g := r.gate
	if g.offline || !late(r.standing) {
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.entry(r.name)
	if !late(*s) {
		return false
	}
	s.rechecked = r.now
	return true
}

// doubt reports whether it is worth finding out again who may read a repository
// that everybody could read: a refusal that is only one image's is not looked
// into with every request.
func (g *gate) doubt(name oci.Name) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.entry(name)
	if g.now().Sub(s.doubted) < rememberFor {
		return false
	}
	s.doubted = g.now()
	return s.open()
}

// recheck asks the upstream in the background about a repository of which only
// digests were asked for a long time. What the answer says about access is heard.
func (m *Mirror) recheck(g grant, ask func(context.Context) error) {
	if !g.overdue() {
		return
	}
	name := g.name
	// Ends with the question, which the upstream client's timeouts bound.
	m.tasks.run(func(ctx context.Context) {
		if err := ask(grant{gate: m.gate, name: name}.with(ctx)); unlet(err) {
			m.confirm(ctx, name, "")
		}
	})
}

// stillClosed reports whether it is time to find out if a repository that was
// closed lets everybody in by now. It says so to one, and then not for a while.
func (g *gate) stillClosed(name oci.Name) bool {
	now := g.now()
	late := func(s standing) bool {
		return s.closed() && now.Sub(s.refused) >= g.proofTTL && now.Sub(s.rechecked) >= rememberFor
	}
	if g.offline || !late(g.standing(name)) {
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.entry(name)
	if !late(*s) {
		return false
	}
	s.rechecked = now
	return true
}

// reopen asks the upstream in the background whether everybody may read a closed
// repository by now. Who came without credentials is not kept waiting for that.
func (m *Mirror) reopen(ref oci.Reference) {
	if !m.gate.stillClosed(ref.Name) {
		return
	}
	if ref.Tag == "" && ref.Digest == "" {
		tags, err := m.store.Tags(ref.Name, 1, "")
		if err != nil || len(tags) == 0 {
			return
		}
		ref.Tag = tags[0]
	}
	// Ends with the question, which the upstream client's timeouts bound.
	m.tasks.run(func(ctx context.Context) {
		if _, err := m.upstream.Resolve((grant{gate: m.gate, name: ref.Name}).with(ctx), ref); err != nil {
			m.log.WithError(err).WithField("repository", ref.Name.String()).Debug("repository is closed still")
		}
	})
}

// confirm finds out whether a repository that everybody could read is closed now
// that its upstream has refused something of it: a single image manifest may be
// forbidden. It asks for one or two of the tags held, but not for the one that
// was just refused.
func (m *Mirror) confirm(ctx context.Context, name oci.Name, refused string) {
	key := name.String() + " confirm"
	c, _ := m.checks.join(key, func(c *check) bool {
		// Ends with the questions, which the upstream client's timeouts bound.
		return m.tasks.run(func(ctx context.Context) {
			defer m.checks.finish(key, c)
			if !m.gate.doubt(name) {
				return
			}
			tags, _ := m.store.Tags(name, 2, "") // none is fine
			for _, tag := range tags {
				if tag == refused {
					continue
				}
				ap := oci.Approach{Heard: func(way oci.Way) {
					if way != oci.WayRefused {
						m.gate.learn(name, way)
					}
				}}
				_, err := m.upstream.Resolve(oci.WithApproach(ctx, ap), oci.Reference{Name: name, Tag: tag})
				if !unlet(err) {
					return
				}
			}
			m.gate.learn(name, oci.WayRefused)
		})
	})
	select {
	case <-c.done:
	case <-ctx.Done():
	}
}

// link notes that a repository vouches for content, and to whom it may be shown.
func (m *Mirror) link(name oci.Name, desc oci.Descriptor) error {
	err := m.store.Link(name, desc)
	m.gate.keep(name)
	return err
}

// admitted answers for something of a repository, a tag if it is not empty, by
// get. What an upstream says
// meanwhile may change what is known of the repository: then get is called
// again, with what the caller is granted now. get fails with errUnproven when it
// has what is wanted and the caller may not have it.
func (m *Mirror) admitted(ctx context.Context, ref oci.Reference, access *oci.Access, get func(grant) error) error {
	var err error
	var g grant
	for range maxMoves {
		g = m.gate.grant(ref.Name, access.Credential)
		if !g.brought && g.closed() {
			m.reopen(ref)
		}
		if g.refusal != nil {
			return g.deny(g.refusal)
		}
		if err = get(g); err == nil {
			return nil
		}
		if g.open() && unlet(err) && !unproven(err) {
			m.confirm(ctx, ref.Name, ref.Tag)
		}
		moved := unproven(err) || m.gate.standing(ref.Name).exposure != g.exposure
		if !unlet(err) || !moved || ctx.Err() != nil {
			break
		}
	}
	return g.deny(err)
}
