package mirror

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/larder-registry/larder/internal/oci"
	"github.com/larder-registry/larder/store"
	"github.com/larder-registry/larder/test/registry"
)

const mib = 1 << 20

func TestOneFillServesEverybodyAtEveryOffset(t *testing.T) {
	up := registry.Start(t, registry.Options{})
	b := up.AddBlob(repo, "", registry.Random(1, 20*mib))
	gate := registry.NewGate()
	up.Set(registry.Fault{On: registry.Blobs, Gate: gate, At: 1 * mib, Times: 1})
	fx := start(t, up, t.TempDir(), nil)

	var readers sync.WaitGroup
	for i := range int64(50) {
		from := (i % 5) * reach / 4
		ctx := t.Context()
		if from > 0 {
			ctx = ranged(t, from, -1)
		}
		blob := fx.open(t, ctx, b.Digest)
		if got := blob.Descriptor().Size; got != b.Size() {
			t.Fatalf("size %d, want %d", got, b.Size())
		}
		readers.Go(func() {
			if _, err := blob.Seek(from, io.SeekStart); err != nil {
				t.Error(err)
				return
			}
			if err := sameBytes(blob, section(b, from, b.Size())); err != nil {
				t.Errorf("reader from %d: %v", from, err)
			}
			blob.Close()
		})
	}
	gate.Open()
	readers.Wait()
	fx.settled(t, b.Digest)
	if sent, n := up.Sent(b.Digest), up.Count(); sent != b.Size() || n != 1 {
		t.Errorf("upstream sent %d bytes of a blob of %d for %d requests", sent, b.Size(), n)
	}
	if !fx.onDisk(t, b) {
		t.Error("blob is not on disk")
	}
	blob := fx.open(t, t.Context(), b.Digest)
	readAll(t, blob, section(b, 0, b.Size()))
}

func TestLeavingClientDoesNotStopTheFill(t *testing.T) {
	up := registry.Start(t, registry.Options{})
	b := up.AddBlob(repo, "", registry.Random(2, 4*mib))
	gate := registry.NewGate()
	up.Set(registry.Fault{On: registry.Blobs, Gate: gate, At: mib})
	fx := start(t, up, t.TempDir(), nil)

	ctx, leave := context.WithCancel(t.Context())
	blob := fx.open(t, ctx, b.Digest)
	if _, err := io.CopyN(io.Discard, blob, 100); err != nil {
		t.Fatal(err)
	}
	leave()
	if _, err := io.Copy(io.Discard, blob); !errors.Is(err, context.Canceled) {
		t.Fatalf("a reader whose request is over got %v", err)
	}
	blob.Close()
	gate.Open()
	fx.settled(t, b.Digest)
	if !fx.onDisk(t, b) {
		t.Error("blob is not on disk")
	}
	if n := up.Count(registry.Blobs); n != 1 {
		t.Errorf("%d upstream requests, want 1", n)
	}
}

func TestAbandonedFillStopsAndIsResumed(t *testing.T) {
	up := registry.Start(t, registry.Options{})
	b := up.AddBlob(repo, "", registry.Random(3, 4*mib))
	gate := registry.NewGate()
	up.Set(registry.Fault{On: registry.Blobs, Gate: gate, At: 3 * mib, Times: 1})
	fx := start(t, up, t.TempDir(), func(c *configs) { c.mirror.FinishTimeout = time.Millisecond })

	blob := fx.open(t, t.Context(), b.Digest)
	if err := sameBytes(io.LimitReader(blob, 2*mib), section(b, 0, 2*mib)); err != nil {
		t.Fatal(err)
	}
	blob.Close()
	fx.settled(t, b.Digest)
	gate.Open()
	up.Forget()

	again := fx.open(t, t.Context(), b.Digest)
	readAll(t, again, section(b, 0, b.Size()))
	requests := up.Requests()
	if len(requests) != 1 || requests[0].Range() == "" {
		t.Fatalf("the second life asked for %v", requests)
	}
	fx.settled(t, b.Digest)
	if !fx.onDisk(t, b) {
		t.Error("blob is not on disk")
	}
}

