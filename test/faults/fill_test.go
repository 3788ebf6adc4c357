package faults

import (
	"bufio"
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/larder-registry/larder/test/registry"
)

const mib = 1 << 20

func TestFiftyClientsOneFill(t *testing.T) {
	t.Parallel()
	up := newUpstream(t, registry.Options{}, registry.NewLayer(1, 12*mib+1), registry.NewLayer(2, 3*mib), registry.NewLayer(3, 1))
	l := startLarder(t, settings{servers: []*registry.Server{up.Server}})
	gate := registry.NewGate()
	up.Set(registry.Fault{On: registry.Blobs, Gate: gate, At: 1})
	var all sync.WaitGroup
	for range 50 {
		tr := client(t)
		all.Go(func() {
			asks := []ask{tagAsk(up), digestAsk(up)}
			for _, b := range up.image.Blobs() {
				asks = append(asks, ask{server: up.Server, repo: repo, kind: registry.Blobs, blob: b})
			}
			for _, a := range asks {
				if s := l.getWith(t.Context(), tr, a); s.word != right {
					t.Errorf("%s: %v", a.path(), s)
				}
			}
		})
	}
	<-gate.Reached()
	l.awaitInFlight(t, 50)
	gate.Open()
	all.Wait()
	for _, b := range up.image.Blobs() {
		if n := up.Sent(b.Digest); n != b.Size() {
			t.Errorf("upstream sent %d bytes of a blob of %d", n, b.Size())
		}
	}
}

// TestOneFillForTwoRepositories asks for one digest by the names of two
// repositories at once.
func TestOneFillForTwoRepositories(t *testing.T) {
	t.Parallel()
	up := newUpstream(t, registry.Options{}, registry.NewLayer(1, 5*mib))
	up.AddImage("other", tag, registry.NewLayer(1, 5*mib))
	l := startLarder(t, settings{servers: []*registry.Server{up.Server}})
	gate := registry.NewGate()
	up.Set(registry.Fault{On: registry.Blobs, Method: "GET", Gate: gate, At: mib, Times: 1})
	var all sync.WaitGroup
	all.Go(func() {
		if s := l.get(t, blobAsk(up)); s.word != right {
			t.Errorf("first: %v", s)
		}
	})
	<-gate.Reached()
	all.Go(func() {
		a := blobAsk(up)
		a.repo = "other"
		if s := l.get(t, a); s.word != right {
			t.Errorf("second: %v", s)
		}
	})
	l.awaitInFlight(t, 2)
	gate.Open()
	all.Wait()
	if n := up.Sent(up.image.Layers[0].Digest); n != 5*mib {
		t.Errorf("upstream sent %d bytes of a blob of %d", n, 5*mib)
	}
}

// TestFollowersAtAnyOffset reads parts of a blob whose fill is held back: what
// has arrived is there at once, what has not is fetched for itself.
func TestFollowersAtAnyOffset(t *testing.T) {
	t.Parallel()
	const size = 40 * mib
	up := newUpstream(t, registry.Options{}, registry.NewLayer(1, size))
	l := startLarder(t, settings{servers: []*registry.Server{up.Server}})
	gate := registry.NewGate()
	up.Set(registry.Fault{On: registry.Blobs, Gate: gate, At: 2 * mib, Times: 1})
	first := make(chan seen, 1)
	go func() { first <- l.get(t, blobAsk(up)) }()
	<-gate.Reached()
	for _, part := range []struct{ from, to int64 }{
		{0, 1000},                        // has arrived
		{mib, mib + 5000},                // has arrived
		{20 * mib, 20*mib + 100_000},     // far ahead
		{30*mib + 7, 30*mib + 8},         // one byte
		{size - 5*mib, size - 4*mib},     // near the end
		{20*mib + 50_000, 20*mib + 60e3}, // fetched a moment ago
	} {
		a := blobAsk(up)
		a.from, a.to = part.from, part.to
		l.mustGet(t, right, a)
	}
	gate.Open()
	if s := <-first; s.word != right {
		t.Errorf("the first: %v", s)
	}
	l.mustGet(t, right, blobAsk(up))
	l.checkFetched(t, up, size)
}

// TestFillGoesOnWithoutItsClient hangs up early and finds the blob afterwards.
func TestFillGoesOnWithoutItsClient(t *testing.T) {
	t.Parallel()
	const size = 20 * mib
	up := newUpstream(t, registry.Options{}, registry.NewLayer(1, size))
	l := startLarder(t, settings{servers: []*registry.Server{up.Server}})
	gate := registry.NewGate()
	up.Set(registry.Fault{On: registry.Blobs, Gate: gate, At: 4 * mib})
	a := blobAsk(up)
	a.leaveAfter = mib
	tr := client(t)
	if s := l.getWith(t.Context(), tr, a); s.word != broken || s.why != "left" {
		t.Fatalf("%v", s)
	}
	tr.CloseIdleConnections()
	<-gate.Reached()
	gate.Open()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	err := up.WaitFor(ctx, func(all []registry.Request) bool { return len(all) == 1 && all[0].Done })
	if err != nil {
		t.Fatal(err)
	}
	l.mustGet(t, right, blobAsk(up))
	if all := up.Requests(); len(all) != 1 || all[0].Sent != size {
		t.Errorf("upstream saw:%s", list(all))
	}
}

