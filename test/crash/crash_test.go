package crash

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/larder-registry/larder/test/process"
	"github.com/larder-registry/larder/test/registry"
)

var rounds = flag.Int("rounds", 4, "how many times the mirror is killed")

// The load: images that together are larger than the cache, so that something
// is always being filled and something evicted, from an upstream slow enough
// that a fill takes a while.
const (
	repo      = "team/app"
	imageSize = 12 << 20 // of the first layer; the rest is small
	images    = 5
	cacheSize = "40MiB"
	rate      = 24 << 20 // bytes per second and connection
	clients   = 4
	// killWithin bounds the bytes that clients receive in a round before the
	// mirror is killed.
	killWithin = 30 << 20
	// patience bounds what should take a moment, on a machine that is busy.
	patience = 2 * time.Minute
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestKilledUnderLoad(t *testing.T) {
	up := registry.Start(t, registry.Options{BytesPerSecond: rate})
	var pool []registry.Image
	for n := range uint64(images) {
		pool = append(pool, up.AddImage(repo, fmt.Sprint("v", n),
			registry.NewLayer(10*n, imageSize), registry.NewLayer(10*n+1, 1<<20), registry.NewLayer(10*n+2, 40_000)))
	}
	m := newMirror(t, up)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	var total figures
	for range *rounds {
		m.start()
		total.add(m.resume(pool))
		total.add(m.loadAndKill(pool, random))
		m.checkBlobs()
		if t.Failed() {
			return
		}
	}
	// In the end everything is still to be had, and a good end leaves order.
	m.start()
	total.add(m.resume(pool))
	var wg sync.WaitGroup
	f := &figures{}
	for _, image := range pool {
		wg.Go(func() {
			// As clients do: what the image manifest has the mirror start is
			// asked for, and so nothing of it is left in part.
			m.get(t.Context(), f, ask{kind: "manifests", blob: image.Blob, tag: image.Tag})
			for _, b := range image.Blobs() {
				m.get(t.Context(), f, ask{kind: "blobs", blob: b})
			}
		})
	}
	wg.Wait()
	if f.whole.Load() != int64(len(pool)*5) || f.cut.Load() != 0 {
		t.Errorf("after the last start %d answers were whole and %d cut", f.whole.Load(), f.cut.Load())
	}
	total.add(f)
	m.stop()
	m.checkBlobs()
	total.kills = *rounds
	t.Log(total.String())
	if *rounds >= 50 && (total.partials.Load() == 0 || total.saved.Load() == 0) {
		t.Error("no partial ingest was found in all these rounds: nothing was tried")
	}
}

// mirror is one data directory and the process that is on it.
type mirror struct {
	t    *testing.T
	up   *registry.Server
	home string
	bin  string
	url  string
	args []string
	proc *process.Process
}

// newMirror builds the binary and writes its configuration.
func newMirror(t *testing.T, up *registry.Server) *mirror {
	t.Helper()
	m := &mirror{t: t, up: up, home: t.TempDir()}
	var err error
	if m.bin, err = process.Build(m.home); err != nil {
		t.Fatal(err)
	}
	addr := process.Addr(t)
	m.url = "http://" + addr
	conf := filepath.Join(m.home, "larder.yaml")
	text := fmt.Sprintf("registry_proxies:\n  max_size: %s\n  min_free: 0%%\n  revalidate_timeout: 30s\n  registries:\n    - host: %q\n      insecure: true\n", cacheSize, up.Host())
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	m.args = []string{"mirror", "--config", conf, "--listen", addr, "--admin-listen", "", "--data-dir", m.data(), "--drain-timeout", "5s"}
	t.Cleanup(func() { m.proc.End(syscall.SIGKILL) })
	return m
}

func (m *mirror) data() string { return filepath.Join(m.home, "data") }

// start starts the mirror and looks at what it found, before anybody asks for
// anything.
func (m *mirror) start() {
	m.t.Helper()
	proc, err := process.Start(m.home, "larder", m.bin, m.args...)
	if err != nil {
		m.t.Fatal(err)
	}
	m.proc = proc
	if err := proc.Ready(m.t.Context(), m.url+"/readyz"); err != nil {
		m.t.Fatal(err)
	}
	m.checkOrphans()
}

// stop ends the mirror in good order.
func (m *mirror) stop() {
	m.t.Helper()
	m.proc.Stop(m.t)
	if n := len(m.partials()); n != 0 {
		m.t.Errorf("%d partial ingests are left although every blob was fetched", n)
	}
}

// loadAndKill has clients pull at random until they have received a random
// number of bytes, then kills the mirror.
func (m *mirror) loadAndKill(pool []registry.Image, random *rand.Rand) *figures {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), patience)
	defer cancel()
	f := &figures{limit: random.Int64N(killWithin), reached: make(chan struct{})}
	from := m.up.Requests()
	var wg sync.WaitGroup
	for range clients {
		own := rand.New(rand.NewPCG(random.Uint64(), 0))
		wg.Go(func() { // ends when the mirror does, or with ctx
			for m.get(ctx, f, anything(pool, own)) {
			}
		})
	}
	select {
	case <-f.reached:
	case <-ctx.Done():
		m.t.Errorf("in %v clients received only %d bytes", patience, f.bytes.Load())
	}
	f.dying.Store(true)
	m.proc.End(syscall.SIGKILL)
	wg.Wait()
	if err := m.up.WaitIdle(ctx); err != nil {
		m.t.Error(err)
	}
	if n := f.early.Load(); n > 0 {
		m.t.Errorf("%d answers were cut while the mirror lived", n)
	}
	f.upstream = sent(m.up.Requests()[len(from):])
	return f
}

// anything is a request for some part of some image.
func anything(pool []registry.Image, random *rand.Rand) ask {
	image := pool[random.IntN(len(pool))]
	blobs := image.Blobs()
	a := ask{kind: "blobs", blob: blobs[random.IntN(len(blobs))]}
	switch random.IntN(10) {
	case 0:
		return ask{kind: "manifests", blob: image.Blob, tag: image.Tag}
	case 1:
		return ask{kind: "manifests", blob: image.Blob}
	case 2: // as a client does that lost its connection
		a.from = random.Int64N(a.blob.Size())
	case 3: // as a client does that changed its mind
		a.leaveAfter = 1 + random.Int64N(a.blob.Size())
	}
	return a
}

// resume asks for every blob of which there is a part on disk: only the rest
// may come from upstream.
func (m *mirror) resume(pool []registry.Image) *figures {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), patience)
	defer cancel()
	f := &figures{}
	blobs := make(map[string]registry.Blob)
	for _, image := range pool {
		for _, b := range image.Blobs() {
			blobs[b.Digest.Encoded()] = b
		}
	}
	for hex, held := range m.partials() {
		b, ok := blobs[hex]
		if !ok {
			m.t.Errorf("a partial ingest of nothing anybody asked for: %s", hex)
			continue
		}
		m.up.Forget()
		if !m.get(ctx, f, ask{kind: "blobs", blob: b}) {
			m.t.Errorf("a blob of which a part was held could not be had: %s", b.Digest)
		}
		if err := m.up.WaitIdle(ctx); err != nil {
			m.t.Error(err)
		}
		again := m.up.Sent(b.Digest)
		if again > b.Size()-held+resumeSlack {
			m.t.Errorf("upstream sent %d bytes of %d although %d were held", again, b.Size(), held)
		}
		f.partials.Add(1)
		f.saved.Add(held)
		f.upstream += again
	}
	return f
}

// resumeSlack is what may be fetched twice of a resumed blob, in bytes.
const resumeSlack = 256 << 10
