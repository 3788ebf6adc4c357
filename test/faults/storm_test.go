package faults

import (
	"bytes"
	"math/rand/v2"
	"net/http"
	"os"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/test/registry"
)

// TestStorm has many clients read whole blobs and parts of them from an
// upstream that answers each request with another fault. Whatever they see, it
// is never a wrong byte that ends cleanly; and once the upstream is well, all
// of it is right.
func TestStorm(t *testing.T) {
	t.Parallel()
	clients, asksEach := 12, 12
	if *long {
		clients, asksEach = 24, 120
	}
	const size = 9*mib + 13
	var layers []registry.Layer
	for i := range uint64(6) {
		layers = append(layers, registry.NewLayer(i, size))
	}
	up := newUpstream(t, registry.Options{}, layers...)
	l := startLarder(t, settings{servers: []*registry.Server{up.Server}, extra: []string{"stall_timeout: 500ms"}})
	l.mustGet(t, right, tagAsk(up))

	var mu sync.Mutex
	random := rand.New(rand.NewPCG(3, 4))
	// Each fault befalls a third of the requests that the ones before it let
	// pass.
	sometimes := func(registry.Request) bool {
		mu.Lock()
		defer mu.Unlock()
		return random.IntN(3) == 0
	}
	up.Set(
		registry.Fault{On: registry.Blobs, Match: sometimes, Cut: true, At: 3 * mib},
		registry.Fault{On: registry.Blobs, Match: sometimes, Cut: true, At: 1},
		registry.Fault{On: registry.Blobs, Match: sometimes, Stall: true, At: mib},
		registry.Fault{On: registry.Blobs, Match: sometimes, Drop: true},
		registry.Fault{On: registry.Blobs, Match: sometimes, Status: 503},
		registry.Fault{On: registry.Blobs, Match: sometimes, IgnoreRange: true},
		registry.Fault{On: registry.Blobs, Match: sometimes, NoLength: true},
		registry.Fault{On: registry.Blobs, Match: sometimes, Short: 100},
		registry.Fault{On: registry.Blobs, Match: sometimes, Rate: 20 * mib},
	)
	words := map[string]int{}
	var all sync.WaitGroup
	for c := range clients {
		tr, mine := client(t), rand.New(rand.NewPCG(5, uint64(c)))
		all.Go(func() {
			for range asksEach {
				a := blobAsk(up)
				a.blob = up.image.Layers[mine.IntN(len(layers))]
				switch mine.IntN(4) {
				case 0:
				case 1:
					a.from, a.to = mine.Int64N(size), -1
				case 2:
					a.from = -1 - mine.Int64N(size)
				default:
					a.from = mine.Int64N(size)
					a.to = a.from + 1 + mine.Int64N(size-a.from)
				}
				if mine.IntN(5) == 0 {
					a.leaveAfter = 1 + mine.Int64N(mib)
				}
				s := l.getWith(t.Context(), tr, a)
				if s.word == wrong {
					t.Errorf("%s from %d to %d: %v", a.path(), a.from, a.to, s)
				}
				mu.Lock()
				words[s.word]++
				mu.Unlock()
			}
		})
	}
	all.Wait()
	t.Logf("seen: %v", words)
	up.Set()
	for _, b := range up.image.Layers {
		a := blobAsk(up)
		a.blob = b
		l.awaitWord(t, right, a)
	}
	l.stop()
	if left := files(t, l.dir+"/ingest"); len(left) > 0 {
		t.Errorf("every blob is committed, and there is still %v", left)
	}
}

// TestPartsWhenRangeIsIgnored has many clients want different parts of a blob
// from an upstream that always sends all of it.
func TestPartsWhenRangeIsIgnored(t *testing.T) {
	t.Parallel()
	const size = 24 * mib
	up := newUpstream(t, registry.Options{}, registry.NewLayer(1, size))
	l := startLarder(t, settings{servers: []*registry.Server{up.Server}})
	up.Set(registry.Fault{On: registry.Blobs, IgnoreRange: true})
	var all sync.WaitGroup
	for i := range int64(12) {
		a, tr := blobAsk(up), client(t)
		a.from, a.to = i*2*mib, i*2*mib+mib
		all.Go(func() {
			if s := l.getWith(t.Context(), tr, a); s.word != right {
				t.Errorf("from %d: %v", a.from, s)
			}
		})
	}
	all.Wait()
	// Streams that are on their way when the first answer says that Range is
	// ignored run on, up to four; one for each client would be more.
	if n := up.Sent(up.image.Layers[0].Digest); n > 5*size {
		t.Errorf("upstream sent %d MiB for parts of a blob of %d:%s", n/mib, size/mib, list(up.Requests()))
	}
}

