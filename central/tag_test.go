package central

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/internal/oci"
	"github.com/larder-registry/larder/store"
)

// ctxt is short for what every method of a ledger takes.
type ctxt = context.Context

func TestImmutableTags(t *testing.T) {
	f := newFixture(t, Config{Immutable: []TagRule{{Repositories: []oci.Pattern{"team"}, Tags: []string{"v*", "stable"}}}})
	one, two := f.image("team/app", "one"), f.image("team/app", "two")
	f.mustPut("team/app", one, "v1", "latest")
	if _, err := f.put("team/app", two, "v1"); !errors.Is(err, oci.ErrDenied) {
		t.Errorf("moved: %v", err)
	}
	if f.has("team/app", string(digest.FromBytes(two))) {
		t.Error("what was refused is there")
	}
	if _, err := f.put("team/app", two, "latest", "v1"); !errors.Is(err, oci.ErrDenied) {
		t.Errorf("moved among others: %v", err)
	}
	f.mustPut("team/app", one, "v1") // the same again
	f.mustPut("team/app", two, "latest")
	f.mustPut("other", f.image("other", "one"), "v1")
	f.mustPut("other", f.image("other", "two"), "v1")
	// Of many who are first, one is.
	images := make([][]byte, 10)
	for n := range images {
		images[n] = f.image("team/app", fmt.Sprint("first ", n))
	}
	var won sync.Map
	var pushing sync.WaitGroup
	for n := range images {
		pushing.Go(func() {
			switch _, err := f.put("team/app", images[n], "stable"); {
			case err == nil:
				won.Store(n, true)
			case !errors.Is(err, oci.ErrDenied):
				t.Error(err)
			}
		})
	}
	pushing.Wait()
	m, err := f.Manifest(t.Context(), oci.Reference{Name: repo("team/app"), Tag: "stable"})
	if err != nil {
		t.Fatal(err)
	}
	winners := 0
	won.Range(func(n, _ any) bool {
		winners++
		if !bytes.Equal(m.Bytes, images[n.(int)]) {
			t.Error("one was told that it was first, and is not")
		}
		return true
	})
	if winners != 1 {
		t.Errorf("%d were first", winners)
	}
}

// TestManyPushTheSame has 20 clients push the same blobs, image and tag, and
// others move and delete the tag: some order of them explains the end.
func TestManyPushTheSame(t *testing.T) {
	f := newFixture(t, Config{})
	shared := f.image("app", "shared")
	var all [][]byte
	for n := range 4 {
		all = append(all, f.image("app", fmt.Sprint(n)))
	}
	var pushing sync.WaitGroup
	for n := range 20 {
		pushing.Go(func() {
			for range 3 {
				f.push("app", []byte("layer of shared"))
				if _, err := f.put("app", shared, "same", fmt.Sprintf("own-%d", n)); err != nil {
					t.Error(err)
				}
				if _, err := f.put("app", all[n%4], "moving"); err != nil {
					t.Error(err)
				}
				if n == 0 {
					if err := f.DeleteManifest(t.Context(), repo("app"), digest.FromBytes(all[0])); err != nil && !errors.Is(err, oci.ErrManifestUnknown) {
						t.Error(err)
					}
				}
			}
		})
	}
	pushing.Wait()
	if m, err := f.Manifest(t.Context(), oci.Reference{Name: repo("app"), Tag: "same"}); err != nil || !bytes.Equal(m.Bytes, shared) {
		t.Errorf("%v", err)
	}
	m, err := f.Manifest(t.Context(), oci.Reference{Name: repo("app"), Tag: "moving"})
	if err == nil && !slices.ContainsFunc(all, func(b []byte) bool { return bytes.Equal(b, m.Bytes) }) {
		t.Errorf("the tag points to what nobody pushed")
	}
	tags, err := f.Tags(t.Context(), repo("app"), -1, "")
	if err != nil || len(tags) < 21 {
		t.Errorf("tags %q, %v", tags, err)
	}
	for _, tag := range tags {
		if !f.has("app", tag) {
			t.Errorf("tag %s points nowhere", tag)
		}
	}
	nothingLeft(t, f)
}

func TestMountNeedsTheRightToTheSource(t *testing.T) {
	f := newFixture(t, Config{})
	dgst := f.push("public/app", []byte("shared"))
	var secret []string
	for n := range 250 {
		secret = append(secret, blobKey(dgst, fmt.Sprintf("secret-%03d", n)))
	}
	if err := each(secret, func(key string) error { return f.write(t.Context(), key, blobRecord{Size: 6}) }); err != nil {
		t.Fatal(err)
	}
	only := func(name string) func(oci.Name) bool {
		return func(n oci.Name) bool { return n.Repository == name }
	}
	for _, from := range []string{"secret-001", ""} {
		if _, err := f.Mount(t.Context(), repo("mine"), dgst, repo(from), only("none")); !errors.Is(err, oci.ErrBlobUnknown) {
			t.Errorf("from %q: %v", from, err)
		}
	}
	if f.holdsBlob("mine", dgst) {
		t.Error("it was mounted")
	}
	// Without from it is found wherever the caller may look.
	if desc, err := f.Mount(t.Context(), repo("mine"), dgst, repo(""), only("secret-249")); err != nil || desc.Size != 6 {
		t.Errorf("%+v, %v", desc, err)
	}
	if desc, err := f.Mount(t.Context(), repo("mine"), dgst, repo("public/app"), only("public/app")); err != nil || desc.Digest != dgst {
		t.Errorf("%+v, %v", desc, err)
	}
}

