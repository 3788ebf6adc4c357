package mirror

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/larder-registry/larder/internal/oci"
	"github.com/larder-registry/larder/test/registry"
)

// TestReadersOfAllKindsOverABadUpstream has readers come, seek about, read a
// part and leave, while streams are cut, ranges now and then ignored. Whatever
// a reader gets has to be right, and in the end the blob has to be there.
func TestReadersOfAllKindsOverABadUpstream(t *testing.T) {
	for seed := range uint64(6) {
		up := registry.Start(t, registry.Options{})
		b := up.AddBlob(repo, "", registry.Random(seed, 16*mib+int64(seed)))
		rng := rand.New(rand.NewPCG(seed, 7))
		var faults []registry.Fault
		for range 8 {
			faults = append(faults, registry.Fault{
				On: registry.Blobs, Cut: true, At: rng.Int64N(12 * mib), Times: 1,
				IgnoreRange: rng.IntN(3) == 0,
			})
		}
		up.Set(faults...)
		fx := start(t, up, t.TempDir(), nil)
		var readers sync.WaitGroup
		for range 16 {
			from, length := rng.Int64N(b.Size()), 1+rng.Int64N(6*mib)
			leaves := rng.IntN(4) == 0
			readers.Go(func() { readPart(t, fx, b, from, min(from+length, b.Size()), leaves) })
		}
		readers.Wait()
		whole, err := fx.Blob(t.Context(), fx.name, b.Digest)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		readAll(t, whole, section(b, 0, b.Size()))
		whole.Close()
		fx.settled(t, b.Digest)
		if !fx.onDisk(t, b) {
			t.Errorf("seed %d: blob is not on disk", seed)
		}
		fx.stop()
	}
}

// readPart reads from..end as a client would: a reader that fails asks again
// where it was. A reader that leaves does so halfway.
func readPart(t *testing.T, fx *fixture, b registry.Blob, from, end int64, leaves bool) {
	if leaves {
		end = from + (end-from)/2
	}
	for tries := 0; from < end; tries++ {
		if tries == 20 {
			t.Errorf("no progress at %d", from)
			return
		}
		blob, err := fx.Blob(oci.WithAccess(t.Context(), &oci.Access{Range: &oci.Span{Start: from, End: end}}), fx.name, b.Digest)
		if err != nil {
			continue
		}
		if _, err := blob.Seek(from, io.SeekStart); err != nil {
			t.Error(err)
		}
		compared := &comparer{t: t, got: blob, want: b.Content, off: from}
		n, err := io.CopyN(io.Discard, compared, end-from)
		blob.Close()
		if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("reading %d to %d: %v", from, end, err)
			return
		}
		if n > 0 {
			tries = 0
		}
		from += n
	}
}

// comparer compares what is read through it with what it should be.
type comparer struct {
	t    *testing.T
	got  io.Reader
	want io.ReaderAt
	off  int64
}

func (c *comparer) Read(p []byte) (int, error) {
	n, err := c.got.Read(p)
	want := make([]byte, n)
	if _, err := c.want.ReadAt(want, c.off); err != nil && n > 0 && !errors.Is(err, io.EOF) {
		c.t.Error(err)
	}
	if !bytes.Equal(p[:n], want) {
		c.t.Errorf("wrong bytes between %d and %d", c.off, c.off+int64(n))
	}
	c.off += int64(n)
	return n, err
}