// TestOddContent pulls what is unusual and right: nothing, one byte, sha512, the
// end of a blob that is not held, the registry named in the path.
func TestOddContent(t *testing.T) {
	t.Parallel()
	up := newUpstream(t, registry.Options{})
	l := startLarder(t, settings{servers: []*registry.Server{up.Server}})
	for name, b := range map[string]registry.Blob{
		"empty":    up.AddBlob(repo, "", bytes.NewReader(nil)),
		"one byte": up.AddBlob(repo, "", registry.Random(1, 1)),
		"sha512":   up.AddBlobAs(digest.SHA512, repo, "", registry.Random(2, 70_000)),
	} {
		for range 2 { // cold, then held
			for _, inPath := range []bool{false, true} {
				a := ask{server: up.Server, repo: repo, kind: registry.Blobs, blob: b, inPath: inPath}
				if s := l.get(t, a); s.word != right {
					t.Errorf("%s: GET %s: %v", name, a.path(), s)
				}
				a.method = "HEAD"
				if s := l.get(t, a); s.word != right {
					t.Errorf("%s: HEAD %s: %v", name, a.path(), s)
				}
			}
		}
	}
	end := blobAsk(up)
	end.from = -1000
	l.mustGet(t, right, end)
	l.mustGet(t, right, end)
	inPath := tagAsk(up)
	inPath.inPath = true
	l.mustGet(t, right, inPath)
}

// TestLimitHoldsUnderLoad pulls more than the cache may hold. Everybody is
// served, what is being read stays, and the limit holds.
func TestLimitHoldsUnderLoad(t *testing.T) {
	t.Parallel()
	const size, limit, blobs = 6 * mib, 40 * mib, 16
	up := newUpstream(t, registry.Options{}, registry.NewLayer(1, size))
	l := startLarder(t, settings{servers: []*registry.Server{up.Server}, maxSize: "40MiB"})
	l.mustGet(t, right, blobAsk(up))
	// A client that has begun to read, and reads on when all is over.
	first := l.begin(t, blobAsk(up))
	var all sync.WaitGroup
	for i := range uint64(blobs) {
		b := up.AddBlob(repo, "", registry.Random(100+i, size))
		a, tr := ask{server: up.Server, repo: repo, kind: registry.Blobs, blob: b}, client(t)
		all.Go(func() {
			for range 2 {
				if s := l.getWith(t.Context(), tr, a); s.word != right {
					t.Errorf("%s: %v", a.path(), s)
				}
			}
		})
	}
	all.Wait()
	if s := first(); s.word != right {
		t.Errorf("the client that was reading all the while: %v", s)
	}
	l.stop()
	var used int64
	for _, dir := range []string{"blobs", "ingest"} {
		for _, file := range files(t, l.dir+"/"+dir) {
			info, err := os.Stat(file)
			if err != nil {
				t.Fatal(err)
			}
			used += info.Size()
		}
	}
	if used > limit {
		t.Errorf("%d MiB are kept, the limit is %d", used/mib, limit/mib)
	}
	if used < limit/2 {
		t.Errorf("only %d MiB are kept, the limit is %d", used/mib, limit/mib)
	}
}

// begin asks and waits for the first bytes; the func it returns reads the rest.
func (l *larder) begin(t *testing.T, a ask) func() seen {
	t.Helper()
	pause := make(chan struct{})
	begun, done := make(chan struct{}), make(chan seen, 1)
	go func() {
		done <- l.getPaused(t, a, begun, pause)
	}()
	select {
	case <-begun:
	case s := <-done:
		t.Fatalf("%s: %v", a.path(), s)
	}
	return func() seen {
		close(pause)
		return <-done
	}
}

// TestWrongBytesAreNotForEver leaves a partial file with a wrong byte in it.
func TestWrongBytesAreNotForEver(t *testing.T) {
	t.Parallel()
	up := newUpstream(t, registry.Options{})
	l := startLarder(t, settings{servers: []*registry.Server{up.Server}})
	up.Set(
		registry.Fault{On: registry.Blobs, Flip: true, At: 1000, Short: layerSize / 2, Times: 1, NoLength: true},
		registry.Fault{On: registry.Blobs, Method: http.MethodGet, Status: http.StatusNotFound},
	)
	// On a busy machine it may have been given up before the client has a status.
	if s := l.get(t, blobAsk(up)); s.word != spoiled && s.word != "404" {
		t.Fatalf("%v, want it broken off after a wrong byte", s)
	}
	up.Set()
	for word := ""; word != right; {
		switch s := l.get(t, blobAsk(up)); s.word {
		case right:
			word = right
		case spoiled, "404":
		default:
			t.Fatalf("then: %v", s)
		}
	}
}

// TestWrongSizeIsNotForEver has an upstream say once that a blob is shorter than
// it is, and break off, so that a partial file of the wrong size is left. When
// the upstream is well again, so is the blob.
func TestWrongSizeIsNotForEver(t *testing.T) {
	t.Parallel()
	up := newUpstream(t, registry.Options{})
	l := startLarder(t, settings{servers: []*registry.Server{up.Server}})
	up.Set(
		registry.Fault{On: registry.Blobs, Short: 100, Cut: true, At: layerSize / 2, Times: 1},
		registry.Fault{On: registry.Blobs, Status: http.StatusNotFound},
	)
	if s := l.get(t, blobAsk(up)); s.word != broken {
		t.Fatalf("%v, want it broken off", s)
	}
	up.Set()
	l.awaitWord(t, right, blobAsk(up))
}
