package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/larder-registry/larder/test/registry"
)

// patience bounds what takes a moment; it is long because machines may be busy.
const patience = 2 * time.Minute

// mirrorProcess is a running larder mirror.
type mirrorProcess struct {
	cmd *exec.Cmd
	// addr and admin are where it listens.
	addr, admin string
	logged      chan map[string]any // each line of its log, in order
	exited      chan struct{}       // closed when it has ended
	mu          sync.Mutex
	text        strings.Builder // its whole error output
}

// startMirror starts larder mirror on free ports with the registry at upstream
// allowed, and waits until it serves. More arguments may follow.
func startMirror(t *testing.T, dataDir, upstream string, args ...string) *mirrorProcess {
	t.Helper()
	config := writeFile(t, t.TempDir(), "larder.yaml", fmt.Sprintf(
		"registry_proxies: {max_size: 1GiB, min_free: '0', lock_wait: 0s, registries: [{host: %q, insecure: true}]}\n", upstream))
	p := launch(t, append([]string{
		"mirror", "--config", config, "--data-dir", dataDir, "--listen", "127.0.0.1:0",
		"--admin-listen", "127.0.0.1:0", "--log-format", "json",
	}, args...)...)
	line := p.waitFor(t, "larder mirror serves")
	p.addr, p.admin = fmt.Sprint(line["listen"]), fmt.Sprint(line["admin"])
	return p
}

// launch starts larder as a process, which ends with the test.
func launch(t *testing.T, args ...string) *mirrorProcess {
	t.Helper()
	p := &mirrorProcess{cmd: exec.Command(os.Args[0], args...), logged: make(chan map[string]any, 1000), exited: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), asLarder+"=1")
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// Ends with the process, which the cleanup sees to.
	go func() {
		defer close(p.exited)
		lines := bufio.NewScanner(stderr)
		for lines.Scan() {
			p.mu.Lock()
			p.text.WriteString(lines.Text() + "\n")
			p.mu.Unlock()
			var line map[string]any
			if json.Unmarshal(lines.Bytes(), &line) == nil {
				p.logged <- line
			}
		}
		_ = p.cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.exited
		if t.Failed() {
			t.Logf("larder said:\n%s", p.output())
		}
	})
	return p
}

func (p *mirrorProcess) output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.String()
}

// waitFor returns the next line of the log with that message.
func (p *mirrorProcess) waitFor(t *testing.T, message string) map[string]any {
	t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case line := <-p.logged:
			if line["msg"] == message {
				return line
			}
		case <-p.exited:
			t.Fatalf("larder ended before it said %q:\n%s", message, p.output())
		case <-timeout:
			t.Fatalf("larder did not say %q", message)
		}
	}
}

