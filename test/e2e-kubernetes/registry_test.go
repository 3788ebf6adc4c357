package kubernetes

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/larder-registry/larder/test/kube"
	"github.com/larder-registry/larder/test/process"
)

// registry is a running central registry that knows the cluster's accounts.
type registry struct {
	t    testing.TB
	base string
	http *http.Client
}

// startRegistry starts one, by plain HTTP on loopback, and waits for it.
func startRegistry(t testing.TB, c *cluster, config string) *registry {
	t.Helper()
	dir := t.TempDir()
	listen := process.Addr(t)
	p := process.Spawn(t, dir, nil, path(t, *larderFlag), "central", "--serve", "registry", "--plain-http",
		"--config", write(t, dir, "larder.yaml", config), "--listen", listen, "--admin-listen", "127.0.0.1:0", "--data-dir", filepath.Join(dir, "data"))
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	r := &registry{t, "http://" + listen, &http.Client{Transport: transport}}
	p.Await(t, "the registry", process.Listens("tcp", listen))
	return r
}

// may tries to begin an upload, and gives the status.
func (r *registry) may(authorization, repository string) (int, string) {
	r.t.Helper()
	return r.ask(authorization, http.MethodPost, "/v2/"+repository+"/blobs/uploads/")
}

func (r *registry) ask(authorization, method, path string) (int, string) {
	r.t.Helper()
	req, err := http.NewRequestWithContext(context.Background(), method, r.base+path, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Authorization", authorization)
	res, err := r.http.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return res.StatusCode, string(body)
}

func asPassword(token string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte("token:"+token))
}

