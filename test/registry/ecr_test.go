package registry

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

// TestECR: what is particular to Amazon's registries.
func TestECR(t *testing.T) {
	ask := func(s *Server, method, path string, header http.Header) (*http.Response, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, s.URL()+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		for key, values := range header {
			req.Header[key] = values
		}
		resp, err := http.DefaultTransport.RoundTrip(req)
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
	basic := func(password string) http.Header {
		r := http.Request{Header: http.Header{}}
		r.SetBasicAuth("AWS", password)
		return r.Header
	}
	const manifest = "/v2/team/app/manifests/v1"

	private := Start(t, Options{ECR: true})
	img := private.AddImage("team/app", "v1", NewLayer(1, 100))
	private.SetUser("AWS", "old")
	for _, test := range []struct {
		name, method string
		header       http.Header
		status       int
		challenge    string
		body         string
	}{
		{"nobody", "GET", nil, 401, `Basic realm="` + private.URL() + `/",service="ecr.amazonaws.com"`, "UNAUTHORIZED"},
		{"in force", "GET", basic("old"), 200, "", string(img.Bytes())},
		{"expired", "GET", basic("older"), 403, "", "Your authorization token has expired. Reauthenticate and try again."},
		{"expired, HEAD", "HEAD", basic("older"), 403, "", ""},
	} {
		resp, body := ask(private, test.method, manifest, test.header)
		if resp.StatusCode != test.status || resp.Header.Get("Www-Authenticate") != test.challenge || !strings.Contains(body, test.body) {
			t.Errorf("%s: %d, challenge %q, %s", test.name, resp.StatusCode, resp.Header.Get("Www-Authenticate"), body)
		}
		if test.status == 200 && resp.Header.Get("Docker-Content-Digest") != "" {
			t.Errorf("%s: a digest is announced", test.name)
		}
	}
	if resp, _ := ask(private, "HEAD", manifest, basic("old")); resp.Header.Get("Docker-Content-Digest") != img.Digest.String() {
		t.Error("HEAD announces no digest")
	}
	private.SetUser("AWS", "new")
	if resp, _ := ask(private, "GET", manifest, basic("old")); resp.StatusCode != 403 {
		t.Errorf("the password before: %d", resp.StatusCode)
	}
	private.SetUser("AWS", "")
	if resp, _ := ask(private, "GET", manifest, basic("new")); resp.StatusCode != 403 {
		t.Errorf("the user that was removed: %d", resp.StatusCode)
	}

	public := Start(t, Options{ECRPublic: true})
	public.AddImage("team/app", "v1", NewLayer(1, 100))
	resp, _ := ask(public, "GET", manifest, nil)
	if want := `Bearer realm="` + public.URL() + `/token",service="registry",scope="repository:team/app:pull"`; resp.StatusCode != 401 || resp.Header.Get("Www-Authenticate") != want {
		t.Errorf("nobody at ECR Public: %d, %q", resp.StatusCode, resp.Header.Get("Www-Authenticate"))
	}
	resp, body := ask(public, "GET", manifest, http.Header{"Authorization": {"Bearer old"}})
	if resp.StatusCode != 400 || resp.Header.Get("Www-Authenticate") != "" || !strings.Contains(body, "expired") {
		t.Errorf("expired at ECR Public: %d, %v, %s", resp.StatusCode, resp.Header, body)
	}
}
