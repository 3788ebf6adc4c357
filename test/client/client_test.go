package client

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	"go.uber.org/goleak"

	"github.com/larder-registry/larder/internal/oci"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// origin is a registry with one two-platform image under the tag v1. What
// before returns true for, it has answered itself.
type origin struct {
	*httptest.Server
	ref     oci.Reference
	content map[string][]byte // by digest, and by tag
	types   map[string]string
	layer   digest.Digest
	size    int64 // of the linux/amd64 image
	before  func(w http.ResponseWriter, r *http.Request) bool

	mu       sync.Mutex
	requests []string // method, path, query, range
}

func newOrigin(t *testing.T, before func(w http.ResponseWriter, r *http.Request) bool) *origin {
	t.Helper()
	o := &origin{content: map[string][]byte{}, types: map[string]string{}, before: before}
	put := func(mediaType string, b []byte) map[string]any {
		d := digest.FromBytes(b)
		o.content[d.String()], o.types[d.String()] = b, mediaType
		return map[string]any{"mediaType": mediaType, "digest": d, "size": len(b)}
	}
	encode := func(v any) []byte {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	var children []any
	for _, arch := range []string{"arm64", "amd64"} {
		layer := bytes.Repeat([]byte(arch), 200_000)
		o.layer = digest.FromBytes(layer)
		config := put("application/vnd.oci.image.config.v1+json", encode(map[string]string{"architecture": arch}))
		one := put("application/vnd.oci.image.layer.v1.tar", layer)
		two := put("application/vnd.oci.image.layer.v1.tar", []byte("second "+arch))
		manifest := encode(map[string]any{"config": config, "layers": []any{one, two}})
		m := put("application/vnd.oci.image.manifest.v1+json", manifest)
		m["platform"] = map[string]string{"os": "linux", "architecture": arch}
		children = append(children, m)
		o.size = int64(len(manifest) + config["size"].(int) + one["size"].(int) + two["size"].(int))
	}
	root := encode(map[string]any{"manifests": children})
	put("application/vnd.oci.image.index.v1+json", root)
	o.size += int64(len(root))
	o.content["v1"], o.types["v1"] = root, "application/vnd.oci.image.index.v1+json"

	o.Server = httptest.NewServer(o)
	t.Cleanup(o.Close)
	o.ref = oci.Reference{Name: oci.Name{Registry: "reg.test:5000", Repository: "team/app"}, Tag: "v1"}
	return o
}

func (o *origin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	o.mu.Lock()
	o.requests = append(o.requests, strings.TrimSpace(r.Method+" "+r.URL.String()+" "+r.Header.Get("Range")))
	o.mu.Unlock()
	if o.before != nil && o.before(w, r) {
		return
	}
	target := r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
	b, ok := o.content[target]
	if !ok {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", o.types[target])
	w.Header().Set("Docker-Content-Digest", digest.FromBytes(b).String())
	start := 0
	if s := r.Header.Get("Range"); s != "" {
		fmt.Sscanf(s, "bytes=%d-", &start)
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", start, len(b)-1, len(b)))
		w.Header().Set("Content-Length", strconv.Itoa(len(b)-start))
		w.WriteHeader(http.StatusPartialContent)
	} else {
		w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	}
	if r.Method != http.MethodHead {
		w.Write(b[start:])
	}
}

// count tells how many requests held s.
func (o *origin) count(s string) (n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, r := range o.requests {
		if strings.Contains(r, s) {
			n++
		}
	}
	return n
}

func pullFrom(t *testing.T, ref oci.Reference, hosts ...Host) (Report, error) {
	t.Helper()
	c, err := New(Config{Hosts: hosts})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.Pull(t.Context(), ref)
}

func TestPullForms(t *testing.T) {
	for _, tc := range []struct {
		name string
		form Form
		head string
	}{
		{"plain", Plain, "HEAD /v2/team/app/manifests/v1"},
		{"namespace", NS, "HEAD /v2/team/app/manifests/v1?ns=reg.test%3A5000"},
		{"path", Path, "HEAD /v2/f/reg.test:5000/team/app/manifests/v1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o := newOrigin(t, nil)
			rep, err := pullFrom(t, o.ref, Host{o.URL, tc.form})
			if err != nil {
				t.Fatal(err)
			}
			if o.requests[0] != tc.head {
				t.Errorf("first request is %q, want %q", o.requests[0], tc.head)
			}
			if rep.Size() != o.size || rep.Bytes() != o.size {
				t.Errorf("size %d, received %d, want %d of both", rep.Size(), rep.Bytes(), o.size)
			}
			if rep.Requests() != 6 || len(o.requests) != 6 {
				t.Errorf("%d requests reported, %d seen, want 6", rep.Requests(), len(o.requests))
			}
			for _, obj := range rep.Objects {
				if obj.First <= 0 || obj.Total < obj.First || obj.Host != o.URL {
					t.Errorf("account of %s is not filled in: %+v", obj.Kind, obj)
				}
			}
		})
	}
}

func TestPullFallsBack(t *testing.T) {
	refused := httptest.NewServer(nil)
	refused.Close()
	for _, tc := range []struct {
		name  string
		first func(t *testing.T) string
	}{
		{"refused", func(*testing.T) string { return refused.URL }},
		{"not found", func(t *testing.T) string { return newOrigin(t, status(404)).URL }},
		{"unavailable", func(t *testing.T) string { return newOrigin(t, status(503)).URL }},
		{"too many", func(t *testing.T) string { return newOrigin(t, status(429)).URL }},
		{"hangs up", func(t *testing.T) string {
			return newOrigin(t, func(http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) }).URL
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o := newOrigin(t, nil)
			rep, err := pullFrom(t, o.ref, Host{tc.first(t), NS}, Host{o.URL, Plain})
			if err != nil {
				t.Fatal(err)
			}
			if rep.Bytes() != o.size {
				t.Errorf("received %d bytes, want %d", rep.Bytes(), o.size)
			}
		})
	}
}

