package store_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/internal/oci"
	"github.com/larder-registry/larder/store"
)

var garbleRounds = flag.Int("garble", 6, "how many times an index is damaged at random")

var testName = oci.Name{Registry: "r.test", Repository: "a"}

// putTagged puts a manifest of which n decides the bytes, and tags it.
func putTagged(t testing.TB, s *store.Store, n int) oci.Descriptor {
	t.Helper()
	content := fmt.Appendf(nil, `{"schemaVersion":2,"layers":[{"digest":%q}],"annotations":{"n":"%d"}}`, digest.FromString("layer"), n)
	desc := oci.Descriptor{MediaType: "application/vnd.test", Digest: digest.FromBytes(content), Size: int64(len(content))}
	if err := s.Put(t.Context(), desc, content); err != nil {
		t.Fatal(err)
	}
	if err := s.SetTag(oci.Reference{Name: testName, Tag: "t" + strconv.Itoa(n)}, store.Tag{Descriptor: desc}); err != nil {
		t.Fatal(err)
	}
	if err := s.Link(testName, desc); err != nil {
		t.Fatal(err)
	}
	return desc
}

// damagedTemplate makes a data directory whose index has every kind of file
// badger knows, as a crash leaves it: tables of earlier runs, and a log.
func damagedTemplate(t *testing.T, d smallDisk) (dir string, descs []oci.Descriptor) {
	t.Helper()
	live, dir := filepath.Join(d.dir, "live"), filepath.Join(d.dir, "template")
	for run := range 4 {
		s, err := store.Open(t.Context(), roomy(live))
		if err != nil {
			t.Fatal(err)
		}
		for n := range 20 {
			descs = append(descs, putTagged(t, s, run*20+n))
		}
		if err := store.Flush(s); err != nil {
			t.Fatal(err)
		}
		if run == 3 {
			copySparse(t, dir, live)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.RemoveAll(live); err != nil {
		t.Fatal(err)
	}
	return dir, descs
}

// roomy is for a store without limits that matter.
func roomy(dir string) store.Config {
	return store.Config{Dir: dir, MaxSize: store.Bytes(1 << 30), MinFree: store.Bytes(0)}
}

// copySparse copies a directory without writing runs of zeros.
func copySparse(t *testing.T, to, from string) {
	t.Helper()
	err := filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if e.IsDir() {
			return os.MkdirAll(filepath.Join(to, rel), 0o755)
		}
		in, err := os.Open(path)
		if err != nil {
			return err
		}
		defer in.Close()
		info, err := in.Stat()
		if err != nil {
			return err
		}
		out, err := os.OpenFile(filepath.Join(to, rel), os.O_CREATE|os.O_RDWR, info.Mode()|0o200)
		if err != nil {
			return err
		}
		defer out.Close()
		buf, zeros := make([]byte, 64<<10), make([]byte, 64<<10)
		for off := int64(0); off < info.Size(); {
			n, err := in.ReadAt(buf, off)
			if err != nil && err != io.EOF {
				return err
			}
			if !bytes.Equal(buf[:n], zeros[:n]) {
				if _, err := out.WriteAt(buf[:n], off); err != nil {
					return err
				}
			}
			off += int64(n)
		}
		return errors.Join(out.Truncate(info.Size()), out.Chmod(info.Mode()))
	})
	if err != nil {
		t.Fatal(err)
	}
}