func TestSparseIndexes(t *testing.T) {
	f := newFixture(t, Config{SparseIndexes: true})
	child := f.mustPut("app", f.image("app", "child"))
	f.mustPut("app", fmt.Appendf(nil, `{"schemaVersion":2,"manifests":[{"digest":%q},{"digest":%q}]}`, child, digest.FromString("missing")), "v1")
	if !f.has("app", "v1") {
		t.Error("it is not there")
	}
}

func TestBackupAndRestore(t *testing.T) {
	f := newFixture(t, Config{})
	var images [][]byte
	for n := range 5 {
		image := f.image(fmt.Sprintf("team-%d/app", n%2), fmt.Sprint(n))
		f.mustPut(fmt.Sprintf("team-%d/app", n%2), image, fmt.Sprintf("v%d", n))
		images = append(images, image)
	}
	long := digest.SHA512.FromString("long")
	if _, err := f.Push(t.Context(), repo("team-0/app"), strings.NewReader("long"), long); err != nil {
		t.Fatal(err)
	}
	f.start()
	var backup bytes.Buffer
	var pushing sync.WaitGroup
	pushing.Go(func() { f.mustPut("later", f.image("later", "later"), "v1") }) // while it is being backed up
	done, err := f.Backup(t.Context(), &backup)
	pushing.Wait()
	if err != nil || done.Blobs < 16 {
		t.Fatalf("%+v, %v", done, err)
	}
	restoreTo := func(content []byte) (*fixture, error) {
		to := newFixture(t, Config{})
		_, err := Restore(t.Context(), bytes.NewReader(content), Config{Ledger: to.ledger, Content: to.content, Drafts: to.drafts})
		return to, err
	}
	to, err := restoreTo(backup.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	for n, image := range images {
		name := fmt.Sprintf("team-%d/app", n%2)
		m, err := to.Manifest(t.Context(), oci.Reference{Name: repo(name), Tag: fmt.Sprintf("v%d", n)})
		if err != nil || !bytes.Equal(m.Bytes, image) {
			t.Errorf("image %d: %v", n, err)
		}
		if got := to.read(name, digest.FromString(fmt.Sprintf("layer of %d", n))); string(got) != fmt.Sprintf("layer of %d", n) {
			t.Errorf("layer %d: %q", n, got)
		}
	}
	if got := to.read("team-0/app", long); string(got) != "long" {
		t.Errorf("%q", got)
	}
	// Again into the same is refused.
	if _, err := Restore(t.Context(), bytes.NewReader(backup.Bytes()), Config{Ledger: to.ledger, Content: to.content, Drafts: to.drafts}); err == nil {
		t.Error("a directory that is not empty was restored into")
	}
	// Any byte that is missing or wrong is found, or does not matter.
	for n := 1; n < 8; n++ {
		if _, err := restoreTo(backup.Bytes()[:backup.Len()*n/8]); err == nil {
			t.Errorf("%d/8 of a backup were restored", n)
		}
	}
	garbled := bytes.Replace(backup.Bytes(), []byte("layer of 3"), []byte("layer of X"), 1)
	if _, err := restoreTo(garbled); !errors.Is(err, oci.ErrDigestInvalid) {
		t.Errorf("a wrong blob: %v", err)
	}
	other := bytes.Replace(backup.Bytes(), []byte("larder-backup 1"), []byte("larder-backup 9"), 1)
	if _, err := restoreTo(other); err == nil {
		t.Error("another format was restored")
	}
	// What is damaged is told of, and the rest is backed up.
	if err := os.Remove(filepath.Join(f.dir, "blobs", "sha512", long.Encoded()[:2], long.Encoded())); err != nil {
		t.Fatal(err)
	}
	backup.Reset()
	done, err = f.Backup(t.Context(), &backup)
	if err == nil || !slices.Equal(done.Damaged, []string{string(long)}) {
		t.Errorf("%+v, %v", done, err)
	}
	if to, err := restoreTo(backup.Bytes()); err != nil || !to.has("team-0/app", "v0") {
		t.Errorf("%v", err)
	}
}

func TestConfigIsComplete(t *testing.T) {
	if _, err := New(t.Context(), Config{Ledger: &store.Ledger{}}); err == nil {
		t.Error("a registry without content was made")
	}
}

// FuzzRestore is that whatever a file holds, restoring it neither fails to end
// nor makes anything wrong of it.
func FuzzRestore(f *testing.F) {
	from := newFixture(f, Config{})
	from.mustPut("app", from.image("app", "x"), "v1")
	var backup bytes.Buffer
	if _, err := from.Backup(f.Context(), &backup); err != nil {
		f.Fatal(err)
	}
	f.Add(backup.Bytes())
	f.Add(backup.Bytes()[:700])
	f.Add([]byte("x"))
	f.Fuzz(func(t *testing.T, content []byte) {
		to := newFixture(t, Config{})
		_, err := Restore(t.Context(), bytes.NewReader(content), Config{Ledger: to.ledger, Content: to.content, Drafts: to.drafts})
		if err != nil {
			return
		}
		if err := to.verify(t.Context()); err != nil {
			t.Error(err)
		}
	})
}
