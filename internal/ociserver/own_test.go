package ociserver_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/sirupsen/logrus"

	"github.com/larder-registry/larder/central"
	"github.com/larder-registry/larder/internal/oci"
	"github.com/larder-registry/larder/internal/ociserver"
	"github.com/larder-registry/larder/store"
)

// gate lets users in who are named by their Authorization header, to what the
// table says; it remembers what it was asked.
type gate struct {
	mu     sync.Mutex
	rights map[string][]string // user: "action repository"
	fail   error
	asked  []string
	caller oci.Caller
}

func (g *gate) Authorize(_ context.Context, caller oci.Caller, want oci.Want) (oci.Subject, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.asked = append(g.asked, fmt.Sprint(want.Repository, " ", want.Actions))
	g.caller = caller
	if g.fail != nil {
		return nil, g.fail
	}
	user := visitor{caller.Authorization, g}
	for _, action := range want.Actions {
		if !user.may(want.Repository, action) {
			return nil, &oci.Refusal{Cause: oci.ErrUnauthorized, Challenges: []string{`Bearer realm="x"`, `Basic realm="y"`}}
		}
	}
	return user, nil
}

type visitor struct {
	name string
	gate *gate
}

func (v visitor) Name() string { return v.name }
func (v visitor) may(repository string, action oci.Action) bool {
	rights := v.gate.rights[v.name]
	return slices.Contains(rights, strings.TrimSpace(string(action)+" "+repository)) || slices.Contains(rights, "all")
}

func (v visitor) May(_ context.Context, repository string, action oci.Action) bool {
	v.gate.mu.Lock()
	defer v.gate.mu.Unlock()
	return v.may(repository, action)
}

// ownServer is a central registry behind the handler.
type ownServer struct {
	t    *testing.T
	gate *gate
	url  string
	log  *logLines
	c    *central.Central
	http *http.Client
}

