package conformance

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/sirupsen/logrus"
	"go.uber.org/goleak"

	"github.com/larder-registry/larder/central"
	"github.com/larder-registry/larder/internal/oci"
	"github.com/larder-registry/larder/internal/ociserver"
	"github.com/larder-registry/larder/mirror"
	"github.com/larder-registry/larder/mirror/upstream"
	"github.com/larder-registry/larder/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// everybody is let in, to everything.
type everybody struct{}

func (everybody) Authorize(context.Context, oci.Caller, oci.Want) (oci.Subject, error) {
	return everybody{}, nil
}
func (everybody) Name() string                                 { return "anybody" }
func (everybody) May(context.Context, string, oci.Action) bool { return true }

// registry is one that listens.
type registry struct {
	t    testing.TB
	base string // http://127.0.0.1:1234
	host string
	http *http.Client
}

// serve has a handler answer on loopback until the test ends.
func serve(t testing.TB, h http.Handler, log *logrus.Entry) *registry {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := ociserver.NewServer(h, log)
	done := make(chan struct{})
	go func() { // ends with Close, below
		defer close(done)
		_ = server.Serve(l)
	}()
	transport := &http.Transport{DisableCompression: true}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		server.Close()
		<-done
	})
	host := l.Addr().String()
	return &registry{t, "http://" + host, host, &http.Client{Transport: transport, Timeout: time.Minute}}
}

// in is the registry for a subtest.
func (r *registry) in(t testing.TB) *registry {
	return &registry{t, r.base, r.host, r.http}
}

func quiet() *logrus.Entry {
	l := logrus.New()
	l.SetOutput(io.Discard)
	return logrus.NewEntry(l)
}

