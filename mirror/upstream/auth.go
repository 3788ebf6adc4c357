package upstream

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"

	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry/remote/auth"
)

const (
	// maxTokenAnswer bounds a token server's answer; oras-go reads no more.
	maxTokenAnswer = 128 << 10
	// defaultTokenLife is how long a token lasts whose server does not say
	// (distribution token specification, field expires_in).
	defaultTokenLife = 60 * time.Second
	// maxTokenLife bounds what a server says.
	maxTokenLife = time.Hour
)

// errRefused: the credential was sent before and is known to be refused.
var errRefused = errors.New("credential already refused")

// logins are the credentials one way in has.
type logins interface {
	// get gives the credential for a repository, auth.EmptyCredential if there
	// is none.
	get(ctx context.Context, repository string) (auth.Credential, error)
	// refused tells that the upstream would not have cred, and reports whether
	// get may now give another.
	refused(repository string, cred auth.Credential) bool
}

// authorized makes the client that answers the challenges for one request that
// takes way w. oras-go's client does the dance: it sends the token kept, if any;
// on a 401 it reads the challenge, gets a token, and sends the request once more,
// so a token that expired is renewed exactly once. It drops Authorization when a
// redirect leaves the origin, checks token realms, and copies Range and the
// other headers to the second request. The session tells afterwards whether
// anything was sent to log in with.
func (c *Client) authorized(ep *endpoint, repository string, w way) (*auth.Client, *session) {
	s := &session{tokens: c.tokens, key: tokenKey{endpoint: ep.key, who: w.who, repository: repository}, now: c.now, cred: w.logins}
	return &auth.Client{
		Client:               &http.Client{Transport: ep.exchange, CheckRedirect: ep.exchange.checkRedirect},
		Header:               http.Header{"User-Agent": {c.userAgent}},
		Credential:           s.login,
		Cache:                s,
		BlockedRealmPrefixes: ep.blockedRealms(),
	}, s
}

// session is oras-go's view of the tokens during one request. Its key is ours,
// not the one oras-go builds from scopes: the challenge's scopes are known only
// after a 401, so with them every request would be refused once first.
type session struct {
	tokens *tokens
	key    tokenKey
	now    func() time.Time
	// used is the token this request was sent with, to tell a token that
	// another request has renewed meanwhile from the one just refused.
	used string
	// cred is what the way has, and sent the credential it gave last.
	cred logins
	sent auth.Credential
}

// login gives oras-go's client the credential.
func (s *session) login(ctx context.Context, _ string) (cred auth.Credential, err error) {
	s.sent, err = s.cred.get(ctx, s.key.repository)
	return s.sent, err
}

var _ auth.Cache = (*session)(nil)

// lookup finds the token to send: for the repository, else for all of them.
func (s *session) lookup() (token, bool) {
	if tok, ok := s.tokens.get(s.key); ok {
		return tok, true
	}
	return s.tokens.get(tokenKey{endpoint: s.key.endpoint})
}

// GetScheme implements auth.Cache.
func (s *session) GetScheme(context.Context, string) (auth.Scheme, error) {
	if tok, ok := s.lookup(); ok {
		return tok.scheme, nil
	}
	return auth.SchemeUnknown, errdef.ErrNotFound
}

// GetToken implements auth.Cache. It gives no token twice in one request. Of
// Basic only the scheme is remembered: the credential may have been renewed.
func (s *session) GetToken(ctx context.Context, _ string, scheme auth.Scheme, _ string) (string, error) {
	tok, ok := s.lookup()
	if ok && tok.scheme == auth.SchemeBasic {
		cred, err := s.login(ctx, "")
		ok = err == nil && cred.Username != "" && cred.Password != ""
		tok.value = base64.StdEncoding.EncodeToString([]byte(cred.Username + ":" + cred.Password))
	}
	if !ok || tok.scheme != scheme || tok.value == s.used {
		return "", errdef.ErrNotFound
	}
	s.used = tok.value
	return tok.value, nil
}

