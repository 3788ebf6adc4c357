package main

import (
	"bufio"
	"bytes"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// Bodies smaller and larger than any buffer are counted and left behind, so that
// the next answer on the connection is read from its start.
func TestLoadConn(t *testing.T) {
	for _, size := range []int{0, 1, 4 << 10, 5 << 20} {
		body := bytes.Repeat([]byte("x"), size)
		var seen atomic.Int64
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			seen.Add(1)
			w.Write(body)
		}))
		defer srv.Close()
		got, err := loadConn(t.Context(), srv.Listener.Addr().String(), http.MethodGet, "/", "", time.Now().Add(50*time.Millisecond), false)
		if size > 2<<10 {
			// The server chunks what it does not know the length of.
			if err == nil || !strings.Contains(err.Error(), "no Content-Length") {
				t.Errorf("%d bytes, chunked: %v", size, err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if got.Requests != seen.Load() || got.Bytes != got.Requests*int64(size) {
			t.Errorf("%d requests of %d bytes: %+v", seen.Load(), size, got)
		}
	}
}

func TestLoadConnLarge(t *testing.T) {
	body := bytes.Repeat([]byte("x"), 5<<20)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
	}))
	defer srv.Close()
	got, err := loadConn(t.Context(), srv.Listener.Addr().String(), http.MethodGet, "/", "", time.Now().Add(50*time.Millisecond), false)
	if err != nil {
		t.Fatal(err)
	}
	if got.Requests < 1 || got.Bytes != got.Requests*int64(len(body)) {
		t.Errorf("got %+v of %d bytes a request", got, len(body))
	}
	if got, err = loadConn(t.Context(), srv.Listener.Addr().String(), http.MethodGet, "/", "", time.Now().Add(time.Hour), true); err != nil || got.Requests != 1 {
		t.Errorf("once: %+v, %v", got, err)
	}
}

func TestReadHeadRefuses(t *testing.T) {
	for _, tc := range []struct{ name, head, want string }{
		{"status", "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "404"},
		{"no length", "HTTP/1.1 200 OK\r\n\r\n", "no Content-Length"},
		{"bad length", "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", "parse length"},
		{"cut", "HTTP/1.1 200 OK\r\nContent-Le", "EOF"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := readHead(bufio.NewReader(strings.NewReader(tc.head)))
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}
