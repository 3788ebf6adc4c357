package bottlerocket_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/larder-registry/larder/bottlerocket"
	api "github.com/larder-registry/larder/test/bottlerocket"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const endpoint = "http://127.0.0.1:8000"

// start serves settings and returns a client that is not patient.
func start(t *testing.T, registry string) (*api.API, *bottlerocket.Client) {
	t.Helper()
	t.Chdir(t.TempDir()) // a socket's path must be short
	a, err := api.Start(".", registry)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	return a, bottlerocket.New(a.Socket, time.Minute)
}

func registry(t *testing.T, c *bottlerocket.Client) bottlerocket.Registry {
	t.Helper()
	r, err := c.Registry(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestTwoCommitsAreOneTransaction sets the same twice: applying restarts
// containerd, so the second time nothing may be committed.
func TestTwoCommitsAreOneTransaction(t *testing.T) {
	a, c := start(t, "")
	for i, changes := range []bool{true, false} {
		changed, err := c.SetMirrors(t.Context(), registry(t, c).With([]string{endpoint}, nil))
		if err != nil || changed != changes {
			t.Errorf("run %d: changed %v, %v", i+1, changed, err)
		}
	}
	if n := a.Commits(); n != 1 {
		t.Errorf("%d commits: %q", n, a.Requests())
	}
	want := `{"mirrors":[{"endpoint":["http://127.0.0.1:8000"],"registry":"*"}]}`
	if got := a.Registry(); got != want {
		t.Errorf("settings are %s, want %s", got, want)
	}
	if p := a.Pending(); len(p) != 0 {
		t.Errorf("left pending: %q", p)
	}
}

// TestWhatTheUserHasSetStays merges, and takes back exactly that.
func TestWhatTheUserHasSetStays(t *testing.T) {
	before := `{"credentials":[{"auth":"c2VjcmV0","registry":"ghcr.io"}],` +
		`"mirrors":[{"capabilities":["pull"],"endpoint":["https://m.test"],"registry":"*"},{"endpoint":["https://h.test"],"registry":"docker.io"}]}`
	a, c := start(t, before)
	all := []string{endpoint, "https://second.test"}
	if _, err := c.SetMirrors(t.Context(), registry(t, c).With(all, []string{"docker.io", "ghcr.io"})); err != nil {
		t.Fatal(err)
	}
	want := `{"credentials":[{"auth":"c2VjcmV0","registry":"ghcr.io"}],` +
		`"mirrors":[{"capabilities":["pull"],"endpoint":["http://127.0.0.1:8000","https://second.test","https://m.test"],"registry":"*"},` +
		`{"endpoint":["http://127.0.0.1:8000","https://second.test","https://h.test"],"registry":"docker.io"},` +
		`{"endpoint":["http://127.0.0.1:8000","https://second.test"],"registry":"ghcr.io"}]}`
	if got := a.Registry(); got != want {
		t.Errorf("settings are\n%s, want\n%s", got, want)
	}
	if _, err := c.SetMirrors(t.Context(), registry(t, c).Without(all)); err != nil {
		t.Fatal(err)
	}
	if got := a.Registry(); got != before {
		t.Errorf("after undoing, settings are\n%s, want\n%s", got, before)
	}
}

// TestOnlyOursIsCommitted: what others have pending stays pending, and what a
// killed run of ours left is not committed along.
func TestOnlyOursIsCommitted(t *testing.T) {
	a, c := start(t, "")
	a.Stage("default", "mirrors", `[]`)
	a.Stage("larder", "credentials", `[{"registry":"x.test"}]`)
	if _, err := c.SetMirrors(t.Context(), registry(t, c).With([]string{endpoint}, nil)); err != nil {
		t.Fatal(err)
	}
	if got := a.Pending(); !slices.Equal(got, []string{"default"}) {
		t.Errorf("pending are %q", got)
	}
	if got := a.Registry(); strings.Contains(got, "credentials") {
		t.Errorf("settings are %s", got)
	}
}

// answers makes every request whose "METHOD /path" is what get one answer.
func answers(what string, code int, body string) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method+" "+r.URL.Path != what {
			return false
		}
		w.WriteHeader(code)
		_, _ = w.Write([]byte(body))
		return true
	}
}

