package store

import (
	"bytes"
	"os"
	"testing"

	"github.com/opencontainers/go-digest"
)

// TestWritebackWaitsForNobody: the kernel is told to begin after each step, once
// at a time, and neither a write nor a commit waits until it has been.
func TestWritebackWaitsForNobody(t *testing.T) {
	told, taken := make(chan int64, 100), make(chan struct{})
	cfg := roomy(t.TempDir())
	cfg.hugeFrom = 3 * writebackStep
	cfg.files = files{writeback: func(f *os.File, from, to int64) {
		told <- to - from
		<-taken
		writeback(f, from, to)
	}}
	s := mustOpen(t, cfg)
	content := bytes.Repeat([]byte("Larder"), 3*writebackStep/6+1)
	dgst, size := digest.FromBytes(content), int64(len(content))
	i, err := s.Ingest(t.Context(), dgst, size)
	if err != nil {
		t.Fatal(err)
	}
	defer i.Close()
	write := func(from, to int64) {
		t.Helper()
		for from < to {
			n := min(to-from, 256<<10)
			if _, err := i.WriteAt(content[from:from+n], from); err != nil {
				t.Fatal(err)
			}
			from += n
		}
	}
	write(0, writebackStep-1)
	if len(told) != 0 {
		t.Error("the kernel was told before there was a step to write")
	}
	// The last part first: order does not matter.
	write(2*writebackStep, size)
	if got := <-told; got != size {
		t.Errorf("the kernel was told of %d bytes, want the file's %d", got, size)
	}
	write(writebackStep-1, 2*writebackStep)
	if _, err := i.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(told) != 0 {
		t.Error("the kernel was told again before it had begun")
	}
	// It begins when the ingest is long over.
	if err := i.Close(); err != nil {
		t.Fatal(err)
	}
	close(taken)
	blob, err := s.Blob(dgst)
	if err != nil {
		t.Fatal(err)
	}
	defer blob.Close()
	got := make([]byte, size)
	if _, err := blob.ReadAt(got, 0); err != nil || !bytes.Equal(got, content) {
		t.Errorf("content differs, or %v", err)
	}

	// What is smaller is left to the kernel.
	less, err := s.Ingest(t.Context(), digest.FromString("less"), cfg.hugeFrom-1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := less.WriteAt(content[:cfg.hugeFrom-1], 0); err != nil {
		t.Fatal(err)
	}
	if err := less.Abort(); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if len(told) != 0 {
		t.Error("the kernel was told of what is not huge")
	}
}
