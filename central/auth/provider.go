package auth

import (
	"context"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/larder-registry/larder/internal/oci"
)

// Provider verifies tokens that others sign: [Issuer] by the issuer's public
// keys, [Cluster] by asking Kubernetes.
type Provider interface {
	// Takes reports whether a token whose issuer claim says so is for this
	// provider. The claim has not been verified.
	Takes(issuer string) bool
	// Verify returns who the token is about and when it ends. It fails with
	// oci.ErrUnauthorized when the token is not right or not meant for this
	// registry, and with another error when that cannot be found out.
	Verify(ctx context.Context, token string) (s Subject, until time.Time, err error)
}

// maxSubject bounds a subject's and a group's name, in bytes.
const maxSubject = 1024

// signatures are the algorithms of RFC 7518 and RFC 8037 that public keys
// verify. Those with a shared secret are not among them: a public key must never
// be taken for one.
func signatures() []jose.SignatureAlgorithm {
	return []jose.SignatureAlgorithm{
		jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512,
		jose.ES256, jose.ES384, jose.ES512, jose.EdDSA,
	}
}

// looksLikeToken tells a JWT in compact form (RFC 7515 section 7.1) from a
// password: three parts, the first a JSON object in base64. bcrypt looks at no
// more than 72 bytes, and no token is that short.
func looksLikeToken(password string) bool {
	return len(password) > 72 && strings.HasPrefix(password, "eyJ") && strings.Count(password, ".") == 2
}

// foreign reports whether a bearer token is for one of the providers. What is
// not is taken for one of our own, and refused if it is none.
func (a *Authority) foreign(token string) bool {
	return len(a.providers) > 0 && looksLikeToken(token) && issuerOf(token) != issuer
}

// issuerOf gives a token's issuer claim, unverified; empty when it has none.
func issuerOf(token string) string {
	parsed, err := jwt.ParseSigned(token, append(signatures(), jose.HS256))
	if err != nil {
		return ""
	}
	var c struct {
		Issuer string `json:"iss"`
	}
	if parsed.UnsafeClaimsWithoutVerification(&c) != nil {
		return ""
	}
	return c.Issuer
}

// vouched asks the first provider that takes the token, and says for how long
// its word counts.
func (a *Authority) vouched(ctx context.Context, token string) (Subject, time.Duration, error) {
	from := issuerOf(token)
	for _, p := range a.providers {
		if !p.Takes(from) {
			continue
		}
		s, until, err := p.Verify(ctx, token)
		if err != nil {
			return Subject{}, 0, err
		}
		return s, min(foreignKept, until.Sub(a.now())), nil
	}
	return Subject{}, 0, oci.Errorf(oci.ErrUnauthorized, "nobody here knows the token's issuer %.200q", from)
}

// subjectOf puts a provider's name before what it says of somebody.
func subjectOf(provider, name string, groups []string) (Subject, error) {
	if !validSubject(name) {
		return Subject{}, oci.Errorf(oci.ErrUnauthorized, "the token's subject is empty, too long or not printable")
	}
	s := Subject{Name: provider + ":" + name}
	for _, group := range groups[:min(len(groups), maxGroups)] {
		if validSubject(group) {
			s.Groups = append(s.Groups, "group:"+provider+":"+group)
		}
	}
	return s, nil
}

func validSubject(s string) bool {
	return s != "" && len(s) <= maxSubject && utf8.ValidString(s) &&
		!strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f })
}

// CheckProviderName says what is wrong with a provider's name, if anything. It
// stands before the first colon of its subjects, beside the kinds that are
// taken.
func CheckProviderName(name string) error {
	switch name {
	case "user", "cert", "group", anonymous, authenticated:
		return fmt.Errorf("the name %q is taken", name)
	}
	if name == "" || len(name) > 63 || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		return fmt.Errorf("name %.80q: write lower-case letters, digits and '-'", name)
	}
	return nil
}
