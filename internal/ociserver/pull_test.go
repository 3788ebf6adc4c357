package ociserver_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/internal/oci"
)

var app = oci.Name{Registry: "ghcr.io", Repository: "org/app"}

func TestManifest(t *testing.T) {
	g := newRegistry()
	content := []byte(`{"schemaVersion":2,  "unknown": "kept as it is"}` + "\n")
	m := g.addManifest(app, "v1", oci.MediaTypeIndex, content)
	s := start(t, g, nil, nil)

	for _, target := range []string{
		"/v2/org/app/manifests/v1?ns=ghcr.io",
		"/v2/f/ghcr.io/org/app/manifests/v1",
		"/v2/f/ghcr.io/org/app/manifests/" + m.Digest.String(),
	} {
		for _, method := range []string{"GET", "HEAD"} {
			t.Run(method+" "+target, func(t *testing.T) {
				a := s.do(t, method, target, "Accept-Encoding", "zstd;q=1.0, gzip;q=0.8")
				namespace := ""
				if strings.Contains(target, "ns=") {
					namespace = "ghcr.io"
				}
				a.want(t, 200, "Content-Type", oci.MediaTypeIndex, "Docker-Content-Digest", m.Digest.String(),
					"Content-Length", strconv.Itoa(len(content)), "ETag", `"`+m.Digest.String()+`"`, "OCI-Namespace", namespace,
					"Content-Encoding", "", "Age", "", "Warning", "")
				if method == "GET" && !bytes.Equal(a.body, content) {
					t.Errorf("got %q", a.body)
				}
			})
		}
	}
	s.do(t, "GET", "/v2/org/app/manifests/v2?ns=ghcr.io").want(t, 404)
	s.do(t, "GET", "/v2/org/app/manifests/.INVALID_MANIFEST_NAME?ns=ghcr.io").want(t, 404)
	s.do(t, "GET", "/v2/org/app/manifests/v1?ns=GHCR.io").want(t, 200, "OCI-Namespace", "GHCR.io")
}

func TestBlob(t *testing.T) {
	g := newRegistry()
	content := pattern(3<<20 + 17)
	small := []byte("x")
	blobs := map[string]struct {
		digest  digest.Digest
		content []byte
	}{
		"file":         {g.addFile(t, content, -1), content},
		"small file":   {g.addFile(t, small, -1), small},
		"empty file":   {g.addFile(t, nil, -1), nil},
		"read":         {g.addMemory(content[1:], int64(len(content)-1), nil, false), content[1:]},
		"sends itself": {g.addMemory(content[2:], int64(len(content)-2), nil, true), content[2:]},
	}
	s := start(t, g, nil, nil)
	for name, blob := range blobs {
		t.Run(name, func(t *testing.T) {
			for _, method := range []string{"GET", "HEAD"} {
				a := s.do(t, method, "/v2/org/app/blobs/"+blob.digest.String()+"?ns=ghcr.io")
				a.want(t, 200, "Content-Type", "application/octet-stream", "Docker-Content-Digest", blob.digest.String(),
					"Content-Length", strconv.Itoa(len(blob.content)), "OCI-Namespace", "ghcr.io", "Accept-Ranges", "bytes")
				if len(a.TransferEncoding) > 0 {
					t.Errorf("transfer encoding %v", a.TransferEncoding)
				}
				if method == "GET" && !bytes.Equal(a.body, blob.content) {
					t.Errorf("%d bytes differ from the blob's", len(a.body))
				}
			}
		})
	}
	unknown := digest.FromString("nobody has this")
	for _, method := range []string{"GET", "HEAD"} {
		s.do(t, method, "/v2/org/app/blobs/"+unknown.String()).want(t, 404, "Docker-Content-Digest", "", "ETag", "")
	}
	s.do(t, "GET", "/v2/org/app/blobs/sha256:baddigeststring").want(t, 400)
}

