package auth

import (
	"net/netip"
	"sync"
	"time"
)

// limiter bounds how often logins may fail. A login takes one from the bucket
// of its peer and user, and one from its peer's, and gets both back when it
// turns out right. Credentials that were found right in the last minutes never
// come here, so that a stranger behind the same address cannot lock out who
// works there.
type limiter struct {
	now func() time.Time

	mu      sync.Mutex
	buckets map[bucketKey]*bucket
}

// bucketKey has an empty user for the peer's own bucket.
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

// attempt is a login whose end the limiter waits for.
type attempt struct {
	l    *limiter
	keys [2]bucketKey
}

// begin admits an attempt, or says how long to wait. news is true for the
// first refusal since the bucket was last used.
func (l *limiter) begin(peer netip.Addr, user string) (_ attempt, wait time.Duration, news bool) {
	at := attempt{l, [2]bucketKey{{networkOf(peer), user}, {networkOf(peer), ""}}}
	if len(user) > maxUserName {
		at.keys[0].user = user[:maxUserName]
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	// The peer's own first: names are as many as a stranger likes to invent.
	buckets := make([]*bucket, 0, 2)
	for _, b := range []struct {
		key    bucketKey
		most   float64
		refill time.Duration
	}{{at.keys[1], perPeer, refillPeer}, {at.keys[0], perUser, refillUser}} {
		found := l.bucket(b.key, b.most, b.refill, now)
		if found.left < 1 {
			news, found.told = !found.told, true
			return attempt{}, time.Duration((1 - found.left) * float64(b.refill)), news
		}
		buckets = append(buckets, found)
	}
	for _, b := range buckets {
		b.left--
		b.told = false
	}
	return at, 0, false
}

// right gives back what the attempt took.
func (at attempt) right() {
	at.l.mu.Lock()
	defer at.l.mu.Unlock()
	for _, key := range at.keys {
		if b := at.l.buckets[key]; b != nil {
			b.left++
		}
	}
}

// bucket finds or makes a bucket and fills it up to now.
func (l *limiter) bucket(key bucketKey, most float64, refill time.Duration, now time.Time) *bucket {
	b := l.buckets[key]
	if b == nil {
		if len(l.buckets) >= maxBuckets {
			l.makeRoom(now)
		}
		b = &bucket{left: most, filled: now}
		l.buckets[key] = b
	}
	if passed := now.Sub(b.filled); passed > 0 {
		b.left = min(most, b.left+float64(passed)/float64(refill))
	}
	b.filled = now
	return b
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
