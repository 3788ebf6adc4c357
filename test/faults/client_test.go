package faults

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"testing"
	"time"

	"github.com/larder-registry/larder/test/registry"
)

// What a client saw, in a word. A status above 299 is its number.
const (
	right   = "right"   // complete, every byte and header as it should be
	stale   = "stale"   // the same, marked as not confirmed
	broken  = "broken"  // begun well, and the connection broken before the end
	spoiled = "spoiled" // begun with a wrong byte, and broken before the end
	nothing = "nothing" // no status at all
	wrong   = "wrong"   // what must never be: a clean end to anything else
)

// ask is one request and what should come of it.
type ask struct {
	server *registry.Server
	method string // GET when empty
	repo   string
	tag    string // of a manifest; its digest is asked for when empty
	blob   registry.Blob
	// inPath names the registry in the path, as podman does, instead of in ns.
	inPath bool
	kind   registry.Kind // Manifests or Blobs
	// from and to make a Range; to is exclusive, and -1 an open end. A negative
	// from asks for that many bytes at the end. Both zero ask for everything.
	from, to int64
	// leaveAfter hangs up after that many bytes; zero reads to the end.
	leaveAfter int64
}

// path is how containerd asks, with the registry in ns, unless inPath.
func (a ask) path() string {
	target, where := a.blob.Digest.String(), "blobs"
	if a.kind == registry.Manifests {
		where = "manifests"
		if a.tag != "" {
			target = a.tag
		}
	}
	if a.inPath {
		return "/v2/f/" + a.server.Host() + "/" + a.repo + "/" + where + "/" + target
	}
	return "/v2/" + a.repo + "/" + where + "/" + target + "?ns=" + url.QueryEscape(a.server.Host())
}

// span is the part of the blob that is asked for.
func (a ask) span() (start, end int64) {
	if a.from < 0 {
		return max(a.blob.Size()+a.from, 0), a.blob.Size()
	}
	if a.from == 0 && a.to == 0 || a.to < 0 || a.to > a.blob.Size() {
		return a.from, a.blob.Size()
	}
	return a.from, a.to
}

func (a ask) ranged() bool { return a.from != 0 || a.to != 0 }

// seen is what came of an ask.
type seen struct {
	word   string
	why    string // for people: what was wrong
	header http.Header
	bytes  int64
	// head and took are the time to the status and to the end.
	head, took time.Duration
}

func (s seen) String() string {
	return fmt.Sprintf("%s (%d bytes, head after %v, end after %v) %s", s.word, s.bytes, s.head.Round(time.Millisecond), s.took.Round(time.Millisecond), s.why)
}

// client makes connections of its own, as one node's containerd does.
func client(t *testing.T) *http.Transport {
	tr := &http.Transport{DisableCompression: true, MaxResponseHeaderBytes: 1 << 20}
	t.Cleanup(tr.CloseIdleConnections)
	return tr
}

// get asks on a connection of its own.
func (l *larder) get(t *testing.T, a ask) seen {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	return l.getWith(ctx, client(t), a)
}

// mustGet fails the test unless the answer is the word.
func (l *larder) mustGet(t *testing.T, word string, a ask) seen {
	t.Helper()
	s := l.get(t, a)
	if s.word != word {
		t.Fatalf("GET %s: %v, want %s", a.path(), s, word)
	}
	return s
}

// getPaused is get, and stops after the head until pause is closed.
func (l *larder) getPaused(t *testing.T, a ask, begun chan<- struct{}, pause <-chan struct{}) seen {
	return l.getWith(t.Context(), pausing{client(t), begun, pause}, a)
}

// pausing lets bodies be read when pause is closed.
type pausing struct {
	*http.Transport
	begun chan<- struct{}
	pause <-chan struct{}
}

func (p pausing) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := p.Transport.RoundTrip(req)
	if err == nil {
		close(p.begun)
		<-p.pause
	}
	return resp, err
}

