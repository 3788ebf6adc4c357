package faults

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"go.uber.org/goleak"

	"github.com/larder-registry/larder/test/registry"
)

var long = flag.Bool("long", false, "add the slow rows to the tables")

// binary is the larder that is tested; TestMain sets it once.
var binary string

// patience bounds what should happen at once, on a machine that is busy.
const patience = 30 * time.Second

func TestMain(m *testing.M) {
	flag.Parse()
	// Most of the tests wait for timeouts rather than compute.
	if err := flag.Set("test.parallel", "8"); err != nil {
		panic(err)
	}
	dir, err := os.MkdirTemp("", "larder-faults-")
	if err != nil {
		panic(err)
	}
	binary = filepath.Join(dir, "larder")
	args := append([]string{"build", "-buildvcs=false"}, buildFlags...)
	build := exec.Command("go", append(args, "-o", binary, "github.com/larder-registry/larder/cmd/larder")...)
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	code := 1
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "build larder:", err)
	} else if code = m.Run(); code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// larder is one mirror process and the directory it works in. It can be
// stopped or killed and started again on the same directory and port.
type larder struct {
	t     *testing.T
	url   string
	admin string // the admin port's URL
	dir   string // the data directory
	args  []string

	cmd    *exec.Cmd
	log    *logbook
	exited chan struct{} // closed when cmd has ended; nil while there is none
}

// settings are what a test's mirror needs to know.
type settings struct {
	// maxSize is the setting max_size; "90%" when empty.
	maxSize string
	// extra are lines below registry_proxies.
	extra []string
	// servers get an entry each.
	servers []*registry.Server
	// distrust leaves out the CA of servers with TLS.
	distrust bool
	// impatient leaves revalidate_timeout at its default. Else a tag's answer
	// waits long enough for the upstream's word on a machine that is busy.
	impatient bool
	// prefetch leaves prefetch_wait at its default. Else the upstream sees just
	// what clients ask for.
	prefetch bool
	// entry are lines added to each server's entry.
	entry []string
	// dir is the data directory; one of the test's own when empty.
	dir string
}

// newLarder writes the configuration; start starts the process. It is stopped
// when the test ends.
func newLarder(t *testing.T, s settings) *larder {
	t.Helper()
	home := t.TempDir()
	var conf strings.Builder
	if s.maxSize == "" {
		s.maxSize = "90%"
	}
	conf.WriteString("registry_proxies:\n  max_size: " + s.maxSize + "\n  min_free: 0%\n")
	if !s.prefetch {
		s.extra = append(s.extra, "prefetch_wait: 0s")
	}
	if !s.impatient {
		s.extra = append(s.extra, "revalidate_timeout: 20s")
	}
	for _, line := range s.extra {
		conf.WriteString("  " + line + "\n")
	}
	if len(s.servers) > 0 {
		conf.WriteString("  registries:\n")
	}
	for i, srv := range s.servers {
		fmt.Fprintf(&conf, "    - host: %q\n", srv.Host())
		switch pem := srv.CAPEM(); {
		case pem == nil:
			conf.WriteString("      insecure: true\n")
		case !s.distrust:
			ca := filepath.Join(home, fmt.Sprintf("ca%d.pem", i))
			if err := os.WriteFile(ca, pem, 0o600); err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&conf, "      ca_file: %s\n", ca)
		}
		for _, line := range s.entry {
			conf.WriteString("      " + line + "\n")
		}
	}
	file := filepath.Join(home, "larder.yaml")
	if err := os.WriteFile(file, []byte(conf.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if s.dir == "" {
		s.dir = filepath.Join(home, "data")
	}
	listen, admin := ownAddress(), ownAddress()
	l := &larder{t: t, url: "http://" + listen, admin: "http://" + admin, dir: s.dir, log: &logbook{}, args: []string{
		"mirror", "--config", file, "--listen", listen, "--admin-listen", admin,
		"--data-dir", s.dir, "--drain-timeout", "3s", "--log-level", "debug", "--log-format", "json",
	}}
	t.Cleanup(func() {
		if l.exited != nil {
			l.stop()
		}
		if t.Failed() {
			t.Logf("last of the mirror's log:\n%s", l.log.tail())
		}
	})
	return l
}

// startLarder is newLarder and start.
func startLarder(t *testing.T, s settings) *larder {
	t.Helper()
	l := newLarder(t, s)
	l.start()
	return l
}

// started counts the addresses handed out.
var started atomic.Uint32

// ownAddress is an address of loopback that no other mirror and no other run of
// these tests uses: ports found free on 127.0.0.1 may be taken a moment later.
func ownAddress() string {
	n := started.Add(1) - 1
	return fmt.Sprintf("%s:%d", ownHost(n), 8000+n/250)
}

// ownHost is the host of the nth address.
func ownHost(n uint32) string {
	pid := os.Getpid()
	return fmt.Sprintf("127.%d.%d.%d", 64+pid>>8&63, pid&255, 1+n%250)
}

// start runs the mirror until it says that it is ready.
func (l *larder) start() {
	l.t.Helper()
	l.startWith(exec.Command(binary, l.args...))
}

func (l *larder) startWith(cmd *exec.Cmd) {
	l.t.Helper()
	cmd.Stdout, cmd.Stderr = l.log, l.log
	// A proxy of the machine's is none of the test's business, and the mirror
	// must not outlive a test that was killed.
	for _, v := range os.Environ() {
		if !strings.Contains(strings.ToLower(v), "_proxy=") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	if err := cmd.Start(); err != nil {
		l.t.Fatalf("start larder: %v", err)
	}
	exited := make(chan struct{})
	l.cmd, l.exited = cmd, exited
	go func() {
		// How it ended is in ProcessState.
		_ = cmd.Wait()
		close(exited)
	}()
	l.awaitReady()
}

func (l *larder) awaitReady() {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	tr := &http.Transport{DisableKeepAlives: true}
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, l.url+"/readyz", nil)
		if err != nil {
			l.t.Fatal(err)
		}
		if resp, err := tr.RoundTrip(req); err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return
			}
		}
		select {
		case <-tick.C:
		case <-l.exited:
			l.t.Fatalf("larder ended at once: %v\n%s", l.cmd.ProcessState, l.log.tail())
		case <-ctx.Done():
			l.t.Fatalf("larder is not ready after %v\n%s", patience, l.log.tail())
		}
	}
}

