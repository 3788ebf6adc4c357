package auth

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/larder-registry/larder/internal/oci"
)

// testCluster is an API server that knows reviews, as Kubernetes 1.37 answers
// them.
type testCluster struct {
	*httptest.Server
	mu sync.Mutex
	// tokens are accounts by token, for the audience registry.test.
	tokens map[string]string
	// blind: it knows nothing of audiences.
	blind bool
	// allowed are "user verb namespace/name"; a name of * is any.
	allowed []string
	status  int // if not 0, of every answer
	asked   map[string]int
	own     []string // Authorization headers seen
}

func newTestCluster(t *testing.T) *testCluster {
	t.Helper()
	k := &testCluster{tokens: map[string]string{}, asked: map[string]int{}}
	k.Server = httptest.NewServer(http.HandlerFunc(k.serve))
	t.Cleanup(k.Close)
	return k
}

func (k *testCluster) set(change func(*testCluster)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	change(k)
}

func (k *testCluster) serve(w http.ResponseWriter, r *http.Request) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.own = append(k.own, r.Header.Get("Authorization"))
	k.asked[r.URL.Path]++
	if k.status != 0 {
		http.Error(w, "no", k.status)
		return
	}
	var in map[string]any
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	spec, _ := in["spec"].(map[string]any)
	status := map[string]any{}
	switch r.URL.Path {
	case "/apis/authentication.k8s.io/v1/tokenreviews":
		token, _ := spec["token"].(string)
		asked, _ := spec["audiences"].([]any)
		account, known := k.tokens[token]
		if !known || !slices.Contains(asked, any("registry.test")) {
			status["error"] = "invalid bearer token"
			break
		}
		namespace, _, _ := strings.Cut(account, ":")
		status["authenticated"] = true
		if !k.blind {
			status["audiences"] = []string{"registry.test"}
		}
		status["user"] = map[string]any{
			"username": "system:serviceaccount:" + account,
			"groups":   []string{"system:serviceaccounts", "system:serviceaccounts:" + namespace, "system:authenticated"},
		}
	case "/apis/authorization.k8s.io/v1/subjectaccessreviews":
		a, _ := spec["resourceAttributes"].(map[string]any)
		if a["group"] != APIGroup || a["resource"] != "repositories" {
			break
		}
		line := fmt.Sprintf("%v %v %v/", spec["user"], a["verb"], a["namespace"])
		name, _ := a["name"].(string)
		status["allowed"] = slices.Contains(k.allowed, line+"*") || name != "" && slices.Contains(k.allowed, line+name)
	default:
		http.NotFound(w, r)
		return
	}
	in["status"] = status
	w.WriteHeader(http.StatusCreated)
	_ = json.NewEncoder(w).Encode(in)
}

// accountToken looks like a token of a service account.
func accountToken(name string) string {
	return "eyJhbGciOiJSUzI1NiJ9." + strings.Repeat("x", 60) + "." + name
}

