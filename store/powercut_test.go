package store_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/central"
	"github.com/larder-registry/larder/internal/oci"
	"github.com/larder-registry/larder/store"
)

var cuts = flag.Int("cuts", 4, "how many times the power is cut")

// errPower is what everything fails with once the power is gone.
var errPower = errors.New("the power is gone")

// disk is what would be left of a depot, and of the ledger beside it, if the
// power went now: of files what they held when they were last synced, of
// directories the names they held when they were last synced, of the ledger what
// was acknowledged. A sync is the only thing that makes anything last.
type disk struct {
	mu    sync.Mutex
	gone  bool
	root  string
	files map[uint64][]byte            // by inode
	dirs  map[string]map[string]uint64 // path below root: name, inode; 0 for a directory
	kept  map[string][]byte            // the ledger's records
	loose map[string][]byte            // changes under way: nil removes
}

func newDisk(root string) *disk {
	return &disk{root: root, files: map[uint64][]byte{}, dirs: map[string]map[string]uint64{}, kept: map[string][]byte{}, loose: map[string][]byte{}}
}

func inodeOf(info os.FileInfo) uint64 { return info.Sys().(*syscall.Stat_t).Ino }

// sync is what the depot's syncs pass through.
func (d *disk) sync(f *os.File, real func(*os.File) error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.gone {
		return errPower
	}
	if err := real(f); err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.IsDir() {
		content, err := os.ReadFile(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
		d.files[inodeOf(info)] = content
		return err
	}
	rel, err := filepath.Rel(d.root, f.Name())
	if err != nil {
		return err
	}
	list, err := os.ReadDir(f.Name())
	if err != nil {
		return err
	}
	names := map[string]uint64{}
	for _, e := range list {
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		names[e.Name()] = 0
		if !e.IsDir() {
			names[e.Name()] = inodeOf(info)
		}
	}
	d.dirs[rel] = names
	return nil
}

// cut ends everything and rebuilds below a new root what is left. What was never
// synced may be there in part, or be rubbish.
func (d *disk) cut(t *testing.T, random *rand.Rand, dir string) *store.Ledger {
	t.Helper()
	d.mu.Lock()
	d.gone = true
	d.mu.Unlock()
	var rebuild func(rel string)
	rebuild = func(rel string) {
		if err := os.MkdirAll(filepath.Join(dir, rel), 0o755); err != nil {
			t.Fatal(err)
		}
		for name, inode := range d.dirs[rel] {
			below := filepath.Join(rel, name)
			if inode == 0 {
				rebuild(below)
				continue
			}
			content, synced := d.files[inode]
			if !synced {
				content = bytes.Repeat([]byte{0}, random.IntN(100))
			} else if random.IntN(2) == 0 {
				// Writes after the last sync may have got through.
				content = append(bytes.Clone(content), "later"...)
				if strings.HasPrefix(rel, "blobs") {
					content = content[:len(content)-5] // which nobody writes to
				}
			}
			if err := os.WriteFile(filepath.Join(dir, below), content, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	rebuild(".")
	for key, value := range d.loose { // one by one they were done, or not
		switch {
		case random.IntN(2) == 0:
		case value == nil:
			delete(d.kept, key)
		default:
			d.kept[key] = value
		}
	}
	ledger, err := store.OpenLedger(filepath.Join(dir, "index"), nil)
	if err != nil {
		t.Fatal(err)
	}
	var filling sync.WaitGroup
	for key, value := range d.kept {
		filling.Go(func() {
			if err := ledger.Create(context.Background(), key, value); err != nil {
				t.Error(err)
			}
		})
	}
	filling.Wait()
	return ledger
}

// mortal is a ledger on the disk.
type mortal struct {
	*store.Ledger
	disk *disk
}

func (m mortal) change(key string, value []byte, do func() error) error {
	m.disk.mu.Lock()
	if m.disk.gone {
		m.disk.mu.Unlock()
		return errPower
	}
	m.disk.loose[key] = value
	m.disk.mu.Unlock()
	err := do()
	m.disk.mu.Lock()
	defer m.disk.mu.Unlock()
	if m.disk.gone {
		return errPower
	}
	delete(m.disk.loose, key)
	switch {
	case err != nil:
	case value == nil:
		delete(m.disk.kept, key)
	default:
		m.disk.kept[key] = value
	}
	return err
}

func (m mortal) Create(ctx context.Context, key string, value []byte) error {
	return m.change(key, value, func() error { return m.Ledger.Create(ctx, key, value) })
}

func (m mortal) Swap(ctx context.Context, key string, value []byte, old string) error {
	return m.change(key, value, func() error { return m.Ledger.Swap(ctx, key, value, old) })
}

func (m mortal) Delete(ctx context.Context, key, old string) error {
	return m.change(key, nil, func() error { return m.Ledger.Delete(ctx, key, old) })
}

// TestAcknowledgedPushesSurviveAPowerCut pushes from many sides and cuts the
// power somewhere in between: what was acknowledged is there to the byte, what
// was not is there whole or not at all, and an upload goes on where it was
// acknowledged to be.
func TestAcknowledgedPushesSurviveAPowerCut(t *testing.T) {
	for round := range *cuts {
		t.Run(fmt.Sprint(round), func(t *testing.T) {
			seed := uint64(time.Now().UnixNano())
			t.Logf("seed %d", seed)
			random := rand.New(rand.NewPCG(seed, 0))
			pushAndCut(t, random, 10+random.IntN(150))
		})
	}
}

// acked is what one pusher was told is done.
type acked struct {
	images  map[string][]byte // by tag
	gone    map[string]bool   // tags
	blobs   map[string][]byte // by digest
	uploads map[string][]byte // by id
	random  *rand.Rand
}

var powerless = oci.Name{Repository: "team/app"}

func pushAndCut(t *testing.T, random *rand.Rand, after int) {
	first, second := t.TempDir(), t.TempDir()
	d := newDisk(first)
	ledger, err := store.OpenLedger(filepath.Join(t.TempDir(), "index"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ledger.Close()
	depot, err := store.OpenDepot(store.DepotConfig{Dir: first})
	if err != nil {
		t.Fatal(err)
	}
	// OpenDepot synced the root.
	d.dirs["."] = map[string]uint64{"blobs": 0, "uploads": 0}
	var syncs int
	reached := make(chan struct{})
	store.WithSync(depot, func(f *os.File, real func(*os.File) error) error {
		err := d.sync(f, real)
		d.mu.Lock()
		defer d.mu.Unlock()
		if syncs++; syncs == after {
			close(reached)
		}
		return err
	})
	c, err := central.New(t.Context(), central.Config{Ledger: mortal{ledger, d}, Content: depot, Drafts: depot, Grace: 1})
	if err != nil {
		t.Fatal(err)
	}
	told := make([]*acked, 4)
	ctx, stop := context.WithCancel(t.Context())
	var pushing sync.WaitGroup
	for n := range told {
		told[n] = &acked{map[string][]byte{}, map[string]bool{}, map[string][]byte{}, map[string][]byte{}, rand.New(rand.NewPCG(random.Uint64(), 0))}
		pushing.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				err := told[n].step(ctx, c, n, i)
				switch {
				case err == nil, errors.Is(err, oci.ErrManifestBlobUnknown): // collected: that is why it was refused
				case errors.Is(err, errPower), ctx.Err() != nil:
					return
				default:
					t.Errorf("pusher %d: %v", n, err)
					return
				}
			}
		})
	}
	pushing.Go(func() {
		for ctx.Err() == nil {
			if _, err := c.Collect(ctx, false); errors.Is(err, errPower) {
				return
			} else if err != nil && ctx.Err() == nil {
				t.Error(err)
				return
			}
		}
	})
	<-reached
	left := d.cut(t, random, second)
	defer left.Close()
	stop()
	pushing.Wait()
	if t.Failed() {
		return
	}
	checkAfter(t, second, left, told)
}

// step pushes something and notes what was acknowledged.
func (a *acked) step(ctx context.Context, c *central.Central, n, i int) error {
	content := fmt.Appendf(nil, "%d-%d %s", n, i, strings.Repeat("x", a.random.IntN(2000)))
	dgst := digest.FromBytes(content)
	switch a.random.IntN(5) {
	case 0: // an upload, which is left
		id, err := c.Start(ctx, powerless, "")
		if err != nil {
			return err
		}
		a.uploads[id] = nil
		for at := 0; at < len(content); {
			end := min(at+1+a.random.IntN(len(content)), len(content))
			if _, err := c.Append(ctx, powerless, id, oci.Chunk{Body: bytes.NewReader(content[at:end]), At: int64(at), Length: int64(end - at)}); err != nil {
				return err
			}
			a.uploads[id] = content[:end]
			at = end
		}
		return nil
	case 1: // a tag goes
		for tag := range a.images {
			delete(a.images, tag)
			if err := c.DeleteTag(ctx, powerless, tag); err != nil {
				return err
			}
			a.gone[tag] = true
			return nil
		}
		return nil
	}
	if _, err := c.Push(ctx, powerless, bytes.NewReader(content), dgst); err != nil {
		return err
	}
	body := fmt.Appendf(nil, `{"schemaVersion":2,"config":{"digest":%q,"size":%d},"layers":[]}`, dgst, len(content))
	tag := fmt.Sprintf("t%d-%d", n, i)
	put := oci.ManifestPut{Name: powerless, Tags: []string{tag}, MediaType: oci.MediaTypeManifest, Bytes: body}
	if _, err := c.PutManifest(ctx, put); err != nil {
		return err
	}
	a.images[tag], a.blobs[string(dgst)] = body, content
	return nil
}

// checkAfter looks at what is there once the power is back.
func checkAfter(t *testing.T, dir string, ledger *store.Ledger, told []*acked) {
	t.Helper()
	depot, err := store.OpenDepot(store.DepotConfig{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	c, err := central.New(t.Context(), central.Config{Ledger: ledger, Content: depot, Drafts: depot})
	if err != nil {
		t.Fatal(err)
	}
	// Nothing that can be seen speaks of what is not there, or is wrong.
	if _, err := c.Backup(t.Context(), io.Discard); err != nil {
		t.Error(err)
	}
	images := 0
	for _, a := range told {
		for tag, body := range a.images {
			m, err := c.Manifest(t.Context(), oci.Reference{Name: powerless, Tag: tag})
			if err != nil || !bytes.Equal(m.Bytes, body) {
				t.Errorf("acknowledged image %s: %v", tag, err)
				continue
			}
			doc, err := oci.ParseDocument(body, m.MediaType)
			if err != nil {
				t.Fatal(err)
			}
			want := a.blobs[string(doc.Blobs[0].Digest)]
			if got, err := readBlob(t, c, doc.Blobs[0].Digest); err != nil || !bytes.Equal(got, want) {
				t.Errorf("blob of acknowledged image %s: %v", tag, err)
			}
			images++
		}
		for tag := range a.gone {
			if _, err := c.Manifest(t.Context(), oci.Reference{Name: powerless, Tag: tag}); !errors.Is(err, oci.ErrManifestUnknown) {
				t.Errorf("deleted tag %s: %v", tag, err)
			}
		}
		for id, content := range a.uploads {
			size, err := c.Size(t.Context(), powerless, id)
			if err != nil || size < int64(len(content)) {
				t.Errorf("upload %s has %d bytes, %d were acknowledged: %v", id, size, len(content), err)
				continue
			}
			if size == int64(len(content)) {
				if _, err := c.Finish(t.Context(), powerless, id, oci.Chunk{At: -1, Length: -1}, digest.FromBytes(content)); err != nil {
					t.Errorf("upload %s cannot be finished: %v", id, err)
				}
			}
		}
	}
	// What was under way is garbage, and nothing else is.
	if _, err := c.Collect(t.Context(), false); err != nil {
		t.Error(err)
	}
	tags, err := c.Tags(t.Context(), powerless, -1, "")
	if err != nil && !errors.Is(err, oci.ErrNameUnknown) {
		t.Error(err)
	}
	for _, tag := range tags {
		if _, err := c.Manifest(t.Context(), oci.Reference{Name: powerless, Tag: tag}); err != nil {
			t.Errorf("tag %s points to nothing: %v", tag, err)
		}
	}
	t.Logf("%d acknowledged images, %d tags, %d uploads", images, len(tags), len(told[0].uploads))
}

func readBlob(t *testing.T, c *central.Central, dgst digest.Digest) ([]byte, error) {
	t.Helper()
	blob, err := c.Blob(t.Context(), powerless, dgst)
	if err != nil {
		return nil, err
	}
	defer blob.Close()
	return io.ReadAll(blob)
}
