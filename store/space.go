package store

import (
	"errors"
	"fmt"
	"math"
	"sync"
	"time"
)

// room is how much there is and how much may be used, in bytes.
type room struct {
	known        bool // the file system said; else avail and total are 0
	avail, total int64
	max, minFree int64
}

// ratio is the free part of the file system, -1 when that is unknown.
func (r room) ratio() float64 {
	if !r.known || r.total == 0 {
		return -1
	}
	return float64(r.avail) / float64(r.total)
}

// statfsCache remembers what the file system said, for those who ask often.
type statfsCache struct {
	mu   sync.Mutex
	last room
	at   time.Time
}

// room returns how much room there is, not older than maxAge.
func (c *statfsCache) room(s *Store, maxAge time.Duration) room {
	c.mu.Lock()
	defer c.mu.Unlock()
	if maxAge > 0 && time.Since(c.at) < maxAge {
		return c.last
	}
	st, err := s.files.statfs(s.dir)
	r := room{known: err == nil}
	if r.known {
		unit := int64(st.Frsize) //nolint:unconvert // 32 bits on some machines
		if unit == 0 {
			unit = int64(st.Bsize) //nolint:unconvert // as above
		}
		r.avail, r.total = int64(min(st.Bavail, math.MaxInt64/uint64(unit)))*unit, int64(st.Blocks)*unit
	}
	switch {
	case s.maxSize.IsZero() && r.known:
		r.max = min(Percent(defaultMaxPercent).of(r.total), defaultMaxBytes)
	case s.maxSize.IsZero():
		r.max = defaultMaxBytes
	default:
		r.max = s.maxSize.of(r.total)
	}
	if s.minFree.IsZero() {
		r.minFree = Percent(defaultMinPercent).of(r.total)
	} else {
		r.minFree = s.minFree.of(r.total)
	}
	c.last, c.at = r, time.Now()
	return r
}

// ingestBytes is what running and partial ingests reserve. Store.mu is held.
func (s *Store) ingestBytes() int64 {
	var sum int64
	for _, i := range s.ingests {
		if !i.published {
			sum += i.size
		}
	}
	for _, p := range s.partials {
		sum += p.size
	}
	return sum
}

// promised is the part of running and partial ingests that has no blocks on
// disk yet, so that the file system still counts it as free. Store.mu is held.
func (s *Store) promised() int64 {
	var sum int64
	for _, i := range s.ingests {
		if !i.published && !i.reserved.Load() {
			sum += max(i.size-i.written.Load(), 0)
		}
	}
	return sum
}

// shortage says how many bytes have to go to be within the limits, and which
// limit it is: "size" or "free". What the file system says is not older than
// maxAge.
func (s *Store) shortage(maxAge time.Duration) (int64, string) {
	r := s.free.room(s, maxAge)
	s.mu.Lock()
	defer s.mu.Unlock()
	need, reason := s.bytes+s.ingestBytes()-r.max, "size"
	if r.known {
		if free := r.minFree - (r.avail - s.promised()); free > need {
			need, reason = free, "free"
		}
	}
	return need, reason
}

// makeRoom evicts until the limits hold, or fails with ErrNoSpace without
// evicting anything when that cannot be reached. admit is held.
func (s *Store) makeRoom() error {
	need, reason := s.shortage(0)
	if need <= 0 {
		return nil
	}
	if can := s.evictable(); can < need {
		return fmt.Errorf("%w: limit %q is exceeded by %d bytes, of which %d can be evicted", ErrNoSpace, reason, need, can)
	}
	if freed := s.evict(need+s.slack(), reason); freed < need {
		return fmt.Errorf("%w: limit %q is exceeded by %d bytes, of which %d could be evicted", ErrNoSpace, reason, need, freed)
	}
	return nil
}

// slack is how much more is evicted than needed, so that not every blob at the
// limit costs a round of eviction.
func (s *Store) slack() int64 { return s.free.room(s, time.Minute).max / 64 }

// relieve restores the limits as far as it can: others fill the disk too.
func (s *Store) relieve() {
	s.admit.Lock()
	defer s.admit.Unlock()
	s.expirePartials(time.Now())
	if need, reason := s.shortage(0); need > 0 {
		s.evict(need+s.slack(), reason)
	}
}

// Degraded returns nil, or why content cannot be kept just now: the disk is full,
// read-only or not writable for us, or a limit is exceeded and nothing can be
// evicted. It mends without a restart: what failed is tried again every 30 s.
func (s *Store) Degraded() error {
	if err := s.index.trouble(); errors.Is(err, ErrNoSpace) {
		return err
	}
	s.mu.Lock()
	err := s.trouble
	s.mu.Unlock()
	if err != nil {
		return err
	}
	if need, reason := s.shortage(time.Second); need > 0 && need > s.evictable() {
		return fmt.Errorf("%w: limit %q is exceeded by %d bytes", ErrNoSpace, reason, need)
	}
	return nil
}
