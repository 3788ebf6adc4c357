package store_test

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/larder-registry/larder/internal/oci"
	"github.com/larder-registry/larder/store"
	"github.com/larder-registry/larder/store/storetest"
)

// work is what a mirror does with one image: layer, manifest, tag, link, and a
// partial. It returns what was acknowledged; every failure must say that there
// is no room.
func work(t *testing.T, s *store.Store, n int) (acked map[digest.Digest][]byte) {
	t.Helper()
	acked = make(map[digest.Digest][]byte)
	layer := storetest.Content(300_000, uint64(2*n))
	fine := func(what string, err error) bool {
		t.Helper()
		if err != nil && !errors.Is(err, store.ErrNoSpace) {
			t.Errorf("image %d: %s: %v, want no space or success", n, what, err)
		}
		return err == nil
	}
	if fine("ingest", ingestPieces(t, s, layer)) {
		acked[digest.FromBytes(layer)] = layer
	}
	manifest := fmt.Appendf(nil, `{"schemaVersion":2,"layers":[{"digest":%q}]}`, digest.FromBytes(layer))
	desc := oci.Descriptor{MediaType: "application/vnd.oci.image.manifest.v1+json", Digest: digest.FromBytes(manifest), Size: int64(len(manifest))}
	if fine("put", s.Put(t.Context(), desc, manifest)) {
		acked[desc.Digest] = manifest
		ref := oci.Reference{Name: oci.Name{Registry: "r.test", Repository: "a"}, Tag: strconv.Itoa(n)}
		fine("tag", s.SetTag(ref, store.Tag{Descriptor: desc, Confirmed: time.Now()}))
		fine("link", s.Link(ref.Name, desc))
		if got, err := s.Tag(ref); err != nil || got.Descriptor != desc {
			t.Errorf("image %d: tag is %+v, %v", n, got, err)
		}
	}
	rest := storetest.Content(200_000, uint64(2*n+1))
	i, err := s.Ingest(t.Context(), digest.FromBytes(rest), int64(len(rest)))
	if fine("second ingest", err) {
		if _, err := i.WriteAt(rest[:100_000], 0); fine("write", err) {
			fine("save", i.SaveHeld([]oci.Span{{Start: 0, End: 100_000}}))
		}
		if err := i.Close(); err != nil {
			t.Errorf("image %d: close: %v", n, err)
		}
	}
	return acked
}

// ingestPieces brings content in as a fill does.
func ingestPieces(t *testing.T, s *store.Store, content []byte) error {
	i, err := s.Ingest(t.Context(), digest.FromBytes(content), int64(len(content)))
	if err != nil {
		return err
	}
	defer i.Abort()
	for at := 0; at < len(content); at += 100_000 {
		if _, err := i.WriteAt(content[at:at+100_000], int64(at)); err != nil {
			return err
		}
		if err := i.SaveHeld([]oci.Span{{Start: 0, End: int64(at + 100_000)}}); err != nil {
			return err
		}
	}
	_, err = i.Commit(t.Context())
	return err
}

