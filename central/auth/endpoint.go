package auth

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"mime"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/larder-registry/larder/internal/oci"
)

// TokenPath is where the token endpoint is, below the registry's own address.
const TokenPath = "/token"

const (
	// maxForm bounds the body of a request for a token, and its query, in
	// bytes.
	maxForm = 64 << 10
	// formTimeout is how long a client may take to send it.
	formTimeout = 10 * time.Second
)

// Handler serves the token endpoint beside next, and tells what is below, for
// challenges, by which address a client came.
func (a *Authority) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == TokenPath {
			a.serveToken(w, r)
			return
		}
		scheme := "http"
		if r.TLS != nil {
			scheme = "https"
		}
		next.ServeHTTP(w, r.WithContext(WithBase(r.Context(), scheme+"://"+r.Host)))
	})
}

// tokenRequest is a request for a token, whichever way it came.
type tokenRequest struct {
	from   oci.Caller
	scopes []string
}

// refusal is an answer of the token endpoint that is no token.
type refusal struct {
	status int
	// code is OAuth's (RFC 6749 section 5.2), for POST; text is for people.
	code, text string
}

func (r refusal) Error() string { return r.text }

// serveToken is the token endpoint: GET with Basic credentials, or none for an
// anonymous token, and POST with an OAuth 2 form of grant type password, which
// containerd prefers. A token is good for what was asked for and is allowed;
// perhaps for nothing, which still tells docker login that the password is
// right. There are no refresh tokens: a client keeps its password or asks its
// helper.
func (a *Authority) serveToken(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Cache-Control", "no-store")
	header.Set("Content-Type", "application/json")
	began := time.Now()
	token, user, s, err := a.answerToken(w, r)
	if err != nil {
		a.account(r, began, a.refuseToken(w, err), user, s, err)
		return
	}
	defer a.account(r, began, http.StatusOK, user, s, nil)
	_ = json.NewEncoder(w).Encode(map[string]any{ // the client may have gone
		"token": token, "access_token": token,
		"expires_in": int(a.lifetime / time.Second),
		"issued_at":  a.now().UTC().Format(time.RFC3339),
		"scope":      s.String(),
	})
}

// account writes the request's line in the access log, in the words of
// internal/ociserver's. scope is what the token is good for.
func (a *Authority) account(r *http.Request, began time.Time, status int, user string, granted scope, err error) {
	line := a.log.WithFields(logrus.Fields{
		"method": r.Method, "kind": "token", "status": status, "client": r.RemoteAddr,
		"duration_ms": float64(time.Since(began).Microseconds()) / 1000,
	})
	if user != "" {
		line = line.WithField("user", user)
	}
	if err == nil {
		line = line.WithField("scope", granted.String())
	} else {
		line = line.WithField("error", err.Error())
	}
	switch {
	case r.Context().Err() != nil: // the client left
		line.Debug("request")
	case status >= http.StatusInternalServerError:
		line.Warn("request")
	default:
		line.Info("request")
	}
}

// answerToken makes a token, or says why not; user is who asks, as soon as that
// is known.
func (a *Authority) answerToken(w http.ResponseWriter, r *http.Request) (token, user string, granted scope, err error) {
	req, err := a.readTokenRequest(w, r)
	if err != nil {
		return "", "", nil, err
	}
	wanted, err := parseScope(req.scopes)
	if err != nil {
		return "", "", nil, refusal{http.StatusBadRequest, "invalid_scope", err.Error()}
	}
	c, err := a.identify(r.Context(), req.from)
	if err != nil {
		return "", "", nil, err
	}
	if c.scope != nil {
		return "", c.Subject.Name, nil, refusal{http.StatusBadRequest, "invalid_request", "a token is not exchanged for another"}
	}
	token, granted, err = a.grant(r.Context(), c.Subject, wanted)
	if err != nil {
		return "", c.Subject.Name, nil, err
	}
	if c.Subject.IsAnonymous() && !granted.any() {
		// A token that is good for nothing would only put off the question.
		return "", c.Subject.Name, nil, oci.ErrUnauthorized
	}
	return token, c.Subject.Name, granted, nil
}

