package main

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	registry "github.com/larder-registry/larder/central"
	"github.com/larder-registry/larder/internal/oci"
)

// centralProcess is a running larder central with one user.
type centralProcess struct {
	*mirrorProcess
	url    string
	client *http.Client
}

// startRegistry starts the registry on a data directory, and waits until it
// serves. conf is the configuration file's content.
func startRegistry(t *testing.T, dataDir, conf string, args ...string) *centralProcess {
	t.Helper()
	dir := t.TempDir()
	config, password := writeFile(t, dir, "larder.yaml", conf), writeFile(t, dir, "password", "secret\n")
	p := launch(t, append([]string{
		"central", "--config", config, "--user", "root", "--password-file", password, "--data-dir", dataDir,
		"--listen", "127.0.0.1:0", "--admin-listen", "", "--log-format", "json",
	}, args...)...)
	line := p.waitFor(t, "larder central serves")
	scheme := "http://"
	if !slices.Contains(args, "--plain-http") {
		scheme = "https://"
	}
	c := &centralProcess{p, scheme + strings.TrimPrefix(fmt.Sprint(line["listen"]), "registry="), &http.Client{Transport: &http.Transport{}}}
	t.Cleanup(c.client.CloseIdleConnections)
	return c
}

// do sends a request as the user and wants a status.
func (c *centralProcess) do(t *testing.T, status int, method, target, body string, header ...string) (http.Header, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, c.url+target, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth("root", "secret")
	for pair := range slices.Chunk(header, 2) {
		req.Header.Set(pair[0], pair[1])
	}
	res, err := c.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	content, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != status {
		t.Fatalf("%s %s: %d, want %d: %s %v", method, target, res.StatusCode, status, content, err)
	}
	return res.Header, content
}

// push pushes an image of one blob.
func (c *centralProcess) push(t *testing.T, repository, tag, content string) (manifest string) {
	t.Helper()
	dgst := digest.FromString(content)
	c.do(t, 201, "POST", "/v2/"+repository+"/blobs/uploads/?digest="+string(dgst), content)
	manifest = fmt.Sprintf(`{"schemaVersion":2,"config":{"digest":%q,"size":%d},"layers":[]}`, dgst, len(content))
	c.do(t, 201, "PUT", "/v2/"+repository+"/manifests/"+tag, manifest, "Content-Type", oci.MediaTypeManifest)
	return manifest
}

func (c *centralProcess) wantImage(t *testing.T, repository, tag, manifest, content string) {
	t.Helper()
	if _, got := c.do(t, 200, "GET", "/v2/"+repository+"/manifests/"+tag, ""); string(got) != manifest {
		t.Errorf("manifest %s", got)
	}
	if _, got := c.do(t, 200, "GET", "/v2/"+repository+"/blobs/"+string(digest.FromString(content)), ""); string(got) != content {
		t.Errorf("blob %s", got)
	}
}