func TestRange(t *testing.T) {
	g := newRegistry()
	content := pattern(100_000)
	m := g.addManifest(app, "v1", oci.MediaTypeManifest, content)
	targets := map[string]string{
		"file":         "/v2/f/ghcr.io/org/app/blobs/" + g.addFile(t, content, -1).String(),
		"read":         "/v2/f/ghcr.io/org/app/blobs/" + g.addMemory(content, 100_000, nil, false).String(),
		"sends itself": "/v2/f/ghcr.io/org/app/blobs/" + g.addMemory(content, 100_000, nil, true).String(),
		"manifest":     "/v2/f/ghcr.io/org/app/manifests/" + m.Digest.String(),
	}
	tag := `"` + m.Digest.String() + `"`
	tests := map[string]struct {
		header       string
		more         []string
		status       int
		contentRange string
		want         []byte
	}{
		"from zero":       {"bytes=0-", nil, 206, "bytes 0-99999/100000", content},
		"middle":          {"bytes=10-19", nil, 206, "bytes 10-19/100000", content[10:20]},
		"tail":            {"bytes=60000-", nil, 206, "bytes 60000-99999/100000", content[60000:]},
		"suffix":          {"bytes=-5", nil, 206, "bytes 99995-99999/100000", content[99995:]},
		"end cut":         {"bytes=99990-200000", nil, 206, "bytes 99990-99999/100000", content[99990:]},
		"past the end":    {"bytes=100000-", nil, 416, "bytes */100000", nil},
		"backwards":       {"bytes=500-0", nil, 416, "bytes */100000", nil},
		"several":         {"bytes=0-1,5-6", nil, 200, "", content},
		"other unit":      {"lines=0-1", nil, 200, "", content},
		"if-range same":   {"bytes=1-2", []string{"If-Range", tag}, 206, "bytes 1-2/100000", content[1:3]},
		"if-range other":  {"bytes=1-2", []string{"If-Range", `"sha256:00"`}, 200, "", content},
		"if-range weak":   {"bytes=1-2", []string{"If-Range", "W/" + tag}, 200, "", content},
		"if-range a date": {"bytes=1-2", []string{"If-Range", "Mon, 02 Jan 2006 15:04:05 GMT"}, 200, "", content},
	}
	s := start(t, g, nil, nil)
	for kind, target := range targets {
		for name, tt := range tests {
			t.Run(kind+"/"+name, func(t *testing.T) {
				a := s.do(t, "GET", target, append([]string{"Range", tt.header}, tt.more...)...)
				a.want(t, tt.status, "Content-Range", tt.contentRange)
				if tt.status == 416 {
					a.want(t, 416, "Content-Type", "application/json", "ETag", "")
					return
				}
				a.want(t, tt.status, "Content-Length", strconv.Itoa(len(tt.want)))
				if a.err != nil || !bytes.Equal(a.body, tt.want) {
					t.Errorf("%d bytes, want %d; %v", len(a.body), len(tt.want), a.err)
				}
			})
		}
		t.Run(kind+"/HEAD has no range", func(t *testing.T) {
			s.do(t, "HEAD", target, "Range", "bytes=10-19").want(t, 200, "Content-Length", "100000", "Content-Range", "")
		})
	}
}

func TestRangeIsToldToTheReader(t *testing.T) {
	g := newRegistry()
	dgst := g.addFile(t, pattern(1000), -1)
	var asked []*oci.Span
	g.touch = func(ctx context.Context) { asked = append(asked, oci.AccessOf(ctx).Range) }
	s := start(t, g, nil, nil)
	for _, header := range []string{"", "bytes=10-19", "bytes=10-", "bytes=-7"} {
		s.do(t, "GET", "/v2/f/a.b/c/blobs/"+dgst.String(), "Range", header)
	}
	want := []*oci.Span{nil, {Start: 10, End: 20}, {Start: 10, End: -1}, {Start: -7, End: -1}}
	for i := range want {
		if got := asked[i]; (got == nil) != (want[i] == nil) || got != nil && *got != *want[i] {
			t.Errorf("request %d: got %v, want %v", i, got, want[i])
		}
	}
}

