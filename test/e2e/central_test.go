package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/larder-registry/larder/test/authority"
	"github.com/larder-registry/larder/test/process"
)

// central is a running `larder central` with TLS, and who talks to it.
type central struct {
	addr, admin string
	dir         string
	ca          string // file with the authority of its certificate
	http        *http.Client
	*process.Process
}

// The users of the tests. alice may do everything in team-a, bob pulls there;
// charts is alice's, too. The hashes are of the passwords at bcrypt's least
// cost.
const (
	alice, alicePassword = "alice", "wonder"
	bob, bobPassword     = "bob", "builder"

	centralAccess = `central:
  users:
    - {name: alice, password_hash: $2a$04$1Wnw4jt55M8QNKLvDIJ/xOsOhT3rjW9jA78yJ6NuFQCWMF7PfuoiK}
    - {name: bob, password_hash: $2a$04$wIl0pwOo5wjPotJ/mp4N0eCNNKPHhTM7FEHKJYazshYisM07QZgry}
  access:
    - {subjects: ["user:alice"], repositories: [team-a, charts], actions: [pull, push, delete]}
    - {subjects: ["user:bob"], repositories: [team-a, f], actions: [pull]}
    - {subjects: [anonymous, authenticated], repositories: [public], actions: [pull]}
`
)

// startCentral starts a central registry with what more says besides users and
// rights, and waits until it is ready.
func startCentral(t *testing.T, more string) *central {
	t.Helper()
	c := &central{addr: process.Addr(t), admin: process.Addr(t), dir: scratch(t)}
	ca := authority.Write(t, c.dir, "127.0.0.1")
	c.ca = filepath.Join(c.dir, "ca.crt")
	write(t, c.dir, "larder.yaml", centralAccess+more)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.Pool()}, MaxIdleConnsPerHost: 32}
	t.Cleanup(transport.CloseIdleConnections)
	c.http = &http.Client{Transport: transport}
	c.start(t)
	return c
}

// start starts the registry on the data it has, at the address it had.
func (c *central) start(t *testing.T) {
	t.Helper()
	c.Process = spawn(t, c.dir, bin(t, "larder"), "central", "--serve", "registry", "--config", c.dir+"/larder.yaml",
		"--listen", c.addr, "--admin-listen", c.admin, "--data-dir", c.dir+"/data", "--log-format", "json",
		"--tls-cert", c.dir+"/tls.crt", "--tls-key", c.dir+"/tls.key")
	p := c.Process
	t.Cleanup(func() {
		// What it said of itself; its last words are mostly about requests.
		for line := range strings.Lines(p.Output()) {
			if t.Failed() && !strings.Contains(line, `"msg":"request"`) {
				t.Log(line)
			}
		}
	})
	c.Await(t, "the registry to be ready", process.Answers("http://"+c.admin+"/readyz"))
}

// do sends a request as alice.
func (c *central) do(t *testing.T, method, path string, body io.Reader, header ...string) (int, http.Header, []byte) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, "https://"+c.addr+path, body)
	if err != nil {
		t.Fatal(err)
	}
	r.SetBasicAuth(alice, alicePassword)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	res, err := c.http.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	content, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return res.StatusCode, res.Header, content
}

// must is do for what has to be answered with status.
func (c *central) must(t *testing.T, status int, method, path string, body io.Reader, header ...string) (http.Header, []byte) {
	t.Helper()
	got, headers, content := c.do(t, method, path, body, header...)
	if got != status {
		t.Fatalf("%s %s: %d %s, want %d", method, path, got, content, status)
	}
	return headers, content
}

// described is a descriptor in a manifest.
type described struct {
	MediaType    string
	ArtifactType string
	Digest       string
	Size         int64
}

// manifest is what the tests read of an image manifest or index.
type manifest struct {
	MediaType    string
	ArtifactType string
	Config       *described
	Layers       []described
	Manifests    []described
	Subject      *described
}

const acceptManifests = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, " +
	"application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json"

