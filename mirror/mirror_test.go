package mirror

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/sirupsen/logrus"
	"go.uber.org/goleak"

	"github.com/larder-registry/larder/internal/oci"
	"github.com/larder-registry/larder/mirror/upstream"
	"github.com/larder-registry/larder/store"
	"github.com/larder-registry/larder/test/registry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const repo = "team/app"

// fixture is a mirror over a real store and a real upstream on loopback.
type fixture struct {
	*Mirror
	up   *registry.Server
	dir  string
	name oci.Name
	stop func()
}

// configs are what a fixture is made of.
type configs struct {
	mirror   Config
	store    store.Config
	upstream upstream.Config
}

// start makes a fixture; change adjusts the configurations.
func start(t *testing.T, up *registry.Server, dir string, change func(*configs)) *fixture {
	t.Helper()
	logger := logrus.New()
	logger.SetOutput(io.Discard)
	log := logrus.NewEntry(logger)
	cfg := configs{
		mirror:   Config{Log: log},
		store:    store.Config{Dir: dir, MinFree: store.Bytes(0), Log: log},
		upstream: upstream.Config{Registries: []upstream.Registry{{Host: up.Host(), Insecure: true}}},
	}
	if change != nil {
		change(&cfg)
	}
	s, err := store.Open(t.Context(), cfg.store)
	if err != nil {
		t.Fatal(err)
	}
	client, err := upstream.New(cfg.upstream)
	if err != nil {
		t.Fatal(err)
	}
	cfg.mirror.Store, cfg.mirror.Upstream = s, client
	m, err := New(cfg.mirror)
	if err != nil {
		t.Fatal(err)
	}
	name, err := oci.NewName(up.Host(), repo)
	if err != nil {
		t.Fatal(err)
	}
	fx := &fixture{Mirror: m, up: up, dir: dir, name: name}
	stopped := false
	fx.stop = func() {
		if stopped {
			return
		}
		stopped = true
		if err := m.Close(context.Background()); err != nil {
			t.Error(err)
		}
		client.Close()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(fx.stop)
	return fx
}

// ranged is a context whose request wants only a part.
func ranged(t *testing.T, start, end int64) context.Context {
	return oci.WithAccess(t.Context(), &oci.Access{Range: &oci.Span{Start: start, End: end}})
}

// readAll reads a blob to its end and compares every byte.
func readAll(t *testing.T, blob io.Reader, want io.Reader) {
	t.Helper()
	if err := sameBytes(blob, want); err != nil {
		t.Fatal(err)
	}
}

// sameBytes reports the first difference between two streams.
func sameBytes(got, want io.Reader) error {
	gotSum, wantSum := sha256.New(), sha256.New()
	gotN, err := io.Copy(gotSum, got)
	if err != nil {
		return fmt.Errorf("after %d bytes: %w", gotN, err)
	}
	wantN, err := io.Copy(wantSum, want)
	if err != nil {
		return err
	}
	if gotN != wantN || !bytes.Equal(sum(gotSum), sum(wantSum)) {
		return fmt.Errorf("%d bytes %x, want %d bytes %x", gotN, sum(gotSum), wantN, sum(wantSum))
	}
	return nil
}

func sum(h hash.Hash) []byte { return h.Sum(nil) }

// section is a part of a blob as it should be.
func section(b registry.Blob, start, end int64) io.Reader {
	return io.NewSectionReader(b.Content, start, end-start)
}

// open asks the mirror for a blob and closes it when the test ends.
func (fx *fixture) open(t *testing.T, ctx context.Context, dgst digest.Digest) oci.Blob {
	t.Helper()
	blob, err := fx.Blob(ctx, fx.name, dgst)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { blob.Close() })
	return blob
}

// settled waits until no fill is running.
func (fx *fixture) settled(t *testing.T, dgst digest.Digest) {
	t.Helper()
	fx.fills.mu.Lock()
	f := fx.fills.of[dgst]
	fx.fills.mu.Unlock()
	if f == nil {
		return
	}
	select {
	case <-f.done:
	case <-t.Context().Done():
		t.Fatal("fill did not end")
	}
}

// onDisk reports whether the store holds the blob, with the right bytes.
func (fx *fixture) onDisk(t *testing.T, b registry.Blob) bool {
	t.Helper()
	blob, err := fx.store.Blob(b.Digest)
	if errors.Is(err, oci.ErrBlobUnknown) {
		return false
	}
	if err != nil {
		t.Fatal(err)
	}
	defer blob.Close()
	readAll(t, blob, section(b, 0, b.Size()))
	return true
}