// stop ends the mirror the way an orchestrator does, and checks that it ended
// well and left a clean disk.
func (l *larder) stop() {
	l.t.Helper()
	l.signal(syscall.SIGTERM)
	select {
	case <-l.exited:
	case <-time.After(patience):
		l.signal(syscall.SIGKILL)
		<-l.exited
		l.t.Errorf("larder did not end within %v of SIGTERM", patience)
	}
	if code := l.cmd.ProcessState.ExitCode(); code != 0 {
		l.t.Errorf("larder ended with %v", l.cmd.ProcessState)
	}
	l.exited = nil
	// Secrets: passwords, tokens and what signs a URL.
	for _, bad := range []string{"panic:", "DATA RACE", "goroutine 1 [", password, "Bearer ", "X-Amz-"} {
		if l.log.contains(bad) {
			l.t.Errorf("the log holds %q", bad)
		}
	}
	l.checkDisk()
}

// kill ends the mirror by SIGKILL.
func (l *larder) kill() {
	l.t.Helper()
	l.signal(syscall.SIGKILL)
	<-l.exited
	l.exited = nil
}

func (l *larder) signal(sig syscall.Signal) {
	if err := l.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		l.t.Errorf("signal %v: %v", sig, err)
	}
}

// blobFile is where a committed blob lies.
func (l *larder) blobFile(d digest.Digest) string {
	return filepath.Join(l.dir, "blobs", string(d.Algorithm()), d.Encoded()[:2], d.Encoded())
}

// kept reports whether a blob or manifest is committed.
func (l *larder) kept(d digest.Digest) bool {
	_, err := os.Stat(l.blobFile(d))
	return err == nil
}

// partial reports whether part of a blob is on disk, to be resumed.
func (l *larder) partial(d digest.Digest) bool {
	_, err := os.Stat(filepath.Join(l.dir, "ingest", string(d.Algorithm())+"-"+d.Encoded(), "data"))
	return err == nil
}

// checkDisk looks at the directory of a mirror that is not running: every
// committed file has its digest, and every file in ingest belongs to a partial
// that can be resumed and is not committed already.
func (l *larder) checkDisk() {
	l.t.Helper()
	for _, file := range files(l.t, filepath.Join(l.dir, "blobs")) {
		content, err := os.Open(file)
		if err != nil {
			l.t.Error(err)
			continue
		}
		want := digest.NewDigestFromEncoded(digest.Algorithm(filepath.Base(filepath.Dir(filepath.Dir(file)))), filepath.Base(file))
		got, err := want.Algorithm().FromReader(content)
		_ = content.Close()
		if err != nil || got != want {
			l.t.Errorf("%s is visible and holds %s, %v", file, got, err)
		}
	}
	for _, file := range files(l.t, filepath.Join(l.dir, "ingest")) {
		id := filepath.Base(filepath.Dir(file))
		alg, encoded, _ := strings.Cut(id, "-")
		d := digest.NewDigestFromEncoded(digest.Algorithm(alg), encoded)
		name := filepath.Base(file)
		if d.Validate() != nil || name != "data" && name != "state" {
			l.t.Errorf("orphan in ingest: %s", file)
		} else if l.kept(d) {
			l.t.Errorf("%s is left over from a blob that is committed", file)
		}
	}
}

// files lists the regular files below dir.
func files(t *testing.T, dir string) []string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			all = append(all, path)
		}
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("list %s: %v", dir, err)
	}
	return all
}

// logbook collects what a process writes.
type logbook struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logbook) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logbook) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func (b *logbook) contains(s string) bool { return strings.Contains(b.String(), s) }

func (b *logbook) tail() string {
	s := b.String()
	return s[max(0, len(s)-6000):]
}