// TestSlowClientDoesNotSlowTheFill reads one byte and waits; another client
// gets everything meanwhile.
func TestSlowClientDoesNotSlowTheFill(t *testing.T) {
	t.Parallel()
	const size = 48 * mib
	up := newUpstream(t, registry.Options{}, registry.NewLayer(1, size))
	l := startLarder(t, settings{servers: []*registry.Server{up.Server}})
	conn := l.raw(t)
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: m\r\n\r\n", blobAsk(up).path()); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReaderSize(conn, 16).ReadString('\n'); err != nil || !strings.Contains(line, " 200 ") {
		t.Fatalf("%q, %v", line, err)
	}
	l.mustGet(t, right, blobAsk(up))
	if n := up.Sent(up.image.Layers[0].Digest); n != size {
		t.Errorf("upstream sent %d bytes, want %d", n, size)
	}
}

// TestParallelRanges does what containerd does with
// concurrent_layer_fetch_buffer: open-ended ranges, each hung up on after one
// chunk.
func TestParallelRanges(t *testing.T) {
	t.Parallel()
	const size, chunk = 64*mib - 3, 8 * mib
	up := newUpstream(t, registry.Options{}, registry.NewLayer(1, size))
	l := startLarder(t, settings{servers: []*registry.Server{up.Server}})
	l.mustGet(t, right, tagAsk(up))
	var all sync.WaitGroup
	for from := int64(0); from < size; from += chunk {
		a := blobAsk(up)
		a.from, a.to = from, -1
		if from+chunk < size {
			a.leaveAfter = chunk
		}
		tr := client(t)
		all.Go(func() {
			s := l.getWith(t.Context(), tr, a)
			if s.word != right && (s.word != broken || s.why != "left") {
				t.Errorf("from %d: %v", a.from, s)
			}
		})
	}
	all.Wait()
	l.mustGet(t, right, blobAsk(up))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := up.WaitIdle(ctx); err != nil {
		t.Fatal(err)
	}
	l.checkFetched(t, up, size)
}

// checkFetched checks that the upstream sent the blob about once, and that the
// mirror read what was sent.
func (l *larder) checkFetched(t *testing.T, up *upstream, size int64) {
	t.Helper()
	var read int64
	for line := range strings.Lines(l.metrics(t)) {
		if strings.HasPrefix(line, "larder_upstream_bytes_total{") {
			_, value, _ := strings.Cut(line, "} ")
			n, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			read += int64(n)
		}
	}
	if read < size || read > size+size/20 {
		t.Errorf("the mirror read %d MiB of a blob of %d:%s", read/mib, size/mib, list(up.Requests()))
	}
	atMost(t, up.image.Layers[0], 0, up)
}

// TestRangeInTheMiddle reads a little from the middle of a large blob.
func TestRangeInTheMiddle(t *testing.T) {
	const size, middle = 200 * mib, 120*mib + 5
	for name, a := range map[string]ask{
		"closed":            {from: middle, to: middle + 1000},
		"open, then leaves": {from: middle, to: -1, leaveAfter: mib},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			up := newUpstream(t, registry.Options{}, registry.NewLayer(1, size))
			l := startLarder(t, settings{servers: []*registry.Server{up.Server}})
			a := a
			a.server, a.repo, a.kind, a.blob = up.Server, repo, registry.Blobs, up.image.Layers[0]
			tr := client(t)
			if s := l.getWith(t.Context(), tr, a); s.word != right && s.why != "left" {
				t.Fatalf("%v", s)
			}
			tr.CloseIdleConnections()
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			if err := up.WaitIdle(ctx); err != nil {
				t.Fatal(err)
			}
			l.stop()
			all := up.Requests()
			if n := up.Sent(a.blob.Digest); n > 16*mib || len(all) > 3 {
				t.Errorf("upstream sent %d MiB, want at most two segments of 8:%s", n/mib, list(all))
			}
		})
	}
}

// TestManyCutsCostOnlyWhatWasOnItsWay resumes again and again.
func TestManyCutsCostOnlyWhatWasOnItsWay(t *testing.T) {
	t.Parallel()
	const size = 20 * mib
	up := newUpstream(t, registry.Options{}, registry.NewLayer(1, size))
	l := startLarder(t, settings{servers: []*registry.Server{up.Server}})
	up.Set(registry.Fault{On: registry.Blobs, Cut: true, At: 3 * mib})
	l.mustGet(t, right, blobAsk(up))
	if n := up.Sent(up.image.Layers[0].Digest); n > size+mib {
		t.Errorf("upstream sent %d bytes of a blob of %d:%s", n, size, list(up.Requests()))
	}
}

// awaitInFlight waits until the mirror has that many connections from clients
// whose requests it has read.
func (l *larder) awaitInFlight(t *testing.T, n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for l.connections(t) < n {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("fewer than %d connections to the mirror after %v", n, patience)
		}
	}
}

// connections counts, by the kernel's word, the established connections to the
// mirror that have nothing left to be read.
func (l *larder) connections(t *testing.T) int {
	t.Helper()
	addr, err := netip.ParseAddrPort(strings.TrimPrefix(l.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	ip := addr.Addr().As4()
	slices.Reverse(ip[:])
	local := fmt.Sprintf("%X:%04X", ip[:], addr.Port())
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(string(table)) {
		// sl, local_address, rem_address, st, tx_queue:rx_queue, …
		f := strings.Fields(line)
		if len(f) > 4 && f[1] == local && f[3] == "01" && strings.HasSuffix(f[4], ":00000000") {
			n++
		}
	}
	return n
}