// getWith asks and judges.
func (l *larder) getWith(ctx context.Context, tr http.RoundTripper, a ask) (s seen) {
	begin := time.Now()
	defer func() { s.took = time.Since(begin) }()
	method := a.method
	if method == "" {
		method = http.MethodGet
	}
	req, err := http.NewRequestWithContext(ctx, method, l.url+a.path(), nil)
	if err != nil {
		return seen{word: wrong, why: err.Error()}
	}
	if a.ranged() {
		value := fmt.Sprintf("bytes=%d", a.from)
		if a.from >= 0 {
			value += "-"
		}
		if a.from >= 0 && a.to >= 0 {
			value += strconv.FormatInt(a.to-1, 10)
		}
		req.Header.Set("Range", value)
	}
	req.Header.Set("Accept-Encoding", "zstd;q=1.0, gzip;q=0.8, deflate;q=0.5")
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return seen{word: nothing, why: err.Error()}
	}
	defer resp.Body.Close()
	s.head, s.header = time.Since(begin), resp.Header
	if resp.StatusCode > 299 {
		body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
		s.word, s.why, s.bytes = strconv.Itoa(resp.StatusCode), string(body), int64(len(body))
		switch {
		case resp.StatusCode < 400, resp.StatusCode == http.StatusRequestTimeout, resp.StatusCode == http.StatusTooManyRequests:
			// containerd fails on the first and hammers on the others.
			s.word = wrong
			s.why = resp.Status + " " + s.why
		case err != nil:
			s.why += ": " + err.Error()
		}
		return s
	}
	fault := a.headFault(resp)
	a.read(&s, resp.Body, method)
	switch {
	case s.word != right:
	case fault != "":
		s.word, s.why = wrong, fault
	case resp.Header.Get("Warning") != "" && resp.Header.Get("Age") != "":
		s.word = stale
	case resp.Header.Get("Warning") != "" || resp.Header.Get("Age") != "":
		s.word, s.why = wrong, fmt.Sprintf("half marked as stale: %v", resp.Header)
	}
	if s.word != right && s.word != stale && fault != "" {
		s.why += "; " + fault
	}
	return s
}

// headFault says what is wrong with a good answer's head; empty if nothing.
func (a ask) headFault(resp *http.Response) string {
	start, end := a.span()
	status, mediaType := http.StatusOK, "application/octet-stream"
	if a.kind == registry.Manifests {
		mediaType = a.blob.MediaType
	}
	contentRange, namespace := "", a.server.Host()
	if a.inPath {
		namespace = ""
	}
	if a.ranged() && a.kind == registry.Blobs {
		status, contentRange = http.StatusPartialContent, fmt.Sprintf("bytes %d-%d/%d", start, end-1, a.blob.Size())
	}
	h := resp.Header
	for _, c := range []struct{ what, got, want string }{
		{"status", strconv.Itoa(resp.StatusCode), strconv.Itoa(status)},
		{"Content-Length", strconv.FormatInt(resp.ContentLength, 10), strconv.FormatInt(end-start, 10)},
		{"Content-Type", h.Get("Content-Type"), mediaType},
		{"Docker-Content-Digest", h.Get("Docker-Content-Digest"), a.blob.Digest.String()},
		{"Content-Range", h.Get("Content-Range"), contentRange},
		{"Content-Encoding", h.Get("Content-Encoding"), ""},
		{"OCI-Namespace", h.Get("OCI-Namespace"), namespace},
	} {
		if c.got != c.want {
			return fmt.Sprintf("%s is %q, want %q", c.what, c.got, c.want)
		}
	}
	return ""
}

// read reads the body and compares it.
func (a ask) read(s *seen, body io.Reader, method string) {
	start, end := a.span()
	if method == http.MethodHead {
		end = start
	}
	got, expected := make([]byte, 64<<10), make([]byte, 64<<10)
	firstWrong := int64(-1)
	for {
		n, err := body.Read(got)
		m, _ := a.blob.ReadAt(expected[:n], start+s.bytes)
		good := int(min(int64(m), max(end-start-s.bytes, 0)))
		if firstWrong < 0 && (n > good || !bytes.Equal(got[:n], expected[:n])) {
			firstWrong = start + s.bytes + int64(firstDifference(got[:n], expected[:good]))
		}
		s.bytes += int64(n)
		if a.leaveAfter > 0 && s.bytes >= a.leaveAfter && firstWrong < 0 {
			s.word, s.why = broken, "left"
			return
		}
		if err == nil {
			continue
		}
		clean := errors.Is(err, io.EOF)
		if firstWrong >= 0 {
			s.why = fmt.Sprintf("first wrong byte at %d", firstWrong)
		}
		switch {
		case clean && firstWrong < 0 && s.bytes == end-start:
			s.word = right
		case clean:
			s.word = wrong
			s.why += fmt.Sprintf(" clean end after %d of %d bytes", s.bytes, end-start)
		case firstWrong >= 0:
			s.word = spoiled
		default:
			s.word = broken
		}
		return
	}
}

// firstDifference is where got stops being want.
func firstDifference(got, want []byte) int {
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			return i
		}
	}
	return min(len(got), len(want))
}
