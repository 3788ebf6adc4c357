package auth

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/larder-registry/larder/internal/oci"
)

// issuer and service name this kind of registry in its tokens: who signs them,
// and who takes them. Registries that share no key take none of each other's.
const (
	issuer  = "larder-central"
	service = "larder"
)

// tokenLeeway is by how much the clocks of replicas may differ.
const tokenLeeway = 10 * time.Second

// maxGroups bounds how many groups a token carries; more are dropped, and with
// them the rights they gave.
const maxGroups = 100

// claims are what a token of this registry says.
type claims struct {
	jwt.Claims
	Groups []string `json:"groups,omitempty"`
	// Login ties the token to the user's password: it ends with it.
	Login  string `json:"login,omitempty"`
	Access scope  `json:"access"`
}

// grant makes a token for s that is good for what is asked for and allowed.
func (a *Authority) grant(ctx context.Context, s Subject, wanted scope) (token string, granted scope, err error) {
	granted = scope{}
	for _, w := range wanted {
		for _, right := range w.rights() {
			ok, err := a.entitled(ctx, s, right, w.repository())
			if err != nil {
				return "", nil, err
			}
			if ok {
				granted = granted.with(w.repository(), right)
			}
		}
	}
	key := a.keys.get()[0]
	now := a.now()
	c := claims{
		Claims: jwt.Claims{
			Issuer: issuer, Subject: s.Name, Audience: jwt.Audience{service},
			IssuedAt: jwt.NewNumericDate(now), Expiry: jwt.NewNumericDate(now.Add(a.lifetime)),
		},
		Groups: s.Groups[:min(len(s.Groups), maxGroups)],
		Login:  a.fingerprint(key, s),
		Access: granted,
	}
	signer, err := jose.NewSigner(
		jose.SigningKey{Algorithm: jose.HS256, Key: key.secret},
		(&jose.SignerOptions{}).WithType("JWT").WithHeader(jose.HeaderKey("kid"), key.id))
	if err != nil {
		return "", nil, fmt.Errorf("sign token: %w", err)
	}
	token, err = jwt.Signed(signer).Claims(c).Serialize()
	if err != nil {
		return "", nil, fmt.Errorf("sign token: %w", err)
	}
	return token, granted, nil
}

// fingerprint ties a token to the password of a user of ours; it is empty for
// other subjects, and for a user who is gone.
func (a *Authority) fingerprint(key Key, s Subject) string {
	name, ours := strings.CutPrefix(s.Name, "user:")
	if !ours {
		return ""
	}
	e, known := a.settings.Load().users.find(name, a.secret)
	if !known {
		return ""
	}
	mac := hmac.New(sha256.New, key.secret)
	mac.Write([]byte("login\x00" + name + "\x00" + e.proof))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil)[:12])
}

// errToken is the same for every way a token can be wrong.
var errToken = oci.Errorf(oci.ErrUnauthorized, "the token is not valid here, or no longer")

// verify takes a token of this registry apart. It fails with errToken.
func (a *Authority) verify(token string) (caller, error) {
	if len(token) > maxPassword {
		return caller{}, errToken
	}
	parsed, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.HS256})
	if err != nil || len(parsed.Headers) != 1 {
		return caller{}, errToken
	}
	for _, key := range a.keys.get() {
		if key.id != parsed.Headers[0].KeyID {
			continue
		}
		var c claims
		if err := parsed.Claims(key.secret, &c); err != nil {
			return caller{}, errToken
		}
		return a.accept(key, c)
	}
	return caller{}, errToken
}

// accept judges what a token with a right signature says.
func (a *Authority) accept(key Key, c claims) (caller, error) {
	expected := jwt.Expected{Issuer: issuer, AnyAudience: jwt.Audience{service}, Time: a.now()}
	if c.Subject == "" || c.Expiry == nil || c.ValidateWithLeeway(expected, tokenLeeway) != nil {
		return caller{}, errToken
	}
	s := Subject{Name: c.Subject, Groups: c.Groups}
	if strings.HasPrefix(s.Name, "user:") {
		// Without a fingerprint there is no such user any more.
		now := a.fingerprint(key, s)
		if now == "" || !hmac.Equal([]byte(now), []byte(c.Login)) {
			return caller{}, errToken
		}
	}
	if c.Access == nil {
		c.Access = scope{}
	}
	return caller{Subject: s, scope: &c.Access}, nil
}
