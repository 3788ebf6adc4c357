package registry

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// tokens are the bearer tokens in force.
type tokens map[string]*token

type token struct {
	repo string // the one it may pull; empty: none
	left int    // requests it is still good for; -1 means any number
}

// ExpireTokens makes every token handed out so far worthless.
func (s *Server) ExpireTokens() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.tokens)
}

// SetUser changes a user's password, or removes the user if it is empty.
func (s *Server) SetUser(name, password string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if password == "" {
		delete(s.users, name)
		return
	}
	if s.users == nil {
		s.users = map[string]string{}
	}
	s.users[name] = password
}

// SetAnonymous changes which repositories may be pulled without credentials.
// Tokens handed out before stay good.
func (s *Server) SetAnonymous(repos ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opts.Anonymous = append([]string{}, repos...)
}

// refusal is how a request is turned away.
type refusal struct {
	status             int
	challenge, message string
}

// notInForce is what ECR says of a token that has expired, or never was one.
const notInForce = "Your authorization token has expired. Reauthenticate and try again."

// refuse checks the credentials of a request for repo ("" for a ping). It
// returns nil when they do.
func (s *Server) refuse(r *http.Request, repo string) *refusal {
	if !s.opts.Basic {
		return s.refuseBearer(r, repo)
	}
	user, password, sent := r.BasicAuth()
	switch {
	case s.known(user, password) && !s.entitled(user, repo):
		return &refusal{status: http.StatusForbidden}
	case !sent && s.anonymous(repo), s.known(user, password):
		return nil
	case s.opts.ECR && sent:
		return &refusal{status: http.StatusForbidden, message: notInForce}
	case s.opts.ECR:
		return &refusal{status: http.StatusUnauthorized, challenge: fmt.Sprintf(`Basic realm="%s://%s/",service="ecr.amazonaws.com"`, s.scheme(), r.Host), message: "Not Authorized"}
	}
	return &refusal{status: http.StatusUnauthorized, challenge: `Basic realm="registry"`}
}

// refuseBearer is refuse for bearer tokens.
func (s *Server) refuseBearer(r *http.Request, repo string) *refusal {
	if !s.opts.Tokens && s.opts.Users == nil {
		return nil
	}
	challenge, ok := s.checkToken(r, repo)
	switch {
	case ok:
		return nil
	case s.opts.ECRPublic && r.Header.Get("Authorization") != "":
		return &refusal{status: http.StatusBadRequest, message: notInForce}
	}
	return &refusal{status: http.StatusUnauthorized, challenge: challenge}
}

// checkToken checks a bearer token, and returns the challenge for one that does
// not do.
func (s *Server) checkToken(r *http.Request, repo string) (challenge string, ok bool) {
	challenge = fmt.Sprintf(`Bearer realm="%s",service="registry"`, s.realm(r))
	if repo != "" {
		challenge += fmt.Sprintf(`,scope="repository:%s:pull"`, repo)
	}
	value, sent := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !sent {
		return challenge, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.tokens[value]
	if t == nil || t.left == 0 {
		return challenge + `,error="invalid_token"`, false
	}
	if repo != "" && t.repo != repo {
		return challenge + `,error="insufficient_scope"`, false
	}
	if t.left > 0 {
		t.left--
	}
	return "", true
}

func (s *Server) known(user, password string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	want, ok := s.users[user]
	return ok && want == password
}

// entitled reports whether a user may pull repo, or ask for nothing ("").
func (s *Server) entitled(user, repo string) bool {
	rights, limited := s.opts.Rights[user]
	return !limited || repo == "" || slices.Contains(rights, repo)
}

func (s *Server) anonymous(repo string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.opts.Anonymous == nil {
		return s.opts.Users == nil && !s.opts.ECR
	}
	return slices.Contains(s.opts.Anonymous, repo)
}

// realm is where a client gets a token: on the host it asked, by the name it
// asked for, or at the token server's own address.
func (s *Server) realm(r *http.Request) string {
	if s.opts.TokenOnHost {
		return s.scheme() + "://" + r.Host + "/token"
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.scheme() + "://" + s.token.addr + "/token"
}

// serveToken is the token server (distribution spec, token authentication):
// GET with the scope in the query and perhaps Basic credentials. It does not
// speak OAuth 2, whose clients POST, and GET when that is not allowed.
func (s *Server) serveToken(w http.ResponseWriter, r *http.Request) {
	s.serve(w, r, Request{Kind: Tokens}, func(a *answer, _ Fault) {
		if r.Method != http.MethodGet {
			a.fail(http.StatusMethodNotAllowed)
			return
		}
		user, password, sent := r.BasicAuth()
		if sent && !s.known(user, password) {
			a.Header().Set("WWW-Authenticate", `Basic realm="token"`)
			a.fail(http.StatusUnauthorized)
			return
		}
		// Like Docker Hub's, the server gives a token in any case, which is
		// good for nothing if the user has no right.
		repo := strings.TrimSuffix(strings.TrimPrefix(r.URL.Query().Get("scope"), "repository:"), ":pull")
		if !sent && !s.anonymous(repo) || sent && !s.entitled(user, repo) {
			repo = ""
		}
		t := &token{repo: repo, left: s.opts.TokenUses}
		if t.left == 0 {
			t.left = -1
		}
		value := rand.Text()
		s.mu.Lock()
		s.tokens[value] = t
		s.mu.Unlock()
		a.Header().Set("Content-Type", "application/json")
		// The client may have gone.
		_ = json.NewEncoder(a).Encode(map[string]any{"token": value, "access_token": value, "expires_in": 300})
	})
}

// sign makes the signature of a storage URL.
func (s *Server) sign(dgst string) string {
	m := hmac.New(sha256.New, []byte(s.secret))
	m.Write([]byte(dgst))
	return hex.EncodeToString(m.Sum(nil))
}
