package upstream

import (
	"bytes"
	"io"
	"net/http"
)

// ecrExpired reports whether resp is how ECR answers a token that has expired.
// It is no 401: private registries answer 403 and say so in the body, ECR
// Public answers 400 (containers-roadmap issue 2835). The body stays readable.
//
// A HEAD's 403 has no body to tell it from a missing right; what asks by HEAD
// asks again by GET then, and finds out.
func ecrExpired(req *http.Request, resp *http.Response) bool {
	if resp.StatusCode != http.StatusBadRequest && resp.StatusCode != http.StatusForbidden || req.Header.Get("Authorization") == "" {
		return false
	}
	switch h, ok := parseECRHost(req.URL.Host); {
	case !ok:
		return false
	case h.public:
		return resp.StatusCode == http.StatusBadRequest
	case resp.StatusCode != http.StatusForbidden:
		return false
	}
	content, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody)) //nolint:errcheck // an error's text may be incomplete
	resp.Body = struct {
		io.Reader
		io.Closer
	}{bytes.NewReader(content), resp.Body}
	return bytes.Contains(bytes.ToLower(content), []byte("authorization token"))
}

// withoutToken is req as somebody would send it who has no token yet. Its
// answer is the challenge that an expired token should have met.
func withoutToken(req *http.Request) *http.Request {
	again := req.Clone(req.Context())
	again.Header.Del("Authorization")
	return again
}

// drain reads what is left of a short body, so that its connection can be used
// again, and closes it.
func drain(resp *http.Response) {
	_, _ = io.CopyN(io.Discard, resp.Body, drainMost) //nolint:errcheck // nothing depends on it
	_ = resp.Body.Close()                             //nolint:errcheck // it was not wanted
}
