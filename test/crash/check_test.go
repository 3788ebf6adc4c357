package crash

import (
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/test/registry"
)

// checkBlobs fails the test if a file below blobs/ is not what its name says.
// No mirror is running: this is as the last one left it.
func (m *mirror) checkBlobs() {
	m.t.Helper()
	root := filepath.Join(m.data(), "blobs")
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		alg := digest.Algorithm(filepath.Base(filepath.Dir(filepath.Dir(path))))
		want := digest.NewDigestFromEncoded(alg, e.Name())
		if err := want.Validate(); err != nil {
			m.t.Errorf("%s is visible and no blob: %v", path, err)
			return nil
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		got, err := alg.FromReader(f)
		if err == nil && got != want {
			m.t.Errorf("blob %s is visible and hashes to %s", want, got)
		}
		return err
	})
	if err != nil {
		m.t.Error(err)
	}
}

// checkOrphans fails the test if a mirror that has just started left something
// that is neither a blob nor a partial ingest to be resumed.
func (m *mirror) checkOrphans() {
	m.t.Helper()
	list, err := os.ReadDir(filepath.Join(m.data(), "ingest"))
	if err != nil {
		m.t.Fatal(err)
	}
	held := m.partials()
	for _, e := range list {
		hex := strings.TrimPrefix(e.Name(), "sha256-")
		if held[hex] == 0 {
			m.t.Errorf("orphan after the start: ingest/%s", e.Name())
			continue
		}
		if _, err := os.Lstat(filepath.Join(m.data(), "blobs", "sha256", hex[:2], hex)); err == nil {
			m.t.Errorf("a partial ingest of a blob that is committed: %s", hex)
		}
	}
	for _, dir := range []string{"blobs", "blobs/sha256"} {
		list, err := os.ReadDir(filepath.Join(m.data(), dir))
		if err != nil && !os.IsNotExist(err) {
			m.t.Fatal(err)
		}
		for _, e := range list {
			if !e.IsDir() {
				m.t.Errorf("orphan after the start: %s/%s", dir, e.Name())
			}
		}
	}
}

// partials says how many bytes each partial ingest claims to hold, by the hex
// of its digest. What has no readable state is none.
func (m *mirror) partials() map[string]int64 {
	m.t.Helper()
	states, err := filepath.Glob(filepath.Join(m.data(), "ingest", "sha256-*", "state"))
	if err != nil {
		m.t.Fatal(err)
	}
	all := make(map[string]int64)
	for _, file := range states {
		text, err := os.ReadFile(file)
		if err != nil {
			m.t.Fatal(err)
		}
		var state struct {
			Held [][2]int64 `json:"held"`
		}
		if err := json.Unmarshal(text, &state); err != nil {
			m.t.Errorf("%s cannot be read: %v", file, err)
			continue
		}
		for _, span := range state.Held {
			all[strings.TrimPrefix(filepath.Base(filepath.Dir(file)), "sha256-")] += span[1] - span[0]
		}
	}
	return all
}

// sent adds up what an upstream sent of blobs.
func sent(requests []registry.Request) (n int64) {
	for _, r := range requests {
		if r.Kind == registry.Blobs {
			n += r.Sent
		}
	}
	return n
}
