package auth

import (
	"net/netip"
	"sync"
	"time"
)

// limiter bounds how often logins may fail. A failed login takes one from the
// bucket of its peer and user, and one from its peer's; while either is empty,
// logins from there are refused unchecked. Only failures count, however many
// right logins come at once; and since few are checked at a time, few more can
// fail than there is room for. Credentials that were found right in the last
// minutes never come here, so that a stranger behind the same address cannot
// lock out who works there.
type limiter struct {
	now func() time.Time

	mu      sync.Mutex
	buckets map[bucketKey]*bucket
}

// bucketKey has an empty user for the peer's own bucket, else "user " and the
// name.
type bucketKey struct {
	peer netip.Prefix
	user string
}

type bucket struct {
	left   float64
	filled time.Time
	// told: the log knows that this bucket is empty.
	told bool
}

const (
	// perUser failures are forgiven at once, and one more each refillUser.
	perUser    = 10
	refillUser = 6 * time.Second
	// perPeer is the same for all users one address tries.
	perPeer    = 60
	refillPeer = time.Second
	// maxBuckets bounds the memory a flood of addresses and names takes.
	maxBuckets = 20_000
)

func newLimiter(now func() time.Time) *limiter {
	return &limiter{now: now, buckets: map[bucketKey]*bucket{}}
}

// bound is one of the buckets a login uses.
type bound struct {
	key    bucketKey
	most   float64
	refill time.Duration
}

// boundsOf gives the peer's own first: names are as many as a stranger likes to
// invent.
func boundsOf(peer netip.Addr, user string) [2]bound {
	network := networkOf(peer)
	if len(user) > maxUserName {
		user = user[:maxUserName]
	}
	return [2]bound{
		{bucketKey{network, ""}, perPeer, refillPeer},
		{bucketKey{network, "user " + user}, perUser, refillUser},
	}
}

// refused says how long a login has to wait, zero if it does not. news is true
// for the first refusal since a login last failed.
func (l *limiter) refused(peer netip.Addr, user string) (wait time.Duration, news bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	for _, bound := range boundsOf(peer, user) {
		b := l.buckets[bound.key]
		if b == nil {
			continue
		}
		b.fill(bound, now)
		if b.left < 1 {
			news, b.told = !b.told, true
			return time.Duration((1 - b.left) * float64(bound.refill)), news
		}
	}
	return 0, false
}

// failed counts a failure.
func (l *limiter) failed(peer netip.Addr, user string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	for _, bound := range boundsOf(peer, user) {
		b := l.buckets[bound.key]
		if b == nil {
			if len(l.buckets) >= maxBuckets {
				l.makeRoom(now)
			}
			b = &bucket{left: bound.most, filled: now}
			l.buckets[bound.key] = b
		}
		b.fill(bound, now)
		b.left = max(0, b.left-1)
		b.told = false
	}
}

// fill brings the bucket up to now.
func (b *bucket) fill(bound bound, now time.Time) {
	if passed := now.Sub(b.filled); passed > 0 {
		b.left = min(bound.most, b.left+float64(passed)/float64(bound.refill))
	}
	b.filled = now
}

// makeRoom drops buckets that have had the time to fill, or else any one. It
// looks at a few only, since strangers make it work.
func (l *limiter) makeRoom(now time.Time) {
	looked := 0
	for key, b := range l.buckets {
		if looked++; looked > 64 {
			break
		}
		if now.Sub(b.filled) > perUser*refillUser {
			delete(l.buckets, key)
		}
	}
	if len(l.buckets) < maxBuckets {
		return
	}
	for key := range l.buckets {
		delete(l.buckets, key)
		return
	}
}

// networkOf is whose bucket an address uses: its own, or for IPv6 its /64,
// which one host has all of.
func networkOf(peer netip.Addr) netip.Prefix {
	peer = peer.Unmap().WithZone("")
	bits := peer.BitLen()
	if peer.Is6() {
		bits = 64
	}
	prefix, _ := peer.Prefix(bits) // an address nobody knows has a bucket, too
	return prefix
}
