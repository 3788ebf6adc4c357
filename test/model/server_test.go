package model

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"go.uber.org/goleak"

	"github.com/larder-registry/larder/central"
	"github.com/larder-registry/larder/internal/oci"
	"github.com/larder-registry/larder/internal/ociserver"
	"github.com/larder-registry/larder/store"
)

// asRegistry makes the test binary be the registry, so that it is as much under
// the race detector as the tests are. Its value is the data directory.
const asRegistry = "LARDER_MODEL_DATA"

func TestMain(m *testing.M) {
	if dir := os.Getenv(asRegistry); dir != "" {
		if err := beRegistry(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	flag.Parse()
	if *cut != "" && os.Getenv(apart) == "" {
		os.Exit(beApart())
	}
	goleak.VerifyTestMain(m)
}

type everybody struct{}

func (everybody) Authorize(context.Context, oci.Caller, oci.Want) (oci.Subject, error) {
	return everybody{}, nil
}
func (everybody) Name() string                                 { return "" }
func (everybody) May(context.Context, string, oci.Action) bool { return true }

// beRegistry serves dir until standard input ends. It prints its address.
// Garbage is what nothing refers to for a moment, and is collected without a
// pause: nothing protects a push but what the registry promises.
func beRegistry(dir string) error {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	release, err := store.LockDir(ctx, dir, time.Minute)
	if err != nil {
		return err
	}
	ledger, err := store.OpenLedger(filepath.Join(dir, "index"), nil)
	if err != nil {
		return err
	}
	depot, err := store.OpenDepot(store.DepotConfig{Dir: dir})
	if err != nil {
		return err
	}
	log := logrus.New()
	log.SetOutput(os.Stderr)
	log.SetLevel(logrus.WarnLevel)
	entry := logrus.NewEntry(log)
	c, err := central.New(ctx, central.Config{
		Ledger: ledger, Content: depot, Drafts: depot, Log: entry,
		Grace: 1, UploadAge: 3 * time.Second, CollectEvery: 20 * time.Millisecond,
	})
	if err != nil {
		return err
	}
	h, err := ociserver.NewOwn(ociserver.OwnConfig{
		Reader: c, Lister: c, Uploader: c, Writer: c, Referrals: c, Authorizer: everybody{}, Log: entry,
	})
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := ociserver.NewServer(h, entry)
	var running sync.WaitGroup
	running.Go(func() { c.Run(ctx) })          // ends with stop
	running.Go(func() { _ = server.Serve(l) }) // ends with Close
	fmt.Println(l.Addr())                      // the parent waits for it
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	stop()
	server.Close()
	running.Wait()
	if err := ledger.Close(); err != nil {
		return err
	}
	return release()
}

// process is the registry's, on one data directory; killed and started again.
type process struct {
	t    *testing.T
	dir  string
	disk *disk // that dir is on; nil for the machine's own
	http *http.Client

	mu     sync.Mutex
	base   string // empty while it is down
	up     chan struct{}
	cmd    *exec.Cmd
	stdin  io.Closer
	stderr *os.File
}

// newProcess starts one. kind is that of the file system to make for it, empty
// for none.
func newProcess(t *testing.T, kind string) *process {
	p := &process{t: t, dir: t.TempDir(), up: make(chan struct{}), http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}}}
	var err error
	if p.stderr, err = os.Create(filepath.Join(t.TempDir(), "stderr")); err != nil {
		t.Fatal(err)
	}
	if kind != "" {
		p.disk = newDisk(t, kind)
		p.dir = p.disk.dir
	}
	p.start()
	t.Cleanup(func() {
		p.end()
		p.http.CloseIdleConnections()
		p.stderr.Close()
	})
	return p
}

func (p *process) start() {
	p.t.Helper()
	binary, err := os.Executable()
	if err != nil {
		p.t.Fatal(err)
	}
	cmd := exec.Command(binary)
	cmd.Env = append(os.Environ(), asRegistry+"="+p.dir)
	cmd.Stderr = p.stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		p.t.Fatalf("the registry does not start: %v\n%s", err, p.complaints())
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cmd, p.stdin, p.base = cmd, stdin, "http://"+strings.TrimSpace(line)
	close(p.up)
}

// kill ends the process as a crash does, and starts the next. If it has a disk of
// its own, the crash is a power cut: the process sees the disk go before it goes
// itself, and has a moment to say what is not true any more.
func (p *process) kill() {
	p.t.Helper()
	p.mu.Lock()
	p.base, p.up = "", make(chan struct{})
	cmd := p.cmd
	p.mu.Unlock()
	if p.disk != nil {
		p.disk.cut()
	}
	if err := cmd.Process.Kill(); err != nil {
		p.t.Fatal(err)
	}
	_ = cmd.Wait() // of a process that was killed
	if p.disk != nil {
		p.disk.restore()
	}
	p.http.CloseIdleConnections()
	p.start()
}

// end has the process stop in order.
func (p *process) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return
	}
	p.stdin.Close()
	if err := p.cmd.Wait(); err != nil {
		p.t.Errorf("the registry does not stop in order: %v\n%s", err, p.complaints())
	}
	p.cmd = nil
	if text := p.complaints(); strings.Contains(text, "DATA RACE") {
		p.t.Errorf("the registry has a race:\n%s", text)
	}
}

// complaints is what the registry wrote to standard error.
func (p *process) complaints() string {
	text, err := os.ReadFile(p.stderr.Name())
	if err != nil {
		return err.Error()
	}
	return string(text[max(len(text)-8000, 0):])
}

// runs reports whether the process at this address is still meant to run.
func (p *process) runs(base string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.base == base
}

// where is the address of the process that runs, once there is one.
func (p *process) where() string {
	p.mu.Lock()
	base, up := p.base, p.up
	p.mu.Unlock()
	if base != "" {
		return base
	}
	<-up
	return p.where()
}