// holds reads back everything a reference is made of, byte by byte, and returns
// its digest and its parts.
func (c *central) holds(t *testing.T, repository, reference string) (string, manifest) {
	t.Helper()
	header, raw := c.must(t, 200, "GET", "/v2/"+repository+"/manifests/"+reference, nil, "Accept", acceptManifests)
	sum := sha256.Sum256(raw)
	dgst := "sha256:" + hex.EncodeToString(sum[:])
	if header.Get("Docker-Content-Digest") != dgst {
		t.Errorf("%s:%s is said to be %s and is %s", repository, reference, header.Get("Docker-Content-Digest"), dgst)
	}
	var m manifest
	if err := json.Unmarshal(raw, &m); err != nil {
		t.Fatal(err)
	}
	for _, child := range m.Manifests {
		c.holds(t, repository, child.Digest)
	}
	blobs := m.Layers
	if m.Config != nil {
		blobs = append(blobs, *m.Config)
	}
	for _, blob := range blobs {
		_, content := c.must(t, 200, "GET", "/v2/"+repository+"/blobs/"+blob.Digest, nil)
		if got := sha256.Sum256(content); "sha256:"+hex.EncodeToString(got[:]) != blob.Digest || int64(len(content)) != blob.Size {
			t.Errorf("%s has %d wrong bytes for %s", repository, len(content), blob.Digest)
		}
	}
	return dgst, m
}

// gone demands that a reference is not there.
func (c *central) gone(t *testing.T, repository, reference string) {
	t.Helper()
	if status, _, body := c.do(t, "GET", "/v2/"+repository+"/manifests/"+reference, nil, "Accept", acceptManifests); status != 404 {
		t.Errorf("%s:%s is still there: %d %s", repository, reference, status, body)
	}
}

// pushBlob uploads a blob in one request.
func (c *central) pushBlob(t *testing.T, repository string, content []byte) string {
	t.Helper()
	sum := sha256.Sum256(content)
	dgst := "sha256:" + hex.EncodeToString(sum[:])
	c.must(t, 201, "POST", "/v2/"+repository+"/blobs/uploads/?digest="+dgst, bytes.NewReader(content), "Content-Type", "application/octet-stream")
	return dgst
}

// kit is one client's home: a directory, and an environment in which it trusts
// the registry's authority.
type kit struct {
	t   *testing.T
	c   *central
	dir string
	env []string
}

func newKit(t *testing.T, c *central) kit {
	t.Helper()
	dir := scratch(t)
	write(t, dir, ".config/containers/policy.json", `{"default": [{"type": "insecureAcceptAnything"}]}`)
	storage := write(t, dir, "storage.conf", fmt.Sprintf("[storage]\ndriver = \"vfs\"\nrunroot = \"%s/run\"\ngraphroot = \"%[1]s/storage\"\n", dir))
	write(t, dir, "auth.json", "{}") // podman wants it to be there
	registries := write(t, dir, "registries.conf", "unqualified-search-registries = []\n")
	return kit{t, c, dir, environ(t, dir,
		"SSL_CERT_FILE="+c.ca, "DOCKER_CONFIG="+dir+"/docker", "REGISTRY_AUTH_FILE="+dir+"/auth.json",
		"CONTAINERS_STORAGE_CONF="+storage, "CONTAINERS_REGISTRIES_CONF="+registries,
		"XDG_CONFIG_HOME="+dir+"/.config", "XDG_CACHE_HOME="+dir+"/.cache", "XDG_DATA_HOME="+dir+"/.local", "BUILDAH_ISOLATION=chroot",
	)}
}

// run runs a program that has to succeed, and returns what it said.
func (k kit) run(path string, args ...string) string {
	k.t.Helper()
	out, err := k.try(path, args...)
	if err != nil {
		k.t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

// try runs a program.
func (k kit) try(path string, args ...string) (string, error) {
	k.t.Helper()
	ctx, cancel := context.WithTimeout(k.t.Context(), pullPatience)
	defer cancel()
	return run(ctx, k.env, path, args...)
}

// refused runs a program that must not succeed.
func (k kit) refused(path string, args ...string) {
	k.t.Helper()
	if out, err := k.try(path, args...); err == nil {
		k.t.Errorf("%s %s: it succeeded: %s", path, strings.Join(args, " "), out)
	}
}
