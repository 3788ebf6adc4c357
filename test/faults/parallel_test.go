package faults

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/test/registry"
)

// What a client reads over several streams. Blobs from 32 MiB on come that way,
// in segments of 8 MiB at least.
const (
	largeSize  = 48*mib + 4321
	oneSegment = 8 * mib
)

// afterFirst matches requests for any part of a blob but its start.
func afterFirst(r registry.Request) bool {
	return r.Range() != "" && len(r.Range()) > 8 && r.Range()[:8] != "bytes=0-"
}

// atMost fails the test if the registries sent more than a twentieth beyond the
// bytes of the blob, all together.
func atMost(t *testing.T, b registry.Blob, more int64, ups ...*upstream) {
	t.Helper()
	var sent int64
	var asked []registry.Request
	for _, up := range ups {
		sent += up.Sent(b.Digest)
		asked = append(asked, up.Requests()...)
	}
	if limit := b.Size() + b.Size()/20 + more; sent > limit {
		t.Errorf("%d bytes were sent of a blob of %d:%s", sent, b.Size(), list(asked))
	}
}

// TestFaultsUnderParallelFetch has every stream but the first one meet a fault in
// the middle of a large blob. The client gets every byte, or a connection that
// breaks and, when it asks again, every byte; the upstream sends them once.
func TestFaultsUnderParallelFetch(t *testing.T) {
	for name, c := range map[string]struct {
		fault registry.Fault
		// sees is what the client may see at first.
		sees []string
		// more is how many bytes beyond a twentieth the upstream may send,
		// because what was wrong was sent whole.
		more int64
	}{
		"cut":                      {fault: registry.Fault{Cut: true, At: 3 * mib, Times: 3, Match: afterFirst}, sees: []string{right}},
		"cut before its first":     {fault: registry.Fault{Drop: true, Times: 4, Match: afterFirst}, sees: []string{right}},
		"too short, cleanly":       {fault: registry.Fault{Short: mib, Times: 3, Match: afterFirst}, sees: []string{right}},
		"stalled":                  {fault: registry.Fault{Stall: true, At: 2 * mib, Times: 2, Match: afterFirst}, sees: []string{right}},
		"range from elsewhere":     {fault: registry.Fault{ContentRange: fmt.Sprintf("bytes 0-%d/%d", oneSegment-1, largeSize), Times: 2, Match: afterFirst}, sees: []string{right}, more: 2 * oneSegment},
		"range of another size":    {fault: registry.Fault{ContentRange: fmt.Sprintf("bytes %d-%d/%d", oneSegment, 2*oneSegment-1, largeSize-1), Times: 2, Match: afterFirst}, sees: []string{right, broken}, more: 2 * oneSegment},
		"range that is garbage":    {fault: registry.Fault{ContentRange: "bytes all of them", Times: 2, Match: afterFirst}, sees: []string{right}, more: 2 * oneSegment},
		"range that is not told":   {fault: registry.Fault{ContentRange: "none", Match: afterFirst}, sees: []string{right}},
		"other bytes than it says": {fault: registry.Fault{Shift: 1000, Times: 1, Match: afterFirst}, sees: []string{spoiled, broken}, more: largeSize},
		"other content by now":     {fault: registry.Fault{Flip: true, At: 1000, Times: 1, Match: afterFirst}, sees: []string{spoiled, broken}, more: largeSize},
		"429 in the middle":        {fault: registry.Fault{Status: http.StatusTooManyRequests, RetryAfter: "1", Times: 4, Match: afterFirst}, sees: []string{right}},
		"503 in the middle":        {fault: registry.Fault{Status: http.StatusServiceUnavailable, Times: 4, Match: afterFirst}, sees: []string{right}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			up := newUpstream(t, registry.Options{}, registry.NewLayer(1, largeSize))
			l := startLarder(t, settings{servers: []*registry.Server{up.Server}, extra: []string{"stall_timeout: 3s"}})
			l.mustGet(t, right, tagAsk(up))
			layer := blobAsk(up)
			var befallen atomic.Int64
			matches := c.fault.Match
			c.fault.On = registry.Blobs
			c.fault.Match = func(r registry.Request) bool {
				if matches(r) {
					befallen.Add(1)
					return true
				}
				return false
			}
			up.Set(c.fault)
			first := l.get(t, layer)
			if !slices.Contains(c.sees, first.word) {
				t.Errorf("saw %v, want one of %v", first, c.sees)
			}
			if befallen.Load() == 0 {
				t.Error("there was no second stream: nothing was tested")
			}
			atMost(t, layer.blob, c.more, up)
			up.Set()
			if first.word != right {
				// What was wrong is remembered for a few seconds, then it is
				// fetched anew.
				l.awaitRight(t, layer)
			}
			l.mustGet(t, right, layer)
			l.awaitFile(t, layer.blob.Digest)
		})
	}
}

// awaitRight asks until the answer is right. Every other one must break honestly.
func (l *larder) awaitRight(t *testing.T, a ask) {
	t.Helper()
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); ; {
		s := l.get(t, a)
		if s.word == right {
			return
		}
		if s.word == wrong || time.Now().After(deadline) {
			t.Fatalf("GET %s: %v, want it right at last", a.path(), s)
		}
		<-tick.C
	}
}

