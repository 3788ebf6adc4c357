package allocations

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"

	"github.com/sirupsen/logrus"

	"github.com/larder-registry/larder/central"
	"github.com/larder-registry/larder/internal/oci"
	"github.com/larder-registry/larder/internal/ociserver"
	"github.com/larder-registry/larder/mirror"
	"github.com/larder-registry/larder/mirror/upstream"
	"github.com/larder-registry/larder/store"
)

const repo = "team/app"

// startMirror serves a mirror of o and returns where.
func startMirror(t testing.TB, o *origin) (addr string) {
	t.Helper()
	return serve(t, mirrorHandler(t, o), quiet())
}

// mirrorHandler is a mirror of o, put together as the node's is.
func mirrorHandler(t testing.TB, o *origin) http.Handler {
	t.Helper()
	log := quiet()
	s, err := store.Open(t.Context(), store.Config{Dir: t.TempDir(), MinFree: store.Bytes(0), Log: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	up, err := upstream.New(upstream.Config{Registries: []upstream.Registry{{Host: o.host(), Insecure: true}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(up.Close)
	m, err := mirror.New(mirror.Config{Store: s, Upstream: up, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	h, err := ociserver.New(ociserver.Config{Reader: m, Lister: m, Callers: true, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// startCentral serves a registry that anybody may do everything with, and
// returns it and where.
func startCentral(t testing.TB) (c *central.Central, addr string) {
	t.Helper()
	log, dir := quiet(), t.TempDir()
	ledger, err := store.OpenLedger(filepath.Join(dir, "index"), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := ledger.Close(); err != nil {
			t.Error(err)
		}
	})
	depot, err := store.OpenDepot(store.DepotConfig{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	c, err = central.New(t.Context(), central.Config{Ledger: ledger, Content: depot, Drafts: depot})
	if err != nil {
		t.Fatal(err)
	}
	h, err := ociserver.NewOwn(ociserver.OwnConfig{
		Reader: c, Lister: c, Uploader: c, Writer: c, Referrals: c, Authorizer: anybody{}, Log: log,
	})
	if err != nil {
		t.Fatal(err)
	}
	return c, serve(t, h, log)
}

// anybody may do everything.
type anybody struct{}

func (anybody) Authorize(context.Context, oci.Caller, oci.Want) (oci.Subject, error) {
	return anybody{}, nil
}
func (anybody) Name() string                                 { return "anybody" }
func (anybody) May(context.Context, string, oci.Action) bool { return true }

// serve serves h until the test ends.
func serve(t testing.TB, h http.Handler, log *logrus.Entry) (addr string) {
	server := httptest.NewUnstartedServer(h)
	server.Config = ociserver.NewServer(h, log)
	server.Start()
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

func quiet() *logrus.Entry {
	logger := logrus.New()
	logger.SetOutput(io.Discard)
	return logrus.NewEntry(logger)
}
