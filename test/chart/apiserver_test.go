package chart

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// patience bounds what takes seconds on an idle machine.
const patience = 3 * time.Minute

// apiserver is a real API server on loopback, with etcd behind it and nothing
// else.
type apiserver struct {
	base        string
	certificate []byte // PEM; it signed it itself
	client      *http.Client
	paths       map[string]resource // by apiVersion and kind
}

// resource is how objects of a kind are reached.
type resource struct {
	Name       string `json:"name"`
	Kind       string `json:"kind"`
	Namespaced bool   `json:"namespaced"`
}

// startAPIServer starts etcd and the API server, and ends them with the test.
func startAPIServer(t *testing.T) *apiserver {
	t.Helper()
	dir := t.TempDir()
	etcd, err := exec.LookPath("etcd")
	if err != nil {
		t.Fatalf("%v; install the package etcd-server", err)
	}
	client, peer, port := "http://"+freeAddr(t), "http://"+freeAddr(t), freeAddr(t)
	spawn(t, dir, etcd, "--data-dir", filepath.Join(dir, "etcd"), "--unsafe-no-fsync",
		"--listen-client-urls", client, "--advertise-client-urls", client,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "default="+peer)
	await(t, "etcd", func(ctx context.Context) error {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", client[len("http://"):])
		if err == nil {
			conn.Close()
		}
		return err
	})
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	sa, tokens := filepath.Join(dir, "sa.key"), filepath.Join(dir, "tokens.csv")
	write(t, sa, string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})))
	write(t, tokens, "admin,admin,admin,\"system:masters\"\n")
	_, number, err := net.SplitHostPort(port)
	if err != nil {
		t.Fatal(err)
	}
	bin, err := filepath.Abs(filepath.Join(*binFlag, "kube-apiserver"))
	if err != nil {
		t.Fatal(err)
	}
	spawn(t, dir, bin, "--etcd-servers", client, "--bind-address", "127.0.0.1", "--secure-port", number, "--cert-dir", dir,
		"--advertise-address", "127.0.0.1", "--endpoint-reconciler-type", "none", "--service-cluster-ip-range", "10.0.0.0/24",
		"--authorization-mode", "RBAC", "--token-auth-file", tokens, "--service-account-issuer", "https://kubernetes.default.svc",
		"--service-account-signing-key-file", sa, "--service-account-key-file", sa,
		// No controller makes the accounts that pods would need.
		"--disable-admission-plugins", "ServiceAccount")
	a := &apiserver{base: "https://" + port, paths: map[string]resource{}}
	// It makes its own certificate, which is the only one that is trusted.
	pool := x509.NewCertPool()
	await(t, "the API server's certificate", func(context.Context) error {
		content, err := os.ReadFile(filepath.Join(dir, "apiserver.crt"))
		if err == nil && !pool.AppendCertsFromPEM(content) {
			err = errors.New("it is not whole")
		}
		a.certificate = content
		return err
	})
	a.client = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}}
	t.Cleanup(a.client.CloseIdleConnections)
	await(t, "the API server", func(ctx context.Context) error {
		return a.get(ctx, "/readyz", nil)
	})
	return a
}

// freeAddr is an address of loopback that nobody listens on now.
func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// spawn starts a program that ends with the test, even when that is killed.
func spawn(t *testing.T, dir, name string, args ...string) {
	t.Helper()
	log, err := os.CreateTemp(dir, filepath.Base(name)+"-*.log")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.Env = dir, []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v; test/chart/run builds it", err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait()
		log.Close()
		if text, err := os.ReadFile(log.Name()); err == nil && t.Failed() {
			t.Logf("the end of what %s said:\n%s", filepath.Base(name), text[max(0, len(text)-3000):])
		}
	})
}

// await calls ready until it returns nil, and fails the test when that takes
// longer than patience.
func await(t *testing.T, what string, ready func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ready(ctx)
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waited in vain for %s: %v", what, err)
		}
	}
}

// call asks the API server, and returns the status, the body and the warnings.
func (a *apiserver) call(ctx context.Context, method, path, contentType string, body []byte) (status int, answer []byte, warnings []string, err error) {
	req, err := http.NewRequestWithContext(ctx, method, a.base+path, bytes.NewReader(body))
	if err != nil {
		return 0, nil, nil, err
	}
	req.Header.Set("Authorization", "Bearer admin")
	req.Header.Set("Content-Type", contentType)
	resp, err := a.client.Do(req)
	if err != nil {
		return 0, nil, nil, err
	}
	defer resp.Body.Close()
	answer, err = io.ReadAll(resp.Body)
	return resp.StatusCode, answer, resp.Header.Values("Warning"), err
}

// get reads path into out, if that is not nil.
func (a *apiserver) get(ctx context.Context, path string, out any) error {
	status, answer, _, err := a.call(ctx, http.MethodGet, path, "application/json", nil)
	switch {
	case err != nil:
		return err
	case status != http.StatusOK:
		return fmt.Errorf("GET %s: status %d: %.300s", path, status, answer)
	case out == nil:
		return nil
	}
	return json.Unmarshal(answer, out)
}

// path is where an object belongs; an error when its kind is not served.
func (a *apiserver) path(ctx context.Context, o object) (string, error) {
	version := o.text("apiVersion")
	base := "/apis/" + version
	if version == "v1" {
		base = "/api/v1"
	}
	at, ok := a.paths[version+" "+o.kind()]
	if !ok {
		var list struct {
			Resources []resource `json:"resources"`
		}
		if err := a.get(ctx, base, &list); err != nil {
			return "", err
		}
		for _, r := range list.Resources {
			if r.Kind == o.kind() && filepath.Base(r.Name) == r.Name { // no subresource
				at, ok = r, true
			}
		}
		if !ok {
			return "", fmt.Errorf("%s has no kind %s", version, o.kind())
		}
		a.paths[version+" "+o.kind()] = at
	}
	if at.Namespaced != (o.text("metadata", "namespace") != "") {
		return "", fmt.Errorf("%s: its kind is namespaced: %v", o.id(), at.Namespaced)
	}
	if at.Namespaced {
		base += "/namespaces/" + o.text("metadata", "namespace")
	}
	return base + "/" + at.Name + "/" + o.name(), nil
}

// apply is a server-side apply, as `kubectl apply --server-side` does it: fields
// that are unknown or there twice are errors. A dry run changes nothing, but is
// looked at as if it did.
func (a *apiserver) apply(ctx context.Context, o object, dry bool) (warnings []string, err error) {
	path, err := a.path(ctx, o)
	if err != nil {
		return nil, err
	}
	path += "?fieldManager=larder&fieldValidation=Strict&force=true"
	if dry {
		path += "&dryRun=All"
	}
	body, err := json.Marshal(o)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", o.id(), err)
	}
	status, answer, warnings, err := a.call(ctx, http.MethodPatch, path, "application/apply-patch+yaml", body)
	if err == nil && status/100 != 2 {
		err = fmt.Errorf("status %d: %s", status, answer)
	}
	return warnings, err
}

func marshal(t *testing.T, o object) []byte {
	t.Helper()
	body, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	return body
}
