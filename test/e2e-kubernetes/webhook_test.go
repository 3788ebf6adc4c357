package kubernetes

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/larder-registry/larder/test/kube"
	"github.com/larder-registry/larder/test/process"
)

// The names in docs/admission.md.
const (
	namespace    = "larder"
	registration = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/larder-webhook"
	secret       = "/api/v1/namespaces/larder/secrets/larder-webhook-authority"
)

// rules is the policy most tests are under.
const rules = `image_validation:
  default: Deny
  allow: [ghcr.io/org, docker.io/library, registry.k8s.io]
  deny: [ghcr.io/org/secret]
`

// webhook is an installed webhook and its replicas.
type webhook struct {
	*cluster
	balancer *balancer
	account  string // directory with the service account's files
	config   string // file
	replicas []*replica
}

// replica is one process.
type replica struct {
	*process.Process
	addr, admin string
}

// manifests are the YAML blocks of the documentation that hold objects.
func manifests(t testing.TB) string {
	t.Helper()
	content, err := os.ReadFile(path(t, *docFlag))
	if err != nil {
		t.Fatal(err)
	}
	var objects []string
	for _, block := range regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(string(content), -1) {
		if strings.HasPrefix(block[1], "apiVersion:") {
			objects = append(objects, block[1])
		}
	}
	if len(objects) == 0 {
		t.Fatalf("%s holds no manifests", *docFlag)
	}
	return strings.Join(objects, "---\n")
}

// replaceOnce fails where the documentation no longer says what the tests
// change.
func replaceOnce(t testing.TB, s, old, now string) string {
	t.Helper()
	if strings.Count(s, old) != 1 {
		t.Fatalf("%q is there %d times", old, strings.Count(s, old))
	}
	return strings.Replace(s, old, now, 1)
}