func TestTheRegistryFromStartToRestore(t *testing.T) {
	data := filepath.Join(t.TempDir(), strings.Repeat("long/", 40)+"data") // longer than a socket's path may be
	c := startRegistry(t, data, "", "--plain-http")
	manifest := c.push(t, "team/app", "v1", "content")
	c.push(t, "team/app", "old", "gone soon")
	c.do(t, 202, "DELETE", "/v2/team/app/manifests/old", "")
	if res, err := c.client.Get(c.url + "/v2/team/app/manifests/v1"); err != nil || res.StatusCode != 401 {
		t.Errorf("a stranger: %v, %v", res, err)
	} else {
		res.Body.Close()
	}

	// While it runs: garbage and backup.
	code, out, errs := larder("central", "gc", "--dry-run", "--data-dir", data, "--output", "json")
	var got registry.Collected
	if err := json.Unmarshal([]byte(out), &got); code != 0 || err != nil || !got.DryRun || got.Waiting != 0 {
		t.Errorf("gc: %d %s %s %v", code, out, errs, err)
	}
	if code, out, errs := larder("central", "gc", "--data-dir", data); code != 0 || !strings.HasPrefix(out, "removed 0 uploads") {
		t.Errorf("gc: %d %s %s", code, out, errs)
	}
	backup := filepath.Join(t.TempDir(), "backup.tar")
	if code, _, errs := larder("central", "backup", "--data-dir", data, backup); code != 0 {
		t.Fatalf("backup: %d %s", code, errs)
	}

	// Killed, it has what it acknowledged; stopped in order, too.
	c.signal(t, syscall.SIGKILL)
	<-c.exited
	c = startRegistry(t, data, "", "--plain-http")
	c.wantImage(t, "team/app", "v1", manifest, "content")
	c.signal(t, syscall.SIGTERM)
	if code := c.exit(t); code != 0 {
		t.Errorf("exit code %d", code)
	}

	// While it does not run.
	if code, out, errs := larder("central", "gc", "--data-dir", data, "--output", "json"); code != 0 {
		t.Errorf("gc: %d %s %s", code, out, errs)
	}
	second := filepath.Join(t.TempDir(), "backup.tar")
	if code, _, errs := larder("central", "backup", "--data-dir", data, second); code != 0 {
		t.Fatalf("backup: %d %s", code, errs)
	}
	for _, from := range []string{backup, second} {
		restored := filepath.Join(t.TempDir(), "restored")
		if code, out, errs := larder("central", "restore", "--data-dir", restored, from); code != 0 || !strings.Contains(out, "restored ") {
			t.Fatalf("restore: %d %s %s", code, out, errs)
		}
		c := startRegistry(t, restored, "", "--plain-http")
		c.wantImage(t, "team/app", "v1", manifest, "content")
		c.signal(t, syscall.SIGTERM)
		c.exit(t)
	}

	// As in a pod: by the standard streams, into a new volume.
	code, stream, errs := larder("central", "backup", "--data-dir", data, "-")
	if code != 0 || errs != "" {
		t.Fatalf("backup: %d %s", code, errs)
	}
	volume := t.TempDir()
	for _, dir := range []string{"lost+found", ".restoring/blobs"} {
		if err := os.MkdirAll(filepath.Join(volume, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	restore := exec.CommandContext(t.Context(), os.Args[0], "central", "restore", "--data-dir", volume, "-")
	restore.Env, restore.Stdin = append(os.Environ(), asLarder+"=1"), strings.NewReader(stream)
	if out, err := restore.CombinedOutput(); err != nil {
		t.Fatalf("restore: %v %s", err, out)
	}
	if list, err := filepath.Glob(filepath.Join(volume, "*")); err != nil || len(list) != 4 {
		t.Errorf("the volume has %v, %v", list, err)
	}
	c = startRegistry(t, volume, "", "--plain-http")
	c.wantImage(t, "team/app", "v1", manifest, "content")
	c.signal(t, syscall.SIGTERM)
	c.exit(t)

	// What cannot be restored leaves nothing.
	whole, err := os.ReadFile(backup)
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{
		"cut": whole[:len(whole)/2], "garbled": bytes.Replace(whole, []byte("content"), []byte("CONTENT"), 1), "rubbish": []byte("rubbish"),
	} {
		dir := t.TempDir()
		bad := writeFile(t, dir, "backup.tar", string(content))
		if code, _, errs := larder("central", "restore", "--data-dir", filepath.Join(dir, "restored"), bad); code != 1 {
			t.Errorf("%s: %d %s", name, code, errs)
		}
		if list, err := os.ReadDir(dir); err != nil || len(list) != 1 {
			t.Errorf("%s: left behind %v, %v", name, list, err)
		}
		there := t.TempDir()
		if code, _, errs := larder("central", "restore", "--data-dir", there, bad); code != 1 {
			t.Errorf("%s: %d %s", name, code, errs)
		}
		if list, err := os.ReadDir(there); err != nil || len(list) != 0 {
			t.Errorf("%s: left behind %v, %v", name, list, err)
		}
	}
}

func TestTheRegistrysUsage(t *testing.T) {
	empty, file := t.TempDir(), writeFile(t, t.TempDir(), "file", "x")
	full := filepath.Dir(file)
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		code int
		err  string
	}{
		{[]string{"central"}, 2, "give --tls-cert and --tls-key, or --plain-http"},
		{[]string{"central", "--listen", "5000"}, 2, `--listen "5000": write host:port`},
		{[]string{"central", "--tls-cert", file, "--tls-key", file + "x"}, 1, "prepare TLS: "},
		{[]string{"central", "--plain-http", "--tls-cert", file, "--tls-key", file}, 2, "--plain-http and --tls-cert: give one of them"},
		{[]string{"central", "--plain-http", "--user", "u", "--password-file", empty + "/none"}, 2, "--password-file: open "},
		{[]string{"central", "--plain-http", "--serve", "registry,webhook"}, 2, "the webhook has no policy"},
		{[]string{"central", "gc", "--data-dir", empty}, 2, "there is no registry's content in it"},
		{[]string{"central", "gc", "--data-dir", empty + "/none"}, 2, "there is no registry's content in it"},
		{[]string{"central", "backup", "--data-dir", empty + "/none", file}, 2, "there is no registry's content in it"},
		{[]string{"central", "gc", "--data-dir", empty, "--output", "xml"}, 2, "write text or json"},
		{[]string{"central", "backup"}, 2, "accepts 1 arg(s)"},
		{[]string{"central", "backup", "--data-dir", empty, empty + "/x/y"}, 2, "no such file or directory"},
		{[]string{"central", "backup", "--data-dir", empty, pipe}, 2, "it is no regular file"},
		{[]string{"central", "restore", "--data-dir", full, file}, 2, "it is not empty"},
		{[]string{"central", "restore", "--data-dir", empty, empty + "/none"}, 2, "no such file or directory"},
	} {
		args, untouched := c.args, t.TempDir()
		if len(args) < 2 || strings.HasPrefix(args[1], "-") {
			args = append(args, "--data-dir", untouched)
		}
		if code, _, errs := larder(args...); code != c.code || !strings.Contains(errs, c.err) {
			t.Errorf("%q: %d %s; want %d, %s", c.args, code, errs, c.code, c.err)
		}
		if list, err := os.ReadDir(untouched); err != nil || len(list) > 0 {
			t.Errorf("%q: left behind %v, %v", c.args, list, err)
		}
	}
}

// TestABackupThatIsInterrupted: the registry that is asked never comes to an end.
func TestABackupThatIsInterrupted(t *testing.T) {
	dir := t.TempDir()
	l, err := listenControl(dir)
	if err != nil {
		t.Fatal(err)
	}
	asked := make(chan struct{})
	s := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, strings.Repeat("backup", 1<<20))
		close(asked)
		<-r.Context().Done()
	})}
	// Ends with the server, which is closed below.
	go func() { _ = s.Serve(l) }()
	defer s.Close()
	backups := t.TempDir()
	p := launch(t, "central", "backup", "--data-dir", dir, filepath.Join(backups, "backup.tar"))
	select {
	case <-asked:
	case <-p.exited:
		t.Fatal("it ended by itself")
	}
	p.signal(t, syscall.SIGTERM)
	if code := p.exit(t); code != 1 {
		t.Errorf("exit code %d", code)
	}
	if list, err := os.ReadDir(backups); err != nil || len(list) > 0 {
		t.Errorf("left behind %v, %v", list, err)
	}
}

