package central

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/internal/oci"
)

const day = 24 * time.Hour

func TestBlobsGoWhenNothingRefersToThem(t *testing.T) {
	f := newFixture(t, Config{Grace: day})
	image := f.image("app", "kept")
	f.mustPut("app", image, "v1")
	kept := digest.FromString("layer of kept")
	loose := f.push("app", []byte("loose"))
	if _, err := f.Mount(t.Context(), repo("other"), kept, repo("app"), func(oci.Name) bool { return true }); err != nil {
		t.Fatal(err)
	}
	if got := f.collect(day - time.Hour); got.Waiting != 2 || len(got.Blobs) != 0 {
		t.Errorf("within the grace: %+v", got)
	}
	// The grace is over: it is noted, and still there.
	if got := f.collect(2 * time.Hour); got.Waiting != 2 || len(got.Blobs) != 0 || !f.holdsBlob("app", loose) {
		t.Errorf("after the grace: %+v", got)
	}
	if got := f.collect(settle - time.Minute); got.Waiting != 2 || len(got.Blobs) != 0 {
		t.Errorf("before it settled: %+v", got)
	}
	dry, err := f.Collect(t.Context(), true)
	if err != nil || !dry.DryRun || len(dry.Blobs) != 0 {
		t.Errorf("dry: %+v, %v", dry, err)
	}
	f.clock = f.clock.Add(2 * time.Minute)
	dry, err = f.Collect(t.Context(), true)
	want := []string{"app@" + string(loose), "other@" + string(kept)}
	slices.Sort(dry.Blobs)
	if err != nil || !slices.Equal(dry.Blobs, want) || !f.holdsBlob("app", loose) {
		t.Errorf("dry: %+v, %v", dry, err)
	}
	got := f.collect(0)
	slices.Sort(got.Blobs)
	if !slices.Equal(got.Blobs, want) || f.holdsBlob("app", loose) || f.holdsBlob("other", kept) || !f.holdsBlob("app", kept) {
		t.Errorf("%+v", got)
	}
	if !slices.Equal(got.Content, []string{string(loose)}) || got.Bytes != 5 {
		t.Errorf("%+v", got)
	}
	// What was just committed stays on disk for a while, whoever holds it.
	f.clock = time.Now()
	loose = f.push("app", []byte("loose"))
	if err := f.DeleteBlob(t.Context(), repo("app"), loose); err != nil {
		t.Fatal(err)
	}
	if got := f.collect(0); len(got.Content) != 0 {
		t.Errorf("young content: %+v", got)
	}
	if got := f.collect(settle + time.Minute); !slices.Equal(got.Content, []string{string(loose)}) {
		t.Errorf("%+v", got)
	}
	if content := f.read("app", kept); string(content) != "layer of kept" {
		t.Errorf("%q", content)
	}
}

// TestWhoAsksForABlobKeepsIt is that a push that was told a blob is there can
// rely on it, and that what an image manifest refers to is not marked for long.
func TestWhoAsksForABlobKeepsIt(t *testing.T) {
	for name, ask := range map[string]func(f *fixture, dgst digest.Digest) error{
		"HEAD": func(f *fixture, dgst digest.Digest) error {
			_, err := f.StatBlob(f.t.Context(), repo("app"), dgst)
			return err
		},
		"GET": func(f *fixture, dgst digest.Digest) error {
			blob, err := f.Blob(f.t.Context(), repo("app"), dgst)
			if err == nil {
				blob.Close()
			}
			return err
		},
		"push": func(f *fixture, dgst digest.Digest) error {
			_, err := f.Push(f.t.Context(), repo("app"), strings.NewReader("loose"), dgst)
			return err
		},
		"mount": func(f *fixture, dgst digest.Digest) error {
			_, err := f.Mount(f.t.Context(), repo("app"), dgst, repo("app"), func(oci.Name) bool { return true })
			return err
		},
		"manifest": func(f *fixture, dgst digest.Digest) error {
			_, err := f.put("app", fmt.Appendf(nil, `{"schemaVersion":2,"config":{"digest":%q},"layers":[]}`, dgst), "v1")
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, Config{Grace: day})
			dgst := f.push("app", []byte("loose"))
			f.collect(day + time.Minute) // marked
			if err := ask(f, dgst); err != nil {
				t.Fatal(err)
			}
			if got := f.collect(settle + time.Minute); len(got.Blobs) != 0 || !f.holdsBlob("app", dgst) {
				t.Errorf("%+v", got)
			}
			f.collect(day + settle + time.Minute)
			f.collect(settle + time.Minute)
			if f.holdsBlob("app", dgst) != (name == "manifest") {
				t.Errorf("in the end it is there: %v", f.holdsBlob("app", dgst))
			}
		})
	}
}