func status(code int) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, _ *http.Request) bool {
		w.WriteHeader(code)
		return true
	}
}

func TestPullFailsWithStatus(t *testing.T) {
	o := newOrigin(t, status(404))
	_, err := pullFrom(t, o.ref, Host{o.URL, Plain})
	var e *Error
	if !errors.As(err, &e) || e.Status != 404 {
		t.Fatalf("got %v, want an Error with status 404", err)
	}
}

// A mirror that cuts the layer is left for the origin, which is asked for the
// rest only.
func TestPullResumes(t *testing.T) {
	var cutter *origin
	cutter = newOrigin(t, func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, cutter.layer.String()) {
			return false
		}
		if r.Header.Get("Range") != "" {
			w.WriteHeader(http.StatusNotFound)
			return true
		}
		b := cutter.content[cutter.layer.String()]
		w.Header().Set("Content-Length", strconv.Itoa(len(b)))
		w.Write(b[:300_000])
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	})
	o := newOrigin(t, nil)
	rep, err := pullFrom(t, o.ref, Host{cutter.URL, NS}, Host{o.URL, Plain})
	if err != nil {
		t.Fatal(err)
	}
	if o.count("bytes=300000-") != 1 || len(o.requests) != 1 {
		t.Errorf("origin was asked %q, want the rest of one layer", o.requests)
	}
	if rep.Bytes() != o.size {
		t.Errorf("received %d bytes, want %d: nothing twice", rep.Bytes(), o.size)
	}
}

func TestPullResumesWhereRangeIsIgnored(t *testing.T) {
	var o *origin
	cuts := 0
	o = newOrigin(t, func(w http.ResponseWriter, r *http.Request) bool {
		r.Header.Del("Range")
		if !strings.HasSuffix(r.URL.Path, o.layer.String()) || cuts == 1 {
			return false
		}
		cuts++
		b := o.content[o.layer.String()]
		w.Header().Set("Content-Length", strconv.Itoa(len(b)))
		w.Write(b[:300_000])
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	})
	rep, err := pullFrom(t, o.ref, Host{o.URL, Plain})
	if err != nil {
		t.Fatal(err)
	}
	if want := o.size + 300_000; rep.Bytes() != want {
		t.Errorf("received %d bytes, want %d: the beginning twice", rep.Bytes(), want)
	}
}

