package upstream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/internal/oci"
)

var itoa = strconv.Itoa

func TestBlob(t *testing.T) {
	content := pattern(100_000)
	dgst := digest.FromBytes(content)
	size := int64(len(content))
	ignore := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", itoa(len(content)))
		_, _ = w.Write(content)
	}
	partial := func(contentRange string, part []byte) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			if contentRange != "" {
				w.Header().Set("Content-Range", contentRange)
			}
			w.Header().Set("Content-Length", itoa(len(part)))
			w.WriteHeader(http.StatusPartialContent)
			_, _ = w.Write(part)
		}
	}
	for _, test := range []struct {
		name   string
		serve  http.HandlerFunc
		want   oci.Span
		header string
		body   oci.Body
	}{
		{"whole", blobServer(content), oci.Span{Start: 0, End: -1}, "", oci.Body{Offset: 0, Length: size, Size: size}},
		{"open end", blobServer(content), oci.Span{Start: 70_000, End: -1}, "bytes=70000-", oci.Body{Offset: 70_000, Length: 30_000, Size: size}},
		{"middle", blobServer(content), oci.Span{Start: 10, End: 20}, "bytes=10-19", oci.Body{Offset: 10, Length: 10, Size: size}},
		{"start", blobServer(content), oci.Span{Start: 0, End: 1}, "bytes=0-0", oci.Body{Offset: 0, Length: 1, Size: size}},
		{"range ignored", ignore, oci.Span{Start: 70_000, End: -1}, "bytes=70000-", oci.Body{Offset: 0, Length: size, Size: size}},
		{"no Content-Range", partial("", content[70_000:]), oci.Span{Start: 70_000, End: -1}, "bytes=70000-", oci.Body{Offset: 70_000, Length: 30_000, Size: -1}},
		{"another start", partial("bytes 50-59/100000", content[50:60]), oci.Span{Start: 70_000, End: -1}, "bytes=70000-", oci.Body{Offset: 50, Length: 10, Size: size}},
		{"size not known", partial("bytes 50-59/*", content[50:60]), oci.Span{Start: 50, End: 60}, "bytes=50-59", oci.Body{Offset: 50, Length: 10, Size: -1}},
		{"chunked with Content-Range", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Range", "bytes 50-59/100000")
			w.WriteHeader(http.StatusPartialContent)
			w.(http.Flusher).Flush()
			_, _ = w.Write(content[50:60])
		}, oci.Span{Start: 50, End: 60}, "bytes=50-59", oci.Body{Offset: 50, Length: 10, Size: size}},
		{"chunked", func(w http.ResponseWriter, _ *http.Request) {
			w.(http.Flusher).Flush()
			_, _ = w.Write(content)
		}, oci.Span{Start: 0, End: -1}, "", oci.Body{Offset: 0, Length: -1, Size: -1}},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := newOrigin(t, test.serve)
			body, err := newClient(t, o).Blob(t.Context(), o.name(), dgst, test.want)
			if err != nil {
				t.Fatalf("Blob: %v", err)
			}
			defer body.Close()
			got, err := io.ReadAll(body)
			if err != nil {
				t.Fatalf("read: %v", err)
			}
			if body.Offset != test.body.Offset || body.Length != test.body.Length || body.Size != test.body.Size {
				t.Errorf("body: offset %d length %d size %d, want %+v", body.Offset, body.Length, body.Size, test.body)
			}
			end := size
			if test.body.Length >= 0 {
				end = body.Offset + body.Length
			}
			if !bytes.Equal(got, content[body.Offset:end]) {
				t.Errorf("got %d bytes that are not those at %d-%d", len(got), body.Offset, end)
			}
			if header := o.last(t).Header.Get("Range"); header != test.header {
				t.Errorf("Range: %q, want %q", header, test.header)
			}
			wantRequests(t, o, "GET /v2/team/app/blobs/"+dgst.String())
		})
	}
}

func TestEmptyBlob(t *testing.T) {
	dgst := digest.FromString("")
	o := newOrigin(t, blobServer(nil))
	c := newClient(t, o)
	if desc, err := c.StatBlob(t.Context(), o.name(), dgst); err != nil || desc.Size != 0 {
		t.Errorf("StatBlob: %+v, %v", desc, err)
	}
	body, err := c.Blob(t.Context(), o.name(), dgst, oci.Span{Start: 0, End: -1})
	if err != nil {
		t.Fatalf("Blob: %v", err)
	}
	defer body.Close()
	if got, err := io.ReadAll(body); len(got) != 0 || err != nil || body.Size != 0 {
		t.Errorf("read: %d bytes of %d, %v", len(got), body.Size, err)
	}
	wantRequests(t, o, "HEAD /v2/team/app/blobs/"+dgst.String(), "GET /v2/team/app/blobs/"+dgst.String())
}

