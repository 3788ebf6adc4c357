package auth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/sirupsen/logrus"

	"github.com/larder-registry/larder/internal/oci"
)

// IssuerConfig is what an Issuer is made of. Name, URL, Audiences, Client and
// Log are required.
type IssuerConfig struct {
	// Name stands before its subjects: "github".
	Name string
	// URL is the issuer claim, and where discovery starts (OpenID Connect
	// Discovery 1.0 section 4). It is https, or http on loopback.
	URL string
	// Audiences are those of which a token must name one; never an audience
	// that means another service.
	Audiences []string
	// JWKSURL is where the keys are, for issuers without discovery.
	JWKSURL string
	// GroupsClaim names a claim with groups; empty means none.
	GroupsClaim string
	// Client fetches; see [NewClient].
	Client *http.Client
	Log    *logrus.Entry
	// Now is the clock; nil means the system's.
	Now func() time.Time
}

// Issuer verifies tokens by the public keys of whoever signs them: CI systems,
// identity providers, and clusters from outside.
type Issuer struct {
	cfg IssuerConfig
	// turn is held by who looks at or fetches the keys.
	turn    chan struct{}
	keys    []jose.JSONWebKey
	fetched time.Time
	tried   time.Time
}

const (
	// keysFresh is how long keys are used without a look at their source.
	keysFresh = time.Hour
	// keysStale is how long they are used when their source does not answer.
	keysStale = 24 * time.Hour
	// keysRetry bounds how often a token with an unknown key, or a source
	// that fails, makes for a request.
	keysRetry = 10 * time.Second
	// fetchTimeout bounds one request to an issuer or a cluster.
	fetchTimeout = 10 * time.Second
	// maxDocument bounds what an issuer answers, in bytes.
	maxDocument = 1 << 20
	// maxPublicKeys bounds how many keys an issuer has.
	maxPublicKeys = 100
	// foreignLeeway is by how much an issuer's clock may differ.
	foreignLeeway = 30 * time.Second
)

// NewIssuer makes an Issuer. It contacts nobody until a token comes.
func NewIssuer(cfg IssuerConfig) (*Issuer, error) {
	if cfg.Client == nil || cfg.Log == nil {
		return nil, errors.New("make issuer: client and log are required")
	}
	if err := CheckProviderName(cfg.Name); err != nil {
		return nil, err
	}
	if len(cfg.Audiences) == 0 {
		return nil, fmt.Errorf("make issuer %s: an audience is required, or tokens for other services would do here", cfg.Name)
	}
	for _, u := range []string{cfg.URL, cfg.JWKSURL} {
		if err := CheckIssuerURL(u); err != nil && (u != "" || cfg.URL == "") {
			return nil, err
		}
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Issuer{cfg: cfg, turn: make(chan struct{}, 1)}, nil
}

// CheckIssuerURL says what is wrong with an issuer's URL, if anything.
func CheckIssuerURL(s string) error {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Host == "" || u.User != nil || u.Fragment != "":
		return fmt.Errorf("write a URL such as https://issuer.example")
	case u.Scheme == "https", u.Scheme == "http" && isLoopback(u.Hostname()):
		return nil
	}
	return fmt.Errorf("keys are fetched by https only")
}

// Takes reports whether the issuer claim is this one's.
func (i *Issuer) Takes(issuer string) bool { return issuer == i.cfg.URL }

// Verify checks a token by the issuer's keys.
func (i *Issuer) Verify(ctx context.Context, token string) (Subject, time.Time, error) {
	parsed, err := jwt.ParseSigned(token, signatures())
	if err != nil || len(parsed.Headers) != 1 {
		return Subject{}, time.Time{}, oci.Errorf(oci.ErrUnauthorized, "the token cannot be read, or is signed in a way that is not accepted")
	}
	keys, err := i.keysFor(ctx, parsed.Headers[0].KeyID)
	if err != nil {
		return Subject{}, time.Time{}, err
	}
	for _, key := range keys {
		var c jwt.Claims
		more := map[string]any{}
		if parsed.Claims(key.Key, &c, &more) != nil {
			continue
		}
		return i.accept(c, more)
	}
	return Subject{}, time.Time{}, oci.Errorf(oci.ErrUnauthorized, "the token's signature is none of %s's", i.cfg.Name)
}

