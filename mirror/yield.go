package mirror

import (
	"math"
	"slices"
	"time"

	"github.com/larder-registry/larder/internal/oci"
)

// A follower may want bytes that a stream has asked for and is far from. As a
// rule it waits: cutting the stream would lose what its upstream has sent
// already. A stream that is slow, or stands still, yields instead: the follower's
// bytes are asked for by another, and once the upstream has answered that, the
// slow one's body is closed and the bytes before them are asked for anew. It
// loses what is on its way then, which of a slow stream is little.
const (
	// soon is how long a follower waits for a stream at the speed it has, and
	// glance how long that speed is measured.
	soon   = time.Second
	glance = 500 * time.Millisecond
	// mostWaiting is what may have arrived of a stream unread, in bytes: with
	// more it is the mirror that is slow, and another stream no help.
	mostWaiting = 64 << 10
	// yieldCost is what a stream that yields is taken to lose, in bytes, and
	// yieldShare the part of a blob, a thirty-second, that all of them may.
	yieldCost  = 512 << 10
	yieldShare = 32
)

// lender is the stream a claim was taken from, and where its own ended.
type lender struct {
	*fetcher
	end int64
}

// takeOver reports whether the bytes at off are to be fetched by another stream
// than o, which has claimed them. The caller holds mu, and plans again when it
// may have changed.
func (f *fill) takeOver(o *fetcher, off int64) bool {
	if off-o.pos <= reach || f.yielded+yieldCost > f.size/yieldShare {
		return false
	}
	if o.speed.until(o.pos, off, time.Now()) <= soon || waiting(o.body) > mostWaiting {
		f.lookAgain()
		return false
	}
	f.yielded += yieldCost
	return true
}

// lookAgain plans again in a while. The caller holds mu.
func (f *fill) lookAgain() {
	if f.looking {
		return
	}
	f.looking = true
	time.AfterFunc(glance/2, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.looking = false
		f.plan()
	})
}

// lend has o end at off, for another stream to claim what comes after. The
// caller holds mu.
func lend(o *fetcher, off int64) *lender {
	l := &lender{fetcher: o, end: o.end}
	o.end = off
	return l
}

// answered notes the body ft reads from now on, and has the stream its claim was
// taken from yield. It reports false when ft itself had to yield meanwhile: the
// body goes too far.
func (f *fill) answered(ft *fetcher, body oci.Body) bool {
	f.mu.Lock()
	if ft.yields {
		f.mu.Unlock()
		return false
	}
	ft.body, ft.speed = body, speedFrom(ft.pos)
	if f.noRange && body.Length > ft.end-ft.pos {
		// All of it comes: rather through what is held than all once more.
		ft.end = f.size
	}
	var old oci.Body
	if l := ft.lender; l != nil {
		ft.lender = nil
		l.yields = true
		old, l.body = l.body, oci.Body{}
		f.yielded += min(2*int64(waiting(old)), f.size)
	}
	f.mu.Unlock()
	closeBody(old)
	return true
}

// hasYielded reports whether ft's body was closed to be asked for anew.
func (f *fill) hasYielded(ft *fetcher) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return ft.yields
}

// giveBack returns what ft claims to the stream it was taken from, if that
// still runs, and reports whether it was taken from one. That is not tried again.
func (f *fill) giveBack(ft *fetcher) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	l := ft.lender
	if l == nil {
		return false
	}
	f.yielded = f.size
	if slices.Contains(f.fetchers, l.fetcher) && l.fetcher.end == ft.pos {
		end := l.end
		for _, o := range f.fetchers {
			if o != ft && o.pos >= ft.pos {
				end = min(end, o.pos)
			}
		}
		l.fetcher.end, ft.end = end, ft.pos
	}
	return true
}

// speed is how fast a stream is.
type speed struct {
	since time.Time // when the present glance began,
	from  int64     // and where the stream was
	rate  float64   // bytes a second in the glance before; negative if there was none
}

func speedFrom(pos int64) speed { return speed{since: time.Now(), from: pos, rate: -1} }

// note takes in that the stream has come to pos.
func (s *speed) note(pos int64) {
	now := time.Now()
	if took := now.Sub(s.since); took >= glance {
		*s = speed{since: now, from: pos, rate: float64(pos-s.from) / took.Seconds()}
	}
}

// until is how long the stream will take from pos to off; nothing when it is too
// early to tell.
func (s speed) until(pos, off int64, now time.Time) time.Duration {
	rate := s.rate
	if took := now.Sub(s.since); took >= glance {
		rate = float64(pos-s.from) / took.Seconds()
	}
	if rate < 0 {
		return 0
	}
	seconds := float64(off-pos) / max(rate, 1)
	return time.Duration(min(seconds, math.MaxInt32) * float64(time.Second))
}

// waiting is how many bytes of a body have arrived and wait to be read; very many
// when that cannot be told.
func waiting(body oci.Body) int {
	if body.ReadCloser == nil {
		return 0
	}
	if socket, ok := body.ReadCloser.(interface{ Waiting() int }); ok {
		return socket.Waiting()
	}
	return math.MaxInt
}