func TestNotModifiedOnlyWhenAsked(t *testing.T) {
	g := newRegistry()
	m := g.addManifest(app, "v1", oci.MediaTypeManifest, []byte("{}"))
	dgst := g.addFile(t, []byte("content"), -1)
	s := start(t, g, nil, nil)
	for target, tag := range map[string]string{
		"/v2/f/ghcr.io/org/app/manifests/v1":                    `"` + m.Digest.String() + `"`,
		"/v2/f/ghcr.io/org/app/blobs/" + dgst.String():          `"` + dgst.String() + `"`,
		"/v2/f/ghcr.io/org/app/blobs/" + dgst.String() + "?x=1": `"` + dgst.String() + `"`,
	} {
		for _, method := range []string{"GET", "HEAD"} {
			for _, condition := range []string{tag, "W/" + tag, `"other", ` + tag, "*"} {
				a := s.do(t, method, target, "If-None-Match", condition)
				a.want(t, 304, "ETag", tag, "Content-Length", "")
				if len(a.body) > 0 {
					t.Errorf("body %q", a.body)
				}
			}
			s.do(t, method, target, "If-None-Match", `"other"`).want(t, 200)
			s.do(t, method, target, "If-Modified-Since", "Mon, 02 Jan 2106 15:04:05 GMT").want(t, 200)
		}
	}
}

// TestBrokenBody: whatever ends a body early, the client must see it.
func TestBrokenBody(t *testing.T) {
	boom := errors.New("upstream cut the connection")
	tests := map[string]func(*registry) digest.Digest{
		"read fails":         func(g *registry) digest.Digest { return g.addMemory(pattern(200_000), 300_000, boom, false) },
		"send fails":         func(g *registry) digest.Digest { return g.addMemory(pattern(200_000), 300_000, boom, true) },
		"read ends early":    func(g *registry) digest.Digest { return g.addMemory(pattern(200_000), 300_000, nil, false) },
		"file is short":      func(g *registry) digest.Digest { return g.addFile(t, pattern(200_000), 300_000) },
		"file is much short": func(g *registry) digest.Digest { return g.addFile(t, pattern(3<<20), 9<<20) },
	}
	for name, add := range tests {
		t.Run(name, func(t *testing.T) {
			g := newRegistry()
			dgst := add(g)
			s := start(t, g, nil, nil)
			a := s.do(t, "GET", "/v2/f/a.b/c/blobs/"+dgst.String())
			a.want(t, 200)
			if !errors.Is(a.err, io.ErrUnexpectedEOF) {
				t.Errorf("client read %d bytes and then: %v; want io.ErrUnexpectedEOF", len(a.body), a.err)
			}
			e := s.line(t)
			if e.Level.String() != "warning" || e.Data["error"] == nil || e.Data["left"] != nil {
				t.Errorf("logged %s %v", e.Level, e.Data)
			}
		})
	}
}

// TestFailureBeforeTheFirstByte: as long as nothing was sent, the status is
// honest and the connection lives on.
func TestFailureBeforeTheFirstByte(t *testing.T) {
	for name, sends := range map[string]bool{"read": false, "sends itself": true} {
		t.Run(name, func(t *testing.T) {
			g := newRegistry()
			dgst := g.addMemory(nil, 300_000, oci.ErrUnavailable, sends)
			s := start(t, g, nil, nil)
			for _, header := range []string{"", "bytes=0-99"} {
				a := s.do(t, "GET", "/v2/f/a.b/c/blobs/"+dgst.String(), "Range", header)
				a.want(t, 503, "Content-Type", "application/json", "Docker-Content-Digest", "", "Content-Range", "", "ETag", "", "Accept-Ranges", "")
				if a.err != nil || !json.Valid(a.body) {
					t.Errorf("body %q, %v", a.body, a.err)
				}
			}
		})
	}
}

func TestStaleIsSaid(t *testing.T) {
	g := newRegistry()
	g.addManifest(app, "v1", oci.MediaTypeManifest, []byte("{}"))
	g.touch = func(ctx context.Context) {
		a := oci.AccessOf(ctx)
		a.Outcome, a.Age, a.Reason = oci.OutcomeStale, 90*time.Second+time.Millisecond, "timeout"
	}
	s := start(t, g, nil, nil)
	s.do(t, "HEAD", "/v2/f/ghcr.io/org/app/manifests/v1").want(t, 200, "Age", "90", "Warning", `110 larder "response is stale"`)
}

