package registry_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"net/http"
	"testing"

	"github.com/larder-registry/larder/test/registry"
)

// unzip undoes gzip.
func unzip(t *testing.T, p []byte) []byte {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(p))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// TestFaults checks that each fault does what it says, and nothing else.
func TestFaults(t *testing.T) {
	const size = 100_000
	cut := func(t *testing.T, r reply, want []byte) {
		t.Helper()
		if !errors.Is(r.err, io.ErrUnexpectedEOF) || !bytes.Equal(r.body, want) {
			t.Errorf("%d bytes and %v, want %d and a broken connection", len(r.body), r.err, len(want))
		}
	}
	clean := func(t *testing.T, r reply, want []byte) {
		t.Helper()
		if r.err != nil || !bytes.Equal(r.body, want) {
			t.Errorf("%d bytes and %v, want %d and a clean end", len(r.body), r.err, len(want))
		}
	}
	for name, tt := range map[string]struct {
		fault registry.Fault
		ask   string // Range
		check func(t *testing.T, r reply, all []byte)
	}{
		"no digest": {registry.Fault{NoDigest: true}, "", func(t *testing.T, r reply, all []byte) {
			clean(t, r, all)
			if r.Header.Values("Docker-Content-Digest") != nil {
				t.Error("digest sent")
			}
		}},
		"wrong digest": {registry.Fault{Digest: "sha256:00"}, "", func(t *testing.T, r reply, all []byte) {
			clean(t, r, all)
			if r.Header.Get("Docker-Content-Digest") != "sha256:00" {
				t.Error("digest right")
			}
		}},
		"no length": {registry.Fault{NoLength: true}, "", func(t *testing.T, r reply, all []byte) {
			clean(t, r, all)
			if r.ContentLength != -1 {
				t.Errorf("length %d", r.ContentLength)
			}
		}},
		"short": {registry.Fault{Short: 3}, "", func(t *testing.T, r reply, all []byte) { clean(t, r, all[:size-3]) }},
		"short chunked": {registry.Fault{Short: 3, NoLength: true}, "", func(t *testing.T, r reply, all []byte) {
			clean(t, r, all[:size-3])
		}},
		"long": {registry.Fault{Long: 2}, "", func(t *testing.T, r reply, all []byte) { clean(t, r, append(all, 0, 0)) }},
		"flip": {registry.Fault{Flip: true, At: -1}, "", func(t *testing.T, r reply, all []byte) {
			all[size-1] ^= 0xff
			clean(t, r, all)
		}},
		"cut":        {registry.Fault{Cut: true, At: 70_000}, "", func(t *testing.T, r reply, all []byte) { cut(t, r, all[:70_000]) }},
		"cut at end": {registry.Fault{Cut: true, At: -1}, "", func(t *testing.T, r reply, all []byte) { cut(t, r, all[:size-1]) }},
		"cut range": {registry.Fault{Cut: true, At: 5}, "bytes=100-", func(t *testing.T, r reply, all []byte) {
			cut(t, r, all[100:105])
		}},
		"drop": {registry.Fault{Drop: true}, "", func(t *testing.T, r reply, _ []byte) {
			if r.Response != nil || r.err == nil {
				t.Errorf("answered: %v", r.Response)
			}
		}},
		"status": {registry.Fault{Status: 429, RetryAfter: "7"}, "", func(t *testing.T, r reply, _ []byte) {
			if r.err != nil || r.StatusCode != 429 || r.Header.Get("Retry-After") != "7" || !bytes.Contains(r.body, []byte("TOOMANYREQUESTS")) {
				t.Errorf("%v %v %s", r.Response, r.err, r.body)
			}
		}},
		"redirect": {registry.Fault{Location: "ftp://x"}, "", func(t *testing.T, r reply, _ []byte) {
			if r.err != nil || r.StatusCode != 307 || r.Header.Get("Location") != "ftp://x" {
				t.Errorf("%v %v", r.Response, r.err)
			}
		}},
		"type": {registry.Fault{ContentType: "text/html"}, "", func(t *testing.T, r reply, all []byte) {
			clean(t, r, all)
			if r.Header.Get("Content-Type") != "text/html" {
				t.Error(r.Header)
			}
		}},
		"no type": {registry.Fault{ContentType: "none"}, "", func(t *testing.T, r reply, all []byte) {
			clean(t, r, all)
			if r.Header.Values("Content-Type") != nil {
				t.Error(r.Header)
			}
		}},
		"gzip": {registry.Fault{Gzip: true}, "", func(t *testing.T, r reply, all []byte) {
			if r.err != nil || r.Header.Get("Content-Encoding") != "gzip" || !bytes.Equal(unzip(t, r.body), all) {
				t.Errorf("%v %v", r.Header, r.err)
			}
		}},
		"gzip claimed": {registry.Fault{Encoding: "gzip"}, "", func(t *testing.T, r reply, all []byte) {
			clean(t, r, all)
			if r.Header.Get("Content-Encoding") != "gzip" {
				t.Error(r.Header)
			}
		}},
		"range ignored": {registry.Fault{IgnoreRange: true}, "bytes=5-9", func(t *testing.T, r reply, all []byte) {
			clean(t, r, all)
			if r.StatusCode != 200 {
				t.Error(r.Status)
			}
		}},
		"range shifted": {registry.Fault{Shift: 1}, "bytes=5-9", func(t *testing.T, r reply, all []byte) {
			clean(t, r, all[6:11])
			if r.StatusCode != 206 || r.Header.Get("Content-Range") != "bytes 5-9/100000" {
				t.Error(r.Status, r.Header)
			}
		}},
		"range wrong": {registry.Fault{ContentRange: "bytes 0-1/2"}, "bytes=5-9", func(t *testing.T, r reply, all []byte) {
			clean(t, r, all[5:10])
			if r.Header.Get("Content-Range") != "bytes 0-1/2" {
				t.Error(r.Header)
			}
		}},
		"range unsaid": {registry.Fault{ContentRange: "none"}, "bytes=5-9", func(t *testing.T, r reply, all []byte) {
			clean(t, r, all[5:10])
			if r.Header.Values("Content-Range") != nil {
				t.Error(r.Header)
			}
		}},
		"drip": {registry.Fault{Rate: 1 << 20}, "", func(t *testing.T, r reply, all []byte) { clean(t, r, all) }},
	} {
		t.Run(name, func(t *testing.T) {
			s := registry.Start(t, registry.Options{})
			b := s.AddBlob("a", "", registry.Random(1, size))
			img := s.AddImage("a", "v1")
			tt.fault.On, tt.fault.Times = registry.Blobs, 1
			s.Set(tt.fault)
			if r := mustGet(t, s, 200, "/v2/a/manifests/v1"); !bytes.Equal(r.body, img.Bytes()) {
				t.Error("the fault befell a manifest")
			}
			var ask []string
			if tt.ask != "" {
				ask = []string{"Range", tt.ask}
			}
			tt.check(t, get(t, s, blobPath("a", b.Digest), ask...), b.Bytes())
			clean(t, get(t, s, blobPath("a", b.Digest)), b.Bytes())
		})
	}
}