// TestChangedBetweenSegments has an upstream whose content is another from the
// second segment on, under the same digest: nothing of it is ever given out as
// whole, and nothing kept.
func TestChangedBetweenSegments(t *testing.T) {
	t.Parallel()
	up := newUpstream(t, registry.Options{}, registry.NewLayer(1, largeSize))
	l := startLarder(t, settings{servers: []*registry.Server{up.Server}})
	l.mustGet(t, right, tagAsk(up))
	layer := blobAsk(up)
	up.Set(registry.Fault{On: registry.Blobs, Match: afterFirst, Shift: 12345, Digest: "sha256:" + "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"})
	if s := l.get(t, layer); s.word == right || s.word == wrong {
		t.Errorf("saw %v of content that is not the blob's", s)
	}
	if l.kept(layer.blob.Digest) {
		t.Error("content that is not the blob's is kept")
	}
	atMost(t, layer.blob, 0, up)
	up.Set()
	l.awaitRight(t, layer)
}

// TestEndpointDiesUnderParallelFetch has the endpoint in front die in the middle
// of a large blob, with all its streams: the registry itself brings the rest.
func TestEndpointDiesUnderParallelFetch(t *testing.T) {
	t.Parallel()
	up := newUpstream(t, registry.Options{}, registry.NewLayer(1, largeSize))
	front := newUpstream(t, registry.Options{}, registry.NewLayer(1, largeSize))
	l := startLarder(t, settings{
		servers: []*registry.Server{up.Server},
		entry:   []string{fmt.Sprintf("endpoints: [%q]", front.URL()+"/v2")},
	})
	l.mustGet(t, right, tagAsk(up))
	layer := blobAsk(up)
	gate := registry.NewGate()
	front.Set(registry.Fault{On: registry.Blobs, Match: afterFirst, Gate: gate, At: 2 * mib})
	seen := make(chan seen, 1)
	go func() { seen <- l.get(t, layer) }()
	<-gate.Reached()
	front.Stop()
	gate.Open()
	if s := <-seen; s.word != right {
		t.Errorf("saw %v", s)
	}
	if up.Sent(layer.blob.Digest) == 0 {
		t.Error("the endpoint died too late: nothing was tested")
	}
	atMost(t, layer.blob, 0, up, front)
}

// TestKilledUnderParallelFetch kills the mirror while several streams bring a
// blob in, and starts it again: what had arrived, in however many pieces, is not
// fetched again.
func TestKilledUnderParallelFetch(t *testing.T) {
	t.Parallel()
	up := newUpstream(t, registry.Options{}, registry.NewLayer(1, largeSize))
	l := startLarder(t, settings{servers: []*registry.Server{up.Server}})
	l.mustGet(t, right, tagAsk(up))
	layer := blobAsk(up)
	// The streams after the first bring one segment each, and then wait.
	gate := registry.NewGate()
	up.Set(registry.Fault{On: registry.Blobs, Gate: gate, At: 7 * mib})
	seen := make(chan seen, 1)
	go func() { seen <- l.get(t, layer) }()
	<-gate.Reached()
	if err := up.WaitFor(t.Context(), func(all []registry.Request) bool {
		var sent int64
		for _, r := range all {
			sent += r.Sent
		}
		return sent > largeSize/2
	}); err != nil {
		t.Fatal(err)
	}
	l.awaitHeld(t, layer.blob.Digest, largeSize/2)
	l.kill()
	held := l.held(t, layer.blob.Digest)
	gate.Open()
	if s := <-seen; s.word != broken {
		t.Errorf("a client whose mirror was killed saw %v", s)
	}
	up.Set()
	if err := up.WaitIdle(t.Context()); err != nil {
		t.Fatal(err)
	}
	up.Forget()
	l.start()
	l.mustGet(t, right, layer)
	if sent := up.Sent(layer.blob.Digest); sent > largeSize-held+largeSize/20 {
		t.Errorf("%d bytes of %d were held, and %d were sent:%s", held, largeSize, sent, list(up.Requests()))
	}
}

// held is how many bytes of a blob the mirror has noted on disk to have.
func (l *larder) held(t *testing.T, d digest.Digest) (sum int64) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(l.dir, "ingest", string(d.Algorithm())+"-"+d.Encoded(), "state"))
	if errors.Is(err, fs.ErrNotExist) {
		return 0
	}
	if err != nil {
		t.Fatal(err)
	}
	var state struct{ Held [][2]int64 }
	if err := json.Unmarshal(text, &state); err != nil {
		t.Fatal(err)
	}
	for _, span := range state.Held {
		sum += span[1] - span[0]
	}
	return sum
}

// awaitHeld waits until the mirror has noted that it has so many bytes of a blob.
func (l *larder) awaitHeld(t *testing.T, d digest.Digest, bytes int64) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); l.held(t, d) < bytes; <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("%d bytes are noted after %v, want %d", l.held(t, d), patience, bytes)
		}
	}
}