// install starts a cluster and applies the documentation's manifests. Two
// things are not as they are there: the Service leads to the balancer, by name
// and port, and the Deployment has no replicas, since no node would run them.
func install(t testing.TB, failurePolicy string) *webhook {
	t.Helper()
	w := &webhook{cluster: startCluster(t), balancer: startBalancer(t)}
	_, port, err := net.SplitHostPort(w.balancer.addr)
	if err != nil {
		t.Fatal(err)
	}
	objects := manifests(t)
	objects = replaceOnce(t, objects, "path: /validate-image, port: 443", "path: /validate-image, port: "+port)
	objects = replaceOnce(t, objects, "  selector: {app.kubernetes.io/name: larder-webhook}\n  ports:\n    - {port: 443, targetPort: webhook}\n", "  type: ExternalName\n  externalName: localhost\n")
	objects = replaceOnce(t, objects, "  replicas: 2\n", "  replicas: 0\n")
	objects = replaceOnce(t, objects, "failurePolicy: Ignore        # Fail, once it has proved itself", "failurePolicy: "+failurePolicy)
	w.DoWith(t, objects, "apply", "-f", "-")
	w.account = filepath.Join(w.Dir, "account")
	ca, err := os.ReadFile(filepath.Join(w.Dir, "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, w.account, "ca.crt", string(ca))
	write(t, w.account, "namespace", namespace+"\n")
	write(t, w.account, "token", w.Do(t, "create", "token", "larder-webhook", "--namespace", namespace))
	return w
}

// enforce installs the webhook, starts that many replicas and waits until every
// pod is reviewed.
func enforce(t testing.TB, replicas int, config string) *webhook {
	t.Helper()
	w := install(t, "Fail")
	w.config = w.write(t, config)
	for range replicas {
		w.start(t, w.config)
	}
	w.serve(t, w.replicas...)
	w.reviewed(t)
	return w
}

// write makes a configuration file in a directory of its own.
func (w *webhook) write(t testing.TB, config string) string {
	t.Helper()
	dir, err := os.MkdirTemp(w.Dir, "config-")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(config, "webhook:") {
		config += "webhook: {}\n"
	}
	// The one thing that is otherwise in a pod.
	config = strings.Replace(config, "webhook: {", fmt.Sprintf("webhook: {service_account_dir: %q, ", w.account), 1)
	return write(t, dir, "larder.yaml", config)
}

// start starts a replica and waits until it listens.
func (w *webhook) start(t testing.TB, config string, args ...string) *replica {
	t.Helper()
	r := w.launch(t, config, args...)
	w.listening(t, r)
	return r
}

// launch starts a replica.
func (w *webhook) launch(t testing.TB, config string, args ...string) *replica {
	t.Helper()
	host, port, err := net.SplitHostPort(w.Addr)
	if err != nil {
		t.Fatal(err)
	}
	return &replica{Process: process.Spawn(t, w.Dir, []string{"KUBERNETES_SERVICE_HOST=" + host, "KUBERNETES_SERVICE_PORT=" + port}, path(t, *larderFlag), append([]string{
		"central", "--serve", "webhook", "--config", config, "--webhook-listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0",
		"--log-format", "json", "--shutdown-delay", "1s",
	}, args...)...)}
}

// listening waits until a replica listens, and counts it as one of w's.
func (w *webhook) listening(t testing.TB, r *replica) {
	t.Helper()
	r.Await(t, "larder central to serve", func(context.Context) error {
		line, ok := r.logged("larder central serves")
		if !ok {
			return errors.New("not yet")
		}
		r.addr, r.admin = strings.TrimPrefix(fmt.Sprint(line["listen"]), "webhook="), fmt.Sprint(line["admin"])
		return nil
	})
	w.replicas = append(w.replicas, r)
}

// logged finds the last line of the log with that message.
func (r *replica) logged(message string) (line map[string]any, ok bool) {
	lines := r.lines(message)
	if len(lines) == 0 {
		return nil, false
	}
	return lines[len(lines)-1], true
}

// lines are the lines of the log with that message.
func (r *replica) lines(message string) (found []map[string]any) {
	scan := bufio.NewScanner(strings.NewReader(r.Output()))
	scan.Buffer(nil, 1<<20)
	for scan.Scan() {
		var line map[string]any
		if json.Unmarshal(scan.Bytes(), &line) == nil && line["msg"] == message {
			found = append(found, line)
		}
	}
	return found
}

// ready asks a replica's own check.
func (r *replica) ready(ctx context.Context) error {
	return process.Answers("http://" + r.admin + "/readyz")(ctx)
}

// serve sends reviews to these replicas, each once it is ready.
func (w *webhook) serve(t testing.TB, replicas ...*replica) {
	t.Helper()
	var addrs []string
	for _, r := range replicas {
		r.Await(t, "a replica to be ready", r.ready)
		addrs = append(addrs, r.addr)
	}
	w.balancer.to(addrs...)
}

// probe asks whether a pod with that image may be, without making it.
func (w *webhook) probe(namespace, image string) (status int, answer string, err error) {
	return w.call(kube.Admin, http.MethodPost, "/api/v1/namespaces/"+namespace+"/pods?dryRun=All", podJSON("probe", image))
}

func podJSON(name, image string) string {
	body, err := json.Marshal(map[string]any{
		"apiVersion": "v1", "kind": "Pod", "metadata": map[string]string{"name": name},
		"spec": map[string]any{"containers": []any{map[string]string{"name": "c", "image": image}}},
	})
	if err != nil {
		return err.Error()
	}
	return string(body)
}

// reviewed waits until a bad image is denied, by the policy, and a good one is
// not.
func (w *webhook) reviewed(t testing.TB) {
	t.Helper()
	process.Await(t, "reviews", func(context.Context) error {
		status, answer, err := w.probe("default", "quay.io/evil")
		if err != nil {
			return err
		}
		if status != 403 || !strings.Contains(answer, "the image policy of this cluster") {
			return fmt.Errorf("status %d: %.300s", status, answer)
		}
		status, answer, err = w.probe("default", "nginx")
		if err == nil && status != 201 {
			err = fmt.Errorf("status %d: %.300s", status, answer)
		}
		return err
	})
}

// unenforced runs f while the registration is away, which is how violators come
// to be.
func (w *webhook) unenforced(t testing.TB, f func()) {
	t.Helper()
	saved := w.Do(t, "get", "validatingwebhookconfiguration", "larder-webhook", "-o", "yaml")
	saved = regexp.MustCompile(`(?m)^  (resourceVersion|uid): .*\n`).ReplaceAllString(saved, "")
	w.Do(t, "delete", "validatingwebhookconfiguration", "larder-webhook")
	process.Await(t, "the registration to be gone", func(context.Context) error {
		status, answer, err := w.probe("default", "quay.io/evil")
		if err == nil && status != 201 {
			err = fmt.Errorf("status %d: %.300s", status, answer)
		}
		return err
	})
	f()
	w.DoWith(t, saved, "create", "-f", "-")
	w.serve(t, w.replicas...)
	w.reviewed(t)
}

// names lists the objects of a kind in a namespace.
func (c *cluster) names(t testing.TB, kind, namespace string) []string {
	t.Helper()
	names := strings.Fields(c.Do(t, "get", kind, "-n", namespace, "-o", "name"))
	slices.Sort(names)
	return names
}
