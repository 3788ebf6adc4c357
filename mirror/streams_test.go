package mirror

import (
	"errors"
	"io"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/test/registry"
)

// large adds a blob that is worth splitting, which the mirror knows the size of.
func large(t *testing.T, up *registry.Server, change func(*configs)) (*fixture, registry.Blob) {
	t.Helper()
	b := up.AddBlob(repo, "", registry.Random(3, 40*mib+12345))
	fx := start(t, up, t.TempDir(), change)
	fx.sizes.note(fx.name, b.Digest, b.Size())
	return fx, b
}

func TestLargeBlobsComeInSegments(t *testing.T) {
	up := registry.Start(t, registry.Options{})
	fx, b := large(t, up, nil)
	// The first segment waits for another to arrive: only if there are two
	// streams at once does either end.
	gate := registry.NewGate()
	up.Set(registry.Fault{On: registry.Blobs, Gate: gate, At: 1 * mib, Times: 1})
	go func() {
		defer gate.Open()
		if err := up.WaitFor(t.Context(), func(all []registry.Request) bool { return len(all) > 3 }); err != nil {
			t.Error(err)
		}
	}()
	blob := fx.open(t, t.Context(), b.Digest)
	readAll(t, blob, section(b, 0, b.Size()))
	fx.settled(t, b.Digest)
	if sent := up.Sent(b.Digest); sent != b.Size() {
		t.Errorf("upstream sent %d bytes of a blob of %d", sent, b.Size())
	}
	if !fx.onDisk(t, b) {
		t.Error("blob is not on disk")
	}
	fx.streams.mu.Lock()
	defer fx.streams.mu.Unlock()
	if fx.streams.all != 0 {
		t.Errorf("%d streams were not given back", fx.streams.all)
	}
}

// Whatever befalls segments, a client gets right bytes or a broken connection,
// and the upstream sends little twice.
func TestSegmentsOverABadUpstream(t *testing.T) {
	later := func(r registry.Request) bool { return r.Range() != "" && r.Range()[:8] != "bytes=0-" }
	for name, c := range map[string]struct {
		fault registry.Fault
		// fails: the first reader may be cut; twice: all may be sent again.
		fails, twice bool
		// stall is how long a stream may be silent; the default where zero,
		// since on a busy machine others are, too.
		stall time.Duration
	}{
		"cut":                  {fault: registry.Fault{Cut: true, At: 3 * mib, Times: 3}},
		"stalls":               {fault: registry.Fault{Stall: true, At: 3 * mib, Times: 1, Match: later}, stall: 300 * time.Millisecond},
		"refused with 429":     {fault: registry.Fault{Status: http.StatusTooManyRequests, RetryAfter: "1", Match: later, Times: 3}},
		"refused with 503":     {fault: registry.Fault{Status: http.StatusServiceUnavailable, Match: later, Times: 4}},
		"dropped":              {fault: registry.Fault{Drop: true, Match: later, Times: 4}},
		"range ignored once":   {fault: registry.Fault{IgnoreRange: true, Match: later, Times: 1}, twice: true},
		"range always ignored": {fault: registry.Fault{IgnoreRange: true}},
		"range not known":      {fault: registry.Fault{Status: http.StatusRequestedRangeNotSatisfiable, Match: func(r registry.Request) bool { return r.Range() != "" }}},
		"no content range":     {fault: registry.Fault{ContentRange: "none"}},
		"other bytes":          {fault: registry.Fault{Shift: 1000, Match: later, Times: 1}, fails: true, twice: true},
		"flipped":              {fault: registry.Fault{Flip: true, At: 5 * mib, Match: later, Times: 1}, fails: true, twice: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			up := registry.Start(t, registry.Options{})
			fx, b := large(t, up, func(cfg *configs) { cfg.upstream.Timeouts.Stall = c.stall })
			c.fault.On = registry.Blobs
			up.Set(c.fault)
			for try := 0; ; try++ {
				blob, err := fx.Blob(t.Context(), fx.name, b.Digest)
				if err == nil {
					sum := b.Digest.Algorithm().Hash()
					_, err = io.Copy(sum, blob)
					blob.Close()
					if got := digest.NewDigest(b.Digest.Algorithm(), sum); err == nil && got != b.Digest {
						t.Fatalf("a whole blob was given out, and it is %s", got)
					}
				}
				if err == nil {
					break
				}
				if !c.fails || try == 5 {
					t.Fatal(err)
				}
				fx.settled(t, b.Digest)
				// What was found wrong is remembered for a moment.
				fx.failures.mu.Lock()
				clear(fx.failures.of)
				fx.failures.mu.Unlock()
				up.Set()
			}
			fx.settled(t, b.Digest)
			if !fx.onDisk(t, b) {
				t.Error("blob is not on disk")
			}
			if sent := up.Sent(b.Digest); !c.twice && sent > b.Size()+b.Size()/20 {
				t.Errorf("upstream sent %d bytes of a blob of %d", sent, b.Size())
			}
		})
	}
}