// accounts makes namespaces, accounts and a role on repositories, and the
// directory a pod of the registry's would have for its own account.
func (c *cluster) accounts(t testing.TB) (dir string) {
	t.Helper()
	c.DoWith(t, `apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Namespace, metadata: {name: team-a}}
- {apiVersion: v1, kind: Namespace, metadata: {name: team-b}}
- {apiVersion: v1, kind: Namespace, metadata: {name: larder}}
- {apiVersion: v1, kind: ServiceAccount, metadata: {name: ci, namespace: team-a}}
- {apiVersion: v1, kind: ServiceAccount, metadata: {name: ci, namespace: team-b}}
- {apiVersion: v1, kind: ServiceAccount, metadata: {name: registry, namespace: larder}}
- apiVersion: rbac.authorization.k8s.io/v1
  kind: ClusterRoleBinding
  metadata: {name: larder-registry}
  roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: system:auth-delegator}
  subjects: [{kind: ServiceAccount, name: registry, namespace: larder}]
- apiVersion: rbac.authorization.k8s.io/v1
  kind: Role
  metadata: {name: pushes-images, namespace: team-a}
  rules:
  - apiGroups: [registry.larder.dev]
    resources: [repositories]
    verbs: [pull, push]
    resourceNames: [app, app/debug]
- apiVersion: rbac.authorization.k8s.io/v1
  kind: RoleBinding
  metadata: {name: pushes-images, namespace: team-a}
  roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: pushes-images}
  subjects: [{kind: ServiceAccount, name: ci, namespace: team-a}]
`, "apply", "-f", "-")
	c.granted(t, "larder", "registry", `"resourceAttributes": {"group": "authentication.k8s.io", "resource": "tokenreviews", "verb": "create"}`)
	c.granted(t, "larder", "registry", `"resourceAttributes": {"group": "authorization.k8s.io", "resource": "subjectaccessreviews", "verb": "create"}`)
	c.granted(t, "team-a", "ci", `"resourceAttributes": {"group": "registry.larder.dev", "resource": "repositories", "verb": "push", "name": "app", "namespace": "team-a"}`)
	dir = t.TempDir()
	write(t, dir, "token", c.token(t, "larder", "registry"))
	ca, err := os.ReadFile(filepath.Join(c.Dir, "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, "ca.crt", string(ca))
	return dir
}

// granted waits until the API server knows that an account may do something: it
// hears of roles a moment after they are made. Whoever is refused meanwhile may
// remember that, as the registry does. attributes are those of a
// SubjectAccessReview, in JSON.
func (c *cluster) granted(t testing.TB, namespace, account, attributes string) {
	t.Helper()
	review := fmt.Sprintf(`{"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": {
	"user": "system:serviceaccount:%[1]s:%[2]s", "groups": ["system:serviceaccounts", "system:serviceaccounts:%[1]s", "system:authenticated"], %[3]s}}`, namespace, account, attributes)
	process.Await(t, "a role of "+account, func(context.Context) error {
		status, body, err := c.call(kube.Admin, http.MethodPost, "/apis/authorization.k8s.io/v1/subjectaccessreviews", review)
		if err != nil {
			return err
		}
		var answer struct{ Status struct{ Allowed bool } }
		if err := json.Unmarshal([]byte(body), &answer); err != nil || status != http.StatusCreated || !answer.Status.Allowed {
			return fmt.Errorf("status %d: %.300s", status, body)
		}
		return nil
	})
}

// token makes a token of an account, for an audience if one is given.
func (c *cluster) token(t testing.TB, namespace, account string, audience ...string) string {
	t.Helper()
	args := []string{"create", "token", account, "-n", namespace, "--duration", "1h"}
	for _, a := range audience {
		args = append(args, "--audience", a)
	}
	return strings.TrimSpace(c.Do(t, args...))
}

// TestAccountsPushByTheirTokens is the registry's TokenReview and
// SubjectAccessReview before a real API server.
func TestAccountsPushByTheirTokens(t *testing.T) {
	c := startCluster(t)
	dir := c.accounts(t)
	r := startRegistry(t, c, fmt.Sprintf(`central:
  kubernetes: {audiences: [registry.test], review_access: true, api_url: "https://%s", service_account_dir: %s}
  access:
    - {subjects: ["group:kubernetes:system:serviceaccounts:team-b"], repositories: [team-b], actions: [pull, push]}
`, c.Addr, dir))
	a, b := c.token(t, "team-a", "ci", "registry.test"), c.token(t, "team-b", "ci", "registry.test")
	forTheCluster, forAnother := c.token(t, "team-a", "ci"), c.token(t, "team-a", "ci", "another.test")
	for _, tc := range []struct {
		name, token, repository string
		status                  int
	}{
		{"by a role", a, "team-a/app", 202},
		{"by a role, a path", a, "team-a/app/debug", 202},
		{"another name", a, "team-a/other", 403},
		{"another namespace", a, "team-b/app", 403},
		{"by a rule about a group", b, "team-b/app", 202},
		{"a rule, another namespace", b, "team-a/app", 403},
		{"a token for the API server", forTheCluster, "team-a/app", 401},
		{"a token for another registry", forAnother, "team-a/app", 401},
		{"a token cut short", a[:len(a)-4], "team-a/app", 401},
	} {
		if status, body := r.may(asPassword(tc.token), tc.repository); status != tc.status {
			t.Errorf("%s: %d %s, want %d", tc.name, status, body, tc.status)
		}
	}
	status, body := r.ask(asPassword(a), http.MethodGet, "/token?service=larder&scope=repository:team-a/app:pull,push,delete")
	var answer struct{ Token, Scope string }
	if err := json.Unmarshal([]byte(body), &answer); err != nil || status != 200 || answer.Scope != "repository:team-a/app:pull,push" {
		t.Fatalf("%d %s, %v", status, body, err)
	}
	if status, body := r.may("Bearer "+answer.Token, "team-a/app"); status != 202 {
		t.Errorf("by a token of the registry's: %d %s", status, body)
	}
	// A role that is taken away counts for a minute, and an account that is
	// deleted, too.
	c.Do(t, "delete", "rolebinding", "-n", "team-a", "pushes-images")
	c.Do(t, "delete", "serviceaccount", "-n", "team-b", "ci")
	process.Await(t, "the role to count no more", func(context.Context) error { return r.becomes(403, a, "team-a/app") })
	process.Await(t, "the account to be gone", func(context.Context) error { return r.becomes(401, b, "team-b/app") })
}

func (r *registry) becomes(want int, token, repository string) error {
	if status, _ := r.may(asPassword(token), repository); status != want {
		return fmt.Errorf("status %d", status)
	}
	return nil
}

// TestAClusterAsAnIssuer is the other way: by the cluster's public keys, for a
// registry that is elsewhere.
func TestAClusterAsAnIssuer(t *testing.T) {
	c := startCluster(t)
	dir := c.accounts(t)
	c.Do(t, "create", "clusterrolebinding", "reads-keys", "--clusterrole", "system:service-account-issuer-discovery", "--serviceaccount", "larder:registry")
	c.granted(t, "larder", "registry", `"nonResourceAttributes": {"path": "/openid/v1/jwks", "verb": "get"}`)
	r := startRegistry(t, c, fmt.Sprintf(`central:
  issuers:
    - {name: cluster, url: "https://kubernetes.default.svc", jwks_url: "https://%s/openid/v1/jwks", audiences: [registry.test], ca_file: %s, token_file: %s}
  access:
    - {subjects: ["cluster:system:serviceaccount:team-a:*"], repositories: [team-a], actions: [pull, push]}
`, c.Addr, filepath.Join(c.Dir, "ca.crt"), filepath.Join(dir, "token")))
	for _, tc := range []struct {
		name, token, repository string
		status                  int
	}{
		{"by a rule", c.token(t, "team-a", "ci", "registry.test"), "team-a/app", 202},
		{"another account", c.token(t, "team-b", "ci", "registry.test"), "team-a/app", 403},
		{"another audience", c.token(t, "team-a", "ci"), "team-a/app", 401},
	} {
		if status, body := r.may(asPassword(tc.token), tc.repository); status != tc.status {
			t.Errorf("%s: %d %s, want %d", tc.name, status, body, tc.status)
		}
	}
}
