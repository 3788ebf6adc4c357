package certificate

import (
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/sirupsen/logrus/hooks/test"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds what takes a moment; it is long because machines may be busy.
const patience = time.Minute

// apiServer stands in for the four calls to the real one, which is in
// test/e2e-kubernetes: two objects with versions, and one token that counts.
type apiServer struct {
	http *httptest.Server
	dir  string

	mu      sync.Mutex
	version int
	token   string
	// secretData is nil when there is no Secret; bundles is nil when there is
	// no registration.
	secretData    map[string][]byte
	secretVersion int
	bundles       [][]byte
	regVersion    int
	conflicts     int // that many writes fail
	failing       bool
	calls         map[string]int
	called        chan struct{} // has something after each call
}

const (
	secretURL = "/api/v1/namespaces/larder/secrets/authority"
	regURL    = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/webhook"
)

func startAPI(t *testing.T) *apiServer {
	t.Helper()
	a := &apiServer{
		dir: t.TempDir(), version: 10, secretVersion: 1, regVersion: 2, token: "token-1",
		secretData: map[string][]byte{}, bundles: make([][]byte, 2), calls: map[string]int{}, called: make(chan struct{}, 1),
	}
	a.http = httptest.NewTLSServer(a)
	t.Cleanup(a.http.Close)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.http.Certificate().Raw})
	a.file(t, "ca.crt", string(ca))
	a.file(t, "token", "token-1\n")
	return a
}

func (a *apiServer) file(t *testing.T, name, content string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(a.dir, name), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// do changes what there is, with a new version for both objects.
func (a *apiServer) do(f func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f()
	a.version++
	a.secretVersion, a.regVersion = a.version, a.version
}

func (a *apiServer) count(call string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.calls[call]
}

// ServeHTTP implements http.Handler.
func (a *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	a.mu.Lock()
	status, answer := a.answer(r, body)
	a.calls[r.Method+" "+r.URL.Path]++
	a.mu.Unlock()
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(answer)
	select {
	case a.called <- struct{}{}:
	default:
	}
}

type object = map[string]any

func (a *apiServer) answer(r *http.Request, body []byte) (int, any) {
	failure := func(status int, text string) (int, any) {
		return status, object{"kind": "Status", "status": "Failure", "message": text, "code": status}
	}
	write := r.Method == http.MethodPut || r.Method == http.MethodPatch
	switch {
	case r.Header.Get("Authorization") != "Bearer "+a.token:
		return failure(http.StatusUnauthorized, "Unauthorized")
	case a.failing:
		return http.StatusServiceUnavailable, "the body of a proxy"
	case write && a.conflicts > 0:
		a.conflicts--
		return failure(http.StatusConflict, "the object has been modified")
	}
	var sent struct {
		Metadata struct {
			ResourceVersion string `json:"resourceVersion"`
		} `json:"metadata"`
		Data     map[string][]byte `json:"data"`
		Type     string            `json:"type"`
		Webhooks []struct {
			Name         string `json:"name"`
			ClientConfig struct {
				CABundle []byte `json:"caBundle"`
			} `json:"clientConfig"`
		} `json:"webhooks"`
	}
	if write && json.Unmarshal(body, &sent) != nil {
		return failure(http.StatusBadRequest, "not JSON")
	}
	switch r.Method + " " + r.URL.Path {
	case "GET " + secretURL, "PUT " + secretURL:
		if a.secretData == nil {
			return failure(http.StatusNotFound, `secrets "authority" not found`)
		}
		if write {
			if sent.Metadata.ResourceVersion != strconv.Itoa(a.secretVersion) {
				return failure(http.StatusConflict, "the object has been modified")
			}
			if sent.Type != "Opaque" {
				return failure(http.StatusUnprocessableEntity, "type is immutable")
			}
			a.version++
			a.secretVersion, a.secretData = a.version, sent.Data
		}
		return http.StatusOK, object{
			"metadata": object{"resourceVersion": strconv.Itoa(a.secretVersion), "labels": object{"a": "b"}}, "type": "Opaque", "data": a.secretData,
		}
	case "GET " + regURL, "PATCH " + regURL:
		if a.bundles == nil {
			return failure(http.StatusNotFound, `validatingwebhookconfigurations "webhook" not found`)
		}
		if write {
			if r.Header.Get("Content-Type") != "application/strategic-merge-patch+json" || sent.Metadata.ResourceVersion != strconv.Itoa(a.regVersion) {
				return failure(http.StatusConflict, "the object has been modified")
			}
			for _, hook := range sent.Webhooks {
				i, err := strconv.Atoi(strings.TrimPrefix(hook.Name, "hook-"))
				if err != nil || i >= len(a.bundles) {
					return failure(http.StatusUnprocessableEntity, "no such webhook")
				}
				a.bundles[i] = hook.ClientConfig.CABundle
			}
			a.version++
			a.regVersion = a.version
		}
		hooks := []any{}
		for i, b := range a.bundles {
			client := object{"caBundle": b, "service": object{"name": "webhook", "namespace": "larder", "port": 443}}
			if i == 1 {
				client = object{"caBundle": b, "url": "https://127.0.0.1:8443/x"}
			}
			hooks = append(hooks, object{"name": "hook-" + strconv.Itoa(i), "clientConfig": client})
		}
		return http.StatusOK, object{"metadata": object{"resourceVersion": strconv.Itoa(a.regVersion)}, "webhooks": hooks}
	}
	return failure(http.StatusForbidden, "nobody may do that")
}

// self makes a Self that looks every 20 ms, and what it logs.
func (a *apiServer) self(t *testing.T, change func(*SelfConfig)) (*Self, *test.Hook) {
	t.Helper()
	u, err := url.Parse(a.http.URL)
	if err != nil {
		t.Fatal(err)
	}
	cluster, err := NewCluster(ClusterConfig{Server: u.Host, TokenFile: filepath.Join(a.dir, "token"), CAFile: filepath.Join(a.dir, "ca.crt")})
	if err != nil {
		t.Fatal(err)
	}
	logger, hook := test.NewNullLogger()
	cfg := SelfConfig{
		Cluster: cluster, Namespace: "larder", Secret: "authority", Registration: "webhook",
		Interval: 20 * time.Millisecond, Settle: 200 * time.Millisecond, Overlap: time.Hour, Log: logrus.NewEntry(logger),
	}
	if change != nil {
		change(&cfg)
	}
	s, err := NewSelf(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s, hook
}

// await waits until ready is nil, looking after each call to the API server.
func (a *apiServer) await(t *testing.T, what string, ready func() error) {
	t.Helper()
	timeout := time.After(patience)
	for {
		err := ready()
		if err == nil {
			return
		}
		select {
		case <-a.called:
		case <-time.After(10 * time.Millisecond):
		case <-timeout:
			t.Fatalf("waited in vain for %s: %v", what, err)
		}
	}
}
