package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/sirupsen/logrus/hooks/test"

	"github.com/larder-registry/larder/test/authority"
)

// certificateFiles makes dir/tls.crt and dir/tls.key for webhook.test, and returns
// what trusts them.
func certificateFiles(t *testing.T, dir string) *x509.CertPool {
	t.Helper()
	return authority.Write(t, dir, "webhook.test").Pool()
}

// mount is a directory as the kubelet mounts a ConfigMap or a Secret: its files
// are links through ..data, which is swapped.
type mount struct {
	dir string
	n   int
}

// put swaps all of the content at once.
func (m *mount) put(t *testing.T, fill func(dir string)) {
	t.Helper()
	m.n++
	version := filepath.Join(m.dir, fmt.Sprintf("..%d", m.n))
	if err := os.Mkdir(version, 0o755); err != nil {
		t.Fatal(err)
	}
	fill(version)
	next := filepath.Join(m.dir, "..next")
	if err := os.Symlink(filepath.Base(version), next); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, filepath.Join(m.dir, "..data")); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(version)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if err := os.Symlink(filepath.Join("..data", e.Name()), filepath.Join(m.dir, e.Name())); err != nil && !os.IsExist(err) {
			t.Fatal(err)
		}
	}
}

const reviewOfPod = `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u-1",
	"kind":{"group":"","version":"v1","kind":"Pod"},"resource":{"group":"","version":"v1","resource":"pods"},"namespace":"team","operation":"CREATE",
	"object":{"spec":{"containers":[{"name":"c","image":"quay.io/x"}]}}}}`

// review asks the webhook at addr about quay.io/x.
func review(t *testing.T, addr string, roots *x509.CertPool) (*http.Response, string) {
	t.Helper()
	client := http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: "webhook.test", MinVersion: tls.VersionTLS12}, DisableKeepAlives: true,
	}}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+addr+"/validate-image", strings.NewReader(reviewOfPod))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

