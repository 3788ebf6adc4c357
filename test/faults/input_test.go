package faults

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/larder-registry/larder/test/registry"
)

// raw connects to the mirror without a client that would mend what it sends.
func (l *larder) raw(t *testing.T) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(l.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(2 * patience)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// send writes a request as it stands and returns the answer's status; 0 when
// the connection was closed without one.
func (l *larder) send(t *testing.T, request string) int {
	t.Helper()
	conn := l.raw(t)
	// A server that refuses midway closes, and the rest cannot be written.
	_, _ = io.WriteString(conn, request)
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: strings.Fields(request)[0]})
	if err != nil {
		return 0
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	return resp.StatusCode
}

// TestBadInput sends what no client should. Each is refused with a status that
// says so, none reaches the upstream, and the mirror lives on.
func TestBadInput(t *testing.T) {
	t.Parallel()
	up := newUpstream(t, registry.Options{})
	// A registry on this node that nobody configured: it must not be contacted
	// in any spelling.
	other := newUpstream(t, registry.Options{})
	_, port, err := net.SplitHostPort(other.Host())
	if err != nil {
		t.Fatal(err)
	}
	l := startLarder(t, settings{servers: []*registry.Server{up.Server}})
	ns := "ns=" + url.QueryEscape(up.Host())
	good := up.image.Layers[0].Digest
	long := strings.Repeat("a", 300)
	paths := map[string]string{
		"dots in the name":         "/v2/../../etc/passwd/manifests/v1?" + ns,
		"dots inside the name":     "/v2/team/../app/manifests/v1?" + ns,
		"escaped dots":             "/v2/%2e%2e/%2e%2e/manifests/v1?" + ns,
		"escaped slashes":          "/v2/team%2f..%2fapp/manifests/v1?" + ns,
		"backslashes":              "/v2/..%5c..%5capp/manifests/v1?" + ns,
		"NUL in the name":          "/v2/team/a%00pp/manifests/v1?" + ns,
		"newline in the name":      "/v2/team/a%0d%0app/manifests/v1?" + ns,
		"upper case name":          "/v2/Team/App/manifests/v1?" + ns,
		"empty component":          "/v2/team//app/manifests/v1?" + ns,
		"name of 300 bytes":        "/v2/" + long + "/manifests/v1?" + ns,
		"tag of 300 bytes":         "/v2/team/app/manifests/" + long + "?" + ns,
		"tag that starts with dot": "/v2/team/app/manifests/.v1?" + ns,
		"dots as a tag":            "/v2/team/app/manifests/..?" + ns,
		"short digest":             "/v2/team/app/blobs/sha256:abc?" + ns,
		"digest in upper case":     "/v2/team/app/blobs/" + strings.ToUpper(good.String()) + "?" + ns,
		"digest with dots":         "/v2/team/app/blobs/sha256:../../../../etc/passwd?" + ns,
		"digest escaped":           "/v2/team/app/blobs/sha256:..%2f..%2fLOCK?" + ns,
		"unknown algorithm":        "/v2/team/app/blobs/md5:d41d8cd98f00b204e9800998ecf8427e?" + ns,
		"tag where a digest goes":  "/v2/team/app/blobs/v1?" + ns,
		"no kind":                  "/v2/team/app?" + ns,
		"unknown kind":             "/v2/team/app/secrets/v1?" + ns,
		"not the API":              "/etc/passwd",
	}
	for name, ns := range map[string]string{
		"userinfo": "user:" + password + "@" + up.Host(), "scheme": "http://" + up.Host(), "path": up.Host() + "/v2",
		"query": up.Host() + "?x=y", "fragment": up.Host() + "#x", "space": up.Host() + " ", "newline": up.Host() + "\r\nX: y",
		"dots": "..", "bad port": "127.0.0.1:99999", "no host": ":5000",
		"link-local": "169.254.169.254", "link-local with port": "169.254.169.254:80", "IPv6 link-local": "[fe80::1]:80",
		"mapped link-local": "[::ffff:169.254.169.254]", "unspecified": "0.0.0.0:" + port, "IPv6 unspecified": "[::]:" + port,
		"loopback": "127.0.0.1:" + port, "loopback's other end": "127.8.8.8:" + port, "IPv6 loopback": "[::1]:" + port,
		"mapped loopback": "[::ffff:127.0.0.1]:" + port, "localhost": "localhost:" + port, "localhost with dot": "localhost.:" + port,
	} {
		paths["ns: "+name] = "/v2/team/app/manifests/v1?ns=" + url.QueryEscape(ns)
		paths["ns of a blob: "+name] = "/v2/team/app/blobs/" + good.String() + "?ns=" + url.QueryEscape(ns)
	}
	paths["path form: loopback"] = "/v2/f/127.0.0.1:" + port + "/team/app/manifests/v1"
	paths["path form: link-local"] = "/v2/f/169.254.169.254/team/app/manifests/v1"
	for name, path := range paths {
		t.Run(name, func(t *testing.T) {
			status := l.send(t, "GET "+path+" HTTP/1.1\r\nHost: mirror\r\nConnection: close\r\n\r\n")
			if !slices.Contains([]int{400, 403, 404}, status) {
				t.Errorf("GET %s: status %d, want 400, 403 or 404", path, status)
			}
		})
	}
	for name, tt := range map[string]struct {
		request string
		status  []int
	}{
		"huge header":   {"GET /v2/ HTTP/1.1\r\nHost: m\r\nX: " + strings.Repeat("a", 4*mib) + "\r\n\r\n", []int{431, 0}},
		"many headers":  {"GET /v2/ HTTP/1.1\r\nHost: m\r\n" + strings.Repeat("X: y\r\n", 500_000) + "\r\n", []int{431, 0}},
		"huge path":     {"GET /v2/" + strings.Repeat("a/", 2*mib) + " HTTP/1.1\r\nHost: m\r\n\r\n", []int{431, 414, 400, 404, 0}},
		"no HTTP":       {"GARBAGE\r\n\r\n", []int{400, 0}},
		"CONNECT":       {"CONNECT " + other.Host() + " HTTP/1.1\r\nHost: m\r\n\r\n", []int{400, 404, 405}},
		"absolute form": {"GET http://" + other.Host() + "/v2/ HTTP/1.1\r\nHost: m\r\nConnection: close\r\n\r\n", []int{200, 400, 404}},
		"POST upload":   {"POST /v2/team/app/blobs/uploads/?" + ns + " HTTP/1.1\r\nHost: m\r\nContent-Length: 0\r\n\r\n", []int{400, 404, 405}},
		"PUT manifest":  {"PUT /v2/team/app/manifests/v1?" + ns + " HTTP/1.1\r\nHost: m\r\nContent-Length: 2\r\n\r\n{}", []int{404, 405}},
		"DELETE blob":   {"DELETE /v2/team/app/blobs/" + good.String() + "?" + ns + " HTTP/1.1\r\nHost: m\r\n\r\n", []int{404, 405}},
		"smuggling": {
			"GET /v2/ HTTP/1.1\r\nHost: m\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
			[]int{200, 400, 501},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if status := l.send(t, tt.request); !slices.Contains(tt.status, status) {
				t.Errorf("status %d, want one of %v", status, tt.status)
			}
		})
	}
	if all := up.Requests(); len(all) > 0 {
		t.Errorf("the upstream was asked:%s", list(all))
	}
	if st := other.Stats(); st.Accepted > 0 {
		t.Errorf("%d connections to a service of this node", st.Accepted)
	}
	l.mustGet(t, right, tagAsk(up))
}