// startCentral starts an empty central registry.
func startCentral(t testing.TB) *registry {
	t.Helper()
	dir, log := t.TempDir(), quiet()
	ledger, err := store.OpenLedger(filepath.Join(dir, "index"), log)
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
	c, err := central.New(t.Context(), central.Config{Ledger: ledger, Content: depot, Drafts: depot, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	h, err := ociserver.NewOwn(ociserver.OwnConfig{
		Reader: c, Lister: c, Uploader: c, Writer: c, Referrals: c, Authorizer: everybody{}, Log: log,
	})
	if err != nil {
		t.Fatal(err)
	}
	return serve(t, h, log)
}

// startMirror starts a mirror whose only upstream is another registry, so that
// it can be asked for what that one holds as if it were its own.
func startMirror(t testing.TB, of *registry) *registry {
	t.Helper()
	log := quiet()
	s, err := store.Open(t.Context(), store.Config{Dir: t.TempDir(), MaxSize: store.Bytes(1 << 30), MinFree: store.Bytes(0), Log: log})
	if err != nil {
		t.Fatal(err)
	}
	up, err := upstream.New(upstream.Config{Registries: []upstream.Registry{{Host: of.host, Insecure: true}}, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	m, err := mirror.New(mirror.Config{Store: s, Upstream: up, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(context.Background()); err != nil {
			t.Error(err)
		}
		up.Close()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	h, err := ociserver.New(ociserver.Config{Reader: m, Lister: m, DefaultRegistry: of.host, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	return serve(t, h, log)
}

// answer is what came back.
type answer struct {
	t      testing.TB
	status int
	header http.Header
	body   []byte
	at     *url.URL
}

// do sends a request. target is a path, or a Location; header is a list of names
// and values. A body of type func() is sent without a length.
func (r *registry) do(method, target string, body []byte, header ...string) answer {
	r.t.Helper()
	return r.send(method, target, bytes.NewReader(body), header...)
}

// stream sends a body whose length nobody says.
func (r *registry) stream(method, target string, body []byte, header ...string) answer {
	r.t.Helper()
	return r.send(method, target, struct{ io.Reader }{bytes.NewReader(body)}, header...)
}

func (r *registry) send(method, target string, body io.Reader, header ...string) answer {
	r.t.Helper()
	base, err := url.Parse(r.base)
	if err != nil {
		r.t.Fatal(err)
	}
	u, err := base.Parse(target)
	if err != nil {
		r.t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(r.t.Context(), method, u.String(), body)
	if err != nil {
		r.t.Fatal(err)
	}
	for pair := range slices.Chunk(header, 2) {
		req.Header.Add(pair[0], pair[1])
	}
	resp, err := r.http.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	content, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatalf("%s %s: %v", method, target, err)
	}
	return answer{r.t, resp.StatusCode, resp.Header, content, u}
}

// want checks status and headers; a value of "*" is any, "" none.
func (a answer) want(status int, header ...string) answer {
	a.t.Helper()
	if a.status != status {
		a.t.Fatalf("%s: status %d, want %d\n%s", a.at, a.status, status, a.body)
	}
	for pair := range slices.Chunk(header, 2) {
		got := a.header.Get(pair[0])
		if got != pair[1] && (pair[1] != "*" || got == "") {
			a.t.Errorf("%s: %s is %q, want %q", a.at, pair[0], got, pair[1])
		}
	}
	return a
}

// refused checks status and the spec's error document.
func (a answer) refused(status int, code string) answer {
	a.t.Helper()
	a.want(status, "Content-Type", "application/json")
	var doc struct {
		Errors []struct{ Code, Message string }
	}
	if err := json.Unmarshal(a.body, &doc); err != nil || len(doc.Errors) == 0 || doc.Errors[0].Code != code || doc.Errors[0].Message == "" {
		a.t.Errorf("%s: error document %s (%v), want code %s", a.at, a.body, err, code)
	}
	return a
}

// is checks the body.
func (a answer) is(want []byte) answer {
	a.t.Helper()
	if !bytes.Equal(a.body, want) {
		a.t.Errorf("%s: body %.100q, want %.100q", a.at, a.body, want)
	}
	return a
}

// location is the URL to go on at, with parameters added.
func (a answer) location(query ...string) string {
	a.t.Helper()
	u, err := a.at.Parse(a.header.Get("Location"))
	if err != nil || a.header.Get("Location") == "" {
		a.t.Fatalf("%s: Location %q: %v", a.at, a.header.Get("Location"), err)
	}
	q := u.Query()
	for pair := range slices.Chunk(query, 2) {
		q.Set(pair[0], pair[1])
	}
	u.RawQuery = q.Encode()
	return u.String()
}

// random gives n bytes that are the same in each run, and differ by name.
func random(name string, n int) []byte {
	out := make([]byte, 0, n+64)
	for i := 0; len(out) < n; i++ {
		out = append(out, digest.FromString(name+strconv.Itoa(i)).Encoded()...)
	}
	return out[:n]
}

// pushBlob pushes a blob the usual way.
func (r *registry) pushBlob(repository string, content []byte) digest.Digest {
	r.t.Helper()
	dgst := digest.FromBytes(content)
	a := r.do("POST", "/v2/"+repository+"/blobs/uploads/", nil).want(202)
	r.do("PUT", a.location("digest", string(dgst)), content, "Content-Type", "application/octet-stream").want(201)
	return dgst
}

// descriptor is a descriptor in a manifest.
type descriptor struct {
	MediaType    string            `json:"mediaType"`
	Digest       digest.Digest     `json:"digest"`
	Size         int               `json:"size"`
	ArtifactType string            `json:"artifactType,omitempty"`
	Annotations  map[string]string `json:"annotations,omitempty"`
	Data         []byte            `json:"data,omitempty"`
	URLs         []string          `json:"urls,omitempty"`
}

func describe(mediaType string, content []byte) descriptor {
	return descriptor{MediaType: mediaType, Digest: digest.FromBytes(content), Size: len(content)}
}

const (
	typeConfig = "application/vnd.oci.image.config.v1+json"
	typeLayer  = "application/vnd.oci.image.layer.v1.tar+gzip"
	typeEmpty  = "application/vnd.oci.empty.v1+json"
)

// manifest encodes fields as an image manifest or index of a type.
func manifest(mediaType string, fields map[string]any) []byte {
	doc := map[string]any{"schemaVersion": 2, "mediaType": mediaType}
	for name, value := range fields {
		doc[name] = value
	}
	body, err := json.Marshal(doc)
	if err != nil {
		panic(err)
	}
	return body
}

// image pushes config and layers and gives an image manifest of them.
func (r *registry) image(repository, name string) []byte {
	r.t.Helper()
	config, layer := []byte(`{"name":"`+name+`"}`), random(name, 3000)
	r.pushBlob(repository, config)
	r.pushBlob(repository, layer)
	return manifest(oci.MediaTypeManifest, map[string]any{
		"config": describe(typeConfig, config), "layers": []descriptor{describe(typeLayer, layer)},
	})
}

// put pushes a manifest under a tag or its digest.
func (r *registry) put(repository, reference string, body []byte) answer {
	r.t.Helper()
	var doc struct{ MediaType string }
	if err := json.Unmarshal(body, &doc); err != nil {
		r.t.Fatal(err)
	}
	return r.do("PUT", "/v2/"+repository+"/manifests/"+reference, body, "Content-Type", doc.MediaType)
}

// strings of a list in JSON.
func (a answer) list(field string) []string {
	a.t.Helper()
	a.want(200, "Content-Type", "application/json")
	var doc map[string]json.RawMessage
	var list []string
	if err := json.Unmarshal(a.body, &doc); err != nil {
		a.t.Fatal(err)
	}
	if err := json.Unmarshal(doc[field], &list); err != nil || list == nil {
		a.t.Fatalf("%s: %s holds no list %s: %v", a.at, a.body, field, err)
	}
	return list
}

// next is the target of the Link to the next page, empty when there is none.
func (a answer) next() string {
	target, rest, found := strings.Cut(strings.TrimPrefix(a.header.Get("Link"), "<"), ">")
	if !found {
		return ""
	}
	if rest != `; rel="next"` {
		a.t.Errorf("%s: Link %q", a.at, a.header.Get("Link"))
	}
	return target
}
