package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// loaded is what the load process reports.
type loaded struct {
	Requests, Bytes int64
	Took            time.Duration
}

// loadMain asks for one URL over and over on several connections, and does as
// little as it can with what comes: bodies are dropped in the kernel, so that
// the server is what is measured.
func loadMain(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("bench load", flag.ContinueOnError)
	addr := flags.String("addr", "", "host:port")
	method := flags.String("method", "GET", "GET or HEAD")
	path := flags.String("path", "", "path and query")
	conns := flags.Int("conns", 16, "connections")
	during := flags.Duration("for", 2*time.Second, "how long to begin new requests")
	user := flags.String("user", "", "log in with every request, as this user")
	secret := flags.String("secret", "", "the user's password")
	once := flags.Bool("once", false, "one request on each connection")
	if err := flags.Parse(args); err != nil {
		return flag.ErrHelp
	}
	more := ""
	if *user != "" {
		more = "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(*user+":"+*secret)) + "\r\n"
	}
	var wg sync.WaitGroup
	results := make([]loaded, *conns)
	errs := make([]error, *conns)
	start := time.Now()
	until := start.Add(*during)
	for i := range *conns {
		wg.Go(func() {
			results[i], errs[i] = loadConn(ctx, *addr, *method, *path, more, until, *once)
		})
	}
	wg.Wait()
	sum := loaded{Took: time.Since(start)}
	for _, r := range results {
		sum.Requests += r.Requests
		sum.Bytes += r.Bytes
	}
	for _, err := range errs {
		if err != nil {
			return err // the others' say the same
		}
	}
	return json.NewEncoder(os.Stdout).Encode(sum)
}

// loadConn makes requests on one connection, one after the other; more are
// lines of their header.
func loadConn(ctx context.Context, addr, method, path, more string, until time.Time, once bool) (loaded, error) {
	var sum loaded
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return sum, err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		return sum, err
	}
	// Only a small answer fits into the reader; the rest of a large one never
	// gets there.
	r := bufio.NewReaderSize(c, 4<<10)
	request := []byte(method + " " + path + " HTTP/1.1\r\nHost: " + addr + "\r\nAccept: application/vnd.oci.image.manifest.v1+json, */*\r\n" + more + "\r\n")
	for first := true; first || (!once && time.Now().Before(until)); first = false {
		if _, err := c.Write(request); err != nil {
			return sum, err
		}
		length, err := readHead(r)
		if err != nil {
			return sum, err
		}
		if method == http.MethodHead {
			length = 0
		}
		n, err := r.Discard(int(min(length, int64(r.Buffered()))))
		if err != nil {
			return sum, err
		}
		if err := drop(raw, length-int64(n)); err != nil {
			return sum, err
		}
		sum.Requests++
		sum.Bytes += length
	}
	return sum, nil
}

// readHead reads the head of an answer and returns its Content-Length.
func readHead(r *bufio.Reader) (int64, error) {
	length := int64(-1)
	for n := 0; ; n++ {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return 0, err
		}
		if n == 0 && !bytes.HasPrefix(line, []byte("HTTP/1.1 20")) {
			return 0, fmt.Errorf("answer is %q", bytes.TrimSpace(line))
		}
		line = bytes.TrimSpace(line)
		if len(line) == 0 {
			break
		}
		if key, value, ok := bytes.Cut(line, []byte(": ")); ok && bytes.EqualFold(key, []byte("Content-Length")) {
			if length, err = strconv.ParseInt(string(value), 10, 64); err != nil {
				return 0, fmt.Errorf("parse length: %w", err)
			}
		}
	}
	if length < 0 {
		return 0, errors.New("answer has no Content-Length")
	}
	return length, nil
}

// drop discards n bytes without copying them out of the kernel: MSG_TRUNC of
// tcp(7).
func drop(raw syscall.RawConn, n int64) error {
	var recvErr error
	buf := make([]byte, min(n, 1<<20))
	err := raw.Read(func(fd uintptr) bool {
		for n > 0 {
			got, _, err := unix.Recvfrom(int(fd), buf[:min(n, int64(len(buf)))], unix.MSG_TRUNC)
			switch {
			case err == unix.EAGAIN:
				return false
			case err == unix.EINTR:
				continue
			case err != nil:
				recvErr = err
				return true
			case got == 0:
				recvErr = io.ErrUnexpectedEOF
				return true
			}
			n -= int64(got)
		}
		return true
	})
	return errors.Join(err, recvErr)
}

// load puts load on addr in a process of its own.
func (b *bench) load(ctx context.Context, addr, path string, conns int, more ...string) (loaded, error) {
	var l loaded
	args := append([]string{"load", "-addr", addr, "-path", path, "-conns", strconv.Itoa(conns)}, more...)
	if err := b.self(ctx, &l, args...); err != nil {
		return l, fmt.Errorf("load http://%s%s: %w", addr, path, err)
	}
	return l, nil
}
