package auth

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestTheAccessLogHasTokens: every request for a token is a line that names who
// asked for what, and nothing that is secret.
func TestTheAccessLogHasTokens(t *testing.T) {
	log, out := logs()
	a, _ := authority(t, func(c *Config) { c.Log = log })
	handler := a.Handler(http.NotFoundHandler())
	said := 0
	for _, c := range []struct {
		name, method, authorization, query string
		want                               []string
		status                             int
	}{
		{
			"granted", "GET", basic("bob", "builder"), "scope=repository:team-a/app:pull,push",
			[]string{"level=info", "status=200", `user="user:bob"`, `scope="repository:team-a/app:pull"`, "method=GET"},
			200,
		},
		{
			"refused", "GET", basic("bob", "wrong-password"), "scope=repository:team-a/app:pull",
			[]string{"level=info", "status=401", "error="},
			401,
		},
		{
			"nonsense", "PUT", "", "",
			[]string{"level=info", "status=405", "method=PUT", "error="},
			405,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			req := httptest.NewRequestWithContext(t.Context(), c.method, TokenPath+"?"+c.query, nil)
			req.Header.Set("Authorization", c.authorization)
			rec := httptest.NewRecorder()
			handler.ServeHTTP(rec, req)
			text := out.String()[said:]
			said += len(text)
			var line string
			for l := range strings.Lines(text) {
				if strings.Contains(l, "kind=token") {
					line += l
				}
			}
			for _, part := range append(c.want, "msg=request", `client="192.0.2.1:1234"`, "duration_ms=") {
				if !strings.Contains(line, part) {
					t.Errorf("the line lacks %s: %s", part, line)
				}
			}
			if strings.Count(line, "\n") != 1 || rec.Code != c.status {
				t.Errorf("status %d, lines %q", rec.Code, line)
			}
			for _, secret := range []string{"builder", "wrong-password", strings.TrimPrefix(c.authorization, "Basic "), "eyJ"} {
				if secret != "" && strings.Contains(text, secret) {
					t.Errorf("%s is in the log: %s", secret, text)
				}
			}
		})
	}
}