func TestHeadFaults(t *testing.T) {
	s := registry.Start(t, registry.Options{})
	s.AddImage("a", "v1")
	s.Set(registry.Fault{Method: http.MethodHead, Status: 405})
	if r := do(t, s, http.MethodHead, "/v2/a/manifests/v1"); r.err != nil || r.StatusCode != 405 {
		t.Errorf("%v %v", r.Response, r.err)
	}
	mustGet(t, s, 200, "/v2/a/manifests/v1")
	s.Set(registry.Fault{NoLength: true, NoDigest: true})
	r := do(t, s, http.MethodHead, "/v2/a/manifests/v1")
	if r.err != nil || r.StatusCode != 200 || r.ContentLength != -1 || r.Header.Get("Docker-Content-Digest") != "" {
		t.Errorf("%v %v", r.Response, r.err)
	}
}

// background gets path on its own; the channel gives the reply.
func background(t *testing.T, s *registry.Server, path string) <-chan reply {
	done := make(chan reply, 1)
	go func() { done <- get(t, s, path) }()
	return done
}

func TestHeldAnswers(t *testing.T) {
	s := registry.Start(t, registry.Options{})
	b := s.AddBlob("a", "", registry.Random(1, 200_000))
	path := blobPath("a", b.Digest)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	inFlight := func(status int, sent int64) {
		t.Helper()
		err := s.WaitFor(ctx, func(all []registry.Request) bool {
			last := all[len(all)-1]
			return !last.Done && last.Status == status && last.Sent == sent
		})
		if err != nil {
			t.Fatal(err)
		}
	}

	gate := registry.NewGate()
	s.Set(registry.Fault{Gate: gate, At: 100_000})
	done := background(t, s, path)
	<-gate.Reached()
	inFlight(200, 100_000)
	gate.Open()
	gate.Open()
	if r := <-done; r.err != nil || !bytes.Equal(r.body, b.Bytes()) {
		t.Errorf("after the gate: %v", r.err)
	}

	hold := registry.NewGate()
	s.Set(registry.Fault{Hold: hold})
	done = background(t, s, path)
	<-hold.Reached()
	inFlight(0, 0)
	hold.Open()
	if r := <-done; r.err != nil || !bytes.Equal(r.body, b.Bytes()) {
		t.Errorf("after the hold: %v", r.err)
	}

	s.Set(registry.Fault{Stall: true, At: 10})
	done = background(t, s, path)
	if err := s.WaitFor(ctx, func(all []registry.Request) bool { return len(all) == 3 && all[2].Sent == 10 }); err != nil {
		t.Fatal(err)
	}
	s.Set()
	if r := <-done; !errors.Is(r.err, io.ErrUnexpectedEOF) || len(r.body) != 10 {
		t.Errorf("stalled: %d bytes, %v", len(r.body), r.err)
	}

	s.Set(registry.Fault{Hang: true})
	done = background(t, s, path)
	if err := s.WaitFor(ctx, func(all []registry.Request) bool { return len(all) == 4 }); err != nil {
		t.Fatal(err)
	}
	s.Set()
	if r := <-done; r.err == nil || r.Response != nil {
		t.Errorf("hanging: %v", r.Response)
	}
	if err := s.WaitIdle(ctx); err != nil {
		t.Error(err)
	}
}

