package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/larder-registry/larder/test/process"
)

// Who pulls private images. A pull secret of the holder's is good until the
// password is changed.
const (
	holder        = "team"
	holderSecret  = "MARKERholder"
	changedSecret = "MARKERchanged"
	wrongSecret   = "MARKERwrong"
	holderHash    = "$2a$04$2.0cQFtok5cLGbtriWbvveJAdFZPOL6ro57WMLqEM3LJNy4vvovEu" // bcrypt
	changedHash   = "$2a$04$20J/9z2y6seOsOfKvKINsej.zsqtWmGAjnUuQ.hGT5jpfJA20bQwS"
	tokenService  = "registry.test"
	tokenIssuer   = "tokens.test"
	shortProofs   = "proof_ttl: 2s"
)

// privateRegistry is Debian's docker-registry with something to log in to.
type privateRegistry struct {
	*process.Process
	addr, home, config string
	// change makes the holder's secret worthless.
	change func(t *testing.T)
	// handedOut are the tokens that were given to somebody.
	handedOut func() []string
}

// startPrivateRegistry seeds a registry and then has it ask for credentials at
// addr: by a password file, or by tokens of a server of the test's own.
func startPrivateRegistry(t *testing.T, addr string, tokens bool) (*privateRegistry, image) {
	t.Helper()
	p := &privateRegistry{addr: addr, home: scratch(t), handedOut: func() []string { return nil }}
	storage := func(addr string) string {
		return fmt.Sprintf(`version: 0.1
http:
  addr: %s
storage:
  filesystem:
    rootdirectory: %s/registry
`, addr, p.home)
	}
	seeded := process.Addr(t)
	open := spawn(t, p.home, "/usr/bin/docker-registry", "serve", write(t, p.home, "open.yml", storage(seeded)))
	img := seed(t, open, seeded)
	open.Kill()
	auth := ""
	if tokens {
		server := startTokenServer(t, p.home)
		p.change, p.handedOut = server.change, server.all
		auth = fmt.Sprintf("auth:\n  token:\n    realm: http://%s/token\n    service: %s\n    issuer: %s\n    rootcertbundle: %s\n",
			server.addr, tokenService, tokenIssuer, server.bundle)
	} else {
		file := write(t, p.home, "htpasswd", holder+":"+holderHash+"\n")
		auth = fmt.Sprintf("auth:\n  htpasswd:\n    realm: private\n    path: %s\n", file)
		p.change = func(t *testing.T) {
			t.Helper()
			write(t, p.home, "htpasswd", holder+":"+changedHash+"\n")
			// It looks at the time of the file, to the second.
			later := time.Now().Add(time.Minute)
			if err := os.Chtimes(file, later, later); err != nil {
				t.Fatal(err)
			}
		}
	}
	p.config = write(t, p.home, "private.yml", storage(addr)+auth)
	p.start(t)
	return p, img
}

// start starts it on what it holds.
func (p *privateRegistry) start(t *testing.T) {
	t.Helper()
	p.Process = spawn(t, p.home, "/usr/bin/docker-registry", "serve", p.config)
	p.Await(t, "the registry to listen", process.Listens("tcp", p.addr))
}

// served are the lines of its log for content that was sent: to the mirror, and
// to anybody else.
func (p *privateRegistry) served() (mirror, others []string) {
	for line := range strings.SplitSeq(p.Output(), "\n") {
		switch sent := strings.Contains(line, `"GET /v2/`+repo) && strings.Contains(line, `" 200 `); {
		case sent && strings.Contains(line, `"larder/`):
			mirror = append(mirror, line)
		case sent:
			others = append(others, line)
		}
	}
	return mirror, others
}

// tokenServer gives tokens as the distribution project's specification has it
// ("Token Authentication", "Token Authentication Implementation").
type tokenServer struct {
	addr, bundle string
	key          *ecdsa.PrivateKey
	certificate  []byte

	mu     sync.Mutex
	secret string
	tokens []string
}

func startTokenServer(t *testing.T, home string) *tokenServer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: tokenIssuer},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	s := &tokenServer{key: key, secret: holderSecret, bundle: filepath.Join(home, "tokens.pem")}
	if s.certificate, err = x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key); err != nil {
		t.Fatal(err)
	}
	write(t, home, "tokens.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.certificate})))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.addr = l.Addr().String()
	srv := &http.Server{Handler: http.HandlerFunc(s.serve)}
	served := make(chan struct{})
	// Ends when the server is closed.
	go func() {
		defer close(served)
		_ = srv.Serve(l) // says only that it was closed
	}()
	t.Cleanup(func() {
		srv.Close()
		<-served
	})
	return s
}

// serve gives the holder what was asked for, everybody without credentials a
// token that is good for nothing, and wrong credentials a 401.
func (s *tokenServer) serve(w http.ResponseWriter, r *http.Request) {
	user, secret, sent := r.BasicAuth()
	s.mu.Lock()
	defer s.mu.Unlock()
	if sent && (user != holder || secret != s.secret) {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	type access struct {
		Type    string   `json:"type"`
		Name    string   `json:"name"`
		Actions []string `json:"actions"`
	}
	granted := []access{}
	if parts := strings.Split(r.URL.Query().Get("scope"), ":"); sent && len(parts) == 3 {
		granted = append(granted, access{parts[0], parts[1], []string{"pull"}})
	}
	now := time.Now().Unix()
	value, err := s.sign(map[string]any{
		"iss": tokenIssuer, "sub": user, "aud": tokenService, "exp": now + 300, "nbf": now - 10, "iat": now, "jti": rand.Text(), "access": granted,
	})
	if err != nil {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	s.tokens = append(s.tokens, value)
	w.Header().Set("Content-Type", "application/json")
	// The client may have gone.
	_ = json.NewEncoder(w).Encode(map[string]any{"token": value, "expires_in": 300})
}

// sign makes a JSON web token (RFC 7519) with ES256 (RFC 7518 section 3.4).
func (s *tokenServer) sign(claims any) (string, error) {
	part := func(v any) (string, error) {
		text, err := json.Marshal(v)
		return base64.RawURLEncoding.EncodeToString(text), err
	}
	header, err := part(map[string]any{"typ": "JWT", "alg": "ES256", "x5c": []string{base64.StdEncoding.EncodeToString(s.certificate)}})
	if err != nil {
		return "", err
	}
	body, err := part(claims)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(header + "." + body))
	a, b, err := ecdsa.Sign(rand.Reader, s.key, sum[:])
	if err != nil {
		return "", err
	}
	signature := append(a.FillBytes(make([]byte, 32)), b.FillBytes(make([]byte, 32))...)
	return header + "." + body + "." + base64.RawURLEncoding.EncodeToString(signature), nil
}

func (s *tokenServer) change(*testing.T) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.secret = changedSecret
}

func (s *tokenServer) all() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string{}, s.tokens...)
}
