package ociserver_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/sirupsen/logrus"
	"go.uber.org/goleak"

	"github.com/larder-registry/larder/internal/oci"
	"github.com/larder-registry/larder/internal/ociserver"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait of these tests. It is only used up by a failure.
const patience = 30 * time.Second

// registry is a small registry: what it serves is put into its maps before the
// server starts.
type registry struct {
	blobs     map[digest.Digest]func() (oci.Blob, error)
	manifests map[string]oci.Manifest // by Reference.String
	referrers map[digest.Digest]oci.Manifest
	tags      map[oci.Name][]string
	// err, when set, is what everything fails with.
	err error
	// touch, when set, gets to see the context of each call.
	touch func(context.Context)
}

func newRegistry() *registry {
	return &registry{
		blobs:     map[digest.Digest]func() (oci.Blob, error){},
		manifests: map[string]oci.Manifest{},
		referrers: map[digest.Digest]oci.Manifest{},
		tags:      map[oci.Name][]string{},
	}
}

func (g *registry) called(ctx context.Context) error {
	if g.touch != nil {
		g.touch(ctx)
	}
	return g.err
}

func (g *registry) Blob(ctx context.Context, _ oci.Name, dgst digest.Digest) (oci.Blob, error) {
	if err := g.called(ctx); err != nil {
		return nil, err
	}
	if open, ok := g.blobs[dgst]; ok {
		return open()
	}
	return nil, oci.ErrBlobUnknown
}

func (g *registry) StatBlob(ctx context.Context, name oci.Name, dgst digest.Digest) (oci.Descriptor, error) {
	blob, err := g.Blob(ctx, name, dgst)
	if err != nil {
		return oci.Descriptor{}, err
	}
	return blob.Descriptor(), blob.Close()
}

func (g *registry) Manifest(ctx context.Context, ref oci.Reference) (oci.Manifest, error) {
	if err := g.called(ctx); err != nil {
		return oci.Manifest{}, err
	}
	if m, ok := g.manifests[ref.String()]; ok {
		return m, nil
	}
	return oci.Manifest{}, oci.ErrManifestUnknown
}

func (g *registry) Referrers(ctx context.Context, _ oci.Name, dgst digest.Digest, artifactType string) (oci.Manifest, error) {
	if err := g.called(ctx); err != nil {
		return oci.Manifest{}, err
	}
	m, ok := g.referrers[dgst]
	if !ok {
		return oci.Manifest{}, oci.ErrManifestUnknown
	}
	if artifactType != "" {
		m.Bytes = bytes.ReplaceAll(m.Bytes, []byte("all"), []byte(artifactType))
	}
	return m, nil
}

func (g *registry) Tags(ctx context.Context, name oci.Name, n int, last string) ([]string, error) {
	if err := g.called(ctx); err != nil {
		return nil, err
	}
	tags, ok := g.tags[name]
	if !ok {
		return nil, oci.ErrNameUnknown
	}
	return page(tags, n, last), nil
}

func (g *registry) Repositories(ctx context.Context, n int, last string) ([]string, error) {
	if err := g.called(ctx); err != nil {
		return nil, err
	}
	var names []string
	for name := range g.tags {
		names = append(names, name.String())
	}
	slices.Sort(names)
	return page(names, n, last), nil
}

func page(list []string, n int, last string) []string {
	start, found := slices.BinarySearch(list, last)
	if found {
		start++
	}
	list = list[start:]
	if n >= 0 && n < len(list) {
		list = list[:n]
	}
	return list
}

// addManifest puts a manifest under a tag and its digest.
func (g *registry) addManifest(name oci.Name, tag, mediaType string, content []byte) oci.Manifest {
	m := oci.Manifest{
		Descriptor: oci.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(content), Size: int64(len(content))},
		Bytes:      content,
	}
	g.manifests[oci.Reference{Name: name, Tag: tag}.String()] = m
	g.manifests[oci.Reference{Name: name, Digest: m.Digest}.String()] = m
	return m
}

// fileBlob is a blob in a file, as the store hands it out.
type fileBlob struct {
	*os.File
	desc oci.Descriptor
}

func (b *fileBlob) Descriptor() oci.Descriptor { return b.desc }

// addFile puts a blob in a file. announce is the size its descriptor gives; -1
// for the true one.
func (g *registry) addFile(t *testing.T, content []byte, announce int64) digest.Digest {
	t.Helper()
	path := filepath.Join(t.TempDir(), "blob")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	if announce < 0 {
		announce = int64(len(content))
	}
	desc := oci.Descriptor{Digest: digest.FromBytes(content), Size: announce}
	g.blobs[desc.Digest] = func() (oci.Blob, error) {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		return &fileBlob{File: f, desc: desc}, nil
	}
	return desc.Digest
}

