package main

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/larder-registry/larder/test/cloud"
	"github.com/larder-registry/larder/test/registry"
)

// startWith starts larder mirror with that configuration.
func startWith(t *testing.T, config string, args ...string) *mirrorProcess {
	t.Helper()
	p := launch(t, append([]string{
		"mirror", "--config", writeFile(t, t.TempDir(), "larder.yaml", config), "--data-dir", t.TempDir(),
		"--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--log-format", "json", "--log-level", "debug",
	}, args...)...)
	line := p.waitFor(t, "larder mirror serves")
	p.addr, p.admin = fmt.Sprint(line["listen"]), fmt.Sprint(line["admin"])
	return p
}

// pullWhole fetches an image by tag and looks for secrets in all that is said.
func (p *mirrorProcess) pullWhole(t *testing.T, host string, img registry.Image, secrets ...string) {
	t.Helper()
	status, body, err := p.get(t.Context(), "/v2/"+img.Repo+"/manifests/"+img.Tag+"?ns="+host)
	if err != nil || status != http.StatusOK || !bytes.Equal(body, img.Bytes()) {
		t.Fatalf("manifest: %d, %v, %.200s", status, err, body)
	}
	for _, blob := range img.Blobs() {
		status, body, err := p.get(t.Context(), "/v2/"+img.Repo+"/blobs/"+blob.Digest.String()+"?ns="+host)
		if err != nil || status != http.StatusOK || !bytes.Equal(body, blob.Bytes()) {
			t.Errorf("blob: %d, %v, %d bytes", status, err, len(body))
		}
	}
	_, metrics, err := p.get(t.Context(), "http://"+p.admin+"/metrics")
	if err != nil {
		t.Fatal(err)
	}
	_, page, err := p.get(t.Context(), "http://"+p.admin+"/status.json")
	if err != nil || !bytes.Contains(page, []byte(`"names":true`)) {
		t.Fatalf("the status is %s, %v", page, err)
	}
	for _, secret := range secrets {
		if strings.Contains(p.output()+string(metrics)+string(page), secret) {
			t.Errorf("%s is in the log, the metrics or the status", secret)
		}
	}
}

// TestECRNeedsNoConfiguration: an image of an ECR registry, with nothing said
// of it but the environment that AWS's own tools read.
func TestECRNeedsNoConfiguration(t *testing.T) {
	const host = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
	reg := registry.Start(t, registry.Options{ECR: true, Storage: true})
	img := reg.AddImage("team/app", "v1", registry.NewLayer(1, 50_000))
	aws := cloud.StartAWS(t)
	aws.OnToken(func(password string) { reg.SetUser("AWS", password) })
	for name, value := range aws.Env() {
		t.Setenv(name, value)
	}
	t.Setenv("AWS_ACCESS_KEY_ID", "AKIDENV")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "MARKERawssecret")
	// The proxy is where the registry's name leads; by plain HTTP, since
	// nobody has its certificate.
	at, err := url.Parse(reg.URL())
	if err != nil {
		t.Fatal(err)
	}
	proxy := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		if r.In.URL.Host == host {
			r.Out.URL.Host = at.Host
		}
	}})
	defer proxy.Close()
	t.Setenv("HTTP_PROXY", proxy.URL)

	config := "registry_proxies: {max_size: 1GiB, min_free: '0', registries: [{host: " + host + ", insecure: true}]}\n"
	p := startWith(t, config)
	if calls := aws.Calls(""); len(calls) != 0 {
		t.Errorf("AWS was asked before an image was: %v", calls)
	}
	p.pullWhole(t, host, img, "MARKER")
	if calls := aws.Calls(""); len(calls) != 1 || calls[0].Service != "ecr" || calls[0].Region != "eu-west-1" {
		t.Errorf("asked of AWS: %v", calls)
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if strings.HasPrefix(line, "VmRSS") || strings.HasPrefix(line, "RssAnon") {
			t.Log(strings.TrimSpace(line))
		}
	}

	off := startWith(t, strings.Replace(config, "max_size", "cloud_credentials: false, max_size", 1))
	if status, _, err := off.get(t.Context(), "/v2/team/app/manifests/v1?ns="+host); err != nil || status != http.StatusUnauthorized {
		t.Errorf("without cloud credentials: %d, %v", status, err)
	}
	if calls := aws.Calls(""); len(calls) != 1 {
		t.Errorf("asked of AWS although that is switched off: %v", calls)
	}
}