func TestTheRegistryOverTLS(t *testing.T) {
	dir := t.TempDir()
	roots := certificateFiles(t, dir)
	cert, key := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	c := startRegistry(t, filepath.Join(dir, "data"), "", "--tls-cert", cert, "--tls-key", key)
	for _, http2 := range []bool{false, true} {
		transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: "webhook.test"}, ForceAttemptHTTP2: http2}
		c.client = &http.Client{Transport: transport}
		content := strings.Repeat("content ", 100_000)
		manifest := c.push(t, "team/app", fmt.Sprint("v", http2), content)
		c.wantImage(t, "team/app", fmt.Sprint("v", http2), manifest, content)
		transport.CloseIdleConnections()
	}
}

// TestPushedAndFetchedNeverMeet has one registry hold images of its own and
// serve another's, under the same names.
func TestPushedAndFetchedNeverMeet(t *testing.T) {
	up, theirs, _ := image(t)
	data := t.TempDir()
	c := startRegistry(t, data, fmt.Sprintf(`
central: {pull_through: true, hosts: [registry.example]}
registry_proxies: {max_size: 1GiB, min_free: '0', registries: [{host: %q, insecure: true}]}
`, up.Host()), "--plain-http")
	// The same repository, tag, and a blob of the other registry's.
	name := theirs.Repo
	blob := string(theirs.Blobs()[0].Digest)
	own := c.push(t, name, theirs.Tag, "my own content")
	foreign := "/v2/f/" + up.Host() + "/" + name

	c.do(t, 404, "GET", "/v2/"+name+"/blobs/"+blob, "")
	if _, got := c.do(t, 200, "GET", foreign+"/manifests/"+theirs.Tag, ""); !bytes.Equal(got, theirs.Bytes()) {
		t.Errorf("theirs: %s", got)
	}
	header, got := c.do(t, 200, "GET", "/v2/"+name+"/manifests/"+theirs.Tag+"?ns="+up.Host(), "")
	if !bytes.Equal(got, theirs.Bytes()) || header.Get("OCI-Namespace") != up.Host() {
		t.Errorf("theirs by ns: %s", got)
	}
	if _, got := c.do(t, 200, "GET", foreign+"/blobs/"+blob, ""); string(digest.FromBytes(got)) != blob {
		t.Error("their blob is wrong")
	}
	// Still nobody's here, and mine nobody's there.
	c.do(t, 404, "GET", "/v2/"+name+"/blobs/"+blob, "")
	c.do(t, 202, "POST", "/v2/mine/blobs/uploads/?mount="+blob, "")
	c.do(t, 404, "GET", foreign+"/blobs/"+string(digest.FromString("my own content")), "")
	for _, target := range []string{"/v2/" + name, "/v2/" + name + "?ns=registry.example"} {
		path, query, _ := strings.Cut(target, "?")
		if _, got := c.do(t, 200, "GET", path+"/manifests/"+theirs.Tag+"?"+query, ""); string(got) != own {
			t.Errorf("mine: %s", got)
		}
	}
	// Nothing can be planted there.
	c.do(t, 405, "PUT", foreign+"/manifests/"+theirs.Tag, own, "Content-Type", oci.MediaTypeManifest)
	c.do(t, 405, "PUT", "/v2/"+name+"/manifests/"+theirs.Tag+"?ns="+up.Host(), own, "Content-Type", oci.MediaTypeManifest)
	c.do(t, 405, "DELETE", foreign+"/manifests/"+theirs.Tag, "")
	if _, list := c.do(t, 200, "GET", "/v2/_catalog", ""); strings.Contains(string(list), up.Host()) {
		t.Errorf("catalog %s", list)
	}
	// What its users log in with stays here.
	for _, seen := range up.Requests() {
		if got := seen.Header.Get("Authorization"); got != "" {
			t.Errorf("the upstream was sent %q", got)
		}
	}
	if files, err := filepath.Glob(filepath.Join(data, "blobs", "sha256", "*", strings.TrimPrefix(blob, "sha256:"))); err != nil || len(files) != 0 {
		t.Errorf("theirs lies among mine: %v, %v", files, err)
	}
}