func newOwnServer(t *testing.T, change func(*ociserver.OwnConfig)) *ownServer {
	t.Helper()
	dir := t.TempDir()
	ledger, err := store.OpenLedger(filepath.Join(dir, "index"), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ledger.Close() })
	depot, err := store.OpenDepot(store.DepotConfig{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	c, err := central.New(t.Context(), central.Config{Ledger: ledger, Content: depot, Drafts: depot})
	if err != nil {
		t.Fatal(err)
	}
	s := &ownServer{t: t, gate: &gate{rights: map[string][]string{"root": {"all"}}}, log: &logLines{}, c: c}
	log := logrus.New()
	log.SetOutput(s.log)
	log.SetLevel(logrus.DebugLevel)
	cfg := ociserver.OwnConfig{
		Reader: c, Lister: c, Uploader: c, Writer: c, Referrals: c, Authorizer: s.gate, Log: logrus.NewEntry(log),
	}
	if change != nil {
		change(&cfg)
	}
	h, err := ociserver.NewOwn(cfg)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(h)
	server.Config = ociserver.NewServer(h, cfg.Log)
	server.Start()
	t.Cleanup(server.Close)
	s.url, s.http = server.URL, server.Client()
	return s
}

// logLines is what was logged. A request's line comes after its answer.
type logLines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logLines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// do sends a request as a user; the body has been read.
func (s *ownServer) do(user, method, target, body string, header ...string) *http.Response {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), method, s.url+target, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	if user != "" {
		req.Header.Set("Authorization", user)
	}
	for pair := range slices.Chunk(header, 2) {
		req.Header.Set(pair[0], pair[1])
	}
	res, err := s.http.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	content, err := io.ReadAll(res.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	res.Body = io.NopCloser(bytes.NewReader(content))
	return res
}

func (s *ownServer) want(res *http.Response, status int) *http.Response {
	s.t.Helper()
	if res.StatusCode != status {
		text, _ := io.ReadAll(res.Body)
		s.t.Fatalf("%s %s: %d, want %d\n%s", res.Request.Method, res.Request.URL, res.StatusCode, status, text)
	}
	return res
}

// image pushes an image as root.
func (s *ownServer) image(repository string) (blob, manifest string) {
	s.t.Helper()
	content := "content of " + repository
	blob = string(digest.FromString(content))
	s.want(s.do("root", "POST", "/v2/"+repository+"/blobs/uploads/?digest="+blob, content), 201)
	body := fmt.Sprintf(`{"schemaVersion":2,"config":{"digest":%q},"layers":[]}`, blob)
	s.want(s.do("root", "PUT", "/v2/"+repository+"/manifests/v1", body, "Content-Type", oci.MediaTypeManifest), 201)
	return blob, string(digest.FromString(body))
}

func TestWhatEachRequestNeeds(t *testing.T) {
	s := newOwnServer(t, nil)
	d := string(digest.FromString("x"))
	for _, tt := range []struct{ method, target, want string }{
		{"GET", "/v2/", " []"},
		{"GET", "/v2/_catalog", " [catalog]"},
		{"GET", "/v2/a/tags/list", "a [pull]"},
		{"GET", "/v2/a/referrers/" + d, "a [pull]"},
		{"GET", "/v2/a/blobs/" + d, "a [pull]"},
		{"HEAD", "/v2/a/blobs/" + d, "a [pull]"},
		{"DELETE", "/v2/a/blobs/" + d, "a [delete]"},
		{"GET", "/v2/a/manifests/v1", "a [pull]"},
		{"HEAD", "/v2/a/manifests/v1", "a [pull]"},
		{"PUT", "/v2/a/manifests/v1", "a [push]"},
		{"DELETE", "/v2/a/manifests/v1", "a [delete]"},
		{"DELETE", "/v2/a/manifests/" + d, "a [delete]"},
		{"POST", "/v2/a/blobs/uploads/", "a [push]"},
		{"POST", "/v2/a/blobs/uploads/?mount=" + d + "&from=b", "a [push]"},
		{"GET", "/v2/a/blobs/uploads/ABC", "a [push]"},
		{"PATCH", "/v2/a/blobs/uploads/ABC", "a [push]"},
		{"PUT", "/v2/a/blobs/uploads/ABC?digest=" + d, "a [push]"},
		{"DELETE", "/v2/a/blobs/uploads/ABC", "a [push]"},
		{"GET", "/v2/x/blobs/" + d + "?ns=docker.io", "f/docker.io/library/x [pull]"},
		{"GET", "/v2/f/ghcr.io/x/y/manifests/v1", "f/ghcr.io/x/y [pull]"},
	} {
		s.gate.asked = nil
		res := s.do("nobody", tt.method, tt.target, "")
		if !slices.Equal(s.gate.asked, []string{tt.want}) {
			t.Errorf("%s %s needs %q, want %q", tt.method, tt.target, s.gate.asked, tt.want)
		}
		if strings.HasSuffix(tt.want, "[]") {
			s.want(res, 200)
			continue
		}
		s.want(res, 401)
		if got := res.Header.Values("WWW-Authenticate"); !slices.Equal(got, []string{`Bearer realm="x"`, `Basic realm="y"`}) {
			t.Errorf("challenges %q", got)
		}
	}
	if s.gate.caller.Authorization != "nobody" || !s.gate.caller.Peer.IsLoopback() {
		t.Errorf("caller %+v", s.gate.caller)
	}
	s.want(s.do("Basic c2VjcmV0", "GET", "/v2/a/tags/list", ""), 401)
	if strings.Contains(s.log.String(), "c2VjcmV0") {
		t.Error("what a caller sent to log in is in the log")
	}
}

// TestRefusalsSayNothing compares, for who may not, what is there with what is
// not.
func TestRefusalsSayNothing(t *testing.T) {
	s := newOwnServer(t, nil)
	blob, manifest := s.image("secret/app")
	answer := func(method, target string) string {
		res := s.do("nobody", method, target, "")
		body, _ := io.ReadAll(res.Body)
		res.Header.Del("Date")
		return fmt.Sprint(res.StatusCode, res.Header, string(body))
	}
	missing := string(digest.FromString("missing"))
	for _, method := range []string{"GET", "HEAD", "DELETE"} {
		for _, pair := range [][2]string{
			{"/v2/secret/app/blobs/" + blob, "/v2/secret/app/blobs/" + missing},
			{"/v2/secret/app/manifests/" + manifest, "/v2/secret/none/manifests/" + missing},
			{"/v2/secret/app/manifests/v1", "/v2/secret/none/manifests/v1"},
		} {
			if there, not := answer(method, pair[0]), answer(method, pair[1]); there != not {
				t.Errorf("%s: what is there is answered with\n%s\nwhat is not with\n%s", method, there, not)
			}
		}
	}
	for _, pair := range [][2]string{
		{"/v2/secret/app/tags/list", "/v2/secret/none/tags/list"},
		{"/v2/secret/app/referrers/" + manifest, "/v2/secret/none/referrers/" + manifest},
	} {
		if there, not := answer("GET", pair[0]), answer("GET", pair[1]); there != not {
			t.Errorf("what is there is answered with\n%s\nwhat is not with\n%s", there, not)
		}
	}
}

func TestOtherRefusals(t *testing.T) {
	s := newOwnServer(t, nil)
	for _, tt := range []struct {
		fail   error
		status int
		header string
		value  string
	}{
		{&oci.Refusal{Cause: oci.ErrDenied, Challenges: []string{"Basic"}}, 403, "WWW-Authenticate", ""},
		{&oci.Refusal{Cause: &oci.Error{Code: oci.CodeTooManyRequests, RetryAfter: 1500 * time.Millisecond}}, 429, "Retry-After", "2"},
		{&oci.Refusal{Cause: oci.ErrUnavailable}, 503, "WWW-Authenticate", ""},
		{errors.New("a secret of the database"), 503, "WWW-Authenticate", ""},
		{&oci.Refusal{}, 503, "WWW-Authenticate", ""},
	} {
		s.gate.fail = tt.fail
		res := s.do("root", "GET", "/v2/a/tags/list", "")
		s.want(res, tt.status)
		if got := res.Header.Get(tt.header); got != tt.value {
			t.Errorf("%v: %s %q", tt.fail, tt.header, got)
		}
		if text, _ := io.ReadAll(res.Body); strings.Contains(string(text), "secret") {
			t.Errorf("it says %s", text)
		}
	}
}

func TestTheCatalogShowsWhatMayBePulled(t *testing.T) {
	s := newOwnServer(t, nil)
	var all []string
	for _, name := range []string{"a", "b/x", "b/y", "c", "d"} {
		s.image(name)
		all = append(all, name)
	}
	s.gate.rights["some"] = []string{"catalog", "pull a", "pull b/y", "pull d"}
	for user, want := range map[string][]string{"root": all, "some": {"a", "b/y", "d"}} {
		var got []string
		for next := "/v2/_catalog?n=1"; next != ""; {
			res := s.want(s.do(user, "GET", next, ""), 200)
			var page struct{ Repositories []string }
			if err := json.NewDecoder(res.Body).Decode(&page); err != nil || len(page.Repositories) != 1 {
				t.Fatalf("%+v, %v", page, err)
			}
			got = append(got, page.Repositories...)
			next, _, _ = strings.Cut(strings.TrimPrefix(res.Header.Get("Link"), "<"), ">")
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s sees %q, want %q", user, got, want)
		}
	}
	s.want(s.do("nobody", "GET", "/v2/_catalog", ""), 401)
}

func TestMountingNeedsPullAtTheSource(t *testing.T) {
	s := newOwnServer(t, nil)
	blob, _ := s.image("secret/app")
	s.gate.rights["some"] = []string{"push mine", "pull mine"}
	for _, from := range []string{"&from=secret/app", ""} {
		target := "/v2/mine/blobs/uploads/?mount=" + blob + from
		s.want(s.do("some", "POST", target, ""), 202)
		s.want(s.do("some", "HEAD", "/v2/mine/blobs/"+blob, ""), 404)
		s.want(s.do("root", "POST", target, ""), 201)
		s.want(s.do("some", "HEAD", "/v2/mine/blobs/"+blob, ""), 200)
		s.want(s.do("root", "DELETE", "/v2/mine/blobs/"+blob, ""), 202)
	}
	s.want(s.do("some", "POST", "/v2/secret/app/blobs/uploads/", ""), 401)
}

func TestOtherRegistriesAreAskedForByThemselves(t *testing.T) {
	var seen []string
	s := newOwnServer(t, func(cfg *ociserver.OwnConfig) {
		cfg.Names = []string{"registry.example"}
		cfg.Foreign = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			seen = append(seen, r.Method+" "+r.URL.String()+r.Header.Get("Authorization"))
			w.WriteHeader(http.StatusTeapot)
		})
	})
	s.image("a")
	s.gate.rights["some"] = []string{"pull f/docker.io/library/a", "pull a", "push f/docker.io/library/a"}
	s.want(s.do("some", "GET", "/v2/a/manifests/v1", ""), 200)
	res := s.want(s.do("some", "GET", "/v2/a/manifests/v1?ns=registry.example", ""), 200)
	if got := res.Header.Get("OCI-Namespace"); got != "registry.example" {
		t.Errorf("OCI-Namespace %q", got)
	}
	if len(seen) != 0 {
		t.Errorf("others are asked: %q", seen)
	}
	s.want(s.do("some", "GET", "/v2/a/manifests/v1?ns=docker.io", ""), http.StatusTeapot)
	s.want(s.do("some", "HEAD", "/v2/f/docker.io/a/manifests/v1", ""), http.StatusTeapot)
	if want := []string{"GET /v2/a/manifests/v1?ns=docker.io", "HEAD /v2/f/docker.io/a/manifests/v1"}; !slices.Equal(seen, want) {
		t.Errorf("asked for %q", seen)
	}
	s.want(s.do("some", "GET", "/v2/b/manifests/v1?ns=docker.io", ""), 401)
	s.want(s.do("some", "GET", "/v2/f/docker.io/b/manifests/v1", ""), 401)
	for _, push := range []string{"/v2/f/docker.io/a/blobs/uploads/", "/v2/a/blobs/uploads/?ns=docker.io"} {
		if res := s.do("root", "POST", push, ""); res.StatusCode < 400 || res.StatusCode >= 500 {
			t.Errorf("a push to %s: %d", push, res.StatusCode)
		}
	}
	if len(seen) != 2 {
		t.Errorf("asked for %q", seen)
	}
}