// memoryBlob is a blob that is read, and fails with failure after its content.
type memoryBlob struct {
	*bytes.Reader
	desc    oci.Descriptor
	failure error
}

func (b *memoryBlob) Descriptor() oci.Descriptor { return b.desc }
func (b *memoryBlob) Close() error               { return nil }

func (b *memoryBlob) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if err == io.EOF && b.failure != nil {
		err = b.failure
	}
	return n, err
}

// sendingBlob is a memoryBlob that sends itself.
type sendingBlob struct{ memoryBlob }

func (b *sendingBlob) SendTo(w io.Writer, n int64) (int64, error) {
	return io.CopyN(w, &b.memoryBlob, n)
}

// addMemory puts a blob that announces size bytes, has content, and then fails
// with failure; sends makes it one that sends itself.
func (g *registry) addMemory(content []byte, size int64, failure error, sends bool) digest.Digest {
	desc := oci.Descriptor{Digest: digest.FromBytes(content), Size: size}
	g.blobs[desc.Digest] = func() (oci.Blob, error) {
		blob := memoryBlob{bytes.NewReader(content), desc, failure}
		if sends {
			return &sendingBlob{blob}, nil
		}
		return &blob, nil
	}
	return desc.Digest
}

// server is a running server with what it logs.
type server struct {
	addr   string
	url    string
	client *http.Client
	lines  chan *logrus.Entry
}

// Levels and Fire make server a logrus hook that collects the access log.
func (s *server) Levels() []logrus.Level { return logrus.AllLevels }

func (s *server) Fire(e *logrus.Entry) error {
	if e.Message == "request" {
		s.lines <- e
	}
	return nil
}

// line waits for the next line of the access log. It is written after the
// answer, so a client may be ahead of it.
func (s *server) line(t *testing.T) *logrus.Entry {
	t.Helper()
	select {
	case e := <-s.lines:
		return e
	case <-time.After(patience):
		t.Fatal("no line in the access log")
		return nil
	}
}

// start serves g on a loopback socket until the test ends. configure may change
// the configuration, wrap the listener.
func start(t *testing.T, g *registry, configure func(*ociserver.Config), wrap func(net.Listener) net.Listener) *server {
	t.Helper()
	s := &server{client: &http.Client{Transport: &http.Transport{DisableCompression: true}, Timeout: patience}, lines: make(chan *logrus.Entry, 1000)}
	logger := logrus.New()
	logger.SetOutput(io.Discard)
	logger.Level = slices.Max(logrus.AllLevels)
	logger.AddHook(s)
	cfg := ociserver.Config{Reader: g, Lister: g, DefaultRegistry: "docker.io", Log: logrus.NewEntry(logger)}
	if configure != nil {
		configure(&cfg)
	}
	h, err := ociserver.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.addr = listener.Addr().String()
	s.url = "http://" + s.addr
	if wrap != nil {
		listener = wrap(listener)
	}
	hs := ociserver.NewServer(h, cfg.Log)
	done := make(chan error, 1)
	go func() { done <- hs.Serve(listener) }() // ends with hs.Close
	t.Cleanup(func() {
		s.client.CloseIdleConnections()
		if err := hs.Close(); err != nil {
			t.Errorf("close server: %v", err)
		}
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("serve: %v", err)
		}
	})
	return s
}

// answer is a response with its body read.
type answer struct {
	*http.Response
	body []byte
	err  error // of reading the body
}

// do sends one request and reads the answer. Headers come as name, value, …
func (s *server) do(t *testing.T, method, target string, headers ...string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, s.url+target, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	resp, err := s.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return answer{resp, body, err}
}

// want fails the test unless the answer has the status, and each header of the
// pairs given ("" for: absent).
func (a answer) want(t *testing.T, status int, headers ...string) {
	t.Helper()
	if a.StatusCode != status {
		t.Errorf("status %d, want %d; body %.200s", a.StatusCode, status, a.body)
	}
	for i := 0; i < len(headers); i += 2 {
		if got := a.Header.Get(headers[i]); got != headers[i+1] {
			t.Errorf("%s: %q, want %q", headers[i], got, headers[i+1])
		}
	}
}

// pattern makes n bytes of which no two regions look alike.
func pattern(n int) []byte {
	b := make([]byte, n)
	x := uint32(2463534242)
	for i := range b {
		x ^= x << 13
		x ^= x >> 17
		x ^= x << 5
		b[i] = byte(x)
	}
	return b
}
