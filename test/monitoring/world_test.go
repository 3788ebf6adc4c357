package monitoring

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/larder-registry/larder/test/authority"
	"github.com/larder-registry/larder/test/leak"
	"github.com/larder-registry/larder/test/process"
	"github.com/larder-registry/larder/test/registry"
)

var larderFlag = flag.String("larder", "../../bin/larder", "the program that is looked at")

func TestMain(m *testing.M) { leak.Main(m) }

// larder is a running larder.
type larder struct {
	*process.Process
	addr, admin, dir string
}

// startLarder starts it with a configuration file and waits until it says where
// it listens.
func startLarder(t *testing.T, config string, args ...string) *larder {
	t.Helper()
	return startLarderWith(t, nil, config, args...)
}

func startLarderWith(t *testing.T, env []string, config string, args ...string) *larder {
	t.Helper()
	l := &larder{dir: t.TempDir()}
	file := write(t, l.dir, "larder.yaml", config)
	args = append(args, "--config", file, "--admin-listen", "127.0.0.1:0", "--log-format", "json")
	if !strings.Contains(strings.Join(args, " "), "--serve=webhook") {
		args = append(args, "--listen", "127.0.0.1:0", "--data-dir", filepath.Join(l.dir, "data"))
	}
	l.Process = process.Spawn(t, t.TempDir(), env, *larderFlag, args...)
	l.Await(t, "larder to serve", func(context.Context) error {
		for line := range strings.Lines(l.Output()) {
			var said struct{ Msg, Listen, Admin string }
			if json.Unmarshal([]byte(line), &said) == nil && strings.HasPrefix(said.Msg, "larder ") && strings.HasSuffix(said.Msg, " serves") {
				_, l.addr, _ = strings.Cut("="+said.Listen[strings.LastIndexByte(said.Listen, '=')+1:], "=")
				l.admin = said.Admin
				return nil
			}
		}
		return errors.New("it has not said so")
	})
	return l
}

// metrics is the page of metrics.
func (l *larder) metrics(t *testing.T) string {
	t.Helper()
	_, _, body := do(t, http.MethodGet, "http://"+l.admin+"/metrics", nil, nil)
	return body
}

// write makes a file.
func write(t *testing.T, dir, name, content string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// do asks and reads all of the answer.
func do(t *testing.T, method, target string, header http.Header, body io.Reader) (int, http.Header, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, target, body)
	if err != nil {
		t.Fatal(err)
	}
	if header != nil {
		req.Header = header.Clone()
	}
	return send(t, http.DefaultClient, req)
}

func send(t *testing.T, client *http.Client, req *http.Request) (int, http.Header, string) {
	t.Helper()
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	// A body that breaks off is what some of them are about.
	content, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, resp.Header, string(content)
}

// certificate makes tls.crt and tls.key in dir, for webhook.test and a day, and
// returns a client that trusts them.
func certificate(t *testing.T, dir string) *http.Client {
	t.Helper()
	roots := authority.Write(t, dir, "webhook.test").Pool()
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: "webhook.test"}}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// world is all there is.
type world struct {
	mirror, full, gone *larder // full can keep nothing; gone was killed
	central            *larder
	webhooks           [2]*larder // with different policies
	certificates       string     // where the webhooks have theirs
	reviewer           *http.Client

	open, private, broken *registry.Server
	metered               string // a registry with a rate limit
	layers                []registry.Layer

	prometheus string // its URL
}

const (
	user, password = "admin", "correct horse"
	puller, secret = "team", "pull secret"
)

// targets is how many processes are scraped.
const targets = "6"

