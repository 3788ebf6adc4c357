package faults

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/larder-registry/larder/test/registry"
)

// TestResumeAfterTheProcess ends the mirror in the middle of a blob, starts it
// again, and asks again: only what is missing comes from upstream.
func TestResumeAfterTheProcess(t *testing.T) {
	for _, tt := range []struct {
		name string
		end  func(*larder)
		// again is how much of what had arrived may be fetched once more.
		again int64
	}{
		{"SIGTERM", (*larder).stop, mib},
		{"SIGKILL", (*larder).kill, 20 * mib},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			const size, arrived = 96 * mib, 80 * mib
			up := newUpstream(t, registry.Options{}, registry.NewLayer(1, size))
			l := startLarder(t, settings{servers: []*registry.Server{up.Server}})
			gate := registry.NewGate()
			defer gate.Open()
			up.Set(registry.Fault{On: registry.Blobs, Gate: gate, At: arrived})
			client := make(chan seen, 1)
			got := make(chan struct{})
			go func() {
				// Reads all that arrives, so that it has arrived in the mirror.
				a := blobAsk(up)
				a.leaveAfter = arrived - mib
				l.get(t, a)
				close(got)
				client <- l.get(t, blobAsk(up))
			}()
			<-gate.Reached()
			<-got
			tt.end(l)
			if s := <-client; s.word != broken && s.word != nothing {
				t.Errorf("the client of the mirror that ended: %v", s)
			}
			if !l.partial(blobAsk(up).blob.Digest) || l.kept(blobAsk(up).blob.Digest) {
				t.Error("the blob is not there in part")
			}
			up.Set()
			up.Forget()
			l.start()
			l.mustGet(t, right, blobAsk(up))
			if n := up.Sent(blobAsk(up).blob.Digest); n > size-arrived+tt.again {
				t.Errorf("upstream sent %d MiB once more, %d were missing:%s", n/mib, (size-arrived)/mib, list(up.Requests()))
			}
		})
	}
}

// TestKillAtRandom kills the mirror under load again and again. No client ever
// sees a wrong byte, no blob is visible that is not whole, and nothing is left
// over in the end.
func TestKillAtRandom(t *testing.T) {
	t.Parallel()
	rounds := 8
	if *long {
		rounds = 100
	}
	const size = 6 * mib
	up := newUpstream(t, registry.Options{})
	l := newLarder(t, settings{servers: []*registry.Server{up.Server}})
	random := rand.New(rand.NewPCG(1, 2))
	for round := range rounds {
		seed := uint64(1000 + round/2*10) // every other round finds what the one before left
		image := up.AddImage(repo, fmt.Sprint("round", round/2), registry.NewLayer(seed, size), registry.NewLayer(seed+1, size/3), registry.NewLayer(seed+2, 1000))
		l.start()
		var asks []ask
		for _, b := range image.Blobs() {
			asks = append(asks, ask{server: up.Server, repo: repo, kind: registry.Blobs, blob: b})
		}
		asks = append(asks, ask{server: up.Server, repo: repo, kind: registry.Manifests, tag: image.Tag, blob: image.Blob})
		after := random.Int64N(size)
		reached := make(chan struct{})
		var all sync.WaitGroup
		for i, a := range asks {
			tr := client(t)
			all.Go(func() {
				if s := l.getWith(t.Context(), tr, a); s.word == wrong || s.word == spoiled {
					t.Errorf("round %d: %s: %v", round, a.path(), s)
				}
			})
			if i == 1 { // the first layer
				leaving, tr := a, client(t)
				leaving.leaveAfter = after + 1
				all.Go(func() {
					defer close(reached)
					if s := l.getWith(t.Context(), tr, leaving); s.why != "left" {
						t.Errorf("round %d: it ended before it was killed: %v", round, s)
					}
				})
			}
		}
		<-reached
		l.kill()
		all.Wait()
	}
	l.start()
	for round := range rounds {
		seed := uint64(1000 + round/2*10)
		image := up.AddImage(repo, fmt.Sprint("round", round/2), registry.NewLayer(seed, size), registry.NewLayer(seed+1, size/3), registry.NewLayer(seed+2, 1000))
		for _, b := range image.Blobs() {
			l.mustGet(t, right, ask{server: up.Server, repo: repo, kind: registry.Blobs, blob: b})
		}
	}
	l.stop()
	if left := files(t, l.dir+"/ingest"); len(left) > 0 {
		t.Errorf("every blob is committed, and there is still %v", left)
	}
}
