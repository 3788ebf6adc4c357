package upstream

import (
	"math/rand/v2"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
)

const (
	// breakerThreshold is how many failures in a row open a breaker.
	breakerThreshold = 3
	// The time a breaker stays open doubles from the first to the second,
	// each give or take a fifth so that nodes do not probe in step.
	breakerFirst = 5 * time.Second
	breakerMost  = 60 * time.Second
	// maxBreakers bounds the endpoints watched.
	maxBreakers = 256
	// avoidFor is how long an endpoint is asked last after a body from it
	// broke off.
	avoidFor = 30 * time.Second
)

// Health is the state of an endpoint's breaker; the number is the value of the
// metric larder_breaker_state.
type Health int

// The states.
const (
	// Closed: requests pass.
	Closed Health = iota
	// HalfOpen: the pause is over. The next request finds out whether the
	// endpoint is back, or one that is on its way does; others fail at once.
	HalfOpen
	// Open: requests fail at once.
	Open
)

// String gives the state in a word.
func (h Health) String() string {
	switch h {
	case Closed:
		return "closed"
	case HalfOpen:
		return "half-open"
	default:
		return "open"
	}
}

// EndpointState is how one endpoint is doing.
type EndpointState struct {
	Health Health
	// Failures in a row.
	Failures int
	// Until is when a breaker that opened lets a request through, past when it
	// is half-open; zero if closed.
	Until time.Time
	// QuietUntil is when it may be asked again, after it asked to be left
	// alone; zero if it did not.
	QuietUntil time.Time
	// Label is the registry it was asked for last, as in the metrics.
	Label string
	// Error says what went wrong last, Reason the same in a word, as in the
	// metrics; empty if nothing did.
	Error, Reason string
	ErrorAt       time.Time
}

// breakers has one breaker for each endpoint asked lately, by scheme://host:
// what is down is the server, for every entry and repository alike.
type breakers struct {
	now func() time.Time
	log *logrus.Entry

	mu sync.Mutex // guards all, and the breakers in it
	by *lru[string, *breaker]
}

func newBreakers(now func() time.Time, m *metrics, log *logrus.Entry) *breakers {
	b := &breakers{now: now, log: log, by: newLRU[string, *breaker](maxBreakers)}
	m.watch(b.state)
	return b
}

// breaker is the memory of one endpoint.
type breaker struct {
	origin   string
	failures int       // in a row
	opened   int       // times it opened without a success between
	until    time.Time // zero: closed
	probing  bool
	avoid    time.Time // asked last until then
	last     mishap
}

// health is what a request meets now.
func (b *breaker) health(now time.Time) Health {
	switch {
	case b.until.IsZero():
		return Closed
	case now.Before(b.until):
		return Open
	default:
		return HalfOpen
	}
}

func (bs *breakers) get(origin string) *breaker {
	b, ok := bs.by.get(origin)
	if !ok {
		b = &breaker{origin: origin}
		bs.by.put(origin, b)
	}
	return b
}

// admit asks whether origin may be sent a request. The ticket must be given a
// verdict in the end.
func (bs *breakers) admit(origin string) (*ticket, bool) {
	bs.mu.Lock()
	defer bs.mu.Unlock()
	b := bs.get(origin)
	health := b.health(bs.now())
	if health == Open || b.probing {
		return nil, false
	}
	b.probing = health == HalfOpen
	return &ticket{breakers: bs, breaker: b, probe: b.probing}, true
}

// shy reports whether origin is to be asked after the others.
func (bs *breakers) shy(origin string) bool {
	bs.mu.Lock()
	defer bs.mu.Unlock()
	return bs.now().Before(bs.get(origin).avoid)
}

func (bs *breakers) state() map[string]EndpointState {
	bs.mu.Lock()
	defer bs.mu.Unlock()
	states, now := map[string]EndpointState{}, bs.now()
	bs.by.all(func(origin string, b *breaker) {
		states[origin] = EndpointState{
			Health: b.health(now), Failures: b.failures, Until: b.until,
			Label: b.last.label, Error: b.last.text, Reason: b.last.reason, ErrorAt: b.last.at,
		}
	})
	return states
}

// ticket is one request's pass through a breaker. The first verdict counts.
type ticket struct {
	breakers *breakers
	breaker  *breaker
	probe    bool
	spent    bool
}

// answered notes the header of an answer whose body is still to come: it ends a
// probe, but is no success yet, else a server that always cuts its bodies would
// never be found out. It is no verdict.
func (t *ticket) answered() {
	t.breakers.mu.Lock()
	defer t.breakers.mu.Unlock()
	if !t.spent && t.probe {
		t.probe = false
		t.close()
	}
}

// success: the endpoint did what it was asked, or said clearly that it won't.
func (t *ticket) success() {
	t.breakers.mu.Lock()
	defer t.breakers.mu.Unlock()
	if t.spend() {
		t.close()
		t.breaker.opened = 0
	}
}

// failure: the endpoint did not answer, or not as a working server does.
func (t *ticket) failure(weight int) {
	t.breakers.mu.Lock()
	defer t.breakers.mu.Unlock()
	if t.spend() {
		t.fail(weight)
	}
}

// broke: a body ended before its time. One that gave bytes before does not add
// to earlier failures: a large blob over a bad line arrives in pieces, and must
// not lock out the rest.
func (t *ticket) broke(gave bool) {
	t.breakers.mu.Lock()
	defer t.breakers.mu.Unlock()
	if !t.spend() {
		return
	}
	t.breaker.avoid = t.breakers.now().Add(avoidFor)
	if gave && t.breaker.until.IsZero() {
		t.breaker.failures = 0
	}
	t.fail(1)
}

// release: nothing was learnt, as when the caller left.
func (t *ticket) release() {
	t.breakers.mu.Lock()
	defer t.breakers.mu.Unlock()
	if t.spend() && t.probe {
		t.breaker.probing = false
	}
}

func (t *ticket) spend() bool {
	first := !t.spent
	t.spent = true
	return first
}

func (t *ticket) close() {
	b := t.breaker
	if !b.until.IsZero() {
		t.breakers.log.WithField("endpoint", b.origin).Info("upstream answers again")
	}
	b.failures, b.until, b.probing = 0, time.Time{}, false
}

func (t *ticket) fail(weight int) {
	b, bs := t.breaker, t.breakers
	if !b.until.IsZero() && !t.probe {
		return // sent before it opened; there is nothing new in it
	}
	b.failures += weight
	if b.failures < breakerThreshold && !t.probe {
		return
	}
	pause := min(breakerFirst<<min(b.opened, 8), breakerMost)
	pause = time.Duration(float64(pause) * (0.8 + 0.4*rand.Float64())) //nolint:gosec // jitter
	b.opened++
	b.probing = false
	b.until = bs.now().Add(pause)
	bs.log.WithFields(logrus.Fields{"endpoint": b.origin, "failures": b.failures, "pause": pause.Round(time.Millisecond)}).
		Warn("upstream fails, leaving it alone")
}
