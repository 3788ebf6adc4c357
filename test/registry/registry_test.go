package registry_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"go.uber.org/goleak"

	"github.com/larder-registry/larder/test/registry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds everything that should happen at once.
const patience = 30 * time.Second

// client makes an HTTP client that trusts s, follows no redirect and undoes no
// encoding.
func client(t *testing.T, s *registry.Server) *http.Client {
	t.Helper()
	tr := &http.Transport{DisableCompression: true}
	if pem := s.CAPEM(); pem != nil {
		tr.TLSClientConfig = &tls.Config{RootCAs: x509.NewCertPool()}
		if !tr.TLSClientConfig.RootCAs.AppendCertsFromPEM(pem) {
			t.Fatal("CAPEM holds no certificate")
		}
	}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{
		Transport:     tr,
		Timeout:       patience,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// reply is one answer, read to its end.
type reply struct {
	*http.Response
	body []byte
	err  error // how reading the body ended; nil for a clean end
}

func do(t *testing.T, s *registry.Server, method, path string, header ...string) reply {
	t.Helper()
	url := path
	if strings.HasPrefix(path, "/") {
		url = s.URL() + path
	}
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := client(t, s).Do(req)
	if err != nil {
		return reply{err: err}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return reply{Response: resp, body: body, err: err}
}

func get(t *testing.T, s *registry.Server, path string, header ...string) reply {
	t.Helper()
	return do(t, s, http.MethodGet, path, header...)
}

// mustGet fails the test unless the answer has that status and ends cleanly.
func mustGet(t *testing.T, s *registry.Server, status int, path string, header ...string) reply {
	t.Helper()
	r := get(t, s, path, header...)
	if r.err != nil {
		t.Fatalf("GET %s: %v", path, r.err)
	}
	if r.StatusCode != status {
		t.Fatalf("GET %s: status %d, want %d", path, r.StatusCode, status)
	}
	return r
}

func blobPath(repo string, d digest.Digest) string { return "/v2/" + repo + "/blobs/" + d.String() }

func TestPull(t *testing.T) {
	for name, opts := range map[string]registry.Options{
		"plain":   {},
		"ipv6":    {IPv6: true},
		"tls":     {TLS: true},
		"http2":   {TLS: true, HTTP2: true},
		"latency": {Latency: time.Millisecond, BytesPerSecond: 64 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			s := registry.Start(t, opts)
			img := s.AddIndex("team/app", "v1",
				s.AddPlatform("team/app", "", "amd64", registry.NewLayer(1, 300_001)),
				s.AddPlatform("team/app", "", "arm64", registry.NewLayer(2, 1<<20), registry.NewLayer(3, 100)))
			if r := mustGet(t, s, 200, "/v2/"); r.err != nil {
				t.Fatal(r.err)
			}
			r := mustGet(t, s, 200, "/v2/team/app/manifests/v1")
			if !bytes.Equal(r.body, img.Bytes()) || r.Header.Get("Docker-Content-Digest") != img.Digest.String() ||
				r.Header.Get("Content-Type") != registry.MediaTypeIndex || r.ContentLength != img.Size() {
				t.Fatalf("index: %v %q", r.Header, r.body)
			}
			var idx struct {
				Manifests []struct {
					Digest   digest.Digest
					Platform struct{ Architecture string }
				}
			}
			if err := json.Unmarshal(r.body, &idx); err != nil || len(idx.Manifests) != 2 || idx.Manifests[1].Platform.Architecture != "arm64" {
				t.Fatalf("index %s: %v", r.body, err)
			}
			for i, m := range idx.Manifests {
				r := mustGet(t, s, 200, "/v2/team/app/manifests/"+m.Digest.String())
				if digest.FromBytes(r.body) != m.Digest || r.Header.Get("Content-Type") != registry.MediaTypeManifest {
					t.Errorf("child %d: %v", i, r.Header)
				}
			}
			for _, b := range img.Blobs() {
				r := mustGet(t, s, 200, blobPath("team/app", b.Digest))
				if digest.FromBytes(r.body) != b.Digest || !bytes.Equal(r.body, b.Bytes()) || r.ContentLength != b.Size() {
					t.Errorf("blob %s: wrong content", b.Digest)
				}
			}
			h := do(t, s, http.MethodHead, "/v2/team/app/manifests/v1")
			if h.err != nil || h.StatusCode != 200 || h.ContentLength != img.Size() || h.Header.Get("Docker-Content-Digest") != img.Digest.String() {
				t.Errorf("HEAD: %v %v", h.Response, h.err)
			}
			for _, missing := range []string{"manifests/none", "blobs/" + digest.FromString("none").String(), "nonsense"} {
				mustGet(t, s, 404, "/v2/team/app/"+missing)
			}
			if n := s.Count(registry.Blobs); n != 6 {
				t.Errorf("%d blob requests recorded, want 6", n)
			}
		})
	}
}

func TestRange(t *testing.T) {
	s := registry.Start(t, registry.Options{})
	b := s.AddBlob("r", "", registry.Tar(7, 200_003))
	all := b.Bytes()
	for _, tt := range []struct {
		header     string
		start, end int // of what is served; -1: 416
	}{
		{"bytes=0-", 0, 200_003},
		{"bytes=511-513", 511, 514},
		{"bytes=199999-", 199_999, 200_003},
		{"bytes=100000-999999", 100_000, 200_003},
		{"bytes=-5", 199_998, 200_003},
		{"bytes=200003-", -1, -1},
		{"bytes=5-4", -1, -1},
	} {
		if tt.start < 0 {
			mustGet(t, s, 416, blobPath("r", b.Digest), "Range", tt.header)
			continue
		}
		r := mustGet(t, s, 206, blobPath("r", b.Digest), "Range", tt.header)
		want := fmt.Sprintf("bytes %d-%d/200003", tt.start, tt.end-1)
		if !bytes.Equal(r.body, all[tt.start:tt.end]) || r.Header.Get("Content-Range") != want {
			t.Errorf("%s: %s and %d bytes, want %s", tt.header, r.Header.Get("Content-Range"), len(r.body), want)
		}
	}
}

func TestRandomIsTheSameAtAnyOffset(t *testing.T) {
	c := registry.Random(3, 1000)
	whole := make([]byte, 1000)
	if n, err := c.ReadAt(whole, 0); n != 1000 || err != nil {
		t.Fatalf("ReadAt: %d, %v", n, err)
	}
	for off := range int64(1000) {
		p := make([]byte, 33)
		n, err := c.ReadAt(p, off)
		if !bytes.Equal(p[:n], whole[off:min(off+33, 1000)]) {
			t.Fatalf("offset %d differs", off)
		}
		if (n < 33) != errors.Is(err, io.EOF) {
			t.Fatalf("offset %d: %d bytes, %v", off, n, err)
		}
	}
	if other := registry.Random(4, 1000); bytes.Equal((registry.Blob{Content: other}).Bytes(), whole) {
		t.Error("another seed gives the same bytes")
	}
}

func TestTokens(t *testing.T) {
	for _, onHost := range []bool{false, true} {
		s := registry.Start(t, registry.Options{Users: map[string]string{"u": "p"}, Tokens: true, TokenOnHost: onHost, TokenUses: 2})
		img := s.AddImage("private/app", "v1", registry.NewLayer(1, 10))
		s.AddImage("other", "v1", registry.NewLayer(1, 10))
		path := "/v2/private/app/manifests/v1"

		r := mustGet(t, s, 401, path)
		challenge := r.Header.Get("WWW-Authenticate")
		realm, rest, ok := strings.Cut(strings.TrimPrefix(challenge, `Bearer realm="`), `"`)
		if !ok || !strings.Contains(rest, `scope="repository:private/app:pull"`) {
			t.Fatalf("challenge %q", challenge)
		}
		fetch := func(header ...string) string {
			r := mustGet(t, s, 200, realm+"?service=registry&scope=repository:private/app:pull", header...)
			var v struct{ Token string }
			if err := json.Unmarshal(r.body, &v); err != nil || v.Token == "" {
				t.Fatalf("token answer %q: %v", r.body, err)
			}
			return "Bearer " + v.Token
		}
		if (realm == s.URL()+"/token") != onHost {
			t.Errorf("realm %s of a registry at %s", realm, s.URL())
		}
		if r := do(t, s, http.MethodPost, realm); r.StatusCode != http.StatusMethodNotAllowed {
			t.Errorf("POST is answered %d: clients would not ask by GET", r.StatusCode)
		}
		mustGet(t, s, 401, path, "Authorization", fetch())
		mustGet(t, s, 401, realm, "Authorization", "Basic dTp3cm9uZw==")
		token := fetch("Authorization", "Basic dTpw")
		mustGet(t, s, 401, "/v2/other/manifests/v1", "Authorization", token)
		for range 2 {
			if r := mustGet(t, s, 200, path, "Authorization", token); !bytes.Equal(r.body, img.Bytes()) {
				t.Error("wrong manifest")
			}
		}
		mustGet(t, s, 401, path, "Authorization", token) // used up
		token = fetch("Authorization", "Basic dTpw")
		s.ExpireTokens()
		mustGet(t, s, 401, path, "Authorization", token)
		s.Set(registry.Fault{On: registry.Tokens, Status: 503, Times: 1})
		mustGet(t, s, 503, realm)
		fetch()
	}
}

func TestAnonymousTokensAndBasic(t *testing.T) {
	public := registry.Start(t, registry.Options{Tokens: true})
	public.AddImage("a", "v1", registry.NewLayer(1, 10))
	realm, _, _ := strings.Cut(strings.TrimPrefix(mustGet(t, public, 401, "/v2/a/manifests/v1").Header.Get("WWW-Authenticate"), `Bearer realm="`), `"`)
	var v struct{ Token string }
	if err := json.Unmarshal(mustGet(t, public, 200, realm+"?scope=repository:a:pull").body, &v); err != nil {
		t.Fatal(err)
	}
	mustGet(t, public, 200, "/v2/a/manifests/v1", "Authorization", "Bearer "+v.Token)

	basic := registry.Start(t, registry.Options{Users: map[string]string{"u": "p"}, Basic: true, Anonymous: []string{"open"}})
	basic.AddImage("open", "v1", registry.NewLayer(1, 10))
	basic.AddImage("shut", "v1", registry.NewLayer(1, 10))
	mustGet(t, basic, 200, "/v2/open/manifests/v1")
	if r := mustGet(t, basic, 401, "/v2/shut/manifests/v1"); !strings.HasPrefix(r.Header.Get("WWW-Authenticate"), "Basic ") {
		t.Errorf("challenge %q", r.Header.Get("WWW-Authenticate"))
	}
	mustGet(t, basic, 200, "/v2/shut/manifests/v1", "Authorization", "Basic dTpw")
}

// TestNames: the certificate is good for names of the caller's choice.
func TestNames(t *testing.T) {
	s := registry.Start(t, registry.Options{TLS: true, Names: []string{"registry.example", "192.0.2.1"}})
	for name, good := range map[string]bool{"registry.example": true, "192.0.2.1": true, "127.0.0.1": true, "other.example": false} {
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(s.CAPEM())
		d := tls.Dialer{Config: &tls.Config{RootCAs: pool, ServerName: name}}
		conn, err := d.DialContext(t.Context(), "tcp", s.Host())
		if err == nil {
			conn.Close()
		}
		if (err == nil) != good {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestStorage(t *testing.T) {
	s := registry.Start(t, registry.Options{Storage: true})
	b := s.AddBlob("a", "", registry.Random(1, 5000))
	to := mustGet(t, s, 307, blobPath("a", b.Digest)).Header.Get("Location")
	if !strings.HasPrefix(to, "http://"+s.StorageHost()+"/") || s.StorageHost() == s.Host() {
		t.Fatalf("redirected to %q", to)
	}
	if r := mustGet(t, s, 200, to); !bytes.Equal(r.body, b.Bytes()) {
		t.Error("wrong content")
	}
	mustGet(t, s, 206, to, "Range", "bytes=5-6")
	mustGet(t, s, 400, to, "Authorization", "Bearer leaked")
	unsigned, _, _ := strings.Cut(to, "?")
	mustGet(t, s, 403, unsigned)
	last := s.Requests()[3]
	if last.Kind != registry.Storage || last.Header.Get("Authorization") != "Bearer leaked" {
		t.Errorf("recorded %+v", last)
	}
	if got := s.Sent(b.Digest); got < 5002 {
		t.Errorf("Sent = %d", got)
	}
}

func TestReferrersTagsAndDeletion(t *testing.T) {
	s := registry.Start(t, registry.Options{})
	img := s.AddImage("a", "v1", registry.NewLayer(1, 10))
	ref := s.AddReferrer("a", img.Blob, "application/x.sbom", []byte("hello"))
	r := mustGet(t, s, 200, "/v2/a/referrers/"+img.Digest.String())
	if !strings.Contains(string(r.body), ref.Digest.String()) || r.Header.Get("Content-Type") != registry.MediaTypeIndex {
		t.Errorf("referrers: %s", r.body)
	}
	if r := mustGet(t, s, 200, "/v2/a/tags/list"); string(r.body) != `{"name":"a","tags":["v1"]}`+"\n" {
		t.Errorf("tags: %s", r.body)
	}
	moved := s.AddImage("a", "v1", registry.NewLayer(2, 10))
	if r := mustGet(t, s, 200, "/v2/a/manifests/v1"); !bytes.Equal(r.body, moved.Bytes()) {
		t.Error("the tag did not move")
	}
	mustGet(t, s, 200, "/v2/a/manifests/"+img.Digest.String())
	s.Delete("a", img.Digest)
	s.Delete("a", img.Layers[0].Digest)
	s.DeleteTag("a", "v1")
	mustGet(t, s, 404, "/v2/a/manifests/"+img.Digest.String())
	mustGet(t, s, 404, blobPath("a", img.Layers[0].Digest))
	mustGet(t, s, 404, "/v2/a/manifests/v1")
	mustGet(t, s, 200, "/v2/a/manifests/"+moved.Digest.String())
	sha512 := s.AddBlobAs(digest.SHA512, "a", "", registry.Random(1, 99))
	if r := mustGet(t, s, 200, blobPath("a", sha512.Digest)); digest.SHA512.FromBytes(r.body) != sha512.Digest {
		t.Error("sha512 blob differs")
	}
}

func TestSpeed(t *testing.T) {
	s := registry.Start(t, registry.Options{})
	b := s.AddBlob("a", "", registry.Random(1, 400_000))
	s.Shape(50*time.Millisecond, 2_000_000)
	begin := time.Now()
	if r := mustGet(t, s, 200, blobPath("a", b.Digest)); !bytes.Equal(r.body, b.Bytes()) {
		t.Error("wrong content")
	}
	if took := time.Since(begin); took < 240*time.Millisecond {
		t.Errorf("took %v, want at least 50 ms and 400 kB at 2 MB/s", took)
	}
}

func TestStatsAndForget(t *testing.T) {
	s := registry.Start(t, registry.Options{})
	gate := registry.NewGate()
	s.Set(registry.Fault{Gate: gate})
	b := s.AddBlob("a", "", registry.Random(1, 10))
	var all []<-chan reply
	for range 3 {
		all = append(all, background(t, s, blobPath("a", b.Digest)))
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := s.WaitFor(ctx, func(all []registry.Request) bool { return len(all) == 3 }); err != nil {
		t.Fatal(err)
	}
	gate.Open()
	for _, done := range all {
		if r := <-done; r.err != nil {
			t.Error(r.err)
		}
	}
	if st := s.Stats(); st.Busiest != 3 || st.Accepted != 3 || st.Peak != 3 {
		t.Errorf("stats %+v", st)
	}
	if n := s.Sent(b.Digest); n != 30 {
		t.Errorf("Sent = %d", n)
	}
	s.Forget()
	if n := len(s.Requests()); n != 0 {
		t.Errorf("%d requests after Forget", n)
	}
	short, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := s.WaitFor(short, func([]registry.Request) bool { return false }); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("WaitFor: %v", err)
	}
}