// startWorld starts everything, and has Prometheus scrape it every five seconds.
func startWorld(t *testing.T) *world {
	t.Helper()
	w := &world{
		open:    registry.Start(t, registry.Options{}),
		broken:  registry.Start(t, registry.Options{}),
		private: registry.Start(t, registry.Options{Users: map[string]string{puller: secret}}),
	}
	behind, err := url.Parse(w.open.URL())
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(behind)
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	proxy.Transport = transport
	proxy.ModifyResponse = func(r *http.Response) error {
		r.Header.Set("Ratelimit-Limit", "100;w=21600")
		r.Header.Set("Ratelimit-Remaining", "7;w=21600")
		return nil
	}
	metered := httptest.NewServer(proxy)
	t.Cleanup(metered.Close)
	w.metered = strings.TrimPrefix(metered.URL, "http://")

	upstreams := ""
	for _, host := range []string{w.open.Host(), w.broken.Host(), w.private.Host(), w.metered} {
		upstreams += fmt.Sprintf("    - {host: %q, insecure: true}\n", host)
	}
	const limits = "registry_proxies:\n  max_size: %s\n  min_free: %s\n  registries:\n"
	const collector = "tracing: {endpoint: 'http://127.0.0.1:1'}\n" // where nobody is
	w.mirror = startLarder(t, collector+fmt.Sprintf(limits, "1MiB", "1")+upstreams+
		"image_validation: {default: Allow, deny: ["+w.open.Host()+"/denied]}\n", "mirror")
	w.full = startLarder(t, fmt.Sprintf(limits, "1GiB", "100%")+upstreams, "mirror")
	w.gone = startLarder(t, fmt.Sprintf(limits, "1GiB", "1")+upstreams, "mirror")

	dir := t.TempDir()
	w.central = startLarder(t, collector+"central: {min_free: 1MiB, gc: {retention: [{repositories: [team], keep_tags: 1}]}}\n", "central", "--plain-http",
		"--user", user, "--password-file", write(t, dir, "password", password))
	w.certificates, w.reviewer = dir, certificate(t, dir)
	for i, allowed := range []string{"docker.io", "quay.io"} {
		w.webhooks[i] = startLarder(t, "webhook: {certificate: files}\nimage_validation: {default: Deny, allow: ["+allowed+"]}\n",
			"central", "--serve=webhook", "--webhook-listen", "127.0.0.1:0", "--shutdown-delay", "0s",
			"--tls-cert", filepath.Join(dir, "tls.crt"), "--tls-key", filepath.Join(dir, "tls.key"))
	}
	w.startPrometheus(t)
	return w
}

func (w *world) startPrometheus(t *testing.T) {
	t.Helper()
	rules, err := filepath.Abs(rulesFile)
	if err != nil {
		t.Fatal(err)
	}
	dir, addr := t.TempDir(), process.Addr(t)
	config := "global: {scrape_interval: 5s, scrape_timeout: 5s, evaluation_interval: 5s}\nrule_files: [" + rules + "]\nscrape_configs:\n"
	for job, all := range map[string][]*larder{
		"mirrors": {w.mirror, w.full, w.gone}, "registry": {w.central}, "webhook": w.webhooks[:],
	} {
		var targets []string
		for _, l := range all {
			targets = append(targets, l.admin)
		}
		config += fmt.Sprintf("  - {job_name: %s, static_configs: [{targets: ['%s']}]}\n", job, strings.Join(targets, "', '"))
	}
	p := process.Spawn(t, dir, nil, "prometheus", "--config.file="+write(t, dir, "prometheus.yml", config),
		"--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+addr)
	w.prometheus = "http://" + addr
	p.Await(t, "Prometheus to be ready", process.Answers(w.prometheus+"/-/ready"))
}

// api asks Prometheus' API and decodes the data of its answer into v.
func (w *world) api(t *testing.T, path string, query url.Values, v any) error {
	t.Helper()
	_, _, body := do(t, http.MethodGet, w.prometheus+"/api/v1/"+path+"?"+query.Encode(), nil, nil)
	answer := struct {
		Status, Error string
		Data          any
	}{Data: v}
	if err := json.Unmarshal([]byte(body), &answer); err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	if answer.Status != "success" {
		return fmt.Errorf("%s", answer.Error)
	}
	return nil
}

// sample is one value that a query came to.
type sample struct {
	Metric map[string]string
	Value  [2]any
}

func (s sample) value() string { return fmt.Sprint(s.Value[1]) }

// query evaluates an expression now.
func (w *world) query(t *testing.T, expr string) ([]sample, error) {
	t.Helper()
	var data struct{ Result []sample }
	err := w.api(t, "query", url.Values{"query": {expr}}, &data)
	return data.Result, err
}

// scraped waits until Prometheus has scraped everything once more.
func (w *world) scraped(t *testing.T) {
	t.Helper()
	after := fmt.Sprintf("%.3f", float64(time.Now().UnixMilli())/1000)
	process.Await(t, "another scrape", func(context.Context) error {
		// Targets that have never been scraped have no series at all.
		done, err := w.query(t, "count(timestamp(up) >= "+after+")")
		if err == nil && (len(done) == 0 || done[0].value() != targets) {
			err = fmt.Errorf("only %v of %s targets were scraped", done, targets)
		}
		return err
	})
}
