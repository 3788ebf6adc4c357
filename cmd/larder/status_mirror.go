package main

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/larder-registry/larder/internal/admin"
	"github.com/larder-registry/larder/internal/config"
	"github.com/larder-registry/larder/internal/oci"
	"github.com/larder-registry/larder/internal/status"
	"github.com/larder-registry/larder/mirror/upstream"
)

const (
	// listEvery is how often it is looked which images a mirror holds, while
	// somebody wants to know.
	listEvery = 10 * time.Second
	// maxShown bounds the fills and the endpoints shown.
	maxShown = 50
)

// status gives what the mirror says of itself; nil where nobody looks.
func (n *node) status(cfg config.RegistryProxies) admin.Status {
	if n.observer == nil {
		return nil
	}
	warm := map[string]bool{}
	for _, image := range cfg.Warm {
		if ref, err := oci.ParseReference(image); err == nil {
			warm[ref.String()] = true
		}
	}
	held := &status.Cache[*listing[status.Image]]{For: listEvery}
	return func(view status.View) *status.Document {
		doc, tally := n.observer.document("mirror", n.checks())
		doc.Disk = n.diskStatus()
		doc.Traffic = status.First(tally.traffic, maxShown)
		doc.Fills = n.mirror.Fills(maxShown)
		doc.Upstreams = status.First(upstreamStatus(n.upstream.State(), tally.remaining), maxShown)
		doc.Images = held.Get(func() *listing[status.Image] {
			images, total := n.mirror.Images()
			for i := range images {
				images[i].Warm = warm[images[i].Name()+":"+images[i].Tag] || warm[images[i].Name()+"@"+images[i].Digest]
			}
			return newListing(images, total-len(images), status.Select, func(i *status.Image) {
				if i.Repository != "" {
					i.Platforms, i.Listed = n.mirror.Platforms(i)
				}
			})
		}).view(view)
		return doc
	}
}

func (n *node) diskStatus() *status.Disk {
	stats, space := n.store.Stats(), n.store.Space()
	d := &status.Disk{
		Bytes: stats.CacheBytes, Arriving: stats.IngestBytes, Limit: stats.LimitBytes, Blobs: stats.Blobs,
		Free: space.Free, Total: space.Total, MinFree: space.MinFree, Evictions: stats.Evictions,
	}
	if err := n.store.Degraded(); err != nil {
		d.Problem = err.Error()
	}
	return d
}

// upstreamStatus tells how the endpoints are doing, those in trouble first.
func upstreamStatus(states map[string]upstream.EndpointState, remaining map[string]int64) []status.Upstream {
	list := make([]status.Upstream, 0, len(states))
	for endpoint, s := range states {
		u := status.Upstream{
			Endpoint: endpoint, Registry: s.Label, Breaker: s.Health.String(), Failures: s.Failures, Until: s.Until,
			QuietUntil: s.QuietUntil, Error: s.Error, Reason: s.Reason, ErrorAt: s.ErrorAt,
		}
		if n, ok := remaining[s.Label]; ok {
			u.Remaining = &n
		}
		list = append(list, u)
	}
	rank := func(u status.Upstream) int {
		switch {
		case u.Breaker == upstream.Open.String():
			return 0
		case u.Breaker == upstream.HalfOpen.String():
			return 1
		case u.Failures > 0 || !u.QuietUntil.IsZero():
			return 2
		}
		return 3
	}
	slices.SortFunc(list, func(a, b status.Upstream) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.Endpoint, b.Endpoint))
	})
	return list
}

// maxViews bounds the views of one listing that are kept.
const maxViews = 32

// listing is everything there was at one moment, and what was shown of it.
type listing[T any] struct {
	all []T
	// beyond is how many there are that are not in all.
	beyond int
	at     time.Time
	choose func([]T, status.View) *status.List[T]
	enrich func(*T) // for those that are shown
	mu     sync.Mutex
	chosen map[status.View]*status.List[T]
}

func newListing[T any](all []T, beyond int, choose func([]T, status.View) *status.List[T], enrich func(*T)) *listing[T] {
	return &listing[T]{all: all, beyond: beyond, at: time.Now(), choose: choose, enrich: enrich, chosen: map[status.View]*status.List[T]{}}
}

// view gives what a view shows. What is returned is the caller's, but not what
// Items holds.
func (l *listing[T]) view(v status.View) *status.List[T] {
	l.mu.Lock()
	defer l.mu.Unlock()
	list, ok := l.chosen[v]
	if !ok {
		list = l.choose(l.all, v)
		list.At = l.at
		if v.Find == "" {
			list.Total += l.beyond
		}
		if l.enrich != nil {
			for i := range list.Items {
				l.enrich(&list.Items[i])
			}
		}
		if len(l.chosen) == maxViews {
			clear(l.chosen)
		}
		l.chosen[v] = list
	}
	own := *list
	return &own
}
