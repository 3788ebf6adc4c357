package faults

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/larder-registry/larder/test/registry"
)

// farReaders is a crowd that reads one blob from far apart at once.
type farReaders struct {
	size int64
	// chunk is what each request reads of its open-ended range before it hangs
	// up, parallel how many do at a time.
	chunk    int64
	parallel int
	// random has them ask in no order, and leave after a little, while another
	// client reads the blob from its start; all of it is read in the end.
	random bool
	// ahead leaves prefetch_wait at its default.
	ahead bool
	// latency and rate are the upstream's.
	latency time.Duration
	rate    int64
}

func (c farReaders) String() string {
	how := "chunks"
	if c.random {
		how = "random"
	}
	if c.ahead {
		how += " after prefetch"
	}
	return fmt.Sprintf("%d MiB by %d of %d KiB, %s, %d MB per s", c.size/mib, c.parallel, c.chunk>>10, how, c.rate/1e6)
}

// TestFarReaders has clients read a blob from many places at once, as containerd
// does with concurrent_layer_fetch_buffer: the upstream sends it once, whatever
// their chunks.
func TestFarReaders(t *testing.T) {
	cases := []farReaders{
		{size: 21*mib + 11, chunk: 8 * mib, parallel: 3},
		{size: 21*mib + 11, chunk: 8 * mib, parallel: 3, ahead: true},
		{size: 21*mib + 11, chunk: mib, parallel: 16, latency: 20 * time.Millisecond, rate: 50e6},
		{size: 21*mib + 11, chunk: 64 << 10, parallel: 8, random: true},
		{size: 60*mib + 11, chunk: 64 << 10, parallel: 8, random: true, ahead: true, latency: 20 * time.Millisecond, rate: 10e6},
	}
	if *long {
		for _, size := range []int64{21 * mib, 100 * mib, 1024 * mib} {
			for _, rate := range []int64{0, 50e6} {
				latency := time.Duration(0)
				if rate > 0 {
					latency = 20 * time.Millisecond
				}
				chunks := []int64{mib, 4 * mib, 8 * mib, 32 * mib}
				if size > 100*mib {
					chunks = chunks[2:] // the others take their time
				}
				for _, chunk := range chunks {
					for _, parallel := range []int{3, 16} {
						cases = append(cases, farReaders{size: size + 11, chunk: chunk, parallel: parallel, ahead: true, latency: latency, rate: rate})
					}
				}
				cases = append(cases,
					farReaders{size: size + 11, chunk: 64 << 10, parallel: 8, random: true, latency: latency, rate: rate},
					farReaders{size: size + 11, chunk: mib, parallel: 16, random: true, ahead: true, latency: latency, rate: rate})
			}
		}
		cases = append(cases, farReaders{size: 21 * mib, chunk: mib, parallel: 16, latency: 20 * time.Millisecond, rate: 2e6})
	}
	for _, c := range cases {
		t.Run(c.String(), func(t *testing.T) {
			if !*long {
				t.Parallel()
			}
			up := newUpstream(t, registry.Options{}, registry.NewLayer(1, c.size))
			up.Shape(c.latency, c.rate)
			l := startLarder(t, settings{servers: []*registry.Server{up.Server}, prefetch: c.ahead})
			l.mustGet(t, right, tagAsk(up))
			l.mustGet(t, right, digestAsk(up))
			before, begin := len(up.Requests()), time.Now()
			head := l.readFar(t, blobAsk(up), c)
			took := time.Since(begin)
			l.mustGet(t, right, blobAsk(up))
			if err := up.WaitIdle(t.Context()); err != nil {
				t.Fatal(err)
			}
			layer := blobAsk(up).blob
			atMost(t, layer, 0, up)
			t.Logf("sent %.4f × the blob, %d requests, %v, head after %v at most", float64(up.Sent(layer.Digest))/float64(c.size), len(up.Requests())-before, took.Round(time.Millisecond), head.Round(time.Millisecond))
		})
	}
}

// readFar returns when every reader is done, and how long the slowest waited for
// its head.
func (l *larder) readFar(t *testing.T, layer ask, c farReaders) (slowest time.Duration) {
	t.Helper()
	var mu sync.Mutex
	var offsets []int64
	for from := c.chunk; from < c.size; from += c.chunk {
		offsets = append(offsets, from)
	}
	whole := layer
	if c.random {
		random := rand.New(rand.NewPCG(1, uint64(c.size)))
		offsets = offsets[:min(len(offsets), 48)]
		for i := range offsets {
			offsets[i] = random.Int64N(c.size)
		}
	} else {
		whole.to = -1
		whole.from, whole.leaveAfter = 0, min(c.chunk, c.size)
	}
	one := func(tr *http.Transport, a ask) {
		s := l.getWith(t.Context(), tr, a)
		if s.word != right && (s.word != broken || s.why != "left") {
			t.Errorf("from %d: %v", a.from, s)
		}
		mu.Lock()
		slowest = max(slowest, s.head)
		mu.Unlock()
	}
	queue := make(chan int64, len(offsets))
	for _, from := range offsets {
		queue <- from
	}
	close(queue)
	// The others come once the first has its head, which tells the size.
	begun, pause := make(chan struct{}), make(chan struct{})
	close(pause)
	var all sync.WaitGroup
	all.Go(func() {
		s := l.getWith(t.Context(), pausing{client(t), begun, pause}, whole)
		if s.word != right && (s.word != broken || s.why != "left") {
			t.Errorf("the first: %v", s)
		}
	})
	<-begun
	for range c.parallel {
		all.Go(func() {
			for from := range queue {
				a := layer
				a.from, a.to = from, -1
				if from+c.chunk < c.size {
					a.leaveAfter = c.chunk
				}
				one(client(t), a)
			}
		})
	}
	all.Wait()
	return slowest
}