func TestReferrers(t *testing.T) {
	g := newRegistry()
	subject := digest.FromString("subject")
	g.referrers[subject] = oci.Manifest{Bytes: []byte(`{"manifests":["all"]}`)}
	s := start(t, g, nil, nil)

	a := s.do(t, "GET", "/v2/f/ghcr.io/org/app/referrers/"+subject.String())
	a.want(t, 200, "Content-Type", oci.MediaTypeIndex, "OCI-Filters-Applied", "", "Content-Length", "21")
	if string(a.body) != `{"manifests":["all"]}` {
		t.Errorf("got %s", a.body)
	}
	a = s.do(t, "GET", "/v2/f/ghcr.io/org/app/referrers/"+subject.String()+"?artifactType=x/y")
	a.want(t, 200, "Content-Type", oci.MediaTypeIndex, "OCI-Filters-Applied", "artifactType")
	if string(a.body) != `{"manifests":["x/y"]}` {
		t.Errorf("got %s", a.body)
	}
	s.do(t, "GET", "/v2/f/ghcr.io/org/app/referrers/latest").want(t, 400, "OCI-Filters-Applied", "")
}

func TestManifestWithoutTypeIsRefused(t *testing.T) {
	g := newRegistry()
	g.addManifest(app, "v1", "", []byte("{}"))
	s := start(t, g, nil, nil)
	s.do(t, "GET", "/v2/f/ghcr.io/org/app/manifests/v1").want(t, 502)
}

func TestPing(t *testing.T) {
	s := start(t, newRegistry(), nil, nil)
	for _, target := range []string{"/v2/", "/v2", "/v2/?ns=docker.io"} {
		a := s.do(t, "GET", target)
		a.want(t, 200, "Docker-Distribution-Api-Version", "registry/2.0", "Content-Type", "application/json", "Content-Length", "2")
		if string(a.body) != "{}" {
			t.Errorf("%s: %q", target, a.body)
		}
	}
}

// TestKeepAlive: one connection does for every kind of answer that is not
// broken off.
func TestKeepAlive(t *testing.T) {
	g := newRegistry()
	dgst := g.addFile(t, pattern(1<<20), -1)
	g.addManifest(app, "v1", oci.MediaTypeManifest, []byte("{}"))
	s := start(t, g, nil, nil)
	// One connection at a time: a request waits for the last one's rather than
	// open another when net/http is late to notice that it is free.
	client := &http.Client{Transport: &http.Transport{DisableCompression: true, MaxConnsPerHost: 1}, Timeout: patience}
	defer client.CloseIdleConnections()
	for i, r := range [][]string{
		{"GET", "/v2/"},
		{"HEAD", "/v2/f/ghcr.io/org/app/manifests/v1"},
		{"GET", "/v2/f/ghcr.io/org/app/blobs/" + dgst.String()},
		{"GET", "/v2/f/ghcr.io/org/app/blobs/" + dgst.String(), "Range", "bytes=7-"},
		{"GET", "/v2/f/ghcr.io/org/app/blobs/" + dgst.String(), "Range", "bytes=1048576-"},
		{"HEAD", "/v2/f/ghcr.io/org/app/blobs/" + dgst.String()},
		{"GET", "/v2/f/ghcr.io/org/app/manifests/v2"},
		{"GET", "/v2/f/ghcr.io/org/app/manifests/v1", "If-None-Match", "*"},
		{"DELETE", "/v2/f/ghcr.io/org/app/manifests/v1"},
		{"GET", "/v2/A/manifests/v1"},
		{"GET", "/elsewhere"},
		{"GET", "/healthz"},
		{"GET", "/v2/"},
	} {
		var reused bool
		req, err := http.NewRequestWithContext(httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
			GotConn: func(info httptrace.GotConnInfo) { reused = info.Reused },
		}), r[0], s.url+r[1], nil)
		if err != nil {
			t.Fatal(err)
		}
		if len(r) > 2 {
			req.Header.Set(r[2], r[3])
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if reused != (i > 0) {
			t.Errorf("%d %v: connection reused: %v", i, r, reused)
		}
	}
}
