package allocations

import (
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
)

// spent is what was allocated: how often, and how many bytes.
type spent struct{ times, bytes int64 }

// exact has every allocation noted with its stack until t ends.
func exact(t *testing.T) {
	rate := runtime.MemProfileRate
	runtime.MemProfileRate = 1
	t.Cleanup(func() { runtime.MemProfileRate = rate })
}

// allocated returns what run allocated in calls that came through one of the
// functions named. Whose stack an allocation is on tells whose it is, in a
// process in which others allocate, too: the client, the index, the upstream.
// The collector is off meanwhile, so that it empties no pool.
func allocated(run func(), through ...string) spent {
	before := total(through)
	percent := debug.SetGCPercent(-1)
	run()
	debug.SetGCPercent(percent)
	after := total(through)
	return spent{after.times - before.times, after.bytes - before.bytes}
}

// total is what has been allocated since the start.
func total(through []string) spent {
	// The profile is of the time before the last collection but one.
	runtime.GC()
	runtime.GC()
	records := make([]runtime.MemProfileRecord, 1<<10)
	for {
		n, ok := runtime.MemProfile(records, true)
		if ok {
			records = records[:n]
			break
		}
		records = make([]runtime.MemProfileRecord, 2*n)
	}
	var sum spent
	for _, r := range records {
		if passes(r.Stack(), through) {
			sum.times += r.AllocObjects
			sum.bytes += r.AllocBytes
		}
	}
	return sum
}

// passes reports whether a stack has one of the functions in it.
func passes(stack []uintptr, functions []string) bool {
	frames := runtime.CallersFrames(stack)
	for {
		frame, more := frames.Next()
		for _, f := range functions {
			if strings.HasSuffix(frame.Function, f) {
				return true
			}
		}
		if !more {
			return false
		}
	}
}

// bound is what the larger of two blobs may cost more, for each MiB that it has
// more. With the race detector on, sync.Pool drops a quarter of what it is
// given, so that buffers, and with them bytes, are more than without.
type bound struct{ times, bytes int64 }

// slack is how many allocations may differ between two answers of one size:
// which pools have something is chance.
const slack = 12

// hold compares the costs of two blobs.
func (b bound) hold(t *testing.T, little, much spent, mibs int64) {
	t.Helper()
	t.Logf("less: %+v, with %d MiB more: %+v", little, mibs, much)
	if little.times == 0 {
		t.Error("nothing is counted")
	}
	if more := much.times - little.times; more > b.times*mibs+slack {
		t.Errorf("%d allocations more for %d MiB more, want at most %d for each", more, mibs, b.times)
	}
	if more := much.bytes - little.bytes; more > b.bytes*(mibs+1) {
		t.Errorf("%d bytes of memory more for %d MiB more, want at most %d for each", more, mibs, b.bytes)
	}
}
