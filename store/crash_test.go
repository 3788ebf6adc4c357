package store_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/larder-registry/larder/internal/oci"
	"github.com/larder-registry/larder/store"
	"github.com/larder-registry/larder/store/storetest"
)

var crashRounds = flag.Int("crash", 1, "how often a process is killed at each named point, and three times that at random")

// crashPoints are the points at which the child is killed: in the middle of
// each step between the first byte and the index.
var crashPoints = []string{
	"ingest", "write", "state", "before fsync", "after fsync", "after rename",
	"before index", "evict", "flush", "flushed", "opening", "put",
}

const (
	crashBlobs = 40
	crashLimit = 3 << 20
	crashSize  = 120_000
)

func crashContent(k int) []byte { return storetest.Content(crashSize+k*997, uint64(1000+k)) }

func crashConfig(dir string) store.Config {
	return store.Config{Dir: dir, MaxSize: store.Bytes(crashLimit), MinFree: store.Bytes(0)}
}

// TestKilledAtNamedPoints lets a process die at every step of its work, over
// and over on one directory, and looks each time at what the next one finds.
func TestKilledAtNamedPoints(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for range *crashRounds {
		for _, point := range crashPoints {
			// The first start of a store is a case of its own; after that the
			// point is reached by way of whatever comes before.
			nth := 1 + rand.IntN(8)
			if point == "opening" {
				nth = 1
			}
			out := runCrashChild(t, dir, point, nth)
			if !strings.Contains(out, "dying at "+point) {
				t.Fatalf("the child did not get to %q: %s", point, out)
			}
			checkAfterCrash(t, dir, "killed at "+point)
		}
	}
}

// TestKilledAtRandom kills the process from outside, after a random time.
func TestKilledAtRandom(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for round := range 3 * *crashRounds {
		runCrashChild(t, dir, "", 1+rand.IntN(300))
		checkAfterCrash(t, dir, fmt.Sprintf("killed in round %d", round))
	}
}

// runCrashChild runs the child until it is killed: by itself at the nth passing
// of point, or without point by us, nth milliseconds after it began its work.
func runCrashChild(t *testing.T, dir, point string, nth int) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, self, dir, point, strconv.Itoa(nth))
	cmd.Env = append(os.Environ(), childEnv+"=crash")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if point == "" {
		ready := make([]byte, len("working\n"))
		if _, err := io.ReadFull(stderr, ready); err != nil {
			t.Fatalf("the child said nothing: %v", err)
		}
		timer := time.NewTimer(time.Duration(nth) * time.Millisecond)
		<-timer.C
		cmd.Process.Kill()
	}
	out, err := io.ReadAll(stderr)
	if err != nil {
		t.Fatal(err)
	}
	err = cmd.Wait()
	status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if !ok || !status.Signaled() || status.Signal() != syscall.SIGKILL || ctx.Err() != nil {
		t.Fatalf("the child was not killed as meant: %v\n%s", err, out)
	}
	return string(out)
}