// Set implements auth.Cache: it gets a token by fetch and keeps it.
func (s *session) Set(ctx context.Context, _ string, scheme auth.Scheme, _ string, fetch func(context.Context) (string, error)) (string, error) {
	if scheme == auth.SchemeBasic {
		value, err := fetch(ctx)
		if err == nil && value == s.used && s.cred.refused(s.key.repository, s.sent) {
			value, err = fetch(ctx)
		}
		if err != nil {
			return "", err
		}
		if value == s.used {
			return "", errRefused
		}
		s.used = value
		s.tokens.keep(tokenKey{endpoint: s.key.endpoint}, token{scheme: scheme})
		return value, nil
	}
	tok, err := s.tokens.renew(ctx, s.key, s.used, func(ctx context.Context) (token, error) {
		answer := &tokenAnswer{}
		ctx = withCall(ctx, call{label: callOf(ctx).label, token: answer})
		value, err := fetch(ctx)
		if err != nil && answer.refused() && s.cred.refused(s.key.repository, s.sent) {
			*answer = tokenAnswer{}
			value, err = fetch(ctx)
		}
		if err != nil {
			return token{}, tokenFailure(ctx, answer, err)
		}
		return token{scheme: scheme, value: value, expires: s.now().Add(answer.life())}, nil
	})
	if err != nil {
		return "", err
	}
	s.used = tok.value
	return tok.value, nil
}

// tokenAnswer is what a token server's answer says beside the token, which
// oras-go does not pass on.
type tokenAnswer struct {
	host      string
	status    int
	header    http.Header
	expiresIn int64 // seconds; 0 if it does not say
}

// refused reports whether the token server would not have the credential.
func (a *tokenAnswer) refused() bool {
	return a.status == http.StatusBadRequest || a.status == http.StatusUnauthorized || a.status == http.StatusForbidden
}

// capture notes the answer and leaves the body readable.
func (a *tokenAnswer) capture(resp *http.Response) {
	a.host, a.status, a.header = resp.Request.URL.Host, resp.StatusCode, resp.Header
	content, err := io.ReadAll(io.LimitReader(resp.Body, maxTokenAnswer))
	rest := io.Reader(bytes.NewReader(content))
	if err != nil {
		rest = io.MultiReader(rest, failingReader{err})
	}
	resp.Body = struct {
		io.Reader
		io.Closer
	}{rest, resp.Body}
	var fields struct {
		ExpiresIn int64 `json:"expires_in"`
	}
	if json.Unmarshal(content, &fields) == nil {
		a.expiresIn = fields.ExpiresIn
	}
}

// life is how long to use the token: a tenth less than it lasts, so that it
// does not expire on the way.
func (a *tokenAnswer) life() time.Duration {
	life := defaultTokenLife
	if a.expiresIn > 0 {
		life = time.Duration(min(a.expiresIn, int64(maxTokenLife/time.Second))) * time.Second
	}
	return life - life/10
}

// tidyUnauthorized readies a 401 for oras-go, which reads the first challenge
// only and closes the body unread: the challenge it can answer is put first,
// and the body is read so that the connection can be used again.
func tidyUnauthorized(resp *http.Response) {
	if challenge := pickChallenge(resp.Header.Values("Www-Authenticate")); challenge != "" {
		resp.Header.Set("Www-Authenticate", challenge)
	}
	content, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody)) //nolint:errcheck // an error's text may be incomplete
	resp.Body = struct {
		io.Reader
		io.Closer
	}{bytes.NewReader(content), resp.Body}
}

// pickChallenge gives the challenge to answer: Bearer before Basic, whatever
// the order; empty if there is neither.
func pickChallenge(challenges []string) string {
	for _, scheme := range []string{"bearer", "basic"} {
		for _, challenge := range challenges {
			challenge = strings.TrimLeft(challenge, " \t")
			name, _, _ := strings.Cut(challenge, " ")
			if strings.EqualFold(name, scheme) {
				return challenge
			}
		}
	}
	return ""
}

// failingReader gives the error a body ended with.
type failingReader struct{ err error }

func (r failingReader) Read([]byte) (int, error) { return 0, r.err }