func withCluster(t *testing.T, k *testCluster, reviews bool) (*Authority, *clock, *lockedBuffer) {
	t.Helper()
	tokenFile := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(tokenFile, []byte("own-token\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	client, err := NewClient(ClientConfig{TokenFile: tokenFile})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.CloseIdleConnections)
	log, said := logs()
	c := newClock()
	cluster, err := NewCluster(ClusterConfig{Name: "kubernetes", URL: k.URL + "/", Audiences: []string{"registry.test"}, Client: client, Now: c.Now})
	if err != nil {
		t.Fatal(err)
	}
	a, _ := authority(t, func(cfg *Config) {
		cfg.Providers, cfg.Log, cfg.Now = []Provider{cluster}, log, c.Now
		if reviews {
			cfg.Reviewer = cluster
		}
		cfg.Settings.Rules = append(cfg.Settings.Rules,
			Rule{Subjects: []string{"kubernetes:system:serviceaccount:team-k:ci"}, Repositories: []string{"team-k"}, Actions: []oci.Action{oci.ActionPush}},
			Rule{Subjects: []string{"group:kubernetes:system:serviceaccounts:team-k"}, Repositories: []string{"team-k"}, Actions: []oci.Action{oci.ActionPull}})
	})
	return a, c, said
}

func TestServiceAccounts(t *testing.T) {
	k := newTestCluster(t)
	k.tokens[accountToken("ci")] = "team-k:ci"
	k.tokens[accountToken("app")] = "team-k:app"
	k.tokens[accountToken("stranger")] = "other:default"
	a, c, said := withCluster(t, k, false)
	pull, push := oci.ActionPull, oci.ActionPush
	for _, tc := range []struct {
		name, token string
		want        oci.Want
		is          string
	}{
		{"an account", "ci", want("team-k/x", push), "ok"},
		{"an account by its namespace", "app", want("team-k/x", pull), "ok"},
		{"an account without the right", "app", want("team-k/x", push), "DENIED"},
		{"an account of another namespace", "stranger", want("team-k/x", pull), "DENIED"},
		{"no account", "nobody", want("team-k/x", pull), "UNAUTHORIZED"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := ask(t, a, withBasic("token", accountToken(tc.token)), tc.want); got != tc.is {
				t.Errorf("got %s, want %s", got, tc.is)
			}
		})
	}
	const reviews = "/apis/authentication.k8s.io/v1/tokenreviews"
	asked := k.asked[reviews]
	for range 10 {
		ask(t, a, withBasic("token", accountToken("ci")), oci.Want{})
	}
	if k.asked[reviews] != asked {
		t.Errorf("the cluster is asked %d times about what it said a moment ago", k.asked[reviews]-asked)
	}
	k.set(func(k *testCluster) { delete(k.tokens, accountToken("ci")) })
	c.advance(foreignKept)
	if got := ask(t, a, withBasic("token", accountToken("ci")), oci.Want{}); got != "UNAUTHORIZED" {
		t.Errorf("a minute after its pod is gone the token is %s", got)
	}
	k.set(func(k *testCluster) { k.blind = true })
	if got := ask(t, a, withBasic("token", accountToken("app")), oci.Want{}); got != "UNAUTHORIZED" {
		t.Errorf("a token without audience is %s", got)
	}
	k.set(func(k *testCluster) { k.blind, k.status = false, http.StatusForbidden })
	c.advance(foreignKept)
	if got := ask(t, a, withBasic("token", accountToken("app")), oci.Want{}); got != "UNAVAILABLE" {
		t.Errorf("while the cluster refuses us it is %s", got)
	}
	if !strings.Contains(said.String(), "system:auth-delegator") {
		t.Errorf("the log says %s", said)
	}
	for _, header := range k.own {
		if header != "Bearer own-token" {
			t.Errorf("the cluster was sent %q", header)
		}
	}
	if strings.Contains(said.String(), accountToken("app")) || strings.Contains(said.String(), "own-token") {
		t.Error("the log tells a token")
	}
	if got := ask(t, a, withBasic("alice", "wonder"), oci.Want{}); got != "ok" {
		t.Errorf("meanwhile alice is %s", got)
	}
}

func TestRightsByRoles(t *testing.T) {
	k := newTestCluster(t)
	k.tokens[accountToken("ci")] = "build:ci"
	k.allowed = []string{
		"system:serviceaccount:build:ci pull build/*",
		"system:serviceaccount:build:ci push build/app",
		"alice pull secret/*", // a user of the cluster, not of the registry
	}
	a, c, _ := withCluster(t, k, true)
	pull, push := oci.ActionPull, oci.ActionPush
	ci := withBasic("token", accountToken("ci"))
	for _, tc := range []struct {
		name string
		from oci.Caller
		want oci.Want
		is   string
	}{
		{"by namespace", ci, want("build/x/y", pull), "ok"},
		{"the namespace itself", ci, want("build", pull), "ok"},
		{"by name", ci, want("build/app", pull, push), "ok"},
		{"another name", ci, want("build/other", push), "DENIED"},
		{"another namespace", ci, want("team/app", pull), "DENIED"},
		{"a namespace that cannot be", ci, want("a.b/app", pull), "DENIED"},
		{"what is pulled through", ci, want("f/docker.io/library/nginx", pull), "DENIED"},
		{"a user of ours of that name", withBasic("alice", "wonder"), want("secret/x", pull), "DENIED"},
		{"nobody", oci.Caller{}, want("build/x", pull), "UNAUTHORIZED"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := ask(t, a, tc.from, tc.want); got != tc.is {
				t.Errorf("got %s, want %s", got, tc.is)
			}
		})
	}
	subject, err := a.Authorize(t.Context(), ci, want("", oci.ActionCatalog))
	if err != nil {
		t.Fatal(err)
	}
	const reviews = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
	before := k.asked[reviews]
	for i := range 100 {
		if !subject.May(t.Context(), fmt.Sprintf("build/app%d", i), pull) || subject.May(t.Context(), fmt.Sprintf("team/app%d", i), pull) {
			t.Fatal("the catalog shows other things than may be pulled")
		}
	}
	if asked := k.asked[reviews] - before; asked > 2 {
		t.Errorf("a list of 200 repositories asked the cluster %d times", asked)
	}
	k.set(func(k *testCluster) { k.allowed = nil })
	c.advance(allowedKept)
	if got := ask(t, a, ci, want("build/app", push)); got != "DENIED" {
		t.Errorf("a minute after the role is gone it is %s", got)
	}
	k.set(func(k *testCluster) { k.status = http.StatusInternalServerError })
	if got := ask(t, a, ci, want("build/new", pull)); got != "UNAVAILABLE" {
		t.Errorf("while the cluster fails it is %s", got)
	}
	if subject.May(t.Context(), "new/app", pull) {
		t.Error("while the cluster fails the catalog shows what nobody allowed")
	}
}