func (p *mirrorProcess) signal(t *testing.T, s os.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// exit waits for the process to end and returns its exit code.
func (p *mirrorProcess) exit(t *testing.T) int {
	t.Helper()
	select {
	case <-p.exited:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(patience):
		t.Fatal("larder does not end")
		return -1
	}
}

// get asks url, which may be a path on the clients' port.
func (p *mirrorProcess) get(ctx context.Context, url string) (status int, body []byte, err error) {
	if strings.HasPrefix(url, "/") {
		url = "http://" + p.addr + url
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, nil, err
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(resp.Body)
	return resp.StatusCode, body, err
}

// image is an upstream with one image whose layer takes a while.
func image(t *testing.T) (*registry.Server, registry.Image, string) {
	t.Helper()
	r := registry.Start(t, registry.Options{})
	img := r.AddImage("team/app", "v1", registry.NewLayer(1, 4<<20))
	return r, img, "/v2/f/" + r.Host() + "/team/app/"
}

func TestServesFromStartToStop(t *testing.T) {
	r, img, base := image(t)
	data := filepath.Join(t.TempDir(), "data")
	p := startMirror(t, data, r.Host())
	for _, url := range []string{"/readyz", "/healthz", "http://" + p.admin + "/readyz", "http://" + p.admin + "/healthz"} {
		if status, body, err := p.get(t.Context(), url); status != http.StatusOK || err != nil {
			t.Errorf("%s: %d %s %v", url, status, body, err)
		}
	}
	status, body, err := p.get(t.Context(), base+"manifests/v1")
	if status != http.StatusOK || err != nil || !bytes.Equal(body, img.Bytes()) {
		t.Errorf("manifest: %d %v", status, err)
	}
	layer := img.Layers[0]
	status, body, err = p.get(t.Context(), base+"blobs/"+layer.Digest.String())
	if status != http.StatusOK || err != nil || !bytes.Equal(body, layer.Bytes()) {
		t.Errorf("layer: %d %v", status, err)
	}
	// The client has its bytes a moment before they are counted.
	for p.waitFor(t, "request")["kind"] != "blob" {
	}
	counted := fmt.Sprintf("larder_requests_total{code=\"200\",kind=\"blob\",outcome=\"fill\",registry=%q} 1\n", r.Host())
	if status, body, err := p.get(t.Context(), "http://"+p.admin+"/metrics"); status != http.StatusOK || err != nil || !strings.Contains(string(body), counted) {
		t.Errorf("metrics: %d %v, want %s in\n%s", status, err, counted, body)
	}
	p.signal(t, syscall.SIGTERM)
	if code := p.exit(t); code != 0 {
		t.Errorf("exit code %d after SIGTERM", code)
	}

	// What was pulled is there after a restart, also without the upstream.
	r.Close()
	p = startMirror(t, data, r.Host())
	status, body, err = p.get(t.Context(), base+"blobs/"+layer.Digest.String())
	if status != http.StatusOK || err != nil || !bytes.Equal(body, layer.Bytes()) {
		t.Errorf("layer after restart: %d %v", status, err)
	}
	p.signal(t, os.Interrupt)
	if code := p.exit(t); code != 0 {
		t.Errorf("exit code %d after SIGINT", code)
	}
}

// pull is a GET that runs while a test does something else.
type pull struct {
	done   chan struct{}
	status int
	body   []byte
	err    error
}

func (p *mirrorProcess) pull(ctx context.Context, url string) *pull {
	one := &pull{done: make(chan struct{})}
	// Ends with the answer, or with ctx.
	go func() {
		defer close(one.done)
		one.status, one.body, one.err = p.get(ctx, url)
	}()
	return one
}

// held starts a mirror and a pull of the image's layer that stands at a gate.
func held(t *testing.T, args ...string) (*mirrorProcess, *pull, *registry.Gate, registry.Blob) {
	t.Helper()
	r, img, base := image(t)
	gate := registry.NewGate()
	t.Cleanup(gate.Open)
	r.Set(registry.Fault{On: registry.Blobs, Gate: gate, At: 1 << 20})
	p := startMirror(t, filepath.Join(t.TempDir(), "data"), r.Host(), args...)
	ctx, cancel := context.WithCancel(t.Context())
	one := p.pull(ctx, base+"blobs/"+img.Layers[0].Digest.String())
	t.Cleanup(func() {
		cancel()
		<-one.done
	})
	select {
	case <-gate.Reached():
	case <-time.After(patience):
		t.Fatal("the pull does not reach the upstream")
	}
	return p, one, gate, img.Layers[0]
}

func TestStopLetsAPullFinish(t *testing.T) {
	p, one, gate, layer := held(t)
	p.signal(t, syscall.SIGTERM)
	p.waitFor(t, "stopping")
	gate.Open()
	<-one.done
	if one.status != http.StatusOK || one.err != nil || !bytes.Equal(one.body, layer.Bytes()) {
		t.Errorf("the pull in flight: status %d, %d bytes, %v", one.status, len(one.body), one.err)
	}
	if code := p.exit(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

func TestStopBreaksOffAPullAfterTheDrain(t *testing.T) {
	p, one, _, _ := held(t, "--drain-timeout", "50ms")
	p.signal(t, syscall.SIGTERM)
	<-one.done
	if one.err == nil {
		t.Errorf("a pull that was broken off ended cleanly: status %d, %d bytes", one.status, len(one.body))
	}
	if code := p.exit(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

func TestASecondSignalStopsAtOnce(t *testing.T) {
	p, one, _, _ := held(t, "--drain-timeout", "1h")
	p.signal(t, syscall.SIGTERM)
	p.waitFor(t, "stopping")
	p.signal(t, syscall.SIGTERM)
	if code := p.exit(t); code != 1 {
		t.Errorf("exit code %d", code)
	}
	<-one.done
	if one.err == nil {
		t.Error("a pull that was broken off ended cleanly")
	}
}

func TestADataDirectoryInUseIsNamed(t *testing.T) {
	r, _, _ := image(t)
	data := filepath.Join(t.TempDir(), "data")
	first := startMirror(t, data, r.Host())
	config := writeFile(t, t.TempDir(), "larder.yaml", "registry_proxies: {lock_wait: 0s}\n")
	second := launch(t, "mirror", "--config", config, "--data-dir", data, "--listen", "127.0.0.1:0", "--admin-listen", "")
	code := second.exit(t)
	if want := fmt.Sprint(first.cmd.Process.Pid); code != 1 || !strings.Contains(second.output(), data) || !strings.Contains(second.output(), want) {
		t.Errorf("exit code %d, want the directory and process %s named:\n%s", code, want, second.output())
	}
}

func TestASignalEndsTheWaitForTheDataDirectory(t *testing.T) {
	r, _, _ := image(t)
	data := filepath.Join(t.TempDir(), "data")
	startMirror(t, data, r.Host())
	config := writeFile(t, t.TempDir(), "larder.yaml", "registry_proxies: {lock_wait: 1h}\n")
	second := launch(t, "mirror", "--config", config, "--data-dir", data, "--listen", "127.0.0.1:0", "--admin-listen", "", "--log-format", "json")
	registry := filepath.Join(t.TempDir(), "registry")
	startRegistry(t, registry, "", "--plain-http")
	third := launch(t, "central", "--plain-http", "--data-dir", registry, "--listen", "127.0.0.1:0", "--admin-listen", "", "--log-format", "json")
	for _, p := range []*mirrorProcess{second, third} {
		p.waitFor(t, "waiting for the data directory")
		p.signal(t, syscall.SIGTERM)
		if code := p.exit(t); code != 0 {
			t.Errorf("exit code %d", code)
		}
	}
}

func TestAnAddressInUseIsNamed(t *testing.T) {
	r, _, _ := image(t)
	for _, flag := range []string{"--listen", "--admin-listen"} {
		p := launch(t, "mirror", "--data-dir", t.TempDir(), "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", flag, r.Host())
		if code := p.exit(t); code != 1 || !strings.Contains(p.output(), r.Host()+": bind: address already in use; another process listens there") {
			t.Errorf("%s: exit code %d:\n%s", flag, code, p.output())
		}
	}
}

func TestSeveralListeners(t *testing.T) {
	r, _, _ := image(t)
	p := startMirror(t, t.TempDir(), r.Host(), "--listen", "127.0.0.2:0", "--admin-listen", "127.0.0.2:0")
	for path, listens := range map[string]string{"/readyz": p.addr, "/status": p.admin} {
		all := strings.Split(listens, ",")
		if len(all) != 2 || !strings.HasPrefix(all[0], "127.0.0.1:") || !strings.HasPrefix(all[1], "127.0.0.2:") {
			t.Errorf("%s: listens on %s", path, all)
		}
		for _, addr := range all {
			if status, _, err := p.get(t.Context(), "http://"+addr+path); status != http.StatusOK || err != nil {
				t.Error(addr, path, status, err)
			}
		}
	}
	p.signal(t, syscall.SIGTERM)
	if code := p.exit(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// TestOnlyAdmittedClients asks from an address the host has and one it does not
// admit; health is for everybody.
func TestOnlyAdmittedClients(t *testing.T) {
	r, _, base := image(t)
	p := startMirror(t, t.TempDir(), r.Host(), "--allow", "192.0.2.0/24")
	if status, _, err := p.get(t.Context(), base+"manifests/v1"); status != http.StatusForbidden || err != nil {
		t.Error(status, err)
	}
	if status, _, err := p.get(t.Context(), "/readyz"); status != http.StatusOK || err != nil {
		t.Error(status, err)
	}
}

func TestWhatHasNoEffectIsWarnedOfAtStart(t *testing.T) {
	config := writeFile(t, t.TempDir(), "larder.yaml", "registry_proxies: {registries: [{host: a_b.example}]}\n")
	p := launch(t, "mirror", "--config", config, "--data-dir", t.TempDir(), "--listen", "127.0.0.1:0", "--admin-listen", "", "--log-format", "json")
	warning := p.waitFor(t, config+":1:40: registry_proxies.registries[0].host: no image can be from a host with an underscore; the entry has NO effect")
	if warning["level"] != "warning" {
		t.Errorf("it is said at level %v", warning["level"])
	}
	p.waitFor(t, "larder mirror serves")
	p.signal(t, syscall.SIGTERM)
	if code := p.exit(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// writeFile puts content into dir/name and returns its path.
func writeFile(t *testing.T, dir, name, content string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

type flagText struct{ name, usage string }

func flagsOf(cmd *cobra.Command) (flags []flagText) {
	cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
		if f.Name != "help" {
			flags = append(flags, flagText{f.Name, f.Usage})
		}
	})
	return flags
}
