package central

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/internal/oci"
)

// chunkOf is a chunk at an offset, of unknown length where length is -1.
func chunkOf(content string, at int64) oci.Chunk {
	return oci.Chunk{Body: strings.NewReader(content), At: at, Length: int64(len(content))}
}

// start begins an upload.
func (f *fixture) start() string {
	f.t.Helper()
	id, err := f.Start(f.t.Context(), repo("app"), "")
	if err != nil {
		f.t.Fatal(err)
	}
	return id
}

func TestUploadsOutliveARestart(t *testing.T) {
	for _, algorithm := range []digest.Algorithm{digest.SHA256, digest.SHA512} {
		f := newFixture(t, Config{})
		id, err := f.Start(t.Context(), repo("app"), algorithm)
		if err != nil {
			t.Fatal(err)
		}
		whole := ""
		for n := range 5 {
			part := fmt.Sprintf("part %d of %s, ", n, algorithm)
			if size, err := f.Append(t.Context(), repo("app"), id, chunkOf(part, int64(len(whole)))); err != nil || size != int64(len(whole)+len(part)) {
				t.Fatalf("%d, %v", size, err)
			}
			whole += part
			f.reopen()
			if size, err := f.Size(t.Context(), repo("app"), id); err != nil || size != int64(len(whole)) {
				t.Fatalf("%d of %d bytes after a restart: %v", size, len(whole), err)
			}
		}
		dgst := algorithm.FromString(whole)
		if _, err := f.Finish(t.Context(), repo("app"), id, chunkOf("", -1), dgst); err != nil {
			t.Fatal(err)
		}
		f.reopen()
		if got := f.read("app", dgst); string(got) != whole {
			t.Errorf("%q", got)
		}
	}
}

// TestAnUploadIsGoneOnWithFromItsLastCheckpoint is what a crash in the middle of
// a long body leaves: bytes that nobody acknowledged, noted or not.
func TestAnUploadIsGoneOnWithFromItsLastCheckpoint(t *testing.T) {
	for name, tt := range map[string]struct {
		file string
		want int64
	}{
		"all of it is there":       {"acknowledged, noted, more", 19},
		"exactly what was noted":   {"acknowledged, noted", 19},
		"what was noted is wrong":  {"acknowledged, nOted, more", 12},
		"what was noted is lost":   {"acknowledged", 12},
		"and some of it":           {"acknowledged, no", 12},
		"even what was acked lost": {"acknow", -1},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, Config{})
			id := f.start()
			if _, err := f.Append(t.Context(), repo("app"), id, chunkOf("acknowledged", 0)); err != nil {
				t.Fatal(err)
			}
			r, err := f.ledger.Get(t.Context(), uploadKey(id))
			if err != nil {
				t.Fatal(err)
			}
			u, err := parseUpload(r.Value)
			if err != nil {
				t.Fatal(err)
			}
			h, err := u.Done.hash(u.Algorithm)
			if err != nil {
				t.Fatal(err)
			}
			io.WriteString(h, ", noted")
			if u.Ahead, err = progressOf(h, 19); err != nil {
				t.Fatal(err)
			}
			if err := f.ledger.Swap(t.Context(), r.Key, encode(u), r.Version); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(f.dir, "uploads", id), []byte(tt.file), 0o644); err != nil {
				t.Fatal(err)
			}
			size, err := f.Size(t.Context(), repo("app"), id)
			if tt.want < 0 {
				if !errors.Is(err, oci.ErrBlobUploadUnknown) {
					t.Errorf("%d, %v", size, err)
				}
				return
			}
			if err != nil || size != tt.want {
				t.Fatalf("%d bytes, want %d: %v", size, tt.want, err)
			}
			whole := tt.file[:tt.want] + ", the end"
			if _, err := f.Finish(t.Context(), repo("app"), id, chunkOf(", the end", tt.want), digest.FromString(whole)); err != nil {
				t.Fatal(err)
			}
			if got := f.read("app", digest.FromString(whole)); string(got) != whole {
				t.Errorf("%q", got)
			}
		})
	}
}

// zeros is a body of n zero bytes that breaks off.
func zeros(n int64) io.Reader {
	return io.MultiReader(io.LimitReader(zero{}, n), iotest.ErrReader(io.ErrUnexpectedEOF))
}

