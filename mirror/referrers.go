package mirror

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/internal/oci"
)

const (
	// referrersFresh is how long a list of referrers is served without asking.
	referrersFresh = 30 * time.Second
	// maxReferrers and maxReferrersSize bound the memory of the lists kept:
	// their number, and the size in bytes of one that is kept.
	maxReferrers     = 256
	maxReferrersSize = 64 << 10
)

// referrers are passed through and kept in memory for a moment: signatures and
// attestations are asked for again with every pull of an image.
type referrers struct {
	mu sync.Mutex
	of map[string]referrersAnswer
}

type referrersAnswer struct {
	manifest oci.Manifest
	at       time.Time
}

// Referrers lists what refers to dgst. A list the upstream gave lately is
// served again; an older one only while the upstream cannot be asked.
func (m *Mirror) Referrers(ctx context.Context, name oci.Name, dgst digest.Digest, artifactType string) (oci.Manifest, error) {
	access := oci.AccessOf(ctx)
	var list oci.Manifest
	err := m.admitted(ctx, oci.Reference{Name: name}, access, func(g grant) (err error) {
		if list, err = m.referrersOf(ctx, g, dgst, artifactType, access); err == nil && !g.admits() {
			return errUnproven
		}
		return err
	})
	if err != nil {
		access.Outcome, access.Reason = oci.OutcomeMiss, oci.Reason(err)
		return oci.Manifest{}, err
	}
	return list, nil
}

func (m *Mirror) referrersOf(ctx context.Context, g grant, dgst digest.Digest, artifactType string, access *oci.Access) (oci.Manifest, error) {
	name := g.name
	key := name.String() + "@" + dgst.String() + "?" + artifactType
	kept, have := m.referrers.get(key)
	age := m.now().Sub(kept.at)
	if have && age < referrersFresh && !g.must {
		access.Outcome = oci.OutcomeHit
		return kept.manifest, nil
	}
	err := error(errOffline)
	if !m.offline && !g.mute {
		var manifest oci.Manifest
		if manifest, err = m.upstream.Referrers(g.with(ctx), name, dgst, artifactType); err == nil {
			access.Outcome = oci.OutcomePass
			m.referrers.put(key, referrersAnswer{manifest: manifest, at: m.now()})
			return manifest, nil
		}
	}
	troubled := m.offline || errors.Is(err, oci.ErrUnavailable) || errors.Is(err, oci.ErrTooManyRequests)
	if have && (troubled || g.shared) && age < m.staleIfError && (!g.must || g.grace) {
		access.Outcome, access.Reason, access.Age = oci.OutcomeStale, oci.Reason(err), age
		m.metrics.stale(name.Registry, oci.Reason(err))
		return kept.manifest, nil
	}
	if g.mute {
		err = errUnproven
	}
	return oci.Manifest{}, err
}

func (r *referrers) get(key string) (referrersAnswer, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	a, ok := r.of[key]
	return a, ok
}

func (r *referrers) put(key string, a referrersAnswer) {
	if len(a.manifest.Bytes) > maxReferrersSize {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.of == nil || len(r.of) >= maxReferrers {
		r.of = make(map[string]referrersAnswer)
	}
	r.of[key] = a
}