// checkRelieved opens the store again once there is room, and fails t unless
// everything acknowledged is there and it works as if nothing had been.
func checkRelieved(t *testing.T, d smallDisk, acked map[digest.Digest][]byte) {
	t.Helper()
	s, err := store.Open(t.Context(), d.config())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	storetest.Check(t, d.data())
	for dgst, content := range acked {
		storetest.Holds(t, s, dgst, content)
	}
	if err := s.Degraded(); err != nil {
		t.Errorf("degraded although there is room: %v", err)
	}
	more := work(t, s, 1_000_000)
	if len(more) != 2 {
		t.Errorf("%d of 2 blobs could be kept once there was room", len(more))
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	store.CheckIndex(t, d.data())
}

// diskSize is enough for a store and its index at ease.
const diskSize = 160 << 20

// TestDiskFullAtOpen starts a store with ever less room, fresh and with content.
func TestDiskFullAtOpen(t *testing.T) {
	if !inNamespaces(t) {
		return
	}
	for _, left := range []int64{
		0, 4 << 10, 16 << 10, 512 << 10, 8 << 20, 20 << 20, 33 << 20, 49 << 20, 66 << 20, 90 << 20,
	} {
		t.Run(strconv.FormatInt(left>>10, 10)+" KiB free", func(t *testing.T) {
			d := newSmallDisk(t, diskSize)
			s, err := store.Open(t.Context(), d.config())
			if err != nil {
				t.Fatal(err)
			}
			acked := work(t, s, 0)
			if len(acked) != 2 {
				t.Fatalf("%d of 2 blobs could be kept on an empty disk", len(acked))
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if err := d.fill(left); err != nil {
				t.Fatal(err)
			}
			s, err = store.Open(t.Context(), d.config())
			if err != nil {
				t.Fatal(err)
			}
			for dgst, content := range acked {
				storetest.Holds(t, s, dgst, content)
			}
			ref := oci.Reference{Name: oci.Name{Registry: "r.test", Repository: "a"}, Tag: "0"}
			if _, err := s.Tag(ref); err != nil {
				t.Errorf("a tag of before: %v", err)
			}
			for n := range 5 {
				for dgst, content := range work(t, s, 1+n) {
					acked[dgst] = content
				}
			}
			if left == 0 && s.Degraded() == nil {
				t.Error("a store on a full disk does not say so")
			}
			// Only what is already lost may be reported.
			if err := s.Close(); err != nil && !errors.Is(err, store.ErrNoSpace) {
				t.Error(err)
			}
			d.relieve()
			checkRelieved(t, d, acked)
		})
	}
}

// TestDiskFullAtEveryStep fills the disk to the last byte at each named point
// of the store's work, with the index open, and lets it go on.
func TestDiskFullAtEveryStep(t *testing.T) {
	if !inNamespaces(t) {
		return
	}
	for _, point := range crashPoints {
		steps := []int64{0}
		if slices.Contains(crashPoints[:4], point) {
			steps = append(steps, 120<<10) // some of what comes next fits
		}
		for _, left := range steps {
			t.Run(fmt.Sprintf("%s, %d left", point, left), func(t *testing.T) {
				d := newSmallDisk(t, diskSize)
				var once sync.Once
				cfg := store.WithHook(d.config(), func(at string) {
					if at == point {
						once.Do(func() {
							if err := d.fill(left); err != nil {
								t.Error(err)
							}
						})
					}
				})
				if point == "evict" {
					cfg.MaxSize = store.Bytes(700_000)
				}
				s, err := store.Open(t.Context(), cfg)
				if err != nil {
					t.Fatal(err)
				}
				acked := make(map[digest.Digest][]byte)
				for n := range 4 {
					for dgst, content := range work(t, s, n) {
						acked[dgst] = content
					}
				}
				filled := false
				once.Do(func() { filled = true })
				if filled {
					t.Errorf("the work never came to %q", point)
				}
				// What was evicted, then or to make room, was acknowledged too.
				for dgst, content := range acked {
					if _, err := s.Stat(dgst); err != nil {
						delete(acked, dgst)
						continue
					}
					storetest.Holds(t, s, dgst, content)
				}
				if point != "evict" && s.Stats().Evictions["size"] != 0 {
					t.Errorf("evictions are %v", s.Stats().Evictions)
				}
				if err := s.Close(); err != nil && !errors.Is(err, store.ErrNoSpace) {
					t.Error(err)
				}
				d.relieve()
				checkRelieved(t, d, acked)
			})
		}
	}
}

// TestRoomComesBack has a store that was opened on a full disk carry on once
// there is room, without a restart.
func TestRoomComesBack(t *testing.T) {
	if !inNamespaces(t) {
		return
	}
	d := newSmallDisk(t, diskSize)
	s, err := store.Open(t.Context(), d.config())
	if err != nil {
		t.Fatal(err)
	}
	acked := work(t, s, 0)
	s.Close()
	if err := d.fill(600 << 10); err != nil {
		t.Fatal(err)
	}
	s, err = store.Open(t.Context(), store.WithCheckEvery(d.config(), time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for dgst, content := range work(t, s, 1) {
		acked[dgst] = content
	}
	if err := s.Degraded(); !errors.Is(err, store.ErrNoSpace) {
		t.Fatalf("degraded says %v", err)
	}
	name := oci.Name{Registry: "r.test", Repository: "a"}
	if err := s.DeleteTag(oci.Reference{Name: name, Tag: "0"}); err != nil {
		t.Fatal(err)
	}
	d.relieve()
	waitFor(t, "the store to see that there is room", func() bool { return s.Degraded() == nil })
	for dgst, content := range work(t, s, 2) {
		acked[dgst] = content
	}
	want, err := s.Tags(name, -1, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	// The index knows what happened while it could not be written.
	s, err = store.Open(t.Context(), d.config())
	if err != nil {
		t.Fatal(err)
	}
	got, err := s.Tags(name, -1, "")
	if err != nil || fmt.Sprint(got) != fmt.Sprint(want) || len(got) != 2 {
		t.Errorf("tags are %v, %v, want %v", got, err, want)
	}
	s.Close()
	checkRelieved(t, d, acked)
}

// TestNoInodes is a disk with room but without a place for another file.
func TestNoInodes(t *testing.T) {
	if !inNamespaces(t) {
		return
	}
	d := newSmallDisk(t, diskSize, "nr_inodes=200")
	s, err := store.Open(t.Context(), d.config())
	if err != nil {
		t.Fatal(err)
	}
	acked := make(map[digest.Digest][]byte)
	for n := range 60 {
		for dgst, content := range work(t, s, n) {
			acked[dgst] = content
		}
	}
	if len(acked) == 120 {
		t.Fatal("the inodes lasted: nothing was tried")
	}
	for dgst, content := range acked {
		storetest.Holds(t, s, dgst, content)
	}
	s.Close()
	if err := unix.Mount("", d.dir, "", unix.MS_REMOUNT, "nr_inodes=10000"); err != nil {
		t.Fatal(err)
	}
	checkRelieved(t, d, acked)
}

// TestOthersFillTheDisk has the store give way to restore MinFree.
func TestOthersFillTheDisk(t *testing.T) {
	if !inNamespaces(t) {
		return
	}
	d := newSmallDisk(t, diskSize)
	cfg := store.WithCheckEvery(d.config(), time.Millisecond)
	cfg.MaxSize, cfg.MinFree = store.Bytes(64<<20), store.Percent(30)
	s, err := store.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var all []digest.Digest
	for n := range 8 {
		all = append(all, storetest.Add(t, s, storetest.Content(4<<20, uint64(n))))
	}
	if st := s.Stats(); st.Evictions["free"] != 0 {
		t.Fatalf("evicted without need: %+v", st)
	}
	if err := d.fill(diskSize*30/100 - 6<<20); err != nil {
		t.Fatal(err)
	}
	// The count follows the room by a moment.
	waitFor(t, "room to be made", func() bool { return d.free() >= diskSize*30/100 && s.Stats().Evictions["free"] >= 2 })
	for n, dgst := range all {
		_, err := s.Stat(dgst)
		if n < 2 && !errors.Is(err, oci.ErrBlobUnknown) {
			t.Errorf("blob %d, of the oldest, stayed: %v", n, err)
		}
		if n > 3 && err != nil {
			t.Errorf("blob %d went: %v", n, err)
		}
	}
	if got := s.Stats().Evictions["free"]; got > 4 {
		t.Errorf("%d blobs were evicted", got)
	}
}

// waitFor waits until the condition holds. What it waits for happens in the
// store's own goroutine, which offers nothing to wait on.
func waitFor(t *testing.T, what string, condition func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	deadline := time.NewTimer(time.Minute)
	defer deadline.Stop()
	for !condition() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("waited a minute for %s", what)
		}
	}
}