func TestPullGivesUp(t *testing.T) {
	var o *origin
	o = newOrigin(t, func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, o.layer.String()) {
			return false
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(o.content[o.layer.String()])))
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	})
	_, err := pullFrom(t, o.ref, Host{o.URL, Plain})
	if err == nil || !strings.Contains(err.Error(), "no progress at byte 0") {
		t.Fatalf("got %v, want to give up at byte 0", err)
	}
	if n := o.count(o.layer.String()); n != maxStuck+1 {
		t.Errorf("the layer was asked for %d times, want %d", n, maxStuck+1)
	}
}

// What containerd never recovers from must fail here too, or tests that use
// this client would prove nothing.
func TestPullRefuses(t *testing.T) {
	for _, tc := range []struct {
		name  string
		spoil func(o *origin)
		want  string
	}{
		{"flipped byte", func(o *origin) {
			b := bytes.Clone(o.content[o.layer.String()])
			b[500_000] ^= 1
			o.content[o.layer.String()] = b
		}, "sent sha256:"},
		{"wrong type", func(o *origin) { o.types["v1"] = "text/html" }, "says it is"},
		{"clean short end", func(o *origin) {
			o.before = func(w http.ResponseWriter, r *http.Request) bool {
				if !strings.HasSuffix(r.URL.Path, o.layer.String()) {
					return false
				}
				w.Write(o.content[o.layer.String()][:600_000]) // chunked
				return true
			}
		}, "ended the body cleanly at byte 600000"},
		{"longer body", func(o *origin) {
			o.content[o.layer.String()] = append(bytes.Clone(o.content[o.layer.String()]), 0)
		}, "sent more than 1000000 bytes"},
		{"encoded", func(o *origin) {
			o.before = func(w http.ResponseWriter, r *http.Request) bool {
				w.Header().Set("Content-Encoding", "gzip")
				return false
			}
		}, "body is encoded: gzip"},
		{"empty by its length", func(o *origin) { o.content["v1"] = nil }, "says it is empty"},
		{"other platform only", func(o *origin) {
			b := bytes.ReplaceAll(o.content["v1"], []byte(`"amd64"`), []byte(`"s390x"`))
			d := digest.FromBytes(b).String()
			o.content["v1"], o.content[d], o.types[d] = b, b, o.types["v1"]
		}, "none for linux/amd64"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o := newOrigin(t, nil)
			tc.spoil(o)
			_, err := pullFrom(t, o.ref, Host{o.URL, Plain})
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("got %v, want %q", err, tc.want)
			}
		})
	}
}

func TestResolveWithoutDigest(t *testing.T) {
	o := newOrigin(t, nil)
	o.before = func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "/v1") {
			return false
		}
		w.Header().Set("Content-Type", o.types["v1"])
		w.Write(o.content["v1"])
		return true
	}
	rep, err := pullFrom(t, o.ref, Host{o.URL, Plain})
	if err != nil {
		t.Fatal(err)
	}
	if want := digest.FromBytes(o.content["v1"]); rep.Root.Digest != want {
		t.Errorf("resolved to %s, want %s", rep.Root.Digest, want)
	}
}

func TestResolveHeadRefused(t *testing.T) {
	for _, code := range []int{http.StatusMethodNotAllowed, http.StatusForbidden} {
		t.Run(strconv.Itoa(code), func(t *testing.T) {
			o := newOrigin(t, func(w http.ResponseWriter, r *http.Request) bool {
				if r.Method == http.MethodHead {
					w.WriteHeader(code)
				}
				return r.Method == http.MethodHead
			})
			if _, err := pullFrom(t, o.ref, Host{o.URL, Plain}); err != nil {
				t.Fatal(err)
			}
		})
	}
}