// racing is a ledger that does something between two reads of others.
type racing struct {
	Ledger
	before func(key string)
}

func (r *racing) Swap(ctx ctxt, key string, value []byte, old string) error {
	r.before("swap " + key)
	return r.Ledger.Swap(ctx, key, value, old)
}

func (r *racing) Create(ctx ctxt, key string, value []byte) error {
	r.before("create " + key)
	return r.Ledger.Create(ctx, key, value)
}

func (r *racing) Delete(ctx ctxt, key, old string) error {
	r.before("delete " + key)
	return r.Ledger.Delete(ctx, key, old)
}

// TestCollectingAndPushingMeet interleaves the two at the worst moments: an image
// manifest that is acknowledged has all its blobs.
func TestCollectingAndPushingMeet(t *testing.T) {
	manifest := func(dgst digest.Digest) []byte {
		return fmt.Appendf(nil, `{"schemaVersion":2,"config":{"digest":%q},"layers":[]}`, dgst)
	}
	t.Run("pushed while it is being removed", func(t *testing.T) {
		f := newFixture(t, Config{Grace: 1})
		dgst := f.push("app", []byte("loose"))
		f.collect(time.Second) // marked
		pushed := false
		f.Central.ledger = &racing{f.ledger, func(op string) {
			if !pushed && op == "delete "+blobKey(dgst, "app") {
				pushed = true
				f.mustPut("app", manifest(dgst), "v1")
			}
		}}
		f.collect(time.Second)
		if !pushed || !f.has("app", "v1") || string(f.read("app", dgst)) != "loose" {
			t.Errorf("pushed %v: the image lacks its blob", pushed)
		}
	})
	t.Run("removed while it is being pushed", func(t *testing.T) {
		f := newFixture(t, Config{Grace: 1})
		dgst := f.push("app", []byte("loose"))
		collected := false
		f.Central.ledger = &racing{f.ledger, func(op string) {
			if !collected && op == "create "+manifestKey("app", digest.FromBytes(manifest(dgst))) {
				collected = true
				// The lock of the repository is held: this is another replica's.
				if err := f.DeleteBlob(t.Context(), repo("app"), dgst); err != nil {
					t.Error(err)
				}
			}
		}}
		if _, err := f.put("app", manifest(dgst), "v1"); !errors.Is(err, oci.ErrManifestBlobUnknown) {
			t.Errorf("the push is acknowledged: %v", err)
		}
		if !collected || f.has("app", string(digest.FromBytes(manifest(dgst)))) || f.has("app", "v1") {
			t.Error("the image is there, and its blob is not")
		}
		nothingLeft(t, f)
	})
	t.Run("content committed again while it is being removed", func(t *testing.T) {
		f := newFixture(t, Config{Grace: 1})
		dgst := f.push("app", []byte("loose"))
		if err := f.DeleteBlob(t.Context(), repo("app"), dgst); err != nil {
			t.Fatal(err)
		}
		var pushing sync.WaitGroup
		for range 20 {
			pushing.Go(func() {
				if _, err := f.Push(t.Context(), repo("app"), strings.NewReader("loose"), dgst); err != nil {
					t.Error(err)
				}
			})
			if _, err := f.Collect(t.Context(), false); err != nil {
				t.Error(err)
			}
			pushing.Wait()
			if _, err := f.content.Stat(dgst); f.holdsBlob("app", dgst) && err != nil {
				t.Fatalf("the repository holds what is not there: %v", err)
			}
			if err := f.DeleteBlob(t.Context(), repo("app"), dgst); err != nil && !errors.Is(err, oci.ErrBlobUnknown) {
				t.Error(err)
			}
		}
	})
}