func TestRangeInTheMiddleFetchesOneSegment(t *testing.T) {
	for _, end := range []int64{-1, 101 * mib} {
		up := registry.Start(t, registry.Options{})
		b := up.AddBlob(repo, "", registry.Random(4, 200*mib))
		fx := start(t, up, t.TempDir(), nil)

		blob := fx.open(t, ranged(t, 100*mib, end), b.Digest)
		if _, err := blob.Seek(100*mib, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		readAll(t, io.LimitReader(blob, 1000), section(b, 100*mib, 100*mib+1000))
		blob.Close()
		fx.settled(t, b.Digest)
		if err := up.WaitIdle(t.Context()); err != nil {
			t.Fatal(err)
		}
		if sent := up.Sent(b.Digest); sent > 2*segment {
			t.Errorf("upstream sent %d bytes for a range", sent)
		}
		if n := up.Count(registry.Blobs); n != 1 {
			t.Errorf("%d upstream requests, want 1", n)
		}
	}
}

func TestLastBytesOfAnUncachedBlob(t *testing.T) {
	up := registry.Start(t, registry.Options{})
	b := up.AddBlob(repo, "", registry.Random(5, 5*mib))
	fx := start(t, up, t.TempDir(), nil)
	blob := fx.open(t, ranged(t, -100, -1), b.Digest)
	if _, err := blob.Seek(-100, io.SeekEnd); err != nil {
		t.Fatal(err)
	}
	readAll(t, blob, section(b, b.Size()-100, b.Size()))
}

func TestParallelOpenEndedRanges(t *testing.T) {
	// What containerd does with concurrent_layer_fetch_buffer: each request
	// reads one chunk of an open-ended range and hangs up.
	const chunk = 8 * mib
	up := registry.Start(t, registry.Options{BytesPerSecond: 200 * mib})
	b := up.AddBlob(repo, "", registry.Random(6, 40*mib))
	fx := start(t, up, t.TempDir(), nil)
	var readers sync.WaitGroup
	slots := make(chan struct{}, 3)
	for from := int64(0); from < b.Size(); from += chunk {
		slots <- struct{}{}
		readers.Go(func() {
			defer func() { <-slots }()
			blob := fx.open(t, ranged(t, from, -1), b.Digest)
			defer blob.Close()
			if _, err := blob.Seek(from, io.SeekStart); err != nil {
				t.Error(err)
			}
			if err := sameBytes(io.LimitReader(blob, chunk), section(b, from, min(from+chunk, b.Size()))); err != nil {
				t.Errorf("chunk at %d: %v", from, err)
			}
		})
	}
	readers.Wait()
	fx.settled(t, b.Digest)
	if !fx.onDisk(t, b) {
		t.Error("blob is not on disk")
	}
	if err := up.WaitIdle(t.Context()); err != nil {
		t.Fatal(err)
	}
	if sent := up.Sent(b.Digest); sent > b.Size()+b.Size()/20 {
		t.Errorf("upstream sent %d bytes of a blob of %d", sent, b.Size())
	}
}

// A reader far ahead of a stream that stands still does not wait for it: the
// stream yields, its own reader included, and costs hardly a byte twice.
func TestStreamThatStandsStillYields(t *testing.T) {
	up := registry.Start(t, registry.Options{})
	b := up.AddBlob(repo, "", registry.Random(18, 40*mib))
	gate := registry.NewGate()
	defer gate.Open()
	up.Set(registry.Fault{On: registry.Blobs, Gate: gate, At: 2 * mib, Times: 1})
	fx := start(t, up, t.TempDir(), nil)
	whole := fx.open(t, t.Context(), b.Digest)
	readAll(t, io.LimitReader(whole, mib), section(b, 0, mib))
	<-gate.Reached()
	far := fx.open(t, ranged(t, 30*mib, -1), b.Digest)
	if _, err := far.Seek(30*mib, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	readAll(t, io.LimitReader(far, mib), section(b, 30*mib, 31*mib))
	readAll(t, whole, section(b, mib, b.Size()))
	fx.settled(t, b.Digest)
	if !fx.onDisk(t, b) {
		t.Error("blob is not on disk")
	}
	gate.Open()
	if err := up.WaitIdle(t.Context()); err != nil {
		t.Fatal(err)
	}
	if sent := up.Sent(b.Digest); sent > b.Size()+b.Size()/20 {
		t.Errorf("upstream sent %d bytes of a blob of %d", sent, b.Size())
	}
}

func TestBrokenStreamsAreResumed(t *testing.T) {
	for name, fault := range map[string]registry.Fault{
		"cut":              {Cut: true, At: 2 * mib, Times: 2},
		"cut at the start": {Cut: true, At: 0, Times: 1},
		"stall":            {Stall: true, At: mib, Times: 1},
		"short":            {Short: 1000, Times: 1, Method: "GET", NoLength: true},
		"ignores range":    {IgnoreRange: true, Cut: true, At: 3 * mib, Times: 1},
	} {
		t.Run(name, func(t *testing.T) {
			up := registry.Start(t, registry.Options{})
			b := up.AddBlob(repo, "", registry.Random(7, 5*mib))
			fault.On = registry.Blobs
			up.Set(fault)
			fx := start(t, up, t.TempDir(), func(c *configs) {
				if fault.Stall {
					c.upstream.Timeouts.Stall = 300 * time.Millisecond
				}
			})
			fx.sizes.note(fx.name, b.Digest, b.Size())
			blob := fx.open(t, t.Context(), b.Digest)
			readAll(t, blob, section(b, 0, b.Size()))
			fx.settled(t, b.Digest)
			if !fx.onDisk(t, b) {
				t.Error("blob is not on disk")
			}
		})
	}
}

func TestUpstreamThatNeverHonoursRange(t *testing.T) {
	up := registry.Start(t, registry.Options{})
	b := up.AddBlob(repo, "", registry.Random(8, 20*mib))
	up.Set(registry.Fault{On: registry.Blobs, IgnoreRange: true})
	fx := start(t, up, t.TempDir(), nil)
	blob := fx.open(t, ranged(t, 15*mib, -1), b.Digest)
	if _, err := blob.Seek(15*mib, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	readAll(t, blob, section(b, 15*mib, b.Size()))
	whole := fx.open(t, t.Context(), b.Digest)
	readAll(t, whole, section(b, 0, b.Size()))
	if sent := up.Sent(b.Digest); sent > b.Size() {
		t.Errorf("upstream sent %d bytes of a blob of %d", sent, b.Size())
	}
}

func TestWholeBlobForARangeFromItsStart(t *testing.T) {
	up := registry.Start(t, registry.Options{})
	b := up.AddBlob(repo, "", registry.Random(16, 20*mib))
	gate := registry.NewGate()
	up.Set(registry.Fault{On: registry.Blobs, IgnoreRange: true, Gate: gate, At: mib})
	fx := start(t, up, t.TempDir(), nil)
	first := fx.open(t, ranged(t, 0, mib), b.Digest)
	var readers sync.WaitGroup
	for from := range int64(12) {
		blob := fx.open(t, ranged(t, from*mib, -1), b.Digest)
		readers.Go(func() {
			if _, err := blob.Seek(from*mib, io.SeekStart); err != nil {
				t.Error(err)
			}
			if err := sameBytes(io.LimitReader(blob, mib), section(b, from*mib, (from+1)*mib)); err != nil {
				t.Error(err)
			}
			blob.Close()
		})
	}
	gate.Open()
	readAll(t, io.LimitReader(first, mib), section(b, 0, mib))
	readers.Wait()
	if n := up.Count(); n != 1 {
		t.Errorf("%d upstream requests, want 1", n)
	}
}

func TestWrongBytesAreNeverServedWholeNorKept(t *testing.T) {
	for _, at := range []int64{0, mib, 3*mib - 1} {
		up := registry.Start(t, registry.Options{})
		b := up.AddBlob(repo, "", registry.Random(9, 3*mib))
		up.Set(registry.Fault{On: registry.Blobs, Flip: true, At: at})
		fx := start(t, up, t.TempDir(), nil)
		// By the time it is opened all of it may have come.
		blob, err := fx.Blob(t.Context(), fx.name, b.Digest)
		if err == nil {
			var n int64
			n, err = io.Copy(io.Discard, blob)
			if !errors.Is(err, io.ErrUnexpectedEOF) || n >= b.Size() {
				t.Errorf("flip at %d: read %d of %d bytes, then %v", at, n, b.Size(), err)
			}
			blob.Close()
		}
		if !errors.Is(err, oci.ErrDigestInvalid) {
			t.Errorf("flip at %d: got %v", at, err)
		}
		fx.settled(t, b.Digest)
		if fx.onDisk(t, b) {
			t.Error("wrong bytes were committed")
		}
		if _, ok := fx.store.Partial(b.Digest); ok {
			t.Error("wrong bytes were left to be resumed")
		}
		if _, err := fx.Blob(t.Context(), fx.name, b.Digest); !errors.Is(err, oci.ErrDigestInvalid) {
			t.Errorf("asked again at once: %v", err)
		}
	}
}

func TestPartialBlobOutlivesTheMirror(t *testing.T) {
	up := registry.Start(t, registry.Options{})
	b := up.AddBlob(repo, "", registry.Random(10, 12*mib))
	gate := registry.NewGate()
	up.Set(registry.Fault{On: registry.Blobs, Gate: gate, At: 9 * mib, Times: 1})
	dir := t.TempDir()
	fx := start(t, up, dir, nil)
	blob := fx.open(t, t.Context(), b.Digest)
	readAll(t, io.LimitReader(blob, 8*mib), section(b, 0, 8*mib))
	blob.Close()
	fx.stop()
	gate.Open()

	before := up.Sent(b.Digest)
	fx = start(t, up, dir, nil)
	blob = fx.open(t, t.Context(), b.Digest)
	readAll(t, blob, section(b, 0, b.Size()))
	if sent := up.Sent(b.Digest) - before; sent > 4*mib {
		t.Errorf("the second life fetched %d bytes of %d missing", sent, 4*mib)
	}
	fx.settled(t, b.Digest)
	if !fx.onDisk(t, b) {
		t.Error("blob is not on disk")
	}
}

func TestRefusalOfOneRepositoryIsNotAnothers(t *testing.T) {
	up := registry.Start(t, registry.Options{})
	b := up.AddBlob(repo, "", registry.Random(11, 1000))
	gate := registry.NewGate()
	up.Set(registry.Fault{On: registry.Blobs, Hold: gate, Match: func(r registry.Request) bool { return r.Repo == "other/app" }})
	fx := start(t, up, t.TempDir(), nil)
	other := oci.Name{Registry: fx.name.Registry, Repository: "other/app"}

	refused := make(chan error, 1)
	go func() {
		_, err := fx.Blob(t.Context(), other, b.Digest)
		refused <- err
	}()
	<-gate.Reached()
	served := make(chan error, 1)
	go func() {
		blob, err := fx.Blob(t.Context(), fx.name, b.Digest)
		if err == nil {
			defer blob.Close()
			err = sameBytes(blob, section(b, 0, b.Size()))
		}
		served <- err
	}()
	gate.Open()
	if err := <-refused; !errors.Is(err, oci.ErrBlobUnknown) {
		t.Errorf("the repository without the blob: %v", err)
	}
	if err := <-served; err != nil {
		t.Errorf("the repository with the blob: %v", err)
	}
}

func TestWhatCannotBeKeptPassesThrough(t *testing.T) {
	up := registry.Start(t, registry.Options{})
	b := up.AddBlob(repo, "", registry.Random(12, 3*mib))
	fx := start(t, up, t.TempDir(), func(c *configs) { c.store.MaxSize = store.Bytes(mib) })

	access := &oci.Access{}
	blob, err := fx.Blob(oci.WithAccess(t.Context(), access), fx.name, b.Digest)
	if err != nil {
		t.Fatal(err)
	}
	defer blob.Close()
	if access.Outcome != oci.OutcomePass || access.Reason != "disk" {
		t.Errorf("outcome %q for %q", access.Outcome, access.Reason)
	}
	readAll(t, blob, section(b, 0, b.Size()))
	if _, err := blob.Seek(mib, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	readAll(t, blob, section(b, mib, b.Size()))

	up.Set(registry.Fault{On: registry.Blobs, Flip: true, At: 10})
	bad, err := fx.Blob(t.Context(), fx.name, b.Digest)
	if err != nil {
		t.Fatal(err)
	}
	defer bad.Close()
	if n, err := io.Copy(io.Discard, bad); !errors.Is(err, oci.ErrDigestInvalid) || n != b.Size()-1 {
		t.Errorf("wrong bytes passed: %d of %d, then %v", n, b.Size(), err)
	}
}

func TestEmptyBlob(t *testing.T) {
	up := registry.Start(t, registry.Options{})
	b := up.AddBlob(repo, "", registry.Random(13, 0))
	fx := start(t, up, t.TempDir(), nil)
	blob := fx.open(t, t.Context(), b.Digest)
	readAll(t, blob, section(b, 0, 0))
	fx.settled(t, b.Digest)
	if !fx.onDisk(t, b) {
		t.Error("blob is not on disk")
	}
}

func TestRangeIgnoredWhileAStreamIsRunning(t *testing.T) {
	up := registry.Start(t, registry.Options{})
	b := up.AddBlob(repo, "", registry.Random(14, 20*mib))
	gate := registry.NewGate()
	up.Set(
		registry.Fault{On: registry.Blobs, IgnoreRange: true, Gate: gate, At: mib, Times: 1},
		registry.Fault{On: registry.Blobs, IgnoreRange: true},
	)
	fx := start(t, up, t.TempDir(), nil)
	whole := fx.open(t, t.Context(), b.Digest)
	part := fx.open(t, ranged(t, 15*mib, -1), b.Digest)
	if _, err := part.Seek(15*mib, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	read := make(chan error, 1)
	go func() { read <- sameBytes(part, section(b, 15*mib, b.Size())) }()
	if err := up.WaitFor(t.Context(), func(rs []registry.Request) bool { return len(rs) == 2 && rs[1].Done }); err != nil {
		t.Fatal(err)
	}
	gate.Open()
	readAll(t, whole, section(b, 0, b.Size()))
	if err := <-read; err != nil {
		t.Error(err)
	}
	if n := up.Count(registry.Blobs); n != 2 {
		t.Errorf("%d upstream requests, want 2", n)
	}
}

func TestBytesThatCannotBeReadBackComeFromUpstream(t *testing.T) {
	up := registry.Start(t, registry.Options{})
	b := up.AddBlob(repo, "", registry.Random(15, 4*mib))
	gate := registry.NewGate()
	up.Set(registry.Fault{On: registry.Blobs, Gate: gate, At: 3 * mib, Times: 1})
	dir := t.TempDir()
	fx := start(t, up, dir, nil)
	blob := fx.open(t, t.Context(), b.Digest)
	// Once the upstream is held back, all that came before is on disk.
	readAll(t, io.LimitReader(blob, mib), section(b, 0, mib))
	ahead := fx.open(t, t.Context(), b.Digest)
	readAll(t, io.LimitReader(ahead, 3*mib), section(b, 0, 3*mib))
	ahead.Close()

	ingests, err := filepath.Glob(filepath.Join(dir, "ingest", "*", "data"))
	if err != nil || len(ingests) != 1 {
		t.Fatalf("ingests %v, %v", ingests, err)
	}
	if err := os.Truncate(ingests[0], mib); err != nil {
		t.Fatal(err)
	}
	readAll(t, blob, section(b, mib, b.Size()))
	blob.Close()
	gate.Open()
	fx.settled(t, b.Digest)
	if _, err := fx.store.Stat(b.Digest); err == nil {
		t.Error("a blob that could not be read back was committed")
	}
}