func TestBlobFailures(t *testing.T) {
	dgst := digest.FromString("x")
	for _, test := range []struct {
		name   string
		serve  http.HandlerFunc
		want   oci.Span
		err    *oci.Error
		reason string
		asked  int
	}{
		{"404", answer(404, nil, ""), oci.Span{Start: 0, End: -1}, oci.ErrBlobUnknown, "error", 1},
		{"416", answer(416, nil, ""), oci.Span{Start: 9, End: -1}, oci.ErrRangeInvalid, "error", 1},
		{"401", answer(401, nil, ""), oci.Span{Start: 0, End: -1}, oci.ErrUnauthorized, "error", 1},
		{"403", answer(403, nil, ""), oci.Span{Start: 0, End: -1}, oci.ErrDenied, "error", 1},
		{"400", answer(400, nil, ""), oci.Span{Start: 0, End: -1}, oci.ErrUnavailable, "status", 1},
		{"304", answer(304, nil, ""), oci.Span{Start: 0, End: -1}, oci.ErrUnavailable, "status", 1},
		{"500", answer(500, nil, ""), oci.Span{Start: 0, End: -1}, oci.ErrUnavailable, "status", 3},
		{"503 with Retry-After", answer(503, http.Header{"Retry-After": {"7"}}, ""), oci.Span{Start: 0, End: -1}, oci.ErrUnavailable, "status", 1},
		{"429", answer(429, nil, ""), oci.Span{Start: 0, End: -1}, oci.ErrTooManyRequests, "ratelimit", 1},
		{"gzip", answer(200, http.Header{"Content-Encoding": {"gzip"}}, "x"), oci.Span{Start: 0, End: -1}, oci.ErrUnavailable, "encoding", 1},
		{"206 unasked", answer(206, http.Header{"Content-Range": {"bytes 0-0/1"}}, "x"), oci.Span{Start: 0, End: -1}, oci.ErrUnavailable, "status", 1},
		{"Content-Range of no sense", answer(206, http.Header{"Content-Range": {"bytes 9-1/3"}}, "x"), oci.Span{Start: 1, End: -1}, oci.ErrUnavailable, "range", 1},
		{"multipart", answer(206, http.Header{"Content-Type": {"multipart/byteranges; boundary=x"}}, "x"), oci.Span{Start: 1, End: -1}, oci.ErrUnavailable, "range", 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := newOrigin(t, test.serve)
			_, err := newClient(t, o).Blob(t.Context(), o.name(), dgst, test.want)
			if !errors.Is(err, test.err) || oci.Reason(err) != test.reason {
				t.Errorf("Blob: %v (%s), want %v (%s)", err, oci.Reason(err), test.err, test.reason)
			}
			if got := len(o.requests()); got != test.asked {
				t.Errorf("asked %d times, want %d", got, test.asked)
			}
		})
	}
}

func TestBlobBreaksOff(t *testing.T) {
	content := pattern(50_000)
	dgst := digest.FromBytes(content)
	hang := make(chan struct{})
	defer close(hang)
	for _, test := range []struct {
		name    string
		serve   http.HandlerFunc
		reason  string
		stall   time.Duration
		minimum int // bytes that must arrive
	}{
		{"cut", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", itoa(len(content)))
			_, _ = w.Write(content[:20_000])
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}, "cut", time.Minute, 20_000},
		{"stall", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", itoa(len(content)))
			_, _ = w.Write(content[:20_000])
			w.(http.Flusher).Flush()
			select {
			case <-r.Context().Done():
			case <-hang:
			}
		}, "stall", 300 * time.Millisecond, 0},
		{"chunked, ends before Content-Range says", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes 0-%d/%d", len(content)-1, len(content)))
			w.WriteHeader(http.StatusPartialContent)
			w.(http.Flusher).Flush()
			_, _ = w.Write(content[:20_000])
		}, "cut", time.Minute, 20_000},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := newOrigin(t, test.serve)
			entry := o.entry(t)
			c := newClientOf(t, Config{Registries: []Registry{entry}, Timeouts: Timeouts{Stall: test.stall}})
			body, err := c.Blob(t.Context(), o.name(), dgst, oci.Span{Start: 0, End: 50_000})
			if err != nil {
				t.Fatalf("Blob: %v", err)
			}
			defer body.Close()
			got, err := io.ReadAll(body)
			if !errors.Is(err, io.ErrUnexpectedEOF) || !errors.Is(err, oci.ErrUnavailable) || oci.Reason(err) != test.reason {
				t.Errorf("read: %v (%s), want %s", err, oci.Reason(err), test.reason)
			}
			if len(got) < test.minimum || !bytes.Equal(got, content[:len(got)]) {
				t.Errorf("got %d bytes, or wrong ones", len(got))
			}
			if state := c.State()["http://"+o.host()]; state.Failures != 1 {
				t.Errorf("state after a broken body: %+v, want one failure", state)
			}
		})
	}
}

