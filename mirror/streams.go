package mirror

import (
	"sync"
	"time"
)

// Large blobs are fetched as segments over several streams, because registries
// and object stores cap each connection. How many one upstream is asked for at
// a time is found by trying: more while more brings more, fewer when it does
// not, and one for each blob when the upstream asks to be left alone.
const (
	// worthSplitting is the size from which a blob is fetched in segments, in
	// bytes; smaller ones are over before a second stream has got going.
	worthSplitting = 32 << 20
	// A segment is a share of what is left, within these bounds in bytes, and
	// a multiple of the lesser: large ones cost fewer requests, small ones let
	// streams end together.
	leastSegment = 8 << 20
	mostSegment  = 32 << 20

	// startStreams are allowed an upstream before anything is known of it,
	// maxStreams at most, and maxAllStreams to all upstreams together; the one
	// stream every fill needs is not counted.
	startStreams  = 8
	maxStreams    = 16
	maxAllStreams = 32

	// sampleTime is how long throughput is measured before the number of
	// streams is changed, and settleTime how long it stays once more of them
	// did not help.
	sampleTime = 300 * time.Millisecond
	settleTime = 5 * time.Second
	// quietTime is how long an upstream that refused a stream gets no more than
	// the one of each fill, and wholeTime how long one that ignores Range is
	// asked for blobs whole.
	quietTime = 15 * time.Second
	wholeTime = 10 * time.Minute
	// maxAllowances bounds the registries remembered.
	maxAllowances = 1024
)

// streams hands out what upstreams may be asked beyond one stream for each fill.
type streams struct {
	now func() time.Time

	mu  sync.Mutex
	all int
	of  map[string]*allowance // by registry
}

// allowance is what one upstream may be asked, and what it gave.
type allowance struct {
	used, limit int
	wanted      bool // one more was wanted since the sample began
	arrived     int64
	since       time.Time // when the sample began
	rate        float64   // bytes a second, before the limit was raised last
	until       time.Time // no change before
	rangeless   time.Time // ignores Range, until then
}

// allowanceOf returns what is known of a registry. The caller holds mu.
func (s *streams) allowanceOf(registry string) *allowance {
	a := s.of[registry]
	if a == nil {
		if s.of == nil || len(s.of) >= maxAllowances {
			s.forgetUnused()
		}
		a = &allowance{limit: startStreams, since: s.now()}
		s.of[registry] = a
	}
	return a
}

// forgetUnused forgets the registries nothing comes from just now. The caller
// holds mu.
func (s *streams) forgetUnused() {
	kept := make(map[string]*allowance)
	for registry, a := range s.of {
		if a.used > 0 {
			kept[registry] = a
		}
	}
	s.of = kept
}

// acquire takes one more stream, to be given back by release.
func (s *streams) acquire(registry string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.allowanceOf(registry)
	s.adapt(a)
	if a.used >= a.limit || s.all >= maxAllStreams {
		a.wanted = true
		return false
	}
	a.used++
	s.all++
	return true
}

// release gives a stream back.
func (s *streams) release(registry string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.allowanceOf(registry).used--
	s.all--
}

// note counts bytes that arrived.
func (s *streams) note(registry string, n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.allowanceOf(registry).arrived += n
}

// adapt changes the limit by what the last sample showed. The caller holds mu.
func (s *streams) adapt(a *allowance) {
	now := s.now()
	took := now.Sub(a.since)
	if took < sampleTime {
		return
	}
	rate, wanted := float64(a.arrived)/took.Seconds(), a.wanted
	a.arrived, a.since, a.wanted = 0, now, false
	switch {
	case !wanted || now.Before(a.until):
		// Enough as it is, or settled lately.
	case rate > 1.1*a.rate:
		a.rate = rate
		a.limit = min(a.limit+2, maxStreams)
	default:
		// What was added last brought nothing: back, and look again later.
		a.rate = 0
		a.limit = max(a.limit-2, 1)
		a.until = now.Add(settleTime)
	}
}

// refused notes that the upstream would not take one more stream.
func (s *streams) refused(registry string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.allowanceOf(registry)
	a.limit, a.rate = 0, 0
	a.until = s.now().Add(quietTime)
}

// noteRangeless has blobs of a registry that ignores Range asked for whole.
func (s *streams) noteRangeless(registry string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.allowanceOf(registry).rangeless = s.now().Add(wholeTime)
}

// rangeless reports whether a registry is known to ignore Range.
func (s *streams) rangeless(registry string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now().Before(s.allowanceOf(registry).rangeless)
}

// segmentOf is how much of left bytes one of n streams takes at a time.
func segmentOf(left int64, n int) int64 {
	share := left / int64(2*n) / leastSegment * leastSegment
	return min(max(share, leastSegment), mostSegment)
}