// TestBadRanges asks for parts that are not, of a blob that is held and of one
// that is not.
func TestBadRanges(t *testing.T) {
	t.Parallel()
	for _, cold := range []bool{true, false} {
		up := newUpstream(t, registry.Options{})
		l := startLarder(t, settings{servers: []*registry.Server{up.Server}})
		if !cold {
			l.mustGet(t, right, blobAsk(up))
		}
		all := blobAsk(up).blob.Bytes()
		for _, tt := range []struct {
			header string
			status []int
		}{
			{"bytes=5-4", []int{200, 416}},
			{"bytes=-0", []int{416}},
			{"bytes=-", []int{200, 416}},
			{"bytes=x-y", []int{200, 416}},
			{"bytes=99999999999999999999-", []int{200, 416}},
			{fmt.Sprintf("bytes=%d-", len(all)), []int{416}},
			{"bytes=-99999999", []int{200, 206}},
			{"items=0-5", []int{200, 416}},
			{"0-5", []int{200, 416}},
			{"bytes", []int{200, 416}},
			{"bytes=--5", []int{200, 416}},
			{"bytes=0-0,2-2," + strings.Repeat("4-4,", 2000) + "6-6", []int{200, 206, 416, 431}},
		} {
			conn := l.raw(t)
			if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: m\r\nRange: %s\r\nConnection: close\r\n\r\n", blobAsk(up).path(), tt.header); err != nil {
				t.Fatal(err)
			}
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Errorf("Range %.30s: %v", tt.header, err)
				continue
			}
			body, err := io.ReadAll(resp.Body)
			if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("Range %.30s: %v", tt.header, err)
			}
			if !slices.Contains(tt.status, resp.StatusCode) {
				t.Errorf("Range %.30s (cold: %v): status %d, want one of %v", tt.header, cold, resp.StatusCode, tt.status)
			}
			if resp.StatusCode == http.StatusOK && string(body) != string(all) {
				t.Errorf("Range %.30s: 200 with %d bytes that are not the blob", tt.header, len(body))
			}
		}
		l.mustGet(t, right, blobAsk(up))
	}
}

// TestRangeOfAManifest is what containerd's parallel mode sends for every GET.
func TestRangeOfAManifest(t *testing.T) {
	t.Parallel()
	up := newUpstream(t, registry.Options{})
	l := startLarder(t, settings{servers: []*registry.Server{up.Server}})
	for _, a := range []ask{tagAsk(up), digestAsk(up)} {
		conn := l.raw(t)
		if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: m\r\nRange: bytes=0-\r\nConnection: close\r\n\r\n", a.path()); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != 200 && resp.StatusCode != 206 || string(body) != string(a.blob.Bytes()) {
			t.Errorf("%s, %d bytes, %v", resp.Status, len(body), err)
		}
	}
}