func TestBlobLongerThanAnnounced(t *testing.T) {
	content := pattern(3000)
	o := newOrigin(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Range", "bytes 0-999/1000")
		w.WriteHeader(http.StatusPartialContent)
		w.(http.Flusher).Flush()
		_, _ = w.Write(content)
	})
	body, err := newClient(t, o).Blob(t.Context(), o.name(), digest.FromString("x"), oci.Span{Start: 0, End: 1000})
	if err != nil {
		t.Fatalf("Blob: %v", err)
	}
	defer body.Close()
	got, err := io.ReadAll(body)
	if !errors.Is(err, oci.ErrSizeInvalid) || !bytes.Equal(got, content[:1000]) {
		t.Errorf("read %d bytes, %v; want the first 1000 and SIZE_INVALID", len(got), err)
	}
}

func TestBlobCancelled(t *testing.T) {
	started := make(chan struct{})
	o := newOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "100")
		w.(http.Flusher).Flush()
		close(started)
		<-r.Context().Done()
	})
	c := newClient(t, o)
	ctx, cancel := context.WithCancel(t.Context())
	body, err := c.Blob(ctx, o.name(), digest.FromString("x"), oci.Span{Start: 0, End: -1})
	if err != nil {
		t.Fatalf("Blob: %v", err)
	}
	defer body.Close()
	<-started
	cancel()
	_, err = body.Read(make([]byte, 10))
	if !errors.Is(err, context.Canceled) || errors.Is(err, oci.ErrUnavailable) {
		t.Errorf("read after cancel: %v", err)
	}
	if state := c.State()["http://"+o.host()]; state.Failures != 0 {
		t.Errorf("state: %+v, a caller that leaves is no failure", state)
	}
}

// TestBlobCloseUnblocksRead: the owner of a fill closes from another goroutine.
func TestBlobCloseUnblocksRead(t *testing.T) {
	o := newOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "100")
		_, _ = io.WriteString(w, "x")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	body, err := newClient(t, o).Blob(t.Context(), o.name(), digest.FromString("x"), oci.Span{Start: 0, End: -1})
	if err != nil {
		t.Fatalf("Blob: %v", err)
	}
	first := make(chan struct{})
	done := make(chan error)
	go func() { // ends when the body is closed
		_, err := io.ReadFull(body, make([]byte, 1))
		close(first)
		if err == nil {
			_, err = body.Read(make([]byte, 1))
		}
		done <- err
	}()
	<-first
	for range 2 {
		if err := body.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
	if err := <-done; err == nil || errors.Is(err, io.EOF) {
		t.Errorf("read of a closed body: %v", err)
	}
}

func TestStatBlob(t *testing.T) {
	content := pattern(5000)
	dgst := digest.FromBytes(content)
	head, get := "HEAD /v2/team/app/blobs/"+dgst.String(), "GET /v2/team/app/blobs/"+dgst.String()
	for _, test := range []struct {
		name string
		head http.HandlerFunc
		want []string
	}{
		{"head", blobServer(content), []string{head}},
		{"405", answer(405, nil, ""), []string{head, get}},
		{"no length", func(w http.ResponseWriter, _ *http.Request) { w.(http.Flusher).Flush() }, []string{head, get}},
		{"length 0", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Length", "0") }, []string{head, get}},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := newOrigin(t, func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodHead {
					test.head(w, r)
					return
				}
				blobServer(content)(w, r)
			})
			desc, err := newClient(t, o).StatBlob(t.Context(), o.name(), dgst)
			if err != nil || desc.Size != int64(len(content)) || desc.Digest != dgst {
				t.Errorf("StatBlob: %+v, %v", desc, err)
			}
			wantRequests(t, o, test.want...)
		})
	}
	t.Run("404", func(t *testing.T) {
		o := newOrigin(t, answer(404, nil, ""))
		if _, err := newClient(t, o).StatBlob(t.Context(), o.name(), dgst); !errors.Is(err, oci.ErrBlobUnknown) {
			t.Errorf("StatBlob: %v", err)
		}
	})
}
