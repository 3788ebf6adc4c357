package allocations

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/internal/oci"
)

const mib = 1 << 20

// pattern is what every blob is made of, over and over. It is as long as a prime
// number, so that bytes which come from another place than they should are not
// what is expected there.
func pattern() []byte {
	p := make([]byte, 1048573)
	for i := range p {
		p[i] = byte(i ^ i>>8 ^ i>>16)
	}
	return p
}

// origin is an upstream that allocates for each request and nothing for what it
// sends, since it shares the process whose memory is looked at.
type origin struct {
	*httptest.Server
	pattern []byte
	// manifest is what it has beside blobs. The last half MiB of a blob
	// waits for gate, if that is not nil.
	manifest []byte
	gate     chan struct{}

	mu    sync.Mutex
	sizes map[digest.Digest]int64
}

func newOrigin(t testing.TB) *origin {
	o := &origin{pattern: pattern(), sizes: map[digest.Digest]int64{}}
	o.Server = httptest.NewServer(o)
	t.Cleanup(o.Close)
	return o
}

// target is what to ask a mirror for to get a blob.
func (o *origin) target(dgst digest.Digest) string {
	return "/v2/f/" + o.host() + "/" + repo + "/blobs/" + dgst.String()
}

// host is how the mirror names it.
func (o *origin) host() string { return strings.TrimPrefix(o.URL, "http://") }

// add adds a blob of size bytes.
func (o *origin) add(t testing.TB, size int64) digest.Digest {
	t.Helper()
	sum := sha256.New()
	if err := o.write(sum, 0, size); err != nil {
		t.Fatal(err)
	}
	dgst := digest.NewDigest(digest.SHA256, sum)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.sizes[dgst] = size
	return dgst
}

// ServeHTTP answers requests for a blob, or for its bytes from one on.
func (o *origin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	o.mu.Lock()
	size, ok := o.sizes[digest.Digest(r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:])]
	o.mu.Unlock()
	if strings.Contains(r.URL.Path, "/manifests/") {
		w.Header().Set("Content-Type", oci.MediaTypeManifest)
		_, _ = w.Write(o.manifest)
		return
	}
	if !ok {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	start, end, status := int64(0), size, http.StatusOK
	if asked, ok := strings.CutPrefix(r.Header.Get("Range"), "bytes="); ok {
		first, last, _ := strings.Cut(asked, "-")
		start, _ = strconv.ParseInt(first, 10, 64)
		if n, err := strconv.ParseInt(last, 10, 64); err == nil {
			end = n + 1
		}
		status = http.StatusPartialContent
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", start, end-1, size))
	}
	w.Header().Set("Content-Length", strconv.FormatInt(end-start, 10))
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		if o.gate != nil {
			free := max(start, min(end, size-mib/2))
			_ = o.write(w, start, free)
			_ = http.NewResponseController(w).Flush()
			<-o.gate
			start = free
		}
		_ = o.write(w, start, end) // the mirror leaves when it has enough
	}
}

// write writes a blob's bytes from start up to end.
func (o *origin) write(w io.Writer, start, end int64) error {
	for start < end {
		part := o.pattern[start%int64(len(o.pattern)):]
		part = part[:min(end-start, int64(len(part)))]
		if _, err := w.Write(part); err != nil {
			return err
		}
		start += int64(len(part))
	}
	return nil
}

// same reports whether got is what a blob has from off on.
func (o *origin) same(got []byte, off int64) bool {
	for len(got) > 0 {
		want := o.pattern[off%int64(len(o.pattern)):]
		n := min(len(got), len(want))
		if !bytes.Equal(got[:n], want[:n]) {
			return false
		}
		got, off = got[n:], off+int64(n)
	}
	return true
}