// accept judges what a token with a right signature says.
func (i *Issuer) accept(c jwt.Claims, more map[string]any) (Subject, time.Time, error) {
	if c.Expiry == nil {
		return Subject{}, time.Time{}, oci.Errorf(oci.ErrUnauthorized, "the token has no end")
	}
	expected := jwt.Expected{Issuer: i.cfg.URL, AnyAudience: i.cfg.Audiences, Time: i.cfg.Now()}
	if err := c.ValidateWithLeeway(expected, foreignLeeway); err != nil {
		return Subject{}, time.Time{}, oci.Errorf(oci.ErrUnauthorized, "the token of %s is not accepted: %v", i.cfg.Name, err)
	}
	s, err := subjectOf(i.cfg.Name, c.Subject, stringsOf(more[i.cfg.GroupsClaim]))
	return s, c.Expiry.Time().Add(foreignLeeway), err
}

// stringsOf reads a claim that is a text or a list of texts.
func stringsOf(claim any) []string {
	switch v := claim.(type) {
	case string:
		return []string{v}
	case []any:
		var list []string
		for _, item := range v {
			if s, ok := item.(string); ok {
				list = append(list, s)
			}
		}
		return list
	}
	return nil
}

// keysFor returns the keys a token with this key id may be signed with: the one
// of that id, or all when the token names none.
func (i *Issuer) keysFor(ctx context.Context, id string) ([]jose.JSONWebKey, error) {
	select {
	case i.turn <- struct{}{}:
		defer func() { <-i.turn }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	now := i.cfg.Now()
	found := i.withID(id)
	if age := now.Sub(i.fetched); len(found) > 0 && age < keysFresh {
		return found, nil
	}
	if now.Sub(i.tried) >= keysRetry {
		i.tried = now
		keys, err := i.fetch(ctx)
		switch {
		case err == nil:
			i.keys, i.fetched = keys, now
			found = i.withID(id)
		case now.Sub(i.fetched) >= keysStale:
			return nil, fmt.Errorf("fetch keys of %s: %w", i.cfg.Name, err)
		default:
			i.cfg.Log.WithError(err).WithField("issuer", i.cfg.Name).Warn("an issuer's keys cannot be fetched; those of before stay in use")
		}
	}
	if now.Sub(i.fetched) >= keysStale {
		return nil, fmt.Errorf("fetch keys of %s: failed a moment ago", i.cfg.Name)
	}
	return found, nil
}

func (i *Issuer) withID(id string) []jose.JSONWebKey {
	if id == "" {
		return i.keys
	}
	var found []jose.JSONWebKey
	for _, key := range i.keys {
		if key.KeyID == id {
			found = append(found, key)
		}
	}
	return found
}

// fetch asks the issuer where its keys are, and for them. It goes on when the
// request it is for is over: the next one needs the keys, too.
func (i *Issuer) fetch(ctx context.Context) ([]jose.JSONWebKey, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), fetchTimeout)
	defer cancel()
	from := i.cfg.JWKSURL
	if from == "" {
		var found struct {
			Issuer  string `json:"issuer"`
			JWKSURI string `json:"jwks_uri"`
		}
		if err := getJSON(ctx, i.cfg.Client, strings.TrimSuffix(i.cfg.URL, "/")+"/.well-known/openid-configuration", &found); err != nil {
			return nil, err
		}
		if found.Issuer != i.cfg.URL {
			return nil, fmt.Errorf("the issuer says that it is %.200q", found.Issuer)
		}
		if err := CheckIssuerURL(found.JWKSURI); err != nil {
			return nil, fmt.Errorf("jwks_uri: %w", err)
		}
		from = found.JWKSURI
	}
	// Keys one by one: one of a kind that is not known here is no reason to
	// refuse the rest.
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := getJSON(ctx, i.cfg.Client, from, &set); err != nil {
		return nil, err
	}
	var keys []jose.JSONWebKey
	for _, raw := range set.Keys[:min(len(set.Keys), maxPublicKeys)] {
		var key jose.JSONWebKey
		if json.Unmarshal(raw, &key) == nil && key.Valid() && key.IsPublic() && (key.Use == "" || key.Use == "sig") {
			keys = append(keys, key)
		}
	}
	if len(keys) == 0 {
		return nil, errors.New("there are no public keys for signatures")
	}
	return keys, nil
}
