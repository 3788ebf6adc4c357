package store

import (
	"os"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/sirupsen/logrus"
)

// WithHook has f called at the named points of the store's work.
func WithHook(cfg Config, f func(point string)) Config {
	cfg.hook = f
	return cfg
}

// WithCheckEvery has limits looked at, and the index tried again, so often.
func WithCheckEvery(cfg Config, every time.Duration) Config {
	cfg.checkEvery = every
	return cfg
}

// WithSync has every sync of a depot pass through f, which does it or not.
func WithSync(d *Depot, f func(file *os.File, sync func(*os.File) error) error) {
	real := d.files.sync
	d.files.sync = func(file *os.File) error { return f(file, real) }
}

// Flush has everything on disk now, and the index written.
func Flush(s *Store) error {
	settle(s)
	return s.index.flush()
}

// settle waits until nothing is pending, for some minutes at most; then the test finds
// out by itself.
func settle(s *Store) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for range 300_000 {
		s.mu.Lock()
		working := s.pending.working
		s.mu.Unlock()
		if !working {
			return
		}
		<-tick.C
	}
}

// CheckIndex fails t unless every entry of the index of a closed store in dir
// speaks of a file that is there.
func CheckIndex(t *testing.T, dir string) {
	t.Helper()
	s := &Store{dir: dir}
	ix := &index{store: s}
	if err := preflight(ix.dir()); err != nil {
		t.Fatal(err)
	}
	db, err := openDatabase(tuned(ix.dir(), false, logrus.NewEntry(logrus.New())))
	if err != nil {
		t.Fatal(err)
	}
	defer db.close()
	files := make(map[digest.Digest]bool)
	if err := eachBlob(dir, func(dgst digest.Digest) { files[dgst] = true }); err != nil {
		t.Fatal(err)
	}
	err = db.each(func(text, value []byte) error {
		if string(text) == versionKey {
			return nil
		}
		k, ok := parseKey(text)
		if !ok {
			t.Errorf("index has a key that says nothing: %q", text)
			return nil
		}
		if k.kind == kindExposure {
			return nil // of a repository, not of content
		}
		dgst := digest.Digest(k.item)
		if k.kind == kindTag {
			dgst = tagDigest(value)
		}
		if !files[dgst] {
			t.Errorf("index entry %q speaks of %s, which is not there", text, dgst)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
