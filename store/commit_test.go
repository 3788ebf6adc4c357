package store

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"
)

// TestCommitOrder holds the steps of a commit to their order: nothing is
// renamed before it is on disk, and nothing indexed before it is renamed.
func TestCommitOrder(t *testing.T) {
	var steps []string
	cfg := roomy(t.TempDir())
	cfg.SyncWrites = true
	cfg.hook = func(point string) {
		switch point {
		case "after fsync", "after rename", "before index":
			steps = append(steps, point)
		}
	}
	cfg.files = files{sync: func(f *os.File) error {
		steps = append(steps, "sync "+filepath.Base(f.Name()))
		return f.Sync()
	}}
	s := mustOpen(t, cfg)
	content := []byte("in order")
	i, err := s.Ingest(t.Context(), digest.FromBytes(content), int64(len(content)))
	if err != nil {
		t.Fatal(err)
	}
	defer i.Close()
	if _, err := i.WriteAt(content, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := i.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := "[sync data after fsync sync blobs sync sha256 after rename sync " + digest.FromBytes(content).Encoded()[:2] + " before index]"
	if got := fmt.Sprint(steps); got != want {
		t.Errorf("steps are %s, want %s", got, want)
	}
}