func TestFailures(t *testing.T) {
	for _, c := range []struct {
		name, what string
		code       int
		body       string
		is         error  // or nil
		text       string // part of the message
	}{
		{"forbidden", "GET /settings", 403, "label", bottlerocket.ErrForbidden, "GET /settings: status 403"},
		{"not there", "GET /settings", 404, "", nil, "GET /settings: status 404"},
		{"broken", "GET /settings", 500, "secret", nil, "read registry settings: GET /settings: status 500"},
		{"no JSON", "GET /settings", 200, "<html>", nil, "the answer is no JSON object"},
		{"empty", "GET /settings", 200, "", nil, "the answer is no JSON object"},
		{"a list", "GET /settings", 200, "[]", nil, "the answer is no JSON object"},
		{"cut", "GET /settings", 200, `{"container-registry": {"mirrors": [`, nil, "read answer: unexpected end"},
		{"other types", "GET /settings", 200, `{"container-registry": {"mirrors": {"*": 5}}}`, nil, "read answer: json: cannot unmarshal"},
		{"redirected", "GET /settings", 302, "", nil, "status 302"},
		{"too long", "GET /settings", 200, `{"x": "` + strings.Repeat("x", 5<<20) + `"}`, nil, "longer than 4194304 bytes"},
		{"drop fails", "DELETE /tx", 500, "x", nil, "drop what was staged before: DELETE /tx: status 500: x"},
		{"unknown setting", "PATCH /settings", 400, "Json deserialize error:\n\x00unknown field `container-registry`", bottlerocket.ErrUnsupported, "status 400: Json deserialize error: unknown field `container-registry`"},
		{"staging fails", "PATCH /settings", 500, strings.Repeat("long ", 100), nil, "stage registry settings: PATCH /settings: status 500: long long"},
		{"staging forbidden", "PATCH /settings", 403, "", bottlerocket.ErrForbidden, "status 403"},
		{"commit fails", "POST /tx/commit_and_apply", 500, "x", nil, "commit registry settings: POST /tx/commit_and_apply: status 500: x"},
		{"commit is lost", "POST /tx/commit_and_apply", 422, "Tried to commit with no pending changes", nil, "status 422: Tried to commit"},
		{"commit does nothing", "POST /tx/commit_and_apply", 200, "[]", bottlerocket.ErrNotKept, "did not keep"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, client := start(t, `{"mirrors":[]}`)
			a.Break(answers(c.what, c.code, c.body))
			_, err := client.SetMirrors(t.Context(), bottlerocket.Registry{}.With([]string{endpoint}, nil))
			if err == nil || !strings.Contains(err.Error(), c.text) || c.is != nil && !errors.Is(err, c.is) {
				t.Fatalf("error is %v", err)
			}
			if text := err.Error(); strings.Contains(text, "secret") || strings.ContainsAny(text, "\n\x00") || len(text) > 400 {
				t.Errorf("the error tells too much: %s", text)
			}
			a.Break(nil)
			if got := a.Registry(); got != `{"mirrors":[]}` {
				t.Errorf("settings are %s", got)
			}
			// The next run completes.
			if changed, err := client.SetMirrors(t.Context(), bottlerocket.Registry{}.With([]string{endpoint}, nil)); err != nil || !changed {
				t.Errorf("healed: changed %v, %v", changed, err)
			}
			if p := a.Pending(); len(p) != 0 {
				t.Errorf("left pending: %q", p)
			}
		})
	}
}