// checkAfterDamage opens dir and fails t unless the store works, holds all of
// descs, and has no tag that dangles.
func checkAfterDamage(t *testing.T, dir string, descs []oci.Descriptor) {
	t.Helper()
	s, err := store.Open(t.Context(), roomy(dir))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Degraded(); err != nil {
		t.Errorf("degraded: %v", err)
	}
	for _, desc := range descs {
		b, err := s.Blob(desc.Digest)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(b)
		if err != nil || digest.FromBytes(got) != desc.Digest {
			t.Errorf("blob %s has other bytes, %v", desc.Digest, err)
		}
		if b.Descriptor().MediaType == "" {
			t.Errorf("manifest %s is not known as one", desc.Digest)
		}
		b.Close()
	}
	tags, err := s.Tags(testName, -1, "")
	if err != nil && !errors.Is(err, oci.ErrNameUnknown) {
		t.Error(err)
	}
	for _, tag := range tags {
		got, err := s.Tag(oci.Reference{Name: testName, Tag: tag})
		if err != nil {
			t.Errorf("tag %s dangles: %v", tag, err)
		} else if _, err := s.Stat(got.Digest); err != nil {
			t.Errorf("tag %s: %v", tag, err)
		}
	}
	want := putTagged(t, s, 1000)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s, err = store.Open(t.Context(), roomy(dir))
	if err != nil {
		t.Fatal(err)
	}
	got, err := s.Tag(oci.Reference{Name: testName, Tag: "t1000"})
	if err != nil || got.Descriptor != want {
		t.Errorf("a tag set after the damage is %+v, %v", got, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestIndexSurvivesDamage(t *testing.T) {
	if !inNamespaces(t) {
		return
	}
	d := newSmallDisk(t, 512<<20)
	template, descs := damagedTemplate(t, d)
	garbage := func(n int) []byte {
		content := make([]byte, n)
		rand.NewChaCha8([32]byte{1}).Read(content)
		return content
	}
	damages := map[string]func(path string, size int64) error{
		"emptied":     func(path string, _ int64) error { return os.Truncate(path, 0) },
		"one byte":    func(path string, _ int64) error { return os.Truncate(path, 1) },
		"halved":      func(path string, size int64) error { return os.Truncate(path, size/2) },
		"cut at 100":  func(path string, size int64) error { return os.Truncate(path, min(size, 100)) },
		"end cut off": func(path string, size int64) error { return os.Truncate(path, max(size-1, 0)) },
		"garbage":     func(path string, size int64) error { return os.WriteFile(path, garbage(int(min(size, 1<<20))), 0o644) },
		"zeros":       func(path string, size int64) error { return os.WriteFile(path, make([]byte, min(size, 1<<20)), 0o644) },
		"removed":     func(path string, _ int64) error { return os.Remove(path) },
	}
	all := slices.Sorted(maps.Keys(damages))
	for pattern, names := range map[string][]string{
		"MANIFEST": all, "*.sst": all, "*.mem": all,
		// Badger makes these anew when they hold nothing of worth.
		"*.vlog": {"garbage", "halved"}, "KEYREGISTRY": {"emptied", "garbage", "removed"}, "DISCARD": {"garbage", "one byte"},
	} {
		for _, name := range names {
			t.Run(pattern+" "+name, func(t *testing.T) {
				dir := filepath.Join(d.dir, "damaged")
				defer os.RemoveAll(dir)
				copySparse(t, dir, template)
				files, err := filepath.Glob(filepath.Join(dir, "index", pattern))
				if err != nil || len(files) == 0 {
					t.Fatalf("no file to damage: %v", err)
				}
				info, err := os.Stat(files[0])
				if err != nil {
					t.Fatal(err)
				}
				if err := damages[name](files[0], info.Size()); err != nil {
					t.Fatal(err)
				}
				checkAfterDamage(t, dir, descs)
			})
		}
	}
}

// TestIndexSurvivesRandomDamage flips single bytes, where a parser is most
// easily led astray: near the beginning of a log, anywhere in a table.
func TestIndexSurvivesRandomDamage(t *testing.T) {
	if !inNamespaces(t) {
		return
	}
	d := newSmallDisk(t, 512<<20)
	template, descs := damagedTemplate(t, d)
	seed := uint64(time.Now().UnixNano())
	random := rand.New(rand.NewPCG(seed, 0))
	for round := range *garbleRounds {
		dir := filepath.Join(d.dir, "damaged")
		copySparse(t, dir, template)
		files, err := filepath.Glob(filepath.Join(dir, "index", "*"))
		if err != nil {
			t.Fatal(err)
		}
		file := files[random.IntN(len(files))]
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		if info.Size() == 0 || filepath.Base(file) == "BALLAST" {
			continue
		}
		flips := 1 + random.IntN(4)
		t.Logf("round %d of seed %d: %d bytes of %s", round, seed, flips, filepath.Base(file))
		f, err := os.OpenFile(file, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		for range flips {
			at := random.Int64N(min(info.Size(), 20_000))
			if _, err := f.WriteAt([]byte{byte(random.Uint32())}, at); err != nil {
				t.Fatal(err)
			}
		}
		f.Close()
		checkAfterDamage(t, dir, descs)
		os.RemoveAll(dir)
	}
}