// raw opens a connection and sends the head of a request.
func (s *ownServer) raw(head string) net.Conn {
	s.t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { conn.Close() })
	if _, err := io.WriteString(conn, head); err != nil {
		s.t.Fatal(err)
	}
	return conn
}

// TestALargeManifestIsRefused is a client that sends everything before it reads
// what it is told.
func TestALargeManifestIsRefused(t *testing.T) {
	s := newOwnServer(t, nil)
	const size = 16 << 20
	conn := s.raw(fmt.Sprintf("PUT /v2/a/manifests/v1 HTTP/1.1\r\nHost: x\r\nAuthorization: root\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n", oci.MediaTypeManifest, size))
	if _, err := conn.Write(make([]byte, size)); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != 413 || res.Header.Get("X-Content-Type-Options") != "nosniff" || res.Header.Get("Content-Security-Policy") != "sandbox" {
		t.Errorf("%d %v", res.StatusCode, res.Header)
	}
}

// TestABodyThatBreaksOff is a client that is gone midway, one that stops sending,
// and one that sends rubbish: what arrived can be gone on with.
func TestABodyThatBreaksOff(t *testing.T) {
	s := newOwnServer(t, func(cfg *ociserver.OwnConfig) { cfg.StallTimeout = 2 * time.Second })
	size := func(location string) string {
		return s.want(s.do("root", "GET", location, ""), 204).Header.Get("Range")
	}
	for name, end := range map[string]func(net.Conn){
		"gone":    func(c net.Conn) { c.Close() },
		"half":    func(c net.Conn) { _ = c.(*net.TCPConn).CloseWrite() },
		"silent":  func(net.Conn) {},
		"rubbish": func(c net.Conn) { _, _ = io.WriteString(c, "rubbish\r\n\r\n") },
	} {
		t.Run(name, func(t *testing.T) {
			location := s.want(s.do("root", "POST", "/v2/a/blobs/uploads/", ""), 202).Header.Get("Location")
			head := "PATCH " + location + " HTTP/1.1\r\nHost: x\r\nAuthorization: root\r\n"
			if name == "rubbish" {
				head += "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
			} else {
				head += "Content-Length: 100\r\n\r\nhello"
			}
			conn := s.raw(head)
			end(conn)
			if name != "gone" {
				// It ends, and an honest client could still read why.
				res, err := http.ReadResponse(bufio.NewReader(conn), nil)
				if err != nil {
					t.Fatal(err)
				}
				if res.StatusCode != 400 {
					t.Errorf("status %d", res.StatusCode)
				}
				res.Body.Close()
			}
			// Until the request is over another is refused; then five bytes are there.
			for deadline := time.Now().Add(time.Minute); size(location) != "0-4"; {
				if time.Now().After(deadline) {
					t.Fatalf("the upload is at %s", size(location))
				}
			}
			// The broken request may hold the upload a moment longer than its bytes show.
			put := func() *http.Response {
				return s.do("root", "PUT", location+"?digest="+string(digest.FromString("hello")), "")
			}
			res := put()
			for deadline := time.Now().Add(time.Minute); res.StatusCode == 416 && time.Now().Before(deadline); {
				res = put()
			}
			s.want(res, 201)
		})
	}
}