// TestACommitWhoseAnswerIsLost was made all the same: it is found in the
// settings, and applied once more in case that was what failed.
func TestACommitWhoseAnswerIsLost(t *testing.T) {
	for _, applied := range []int{204, 500} {
		a, c := start(t, "")
		a.Break(func(w http.ResponseWriter, r *http.Request) bool {
			switch r.URL.Path {
			case "/tx/commit_and_apply":
				a.Break(answers("POST /tx/apply", applied, ""))
				other, err := http.NewRequestWithContext(r.Context(), http.MethodPost, "http://x"+r.URL.RequestURI(), nil)
				if err != nil {
					t.Error(err)
				}
				resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
					return (&net.Dialer{}).DialContext(ctx, "unix", a.Socket)
				}}}).Do(other)
				if err != nil || resp.StatusCode != 200 {
					t.Error(resp, err)
				}
				resp.Body.Close()
				panic(http.ErrAbortHandler)
			default:
				return false
			}
		})
		changed, err := c.SetMirrors(t.Context(), bottlerocket.Registry{}.With([]string{endpoint}, nil))
		if applied == 204 && (err != nil || !changed) || applied == 500 && (err == nil || !strings.Contains(err.Error(), "applied at the next boot")) {
			t.Errorf("apply answers %d: changed %v, %v", applied, changed, err)
		}
		if !slices.Contains(a.Requests(), "POST /tx/apply?keys=settings.container-registry.mirrors") {
			t.Errorf("requests were %q", a.Requests())
		}
	}
}

// TestASlowAPIIsNotWaitedFor: each request has its own time, and ctx all of them.
func TestASlowAPIIsNotWaitedFor(t *testing.T) {
	a, _ := start(t, "")
	a.Break(func(_ http.ResponseWriter, r *http.Request) bool {
		<-r.Context().Done()
		return true
	})
	_, err := bottlerocket.New(a.Socket, 10*time.Millisecond).Registry(t.Context())
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error is %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err = bottlerocket.New(a.Socket, time.Minute).Registry(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error is %v", err)
	}
}

func TestNoAPI(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, socket := range []string{filepath.Join(dir, "none"), file} {
		if _, err := bottlerocket.New(socket, 0).Release(t.Context()); !errors.Is(err, bottlerocket.ErrNoAPI) || strings.Contains(err.Error(), "http://") {
			t.Errorf("%s: error is %v", socket, err)
		}
	}
}

func TestRelease(t *testing.T) {
	a, c := start(t, "")
	r, err := c.Release(t.Context())
	if want := (bottlerocket.Release{Name: "Bottlerocket OS 1.56.0 (aws-k8s-1.35)", Variant: "aws-k8s-1.35", Version: "1.56.0"}); err != nil || r != want {
		t.Errorf("%+v, %v", r, err)
	}
	a.Break(answers("GET /os", 200, "{}"))
	if _, err := c.Release(t.Context()); err == nil {
		t.Error("an answer without a version is taken")
	}
}

func TestHidden(t *testing.T) {
	_, c := start(t, `{"mirrors":[{"registry":"*","endpoint":["http://127.0.0.1:8000","http://0.test"]},{"registry":"quay.io","endpoint":["https://q.test"]},
		{"registry":"gcr.io","endpoint":["http://127.0.0.1:8000"]}],
		"credentials":[{"registry":"ghcr.io","auth":"x"},{"registry":"gcr.io","auth":"x"},{"registry":"docker.io","auth":"x"},{"registry":"ghcr.io","auth":"y"}]}`)
	r := registry(t, c)
	entries, credentials := r.Hidden(endpoint)
	if !slices.Equal(entries, []string{"quay.io"}) || !slices.Equal(credentials, []string{"ghcr.io"}) {
		t.Errorf("hidden are %q and %q", entries, credentials)
	}
	if got := r.Before(endpoint); !slices.Equal(got, []string{"http://0.test"}) {
		t.Errorf("before it are %q", got)
	}
}