func TestDeadNetworks(t *testing.T) {
	for _, tls := range []bool{false, true} {
		s := registry.Start(t, registry.Options{TLS: tls})
		s.AddImage("a", "v1")
		host := s.Host()
		alive := func() {
			t.Helper()
			mustGet(t, s, 200, "/v2/a/manifests/v1")
		}
		alive()

		s.Stop()
		if r := get(t, s, "/v2/"); r.err == nil {
			t.Error("stopped, and answers")
		}
		if err := s.Resume(); err != nil {
			t.Fatal(err)
		}
		if s.Host() != host {
			t.Errorf("moved from %s to %s", host, s.Host())
		}
		alive()

		s.Silence()
		before := s.Stats().Accepted
		done := background(t, s, "/v2/")
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		err := s.WaitFor(ctx, func([]registry.Request) bool { return s.Stats().Accepted > before })
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		select {
		case r := <-done:
			t.Errorf("the black hole answers: %v %v", r.Response, r.err)
		default:
		}
		if err := s.Resume(); err != nil {
			t.Fatal(err)
		}
		if r := <-done; r.err == nil {
			t.Error("the connection outlived the black hole")
		}
		alive()

		s.Garble()
		if r := get(t, s, "/v2/"); r.err == nil {
			t.Error("noise was taken for an answer")
		}
		if err := s.Resume(); err != nil {
			t.Fatal(err)
		}
		alive()
		s.Close()
		if err := s.Resume(); err == nil {
			t.Error("resumed after Close")
		}
	}
}

func TestNamed(t *testing.T) {
	for _, name := range registry.Names() {
		if _, ok := registry.Named(name); !ok {
			t.Errorf("%s is listed and unknown", name)
		}
	}
	if _, ok := registry.Named("no such fault"); ok {
		t.Error("an unknown name is known")
	}
}