// TestARefusalReachesWhoSendsFirst is a client that reads no answer before all of
// its body is sent.
func TestARefusalReachesWhoSendsFirst(t *testing.T) {
	s := newOwnServer(t, nil)
	const size = 8 << 20
	conn := s.raw(fmt.Sprintf("POST /v2/a/blobs/uploads/?digest=%s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", digest.FromString("x"), size))
	if _, err := conn.Write(make([]byte, size)); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != 401 {
		t.Errorf("status %d", res.StatusCode)
	}
}

// TestASlowBodyIsWaitedFor is one that sends little, but something.
func TestASlowBodyIsWaitedFor(t *testing.T) {
	s := newOwnServer(t, func(cfg *ociserver.OwnConfig) { cfg.StallTimeout = 2 * time.Second })
	content := strings.Repeat("x", 8)
	conn := s.raw("POST /v2/a/blobs/uploads/?digest=" + string(digest.FromString(content)) + " HTTP/1.1\r\nHost: x\r\nAuthorization: root\r\nContent-Length: 8\r\n\r\n")
	tick := time.NewTicker(400 * time.Millisecond) // longer than the timeout all together
	defer tick.Stop()
	for range content {
		<-tick.C
		if _, err := io.WriteString(conn, "x"); err != nil {
			t.Fatal(err)
		}
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != 201 {
		t.Errorf("status %d", res.StatusCode)
	}
}

func TestOwnNeedsItsParts(t *testing.T) {
	if _, err := ociserver.NewOwn(ociserver.OwnConfig{}); err == nil {
		t.Error("a handler of nothing was made")
	}
}