// any reports whether the scope allows anything at all.
func (s scope) any() bool {
	for _, a := range s {
		if len(a.Actions) > 0 {
			return true
		}
	}
	return false
}

func (a *Authority) readTokenRequest(w http.ResponseWriter, r *http.Request) (tokenRequest, error) {
	req := tokenRequest{from: callerOf(r)}
	if len(r.URL.RawQuery) > maxForm {
		return req, refusal{http.StatusRequestURITooLong, "invalid_request", "the query is too long"}
	}
	switch r.Method {
	case http.MethodGet:
		query, err := url.ParseQuery(r.URL.RawQuery)
		if err != nil {
			return req, refusal{http.StatusBadRequest, "invalid_request", "the query is badly encoded"}
		}
		req.scopes = query["scope"]
		return req, nil
	case http.MethodPost:
		return a.readForm(w, r, req)
	}
	return req, refusal{http.StatusMethodNotAllowed, "invalid_request", "use GET or POST"}
}

// readForm reads an OAuth 2 request (RFC 6749 section 4.3.2). Credentials are in
// the form; those of the header are the client's, and none is asked for.
func (a *Authority) readForm(w http.ResponseWriter, r *http.Request, req tokenRequest) (tokenRequest, error) {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/x-www-form-urlencoded" {
		return req, refusal{http.StatusUnsupportedMediaType, "invalid_request", "send a form"}
	}
	// Where the deadline cannot be set the connection's own bounds hold.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(formTimeout))
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		return req, refusal{http.StatusBadRequest, "invalid_request", "the form cannot be read"}
	}
	switch r.PostForm.Get("grant_type") {
	case "password":
	case "refresh_token":
		return req, refusal{http.StatusBadRequest, "invalid_grant", "this registry hands out no refresh tokens"}
	default:
		return req, refusal{http.StatusBadRequest, "unsupported_grant_type", "the grant type is password"}
	}
	req.from.Authorization = basic(r.PostForm.Get("username"), r.PostForm.Get("password"))
	req.scopes = r.PostForm["scope"]
	return req, nil
}

// refuseToken answers with an error: in the spec's form, which docker shows, and
// with OAuth's code beside it. It returns the status.
func (a *Authority) refuseToken(w http.ResponseWriter, err error) (status int) {
	type problem struct {
		Code    oci.Code `json:"code"`
		Message string   `json:"message"`
	}
	// What is no error of the spec comes from whoever could not be asked.
	status = http.StatusServiceUnavailable
	code, p := "temporarily_unavailable", problem{oci.CodeUnavailable, "credentials and rights cannot be checked now"}
	if refused, ok := errors.AsType[refusal](err); ok {
		status, code, p = refused.status, refused.code, problem{oci.CodeUnsupported, refused.text}
	} else if spec, ok := errors.AsType[*oci.Error](err); ok {
		p = problem{spec.Code, spec.Message}
		switch spec.Code {
		case oci.CodeUnauthorized:
			status, code = http.StatusUnauthorized, "invalid_grant"
			w.Header().Set("WWW-Authenticate", `Basic realm="larder"`)
		case oci.CodeTooManyRequests:
			status, code = http.StatusTooManyRequests, "slow_down"
			w.Header().Set("Retry-After", strconv.Itoa(int(spec.RetryAfter/time.Second)+1))
		}
	}
	if status == http.StatusMethodNotAllowed {
		w.Header().Set("Allow", "GET, POST")
	}
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{ // the client may have gone
		"errors": []problem{p}, "error": code, "error_description": p.Message,
	})
	return status
}

// callerOf reads what a request brings.
func callerOf(r *http.Request) oci.Caller {
	c := oci.Caller{Authorization: r.Header.Get("Authorization")}
	if r.TLS != nil && len(r.TLS.VerifiedChains) > 0 {
		c.Certificate = r.TLS.PeerCertificates[0]
	}
	if peer, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		c.Peer = peer.Addr().Unmap()
	}
	return c
}

// basic writes the credentials of RFC 7617.
func basic(user, password string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}