// TestWaysToLogIn: each as a user would write it.
func TestWaysToLogIn(t *testing.T) {
	reg := registry.Start(t, registry.Options{Users: map[string]string{"u": "MARKERpassword"}, Basic: true})
	tokens := registry.Start(t, registry.Options{Users: map[string]string{"u": "MARKERpassword"}})
	for _, r := range []*registry.Server{reg, tokens} {
		r.AddImage("team/app", "v1", registry.NewLayer(1, 5000))
	}
	dir := t.TempDir()
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	password := writeFile(t, dir, "password", "MARKERpassword\n")
	script := func(name, text string) string {
		file := writeFile(t, dir, name, "#!/bin/sh\n"+text)
		if err := os.Chmod(file, 0o700); err != nil {
			t.Fatal(err)
		}
		return file
	}
	script("docker-credential-larder-test", `echo '{"Username":"u","Secret":"MARKERpassword"}'`)
	for name, up := range map[string]*registry.Server{"basic": reg, "tokens": tokens} {
		host := up.Host()
		img := up.AddImage("team/app", "v1", registry.NewLayer(1, 5000))
		plugin := script("plugin", `echo '{"kind":"CredentialProviderResponse","apiVersion":"credentialprovider.kubelet.k8s.io/v1","cacheKeyType":"Registry","auth":{"`+host+`":{"username":"u","password":"MARKERpassword"}}}'`)
		auths := writeFile(t, dir, "auths.json", `{"auths":{"`+host+`":{"auth":"dTpNQVJLRVJwYXNzd29yZA=="}}}`)
		helper := writeFile(t, dir, "helper.json", `{"credHelpers":{"`+host+`":"larder-test"}}`)
		for _, way := range []struct{ name, keys, section string }{
			{"password", "username: u, password: MARKERpassword", ""},
			{"password_file", "username: u, password_file: " + password, ""},
			{"file://", "username: u, password: 'file://" + password + "'", ""},
			{"credential_provider", "credential_provider: {command: " + plugin + "}", ""},
			{"docker_config", "", "docker_config: " + auths + ", "},
			{"docker_config, helper", "", "docker_config: " + helper + ", "},
		} {
			t.Run(name+" by "+way.name, func(t *testing.T) {
				entry := "{host: '" + host + "', insecure: true, " + way.keys + "}"
				p := startWith(t, "registry_proxies: {"+way.section+"max_size: 1GiB, min_free: '0', registries: ["+entry+"]}\n")
				p.pullWhole(t, host, img, "MARKER", "dTpNQVJLRVJ")
			})
		}
	}
}

// TestAllowOfTheFile: the file says who is served, and the flag goes before it.
func TestAllowOfTheFile(t *testing.T) {
	reg := registry.Start(t, registry.Options{})
	reg.AddImage("team/app", "v1", registry.NewLayer(1, 100))
	config := func(allow string) string {
		return "registry_proxies: {allow: '" + allow + "', max_size: 1GiB, min_free: '0', registries: [{host: '" + reg.Host() + "', insecure: true}]}\n"
	}
	for _, test := range []struct {
		name, allow string
		flag        []string
		status      int
	}{
		{"any", "any", nil, http.StatusOK},
		{"local", "local", nil, http.StatusOK},
		{"a network we are in", "127.0.0.0/8", nil, http.StatusOK},
		{"others", "192.0.2.0/24", nil, http.StatusForbidden},
		{"others, and local", "192.0.2.0/24, local", nil, http.StatusOK},
		{"the flag admits", "192.0.2.0/24", []string{"--allow", "local"}, http.StatusOK},
		{"the flag refuses", "any", []string{"--allow", "192.0.2.1"}, http.StatusForbidden},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := startWith(t, config(test.allow), test.flag...)
			status, body, err := p.get(t.Context(), "/v2/team/app/manifests/v1?ns="+reg.Host())
			if err != nil || status != test.status {
				t.Errorf("%d, %v, %s", status, err, body)
			}
		})
	}
}

// TestDockerConfigThatCannotBeUsed: the process does not start half blind.
func TestDockerConfigThatCannotBeUsed(t *testing.T) {
	bad := writeFile(t, t.TempDir(), "config.json", `{"auths":{"quay.io":{"auth":"MARKER"}}}`)
	config := writeFile(t, t.TempDir(), "larder.yaml", "registry_proxies: {docker_config: "+bad+"}\n")
	p := launch(t, "mirror", "--config", config, "--data-dir", filepath.Join(t.TempDir(), "data"), "--listen", "127.0.0.1:0", "--admin-listen", "")
	if code := p.exit(t); code != 1 {
		t.Errorf("exit code %d", code)
	}
	if said := p.output(); !strings.Contains(said, "auths of quay.io: auth is not the base64 of user:password") || strings.Contains(said, "MARKER") {
		t.Errorf("it said %s", said)
	}
}