type zero struct{}

func (zero) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// TestLongBodiesAreNoted sends more than a checkpoint, and looks at what is noted
// while it goes on.
func TestLongBodiesAreNoted(t *testing.T) {
	f := newFixture(t, Config{})
	id := f.start()
	in, out := io.Pipe()
	done := make(chan error)
	go func() { // ends with the body
		_, err := f.Append(context.Background(), repo("app"), id, oci.Chunk{Body: in, At: -1, Length: -1})
		done <- err
	}()
	if _, err := io.CopyN(out, zero{}, checkpoint+3*receiveChunk); err != nil {
		t.Fatal(err)
	}
	r, err := f.ledger.Get(t.Context(), uploadKey(id))
	if err != nil {
		t.Fatal(err)
	}
	u, err := parseUpload(r.Value)
	if err != nil || u.Done.Size != 0 || u.Ahead.Size < checkpoint {
		t.Errorf("noted %d, ahead %d, %v", u.Done.Size, u.Ahead.Size, err)
	}
	out.CloseWithError(io.ErrUnexpectedEOF)
	if err := <-done; !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a body that breaks off: %v", err)
	}
	if size, err := f.Size(t.Context(), repo("app"), id); err != nil || size != checkpoint+3*receiveChunk {
		t.Errorf("%d bytes are kept, %v", size, err)
	}
}

func TestOnlyOneAtATimeAddsToAnUpload(t *testing.T) {
	f := newFixture(t, Config{})
	id := f.start()
	in, out := io.Pipe()
	done := make(chan error)
	go func() { // ends with the body
		_, err := f.Append(context.Background(), repo("app"), id, oci.Chunk{Body: in, At: 0, Length: -1})
		done <- err
	}()
	if _, err := out.Write([]byte("first")); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Append(t.Context(), repo("app"), id, chunkOf("second", 0)); !errors.Is(err, oci.ErrRangeInvalid) {
		t.Errorf("append by another: %v", err)
	}
	if _, err := f.Finish(t.Context(), repo("app"), id, chunkOf("second", -1), digest.FromString("second")); !errors.Is(err, oci.ErrRangeInvalid) {
		t.Errorf("finish by another: %v", err)
	}
	if err := f.Cancel(t.Context(), repo("app"), id); !errors.Is(err, oci.ErrRangeInvalid) {
		t.Errorf("cancel by another: %v", err)
	}
	if size, err := f.Size(t.Context(), repo("app"), id); err != nil || size != 0 {
		t.Errorf("status meanwhile: %d, %v", size, err)
	}
	out.Close()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if _, err := f.Finish(t.Context(), repo("app"), id, chunkOf("", -1), digest.FromString("first")); err != nil {
		t.Error(err)
	}
	// Replicas that share a ledger are held apart by the record alone.
	id = f.start()
	u, err := f.openUpload(t.Context(), repo("app"), id)
	if err != nil {
		t.Fatal(err)
	}
	defer u.close()
	if err := u.add(t.Context(), chunkOf("one", -1)); err != nil {
		t.Fatal(err)
	}
	if err := f.write(t.Context(), uploadKey(id), u.record); err != nil {
		t.Fatal(err)
	}
	if err := u.save(t.Context()); !errors.Is(err, oci.ErrRangeInvalid) {
		t.Errorf("save over another's: %v", err)
	}
}

func TestWhatBreaksOffCanBeGoneOnWith(t *testing.T) {
	f := newFixture(t, Config{})
	id := f.start()
	broken := io.MultiReader(strings.NewReader("half"), iotest.ErrReader(io.ErrUnexpectedEOF))
	if _, err := f.Append(t.Context(), repo("app"), id, oci.Chunk{Body: broken, At: 0, Length: 8}); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("append: %v", err)
	}
	again := io.MultiReader(strings.NewReader(" and"), iotest.ErrReader(io.ErrUnexpectedEOF))
	if _, err := f.Finish(t.Context(), repo("app"), id, oci.Chunk{Body: again, At: 4, Length: 8}, digest.FromString("half and half")); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("finish: %v", err)
	}
	f.reopen()
	if size, err := f.Size(t.Context(), repo("app"), id); err != nil || size != 8 {
		t.Fatalf("%d bytes, %v", size, err)
	}
	if _, err := f.Finish(t.Context(), repo("app"), id, chunkOf(" half", 8), digest.FromString("half and half")); err != nil {
		t.Error(err)
	}
	// In one request there is nothing to go on with.
	if _, err := f.Push(t.Context(), repo("app"), zeros(100), digest.FromString("x")); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("push: %v", err)
	}
	nothingLeft(t, f)
}

