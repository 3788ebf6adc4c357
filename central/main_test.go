package central

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"go.uber.org/goleak"

	"github.com/larder-registry/larder/internal/oci"
	"github.com/larder-registry/larder/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fixture is a registry on a directory, with a clock that only moves when told.
type fixture struct {
	*Central
	t      testing.TB
	dir    string
	ledger *store.Ledger
	cfg    Config
	clock  time.Time
}

// newFixture makes an empty registry; cfg's stores are made here.
func newFixture(t testing.TB, cfg Config) *fixture {
	t.Helper()
	f := &fixture{t: t, dir: t.TempDir(), cfg: cfg, clock: time.Now()}
	f.open()
	t.Cleanup(func() {
		if err := f.ledger.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

// open opens what is in the directory.
func (f *fixture) open() {
	f.t.Helper()
	var err error
	if f.ledger, err = store.OpenLedger(filepath.Join(f.dir, "index"), nil); err != nil {
		f.t.Fatal(err)
	}
	depot, err := store.OpenDepot(store.DepotConfig{Dir: f.dir})
	if err != nil {
		f.t.Fatal(err)
	}
	cfg := f.cfg
	cfg.Ledger, cfg.Content, cfg.Drafts = f.ledger, depot, depot
	cfg.now = func() time.Time { return f.clock }
	if f.Central, err = New(f.t.Context(), cfg); err != nil {
		f.t.Fatal(err)
	}
}

// reopen is a restart.
func (f *fixture) reopen() {
	f.t.Helper()
	if err := f.ledger.Close(); err != nil {
		f.t.Fatal(err)
	}
	f.open()
}

func repo(name string) oci.Name { return oci.Name{Repository: name} }

// push pushes a blob.
func (f *fixture) push(repository string, content []byte) digest.Digest {
	f.t.Helper()
	dgst := digest.FromBytes(content)
	desc, err := f.Push(f.t.Context(), repo(repository), bytes.NewReader(content), dgst)
	if err != nil || desc.Digest != dgst || desc.Size != int64(len(content)) {
		f.t.Fatalf("push: %+v, %v", desc, err)
	}
	return dgst
}

// image pushes blobs and gives an image manifest of them.
func (f *fixture) image(repository, name string) []byte {
	f.t.Helper()
	config, layer := f.push(repository, []byte("config of "+name)), f.push(repository, []byte("layer of "+name))
	return fmt.Appendf(nil, `{"schemaVersion":2,"config":{"digest":%q,"size":1},"layers":[{"digest":%q,"size":1}]}`, config, layer)
}

// put pushes an image manifest under tags.
func (f *fixture) put(repository string, body []byte, tags ...string) (digest.Digest, error) {
	mediaType := oci.MediaTypeManifest
	if bytes.Contains(body, []byte(`"manifests"`)) {
		mediaType = oci.MediaTypeIndex
	}
	stored, err := f.PutManifest(f.t.Context(), oci.ManifestPut{Name: repo(repository), Tags: tags, MediaType: mediaType, Bytes: body})
	return stored.Digest, err
}

func (f *fixture) mustPut(repository string, body []byte, tags ...string) digest.Digest {
	f.t.Helper()
	dgst, err := f.put(repository, body, tags...)
	if err != nil {
		f.t.Fatal(err)
	}
	return dgst
}

// has reports whether an image manifest is there, by tag or digest.
func (f *fixture) has(repository, reference string) bool {
	f.t.Helper()
	ref := oci.Reference{Name: repo(repository), Tag: reference}
	if dgst, err := oci.ParseDigest(reference); err == nil {
		ref = oci.Reference{Name: repo(repository), Digest: dgst}
	}
	_, err := f.Manifest(f.t.Context(), ref)
	if err != nil && !errors.Is(err, oci.ErrManifestUnknown) {
		f.t.Error(err)
	}
	return err == nil
}

// holdsBlob reports whether a blob is there, without asking for it as clients do.
func (f *fixture) holdsBlob(repository string, dgst digest.Digest) bool {
	f.t.Helper()
	_, err := f.ledger.Get(f.t.Context(), blobKey(dgst, repository))
	return err == nil
}

// read gets a blob.
func (f *fixture) read(repository string, dgst digest.Digest) []byte {
	f.t.Helper()
	blob, err := f.Blob(f.t.Context(), repo(repository), dgst)
	if err != nil {
		f.t.Fatal(err)
	}
	defer blob.Close()
	content, err := io.ReadAll(blob)
	if err != nil {
		f.t.Fatal(err)
	}
	return content
}

// collect collects garbage, and passes on time.
func (f *fixture) collect(pass time.Duration) Collected {
	f.t.Helper()
	f.clock = f.clock.Add(pass)
	got, err := f.Collect(f.t.Context(), false)
	if err != nil {
		f.t.Fatal(err)
	}
	return got
}
