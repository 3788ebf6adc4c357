package model

import (
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/store"
)

var (
	steps = flag.Int("steps", 25, "how many things each client does")
	kills = flag.Int("kills", 3, "how many times the registry is killed")
	cut   = flag.String("cut", "", "cut the power instead: the `KIND` of file system to make for that, ext4 or xfs (needs root)")
)

const clients = 6

func TestRandomClientsAgainstAModel(t *testing.T) {
	p := newProcess(t, *cut)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	repositories := []string{"team-a/app", "team-a/app/part", "team-b/app"}
	var layers [][]byte
	for n := range 8 {
		layers = append(layers, []byte(strings.Repeat(digest.FromString(fmt.Sprint(n)).Encoded(), 1+n*n*8)))
	}
	all := make([]*client, clients)
	total := &count{}
	var done atomic.Int64 // steps
	var working sync.WaitGroup
	progress := make(chan int64, clients**steps)
	for n := range all {
		all[n] = &client{
			t: t, p: p, n: n, count: total, random: rand.New(rand.NewPCG(seed, uint64(n))),
			images: map[string]*image{}, tags: map[string]*state{},
		}
		working.Go(func() {
			for range *steps {
				all[n].step(repositories, layers)
				progress <- done.Add(1)
			}
		})
	}
	// Kills come when a share of the work is done, and so in the middle of it.
	for kill := range *kills {
		for now := range progress {
			if now >= int64((kill+1)*clients**steps/(*kills+1)) {
				break
			}
		}
		p.kill()
	}
	working.Wait()
	p.kill()
	check := func() {
		var checking sync.WaitGroup
		for _, c := range all {
			checking.Go(func() { c.checkAll(repositories) })
		}
		checking.Wait()
	}
	check()
	t.Logf("%d pushed, %d pulled, %d deleted; %d requests lost, %d pushes refused for what was collected, %d uploads resumed",
		total.pushed.Load(), total.pulled.Load(), total.deleted.Load(), total.lost.Load(), total.again.Load(), total.resumed.Load())
	if total.pushed.Load() == 0 || total.pulled.Load() == 0 || total.deleted.Load() == 0 {
		t.Error("nothing was tried")
	}
	for _, c := range all {
		for _, i := range c.images {
			for !i.gone && t.Context().Err() == nil && !t.Failed() {
				c.deleteImage(i)
			}
		}
	}
	check()
	if t.Failed() {
		t.Log(p.complaints())
		return
	}
	emptied(t, p)
}

// emptied waits until the registry has collected everything, stops it, and looks
// at what is left.
func emptied(t *testing.T, p *process) {
	t.Helper()
	deadline := time.NewTimer(2 * time.Minute)
	defer deadline.Stop()
	look := time.NewTicker(50 * time.Millisecond)
	defer look.Stop()
	for {
		select {
		case <-look.C:
		case <-deadline.C:
			t.Fatalf("left on disk: %q", files(t, p.dir))
		}
		if len(files(t, p.dir)) == 0 {
			break
		}
	}
	p.end()
	ledger, err := store.OpenLedger(filepath.Join(p.dir, "index"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ledger.Close()
	left, err := ledger.List(t.Context(), "", "", -1)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range left {
		t.Errorf("record %s is left: %s", r.Key, r.Value)
	}
}

// files lists content and drafts.
func files(t *testing.T, dir string) (list []string) {
	t.Helper()
	for _, sub := range []string{"blobs", "uploads"} {
		err := filepath.WalkDir(filepath.Join(dir, sub), func(name string, e fs.DirEntry, err error) error {
			if err == nil && !e.IsDir() {
				list = append(list, name)
			}
			return nil // it may just be going
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return list
}