// nothingLeft checks that there are no drafts.
func nothingLeft(t *testing.T, f *fixture) {
	t.Helper()
	list, err := os.ReadDir(filepath.Join(f.dir, "uploads"))
	if err != nil || len(list) != 0 {
		t.Errorf("drafts are left: %v, %v", list, err)
	}
	if len(f.active) != 0 {
		t.Errorf("drafts in use: %v", f.active)
	}
}

func TestWhatIsRefusedLeavesNothing(t *testing.T) {
	f := newFixture(t, Config{Quotas: []Quota{{Repositories: []oci.Pattern{"small"}, Bytes: 100}}})
	long := strings.Repeat("x", 101)
	other := digest.FromString("something else")
	for name, tt := range map[string]struct {
		do   func() error
		want *oci.Error
	}{
		"push of another digest": {func() error {
			_, err := f.Push(t.Context(), repo("app"), strings.NewReader("x"), other)
			return err
		}, oci.ErrDigestInvalid},
		"finish of another digest": {func() error {
			_, err := f.Finish(t.Context(), repo("app"), f.start(), chunkOf("x", -1), other)
			return err
		}, oci.ErrDigestInvalid},
		"push over the quota": {func() error {
			_, err := f.Push(t.Context(), repo("small"), strings.NewReader(long), digest.FromString(long))
			return err
		}, oci.ErrDenied},
		"upload over the quota": {func() error {
			id, err := f.Start(t.Context(), repo("small"), "")
			if err != nil {
				t.Fatal(err)
			}
			_, err = f.Append(t.Context(), repo("small"), id, chunkOf(long, 0))
			return err
		}, oci.ErrDenied},
		"finish over the quota": {func() error {
			id, err := f.Start(t.Context(), repo("small"), "")
			if err != nil {
				t.Fatal(err)
			}
			_, err = f.Finish(t.Context(), repo("small"), id, chunkOf(long, 0), digest.FromString(long))
			return err
		}, oci.ErrDenied},
		"manifest over the quota": {func() error {
			config := f.push("small", []byte("{}"))
			_, err := f.put("small", fmt.Appendf(nil, `{"schemaVersion":2,"config":{"digest":%q},"layers":[]}`, config), "v1")
			return err
		}, oci.ErrDenied},
		"manifest of nothing": {func() error {
			_, err := f.put("app", fmt.Appendf(nil, `{"schemaVersion":2,"config":{"digest":%q},"layers":[]}`, other), "v1")
			return err
		}, oci.ErrManifestBlobUnknown},
	} {
		if err := tt.do(); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v", name, err)
		}
		nothingLeft(t, f)
	}
	list, err := f.ledger.List(t.Context(), uploadsPrefix, "", -1)
	if err != nil || len(list) != 0 {
		t.Errorf("%d uploads are left, %v", len(list), err)
	}
}

func FuzzParseUpload(f *testing.F) {
	h := digest.SHA256.Hash()
	h.Write([]byte("some"))
	p, err := progressOf(h, 4)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(encode(uploadRecord{Repository: "a", Algorithm: digest.SHA256, Done: p}))
	f.Add(encode(uploadRecord{Repository: "a", Algorithm: digest.SHA512, Ahead: p, At: math.MaxInt64}))
	f.Add([]byte(`{"d":{"s":-1}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		u, err := parseUpload(text)
		if err != nil {
			return
		}
		for _, p := range []progress{u.Done, u.Ahead} {
			h, err := p.hash(u.Algorithm)
			if err != nil {
				t.Fatalf("%+v was taken: %v", u, err)
			}
			h.Write([]byte("x"))
			h.Sum(nil)
		}
		again, err := parseUpload(encode(u))
		if err != nil || !bytes.Equal(encode(again), encode(u)) || !json.Valid(encode(u)) {
			t.Errorf("%s does not come back: %v", text, err)
		}
	})
}