func TestUploadsExpire(t *testing.T) {
	f := newFixture(t, Config{UploadAge: time.Hour})
	old, young := f.start(), f.start()
	if _, err := f.Append(t.Context(), repo("app"), old, chunkOf("x", 0)); err != nil {
		t.Fatal(err)
	}
	// What a crash left of a push in one request.
	left := filepath.Join(f.dir, "uploads", "LEFT")
	if err := os.WriteFile(left, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if got := f.collect(50 * time.Minute); len(got.Uploads) != 0 {
		t.Errorf("%+v", got)
	}
	if _, err := f.Append(t.Context(), repo("app"), young, chunkOf("y", 0)); err != nil {
		t.Fatal(err)
	}
	got := f.collect(20 * time.Minute)
	slices.Sort(got.Uploads)
	want := []string{old, "LEFT"}
	slices.Sort(want)
	if !slices.Equal(got.Uploads, want) {
		t.Errorf("%q, want %q", got.Uploads, want)
	}
	if _, err := f.Size(t.Context(), repo("app"), old); !errors.Is(err, oci.ErrBlobUploadUnknown) {
		t.Error(err)
	}
	if size, err := f.Size(t.Context(), repo("app"), young); err != nil || size != 1 {
		t.Error(size, err)
	}
	// One that somebody is adding to stays, however old.
	in, out := io.Pipe()
	done := make(chan error)
	go func() { // ends with the body
		_, err := f.Append(t.Context(), repo("app"), young, oci.Chunk{Body: in, At: 1, Length: -1})
		done <- err
	}()
	if _, err := out.Write([]byte("z")); err != nil {
		t.Fatal(err)
	}
	if got := f.collect(day); len(got.Uploads) != 0 {
		t.Errorf("%+v", got)
	}
	out.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestRetention(t *testing.T) {
	index := func(children ...digest.Digest) []byte {
		var list []string
		for _, c := range children {
			list = append(list, fmt.Sprintf(`{"digest":%q}`, c))
		}
		return []byte(`{"schemaVersion":2,"manifests":[` + strings.Join(list, ",") + `]}`)
	}
	t.Run("the last tags", func(t *testing.T) {
		f := newFixture(t, Config{
			Retention: []Retention{{Repositories: []oci.Pattern{"app"}, KeepTags: 2}},
			Immutable: []TagRule{{Repositories: []oci.Pattern{"*"}, Tags: []string{"release-*"}}},
		})
		for n := range 5 {
			f.clock = f.clock.Add(time.Second)
			f.mustPut("app", f.image("app", fmt.Sprint(n)), fmt.Sprintf("v%d", n))
			f.mustPut("elsewhere", f.image("elsewhere", fmt.Sprint(n)), fmt.Sprintf("v%d", n))
		}
		f.clock = f.clock.Add(time.Second)
		f.mustPut("app", f.image("app", "0"), "v0") // set again
		f.mustPut("app", f.image("app", "1"), "release-1")
		f.mustPut("app", f.image("app", "2"), "release-2")
		f.mustPut("app", f.image("app", "3"), "release-3")
		// Of the last two one is immutable; two more immutable ones stay anyway.
		got := f.collect(0)
		if !slices.Equal(got.Tags, []string{"app:v0", "app:v1", "app:v2", "app:v3", "app:v4"}) && !slices.Equal(got.Tags, []string{"app:v1", "app:v2", "app:v3", "app:v4"}) {
			t.Errorf("%+v", got.Tags)
		}
		for _, tag := range []string{"release-1", "release-2", "release-3"} {
			if !f.has("app", tag) {
				t.Errorf("%s is gone", tag)
			}
		}
		if tags, err := f.Tags(t.Context(), repo("elsewhere"), -1, ""); err != nil || len(tags) != 5 {
			t.Errorf("tags elsewhere: %q, %v", tags, err)
		}
		if len(got.Manifests) != 0 {
			t.Errorf("manifests %q", got.Manifests)
		}
	})
	t.Run("what was pulled", func(t *testing.T) {
		f := newFixture(t, Config{Retention: []Retention{{Repositories: []oci.Pattern{"*"}, KeepPulled: 10 * day}}})
		for _, name := range []string{"pulled", "looked-at", "forgotten", "young"} {
			if name == "young" {
				f.clock = f.clock.Add(8 * day)
			}
			f.mustPut("app", f.image("app", name), name)
		}
		access := oci.Access{Taken: true}
		if _, err := f.Manifest(oci.WithAccess(t.Context(), &access), oci.Reference{Name: repo("app"), Tag: "pulled"}); err != nil {
			t.Fatal(err)
		}
		f.has("app", "looked-at") // HEAD is no pull
		f.flushPulled(t.Context())
		f.reopen()
		if got := f.collect(5 * day); !slices.Equal(got.Tags, []string{"app:forgotten", "app:looked-at"}) {
			t.Errorf("%q", got.Tags)
		}
		if got := f.collect(10 * day); !slices.Equal(got.Tags, []string{"app:pulled", "app:young"}) {
			t.Errorf("%q", got.Tags)
		}
	})
	t.Run("what has no tag", func(t *testing.T) {
		f := newFixture(t, Config{Retention: []Retention{{Repositories: []oci.Pattern{"app"}, Untagged: day}}})
		child, lone := f.mustPut("app", f.image("app", "child")), f.mustPut("app", f.image("app", "lone"))
		inner := f.mustPut("app", index(child))
		top := f.mustPut("app", index(inner), "v1")
		dead := f.mustPut("app", index(f.mustPut("app", f.image("app", "dead child"))))
		config := f.push("app", []byte("{}"))
		referrer := func(subject digest.Digest) digest.Digest {
			return f.mustPut("app", fmt.Appendf(nil, `{"schemaVersion":2,"config":{"digest":%q},"layers":[],"subject":{"digest":%q}}`, config, subject))
		}
		signature, loneSignature := referrer(child), referrer(lone)
		attestation := referrer(signature)
		orphan := referrer(digest.FromString("never there"))
		f.clock = f.clock.Add(day + time.Minute)
		young := f.mustPut("app", f.image("app", "young"))
		got := f.collect(0)
		for _, dgst := range []digest.Digest{child, inner, top, signature, attestation, young} {
			if !f.has("app", string(dgst)) {
				t.Errorf("%s is gone", dgst)
			}
		}
		for _, dgst := range []digest.Digest{lone, dead, loneSignature, orphan} {
			if f.has("app", string(dgst)) || !slices.Contains(got.Manifests, "app@"+string(dgst)) {
				t.Errorf("%s stays", dgst)
			}
		}
		if len(got.Manifests) != 5 {
			t.Errorf("%q", got.Manifests)
		}
		if m, err := f.Referrers(t.Context(), repo("app"), lone, ""); err != nil || bytes.Contains(m.Bytes, []byte(loneSignature)) {
			t.Errorf("referrers %s, %v", m.Bytes, err)
		}
	})
}

func TestWhatACrashLeftIsCollected(t *testing.T) {
	f := newFixture(t, Config{Grace: 1})
	nowhere := digest.FromString("nowhere")
	// Records whose other halves were never written.
	for key, value := range map[string]any{
		catalogKey("app"):                                 hint{},
		tagKey("app", "dangling"):                         tagRecord{Digest: nowhere},
		referrersPrefix("app", nowhere) + string(nowhere): hint{},
		pulledKey("app", nowhere):                         hint{},
		holderKey(nowhere, "app"):                         hint{},
		uploadKey("RUBBISH"):                              "not an upload",
	} {
		if err := f.write(t.Context(), key, value); err != nil {
			t.Fatal(err)
		}
	}
	if f.has("app", "dangling") {
		t.Error("a tag that points nowhere is served")
	}
	got := f.collect(time.Second)
	if !slices.Equal(got.Tags, []string{"app:dangling"}) || !slices.Equal(got.Uploads, []string{"RUBBISH"}) {
		t.Errorf("%+v", got)
	}
	f.collect(time.Second)
	list, err := f.ledger.List(t.Context(), "", "", -1)
	if err != nil || len(list) != 0 {
		t.Errorf("left: %v, %v", list, err)
	}
	if _, err := f.Tags(t.Context(), repo("app"), -1, ""); !errors.Is(err, oci.ErrNameUnknown) {
		t.Error(err)
	}
}

func TestRulesThatCannotBeMeant(t *testing.T) {
	all := []oci.Pattern{"*"}
	for name, err := range map[string]error{
		"tags without repositories":      TagRule{Tags: []string{"*"}}.Check(),
		"no tags":                        TagRule{Repositories: all}.Check(),
		"a bad tag":                      TagRule{Repositories: all, Tags: []string{"["}}.Check(),
		"a tag that no image has":        TagRule{Repositories: all, Tags: []string{"app:v*"}}.Check(),
		"a repository that nobody has":   TagRule{Repositories: []oci.Pattern{"Team"}, Tags: []string{"v*"}}.Check(),
		"a quota of nothing":             Quota{Repositories: all}.Check(),
		"a quota without repositories":   Quota{Bytes: 1}.Check(),
		"retention of everything":        Retention{Repositories: all}.Check(),
		"retention without repositories": Retention{KeepTags: 1}.Check(),
		"a negative retention":           Retention{Repositories: all, KeepTags: -1}.Check(),
	} {
		if err == nil {
			t.Errorf("%s is taken", name)
		}
	}
	for _, err := range []error{
		TagRule{Repositories: all, Tags: []string{"v*", "[0-9]?"}}.Check(), Quota{Repositories: all, Bytes: 1}.Check(), Retention{Repositories: all, Untagged: 1}.Check(),
	} {
		if err != nil {
			t.Error(err)
		}
	}
}
