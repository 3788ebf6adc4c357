package crash

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/larder-registry/larder/test/registry"
)

// ask is one request of a client.
type ask struct {
	kind       string // blobs or manifests
	blob       registry.Blob
	tag        string // of a manifest; else it is asked for by digest
	from       int64  // a Range from here to the end
	leaveAfter int64  // hang up after so many bytes; 0 for never
}

// figures are what the rounds amount to.
type figures struct {
	whole, cut, refused atomic.Int64 // answers
	early               atomic.Int64 // those that were cut while the mirror lived
	dying               atomic.Bool  // the mirror is being killed
	bytes               atomic.Int64 // received, each compared
	partials            atomic.Int64 // partial ingests resumed
	saved               atomic.Int64 // bytes that they held
	upstream            int64        // bytes the upstream sent
	kills               int

	limit   int64 // reached is closed when bytes are more
	reached chan struct{}
	once    sync.Once
}

func (f *figures) add(g *figures) {
	f.whole.Add(g.whole.Load())
	f.cut.Add(g.cut.Load())
	f.refused.Add(g.refused.Load())
	f.early.Add(g.early.Load())
	f.bytes.Add(g.bytes.Load())
	f.partials.Add(g.partials.Load())
	f.saved.Add(g.saved.Load())
	f.upstream += g.upstream
}

func (f *figures) String() string {
	const mib = 1 << 20
	return fmt.Sprintf("killed %d times: %d answers whole, %d cut, of them %d before their time, %d refused; %d MiB compared, all right; %d partial ingests resumed with %d MiB held; %d MiB from upstream",
		f.kills, f.whole.Load(), f.cut.Load(), f.early.Load(), f.refused.Load(), f.bytes.Load()/mib, f.partials.Load(), f.saved.Load()/mib, f.upstream/mib)
}

// received counts bytes.
func (f *figures) received(n int) {
	if f.bytes.Add(int64(n)) > f.limit && f.reached != nil {
		f.once.Do(func() { close(f.reached) })
	}
}

// get asks the mirror, compares every byte of the answer with what the upstream
// holds, and reports whether there was an answer. A connection that breaks is
// the mirror's death; a body that ends cleanly but short, or a wrong byte, is a
// failure.
func (m *mirror) get(ctx context.Context, f *figures, a ask) bool {
	target := a.tag
	if target == "" {
		target = a.blob.Digest.String()
	}
	path := fmt.Sprintf("/v2/%s/%s/%s?ns=%s", repo, a.kind, target, m.up.Host())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, m.url+path, nil)
	if err != nil {
		m.t.Error(err)
		return false
	}
	if a.from > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", a.from))
	}
	tr := &http.Transport{DisableKeepAlives: true, DisableCompression: true}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	if got := resp.Header.Get("Docker-Content-Digest"); resp.StatusCode < 300 && got != a.blob.Digest.String() {
		m.t.Errorf("GET %s says it is %q", path, got)
	}
	switch {
	case resp.StatusCode == http.StatusOK && a.from == 0, resp.StatusCode == http.StatusPartialContent && a.from > 0:
	case resp.StatusCode == http.StatusServiceUnavailable, resp.StatusCode == http.StatusBadGateway:
		f.refused.Add(1)
		return true
	default:
		m.t.Errorf("GET %s from %d: %s", path, a.from, resp.Status)
		return true
	}
	return m.compare(f, a, resp.Body, path)
}

// compare reads an answer's body to its end.
func (m *mirror) compare(f *figures, a ask, body io.Reader, path string) bool {
	got, want := make([]byte, 64<<10), make([]byte, 64<<10)
	at := a.from
	for {
		n, err := body.Read(got)
		if n > 0 {
			if at+int64(n) > a.blob.Size() {
				m.t.Errorf("GET %s: more than %d bytes", path, a.blob.Size())
				return true
			}
			if _, err := a.blob.ReadAt(want[:n], at); err != nil && !errors.Is(err, io.EOF) {
				m.t.Error(err)
			}
			if !bytes.Equal(got[:n], want[:n]) {
				m.t.Errorf("GET %s: wrong bytes between %d and %d", path, at, at+int64(n))
				return true
			}
			at += int64(n)
			f.received(n)
		}
		switch {
		case a.leaveAfter > 0 && at-a.from >= a.leaveAfter && at < a.blob.Size():
			return true
		case errors.Is(err, io.EOF) && at == a.blob.Size():
			f.whole.Add(1)
			return true
		case errors.Is(err, io.EOF):
			m.t.Errorf("GET %s ended cleanly after %d of %d bytes", path, at, a.blob.Size())
			return true
		case err != nil:
			f.cut.Add(1)
			if !f.dying.Load() {
				f.early.Add(1)
			}
			return false
		}
	}
}