func TestSegmentsAreResumedAfterARestart(t *testing.T) {
	up := registry.Start(t, registry.Options{})
	fx, b := large(t, up, nil)
	gate := registry.NewGate()
	up.Set(registry.Fault{On: registry.Blobs, Gate: gate, At: 2 * mib, Times: 1})
	blob := fx.open(t, t.Context(), b.Digest)
	// The first stream waits, while the others bring all the rest.
	f := fx.fills.of[b.Digest]
	f.mu.Lock()
	for f.held.total() < b.Size()*3/4 {
		f.changed.Wait()
	}
	f.mu.Unlock()
	fx.stop()
	held := f.held.total()
	gate.Open()
	if err := up.WaitIdle(t.Context()); err != nil {
		t.Fatal(err)
	}
	up.Forget()
	if _, err := io.Copy(io.Discard, blob); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("a blob that is not there ends with %v", err)
	}
	again := start(t, up, fx.dir, nil)
	rest := again.open(t, t.Context(), b.Digest)
	readAll(t, rest, section(b, 0, b.Size()))
	if sent := up.Sent(b.Digest); sent != b.Size()-held {
		t.Errorf("upstream sent %d bytes of a blob of which %d of %d were held", sent, held, b.Size())
	}
}

func TestStreamsFollowWhatHelps(t *testing.T) {
	now := time.Now()
	s := streams{now: func() time.Time { return now }}
	took := 0
	take := func() {
		for s.acquire("a") {
			took++
		}
	}
	pass := func(bytes int64) {
		s.note("a", bytes)
		now = now.Add(sampleTime)
		take()
	}
	take()
	if took != startStreams {
		t.Fatalf("%d streams at first, want %d", took, startStreams)
	}
	pass(100 * mib)
	if took != startStreams+2 {
		t.Errorf("%d streams where more may help, want %d", took, startStreams+2)
	}
	take() // one more is wanted
	pass(100 * mib)
	if s.of["a"].limit != startStreams {
		t.Errorf("limit %d after two more brought nothing, want %d", s.of["a"].limit, startStreams)
	}
	s.refused("a")
	for range took {
		s.release("a")
	}
	took = 0
	take()
	if took != 0 {
		t.Errorf("%d streams of an upstream that refused one", took)
	}
	now = now.Add(quietTime)
	pass(mib)
	if took == 0 {
		t.Error("no stream after the quiet time")
	}
}

// An upstream that refuses every stream but the first for a moment opens its own
// breaker; the blob comes whole all the same.
func TestRefusedStreamsDoNotEndABlob(t *testing.T) {
	up := registry.Start(t, registry.Options{})
	fx, b := large(t, up, nil)
	var began atomic.Int64
	up.Set(registry.Fault{On: registry.Blobs, Status: http.StatusServiceUnavailable, Match: func(r registry.Request) bool {
		if r.Range() == "" || r.Range()[:8] == "bytes=0-" {
			return false
		}
		began.CompareAndSwap(0, r.Time.UnixNano())
		return r.Time.UnixNano()-began.Load() < int64(2*time.Second)
	}})
	blob := fx.open(t, t.Context(), b.Digest)
	readAll(t, blob, section(b, 0, b.Size()))
	fx.settled(t, b.Digest)
}