// checkAfterCrash looks at the directory as it was left, then opens it.
func checkAfterCrash(t *testing.T, dir, how string) {
	t.Helper()
	// Before anything is cleaned up, no wrong byte is in place.
	blobs, err := filepath.Glob(filepath.Join(dir, "blobs", "*", "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range blobs {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if digest.FromBytes(content).Encoded() != filepath.Base(file) {
			t.Errorf("%s: %s has other bytes than its name says", how, file)
		}
	}

	s, err := store.Open(t.Context(), crashConfig(dir))
	if err != nil {
		t.Fatalf("%s: %v", how, err)
	}
	defer s.Close()
	storetest.Check(t, dir)
	for _, name := range crashNames() {
		tags, err := s.Tags(name, -1, "")
		if err != nil && !errors.Is(err, oci.ErrNameUnknown) {
			t.Error(err)
		}
		for _, tag := range tags {
			got, err := s.Tag(oci.Reference{Name: name, Tag: tag})
			if err != nil {
				t.Errorf("%s: tag %s: %v", how, tag, err)
				continue
			}
			b, err := s.Blob(got.Digest)
			if err != nil {
				t.Errorf("%s: tag %s points to nothing: %v", how, tag, err)
				continue
			}
			b.Close()
		}
	}
	for k := range crashBlobs {
		checkPartial(t, s, crashContent(k), how)
	}
	if n := storetest.Ingests(t, dir); n != 0 {
		t.Errorf("%s: %d ingests are of no known content", how, n)
	}
	if st := s.Stats(); st.IngestBytes != 0 || st.CacheBytes > crashLimit {
		t.Errorf("%s: stats are %+v", how, st)
	}
	if err := s.Degraded(); err != nil {
		t.Errorf("%s: degraded: %v", how, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	store.CheckIndex(t, dir)
	if t.Failed() {
		t.FailNow()
	}
}

// checkPartial resumes the partial of content, if there is one: what it claims
// to hold must do, without being fetched again.
func checkPartial(t *testing.T, s *store.Store, content []byte, how string) {
	t.Helper()
	dgst := digest.FromBytes(content)
	if _, ok := s.Partial(dgst); !ok {
		return
	}
	i, err := s.Ingest(t.Context(), dgst, int64(len(content)))
	if err != nil {
		t.Fatalf("%s: a partial cannot be resumed: %v", how, err)
	}
	defer i.Abort()
	held := i.Held()
	if len(held) == 0 {
		t.Errorf("%s: a partial holds nothing", how)
	}
	at := int64(0)
	for _, span := range append(held, oci.Span{Start: i.Descriptor().Size, End: i.Descriptor().Size}) {
		if _, err := i.WriteAt(content[at:span.Start], at); err != nil {
			t.Fatal(err)
		}
		at = span.End
	}
	if _, err := i.Commit(t.Context()); err != nil {
		t.Errorf("%s: a resumed partial: %v", how, err)
	}
}

func crashNames() []oci.Name {
	return []oci.Name{{Registry: "r.test", Repository: "a"}, {Registry: "docker.io", Repository: "library/b"}}
}

// crashChild works on a store as hard as it can, until it dies.
func crashChild(args []string) error {
	dir, point := args[0], args[1]
	nth, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	var passed atomic.Int64
	cfg := store.WithHook(crashConfig(dir), func(at string) {
		if at == point && passed.Add(1) == int64(nth) {
			fmt.Fprintln(os.Stderr, "dying at "+point)
			if err := unix.Kill(os.Getpid(), unix.SIGKILL); err != nil {
				panic(err)
			}
			select {} // nothing more from here, until the signal is delivered
		}
	})
	s, err := store.Open(context.Background(), cfg)
	if err != nil {
		return err
	}
	if point == "" {
		fmt.Fprintln(os.Stderr, "working")
	}
	var wg sync.WaitGroup
	failed := make(chan error, 4)
	for worker := range 4 {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(uint64(os.Getpid()), uint64(worker)))
			for {
				if err := crashVisit(s, random); err != nil {
					failed <- err
					return
				}
			}
		})
	}
	return fmt.Errorf("a worker failed: %w", <-failed)
}

// crashVisit does one of the things a mirror does.
func crashVisit(s *store.Store, random *rand.Rand) error {
	ctx := context.Background()
	content := crashContent(random.IntN(crashBlobs))
	dgst := digest.FromBytes(content)
	if b, err := s.Blob(dgst); err == nil {
		got, err := io.ReadAll(b)
		b.Close()
		if err != nil || !bytes.Equal(got, content) {
			return fmt.Errorf("a blob has other bytes: %v", err)
		}
		return crashTag(s, dgst, random)
	}
	i, err := s.Ingest(ctx, dgst, int64(len(content)))
	if errors.Is(err, store.ErrBusy) {
		return nil
	}
	if err != nil {
		return err
	}
	defer i.Close()
	held := i.Held()
	at := int64(0)
	if len(held) > 0 && held[0].Start == 0 {
		at = held[0].End
	}
	for piece := range slices.Chunk(content[at:], 30_000) {
		if _, err := i.WriteAt(piece, at); err != nil {
			return err
		}
		at += int64(len(piece))
		if err := i.SaveHeld([]oci.Span{{Start: 0, End: at}}); err != nil {
			return err
		}
		switch random.IntN(20) {
		case 0:
			return i.Close()
		case 1:
			return i.Abort()
		}
	}
	_, err = i.Commit(ctx)
	return err
}

// crashTag puts an image manifest that lists dgst, and tags it.
func crashTag(s *store.Store, dgst digest.Digest, random *rand.Rand) error {
	content := fmt.Appendf(nil, `{"schemaVersion":2,"layers":[{"digest":%q}]}`, dgst)
	desc := oci.Descriptor{MediaType: "application/vnd.oci.image.manifest.v1+json", Digest: digest.FromBytes(content), Size: int64(len(content))}
	if err := s.Put(context.Background(), desc, content); err != nil {
		return err
	}
	name := crashNames()[random.IntN(2)]
	ref := oci.Reference{Name: name, Tag: "t" + strconv.Itoa(random.IntN(50))}
	// Either may find the content evicted since.
	if err := s.SetTag(ref, store.Tag{Descriptor: desc}); err != nil && !errors.Is(err, oci.ErrManifestUnknown) {
		return err
	}
	if err := s.Link(name, desc); err != nil && !errors.Is(err, oci.ErrBlobUnknown) {
		return err
	}
	s.ConfirmTag(ref, time.Now())
	return nil
}
