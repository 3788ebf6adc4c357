package ociserver_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/internal/oci"
	"github.com/larder-registry/larder/internal/ociserver"
)

// narrowListener's connections hold little that their clients do not take.
type narrowListener struct{ net.Listener }

func (l narrowListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err == nil {
		err = conn.(*net.TCPConn).SetWriteBuffer(64 << 10) //nolint:errcheck // a TCP listener's
	}
	return conn, err
}

// TestClientsOnThisHost: they are sent content through memory, a few at a time;
// everybody else gets it by sendfile, and all of them the same bytes.
func TestClientsOnThisHost(t *testing.T) {
	content := pattern(5<<20 + 100_000)
	dgst := digest.FromBytes(content)
	log := &watchLog{}
	var server *httptest.Server
	newOwnServer(t, func(cfg *ociserver.OwnConfig) {
		h, err := ociserver.NewOwn(*cfg)
		if err != nil {
			t.Fatal(err)
		}
		server = httptest.NewUnstartedServer(h)
		server.Config = ociserver.NewServer(h, cfg.Log)
		server.Listener = watchedListener{narrowListener{server.Listener}, log}
		server.Start()
		t.Cleanup(server.Close)
		if _, err := cfg.Uploader.Push(t.Context(), oci.Name{Repository: "a"}, bytes.NewReader(content), dgst); err != nil {
			t.Fatal(err)
		}
	})
	// open begins a pull from an address of this host.
	open := func(t *testing.T, from, asked string) (*http.Response, func()) {
		t.Helper()
		dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
		transport := &http.Transport{DialContext: dialer.DialContext, ReadBufferSize: 1 << 10}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+"/v2/a/blobs/"+string(dgst), nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "root")
		if asked != "" {
			req.Header.Set("Range", asked)
		}
		res, err := (&http.Client{Transport: transport}).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		return res, func() { res.Body.Close(); transport.CloseIdleConnections() }
	}
	pull := func(t *testing.T, from, asked string, want []byte) {
		t.Helper()
		res, done := open(t, from, asked)
		defer done()
		if got, err := io.ReadAll(res.Body); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d bytes, want %d; %v", len(got), len(want), err)
		}
	}
	sent := func() (bySendfile, throughMemory int64) {
		log.mu.Lock()
		defer log.mu.Unlock()
		return log.sent, log.written
	}
	for _, tc := range []struct {
		name, from, asked string
		want              []byte
		near              bool
	}{
		{"the address it came to", "127.0.0.1", "", content, true},
		{"a range", "127.0.0.1", "bytes=1000-2098151", content[1000:2098152], true},
		{"too little", "127.0.0.1", "bytes=-4000", content[len(content)-4000:], false},
		{"another address", "127.0.0.2", "", content, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			sentBefore, writtenBefore := sent()
			pull(t, tc.from, tc.asked, tc.want)
			after, written := sent()
			// The client may have it all before the server has counted it.
			for deadline := time.Now().Add(time.Minute); after-sentBefore+written-writtenBefore < int64(len(tc.want)) && time.Now().Before(deadline); {
				after, written = sent()
			}
			if near := after == sentBefore; near != tc.near {
				t.Errorf("%d bytes by sendfile, %d through memory", after-sentBefore, written-writtenBefore)
			}
		})
	}
	t.Run("more than there are turns", func(t *testing.T) {
		// They take nothing of what they are sent, and so keep their turns.
		var held []func()
		defer func() {
			for _, done := range held {
				done()
			}
		}()
		deadline := time.After(patience)
		log.mu.Lock()
		begun := make(chan struct{}, 100)
		log.begun = begun
		log.mu.Unlock()
		for range 20 {
			_, done := open(t, "127.0.0.1", "")
			held = append(held, done)
		}
		select {
		case <-begun:
		case <-deadline:
			t.Fatal("nobody is sent anything by sendfile")
		}
		var pulling sync.WaitGroup
		for n := range 4 {
			pulling.Go(func() {
				asked := fmt.Sprintf("bytes=%d-", n)
				pull(t, "127.0.0.1", asked, content[n:])
			})
		}
		pulling.Wait()
	})
}
