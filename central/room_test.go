package central

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/internal/oci"
	"github.com/larder-registry/larder/store"
)

func TestQuotas(t *testing.T) {
	f := newFixture(t, Config{Quotas: []Quota{{Repositories: []oci.Pattern{"team"}, Bytes: 100}}})
	a, b := f.push("team/a", make([]byte, 40)), f.push("team/b", append(make([]byte, 49), 1))
	if _, err := f.Push(t.Context(), repo("team/b"), strings.NewReader("eleven more"), digest.FromString("eleven more")); !errors.Is(err, oci.ErrDenied) {
		t.Errorf("over: %v", err)
	}
	if _, err := f.Mount(t.Context(), repo("team/b"), a, repo("team/a"), func(oci.Name) bool { return true }); !errors.Is(err, oci.ErrDenied) {
		t.Errorf("mount over: %v", err)
	}
	f.push("elsewhere", make([]byte, 1000))
	f.push("team/a", make([]byte, 40)) // again
	f.reopen()                         // what is used is counted anew
	if err := f.DeleteBlob(t.Context(), repo("team/b"), b); err != nil {
		t.Fatal(err)
	}
	f.push("team/b", make([]byte, 41))
	if f.used[0] != 81 {
		t.Errorf("%d bytes are used", f.used[0])
	}
	// What could not be written down is not counted.
	f.Central.cfg.Quotas[0].Bytes = 1000
	f.Central.ledger = noManifests{f.ledger}
	if _, err := f.put("team/c", []byte(`{"schemaVersion":2,"manifests":[]}`)); !errors.Is(err, oci.ErrInsufficientStorage) {
		t.Errorf("no room for the record: %v", err)
	}
	if f.used[0] != 81 {
		t.Errorf("%d bytes are used after a failure", f.used[0])
	}
}

// noManifests stands for a disk that gets full just before an image manifest's
// record.
type noManifests struct{ Ledger }

func (l noManifests) Create(ctx ctxt, key string, value []byte) error {
	if _, is := manifestRepository(key); is {
		return store.ErrNoSpace
	}
	return l.Ledger.Create(ctx, key, value)
}

// full stands for a disk without room.
type full struct{ roomy }

type roomy = Drafts

func (full) Free() (int64, error) { return 0, nil }

func TestAFullDiskRefusesPushesAndServesPulls(t *testing.T) {
	f := newFixture(t, Config{})
	image := f.image("app", "x")
	f.mustPut("app", image, "v1")
	id := f.start()
	real := f.drafts
	f.drafts = full{real}
	for name, do := range map[string]func() error{
		"start":  func() error { _, err := f.Start(t.Context(), repo("app"), ""); return err },
		"append": func() error { _, err := f.Append(t.Context(), repo("app"), id, chunkOf("x", 0)); return err },
		"push": func() error {
			_, err := f.Push(t.Context(), repo("app"), strings.NewReader("x"), digest.FromString("x"))
			return err
		},
		"manifest": func() error { _, err := f.put("app", append(image, ' '), "v2"); return err },
		"degraded": f.Degraded,
	} {
		if err := do(); !errors.Is(err, oci.ErrInsufficientStorage) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if !f.has("app", "v1") {
		t.Error("no pulls")
	}
	f.drafts = real
	if _, err := f.Finish(t.Context(), repo("app"), id, chunkOf("x", 0), digest.FromString("x")); err != nil {
		t.Errorf("once there is room: %v", err)
	}
	if err := f.Degraded(); err != nil {
		t.Error(err)
	}
	err := noRoom(fmt.Errorf("write: %w", store.ErrNoSpace))
	if spec, ok := errors.AsType[*oci.Error](err); !ok || spec.Code != oci.CodeInsufficientStorage {
		t.Errorf("what clients are told: %v", err)
	}
}

// TestDamageIsFoundAndMended is that content which is not what it was is not
// served, nor said to be there, so that it is pushed again.
func TestDamageIsFoundAndMended(t *testing.T) {
	f := newFixture(t, Config{})
	image := f.image("app", "x")
	manifest := f.mustPut("app", image, "v1")
	blob := f.push("app", []byte("some content"))
	damage := func(dgst digest.Digest, content string) {
		t.Helper()
		name := filepath.Join(f.dir, "blobs", "sha256", dgst.Encoded()[:2], dgst.Encoded())
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		if content != "" {
			if err := os.WriteFile(name, []byte(content), 0o444); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, content := range []string{"", "short"} {
		damage(blob, content)
		if _, err := f.StatBlob(t.Context(), repo("app"), blob); !errors.Is(err, oci.ErrBlobUnknown) {
			t.Errorf("stat: %v", err)
		}
		if _, err := f.Blob(t.Context(), repo("app"), blob); !errors.Is(err, oci.ErrBlobUnknown) {
			t.Errorf("open: %v", err)
		}
		f.push("app", []byte("some content"))
		if got := f.read("app", blob); string(got) != "some content" {
			t.Errorf("%q", got)
		}
	}
	// Of the same size it is found by whoever reads it; to push it again mends it.
	damage(blob, "same_content")
	f.push("app", []byte("some content"))
	if got := f.read("app", blob); string(got) != "some content" {
		t.Errorf("%q", got)
	}
	for _, content := range []string{"", "{}", strings.Repeat("x", len(image))} {
		damage(manifest, content)
		if f.has("app", "v1") {
			t.Errorf("an image manifest %q is served", content)
		}
	}
	for _, content := range []string{"short", strings.Repeat("x", len(image))} {
		damage(manifest, content)
		f.mustPut("app", image, "v1")
		if !f.has("app", "v1") {
			t.Errorf("%q is not mended", content)
		}
	}
}