// TestTheWebhookFollowsItsFiles changes policy and certificate of a running
// webhook, for better and for worse.
func TestTheWebhookFollowsItsFiles(t *testing.T) {
	config, certs := &mount{dir: t.TempDir()}, &mount{dir: t.TempDir()}
	policy := func(image string) {
		t.Helper()
		config.put(t, func(dir string) {
			writeFile(t, dir, "larder.yaml", "webhook: {certificate: files}\nimage_validation: {default: Deny, allow: ["+image+"], deny: [ghcr.io/secret]}\n")
		})
	}
	var roots *x509.CertPool
	policy("ghcr.io")
	certs.put(t, func(dir string) { roots = certificateFiles(t, dir) })
	p := launch(t, "central", "--serve=webhook", "--config", filepath.Join(config.dir, "larder.yaml"), "--webhook-listen", "127.0.0.1:0",
		"--admin-listen", "127.0.0.1:0", "--log-format", "json", "--shutdown-delay", "0s",
		"--tls-cert", filepath.Join(certs.dir, "tls.crt"), "--tls-key", filepath.Join(certs.dir, "tls.key"))
	banner := p.waitFor(t, "image policy in force")
	for key, want := range map[string]any{"default": "Deny", "allow": "ghcr.io", "deny": "ghcr.io/secret", "mode": "enforce", "workloads": "warn"} {
		if banner[key] != want {
			t.Errorf("the banner says %s is %v, want %v", key, banner[key], want)
		}
	}
	line := p.waitFor(t, "larder central serves")
	addr, admin := strings.TrimPrefix(fmt.Sprint(line["listen"]), "webhook="), fmt.Sprint(line["admin"])
	expect := func(allowed bool) {
		t.Helper()
		if resp, body := review(t, addr, roots); resp.StatusCode != 200 || !strings.Contains(body, fmt.Sprintf(`"uid":"u-1","allowed":%v`, allowed)) {
			t.Errorf("%s: %s, want allowed %v", resp.Status, body, allowed)
		}
	}
	counted := func(want ...string) {
		t.Helper()
		_, body, err := p.get(t.Context(), "http://"+admin+"/metrics")
		for _, w := range want {
			if err != nil || !strings.Contains(string(body), "\n"+w+"\n") {
				t.Errorf("the metrics have no %s (%v)", w, err)
			}
		}
	}
	expect(false)
	counted(fmt.Sprintf(`larder_policy_revision_info{revision="%s"} 1`, banner["revision"]), "larder_policy_reload_errors_total 0",
		`larder_admission_reviews_total{decision="denied",mode="enforce",operation="CREATE",resource="pods"} 1`)

	policy("quay.io")
	if banner := p.waitFor(t, "image policy in force"); banner["allow"] != "quay.io" {
		t.Errorf("the banner says %v", banner)
	}
	expect(true)

	policy("https://ghcr.io")
	refused := p.waitFor(t, "the changed configuration is refused; the policy that was in force stays")
	if text := fmt.Sprint(refused["error"]); !strings.Contains(text, `larder.yaml:2:43: image_validation.allow[0]: "https://ghcr.io" can never match`) {
		t.Errorf("refused for %s", text)
	}
	expect(true)
	counted("larder_policy_reload_errors_total 1")
	config.put(t, func(dir string) { writeFile(t, dir, "larder.yaml", "webhook: {certificate: files}\n") })
	p.waitFor(t, "the changed configuration is refused; the policy that was in force stays")
	expect(true)
	policy("ghcr.io")
	p.waitFor(t, "image policy in force")
	expect(false)

	certs.put(t, func(dir string) { certificateFiles(t, dir); writeFile(t, dir, "tls.key", "no key") })
	p.waitFor(t, "the webhook's certificate cannot be read; what is served stays")
	expect(false)
	certs.put(t, func(dir string) { roots = certificateFiles(t, dir) })
	p.waitFor(t, "serving a new certificate")
	expect(false)
	if status, body, err := p.get(t.Context(), "http://"+admin+"/readyz"); status != 200 || err != nil {
		t.Error(status, string(body), err)
	}
	p.signal(t, syscall.SIGTERM)
	if code := p.exit(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// TestAStoppingWebhookStillAnswers until it is over: reviews are answered, and
// their connections ended, while probes say that it goes.
func TestAStoppingWebhookStillAnswers(t *testing.T) {
	dir := t.TempDir()
	roots := certificateFiles(t, dir)
	config := writeFile(t, dir, "larder.yaml", "webhook: {certificate: files}\nimage_validation: {default: Allow}\n")
	p := launch(t, "central", "--serve=webhook", "--config", config, "--webhook-listen", "127.0.0.1:0",
		"--admin-listen", "127.0.0.1:0", "--log-format", "json", "--shutdown-delay", "1h", "--drain-timeout", "1h",
		"--tls-cert", filepath.Join(dir, "tls.crt"), "--tls-key", filepath.Join(dir, "tls.key"))
	line := p.waitFor(t, "larder central serves")
	addr, admin := strings.TrimPrefix(fmt.Sprint(line["listen"]), "webhook="), fmt.Sprint(line["admin"])
	p.signal(t, syscall.SIGTERM)
	p.waitFor(t, "stopping")
	for deadline := time.Now().Add(patience); ; {
		status, body, err := p.get(t.Context(), "http://"+admin+"/readyz")
		if err != nil {
			t.Fatal(err)
		}
		if status == http.StatusServiceUnavailable && strings.Contains(string(body), "stopping") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(status, string(body))
		}
	}
	if resp, body := review(t, addr, roots); resp.StatusCode != 200 || !resp.Close {
		t.Errorf("%s, closed %v: %s", resp.Status, resp.Close, body)
	}
	p.signal(t, syscall.SIGTERM)
	if code := p.exit(t); code != 1 || !strings.Contains(p.output(), "a second signal") {
		t.Errorf("exit code %d: %s", code, p.output())
	}
}

// TestACertificateThatIsNotTrustedIsLogged once for all the clients that follow.
func TestACertificateThatIsNotTrustedIsLogged(t *testing.T) {
	logger, logged := test.NewNullLogger()
	refused := 0
	w := &handshakes{log: logrus.NewEntry(logger), refused: func() { refused++ }}
	for _, line := range []string{
		"http: TLS handshake error from 127.0.0.1:1: EOF\n",
		"http: TLS handshake error from 127.0.0.1:1: remote error: tls: bad certificate\n",
		"http: TLS handshake error from 127.0.0.1:2: remote error: tls: unknown certificate authority\n",
		"http: TLS handshake error from 127.0.0.1:3: tls: client offered only unsupported versions: []\n",
	} {
		if n, err := w.Write([]byte(line)); n != len(line) || err != nil {
			t.Error(n, err)
		}
	}
	if lines := len(logged.AllEntries()); refused != 2 || lines != 1 {
		t.Errorf("%d were counted, %d lines logged", refused, lines)
	}
}

func TestTheWebhooksUsage(t *testing.T) {
	dir := t.TempDir()
	certificateFiles(t, dir)
	self := writeFile(t, dir, "self.yaml", "image_validation: {default: Allow}\n")
	files := writeFile(t, dir, "files.yaml", "image_validation: {default: Allow}\nwebhook: {certificate: files}\n")
	none := writeFile(t, dir, "none.yaml", "webhook: {certificate: files}\n")
	cert, key := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	for _, c := range []struct {
		name string
		args []string
		code int
		want string
	}{
		{"an unknown service", []string{"--serve", "proxy"}, 2, `--serve "proxy": there is no such service`},
		{"a service twice", []string{"--serve", "webhook,webhook"}, 2, "--serve: webhook is there twice"},
		{"no service", []string{"--serve", ""}, 2, "--serve"},
		{"no policy", []string{"--config", none, "--tls-cert", cert, "--tls-key", key}, 2, "the webhook has no policy"},
		{"no configuration", nil, 2, "the webhook has no policy"},
		{"the address of one service of two", []string{"--serve", "registry,webhook", "--plain-http", "--config", files, "--webhook-listen", "8443"}, 2, `--webhook-listen "8443": write host:port`},
		{"an address", []string{"--config", files, "--webhook-listen", "8443"}, 2, `--webhook-listen "8443": write host:port`},
		{"a negative delay", []string{"--config", files, "--shutdown-delay", "-1s"}, 2, "--shutdown-delay -1s: it cannot be negative"},
		{"no files", []string{"--config", files}, 2, "webhook.certificate is files: give --tls-cert and --tls-key"},
		{"half of them", []string{"--config", files, "--tls-cert", cert}, 2, "give --tls-cert and --tls-key"},
		{"files that are not used", []string{"--config", self, "--tls-cert", cert, "--tls-key", key}, 2, "write 'certificate: files'"},
		{"exchanged files", []string{"--config", files, "--tls-cert", key, "--tls-key", cert}, 1, "read certificate"},
		{"no pod", []string{"--config", self}, 2, "this is no pod, as KUBERNETES_SERVICE_HOST"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv("KUBERNETES_SERVICE_HOST", "")
			args := append([]string{"central", "--serve=webhook", "--webhook-listen", "127.0.0.1:0", "--admin-listen", ""}, c.args...)
			if c.name == "no service" || strings.Contains(c.name, "service") {
				args = append([]string{"central"}, c.args...)
			}
			code, _, errs := larder(args...)
			if code != c.code || !strings.Contains(errs, c.want) {
				t.Errorf("exit code %d, %q; want %d, %q", code, errs, c.code, c.want)
			}
		})
	}
	t.Run("a pod without an account", func(t *testing.T) {
		t.Setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
		t.Setenv("KUBERNETES_SERVICE_PORT", "1")
		config := writeFile(t, dir, "account.yaml", "image_validation: {default: Allow}\nwebhook: {service_account_dir: none}\n")
		code, _, errs := larder("central", "--serve=webhook", "--webhook-listen", "127.0.0.1:0", "--admin-listen", "", "--config", config)
		if code != 1 || !strings.Contains(errs, "find out namespace: open "+filepath.Join(dir, "none", "namespace")) {
			t.Errorf("exit code %d, %q", code, errs)
		}
	})
}
