// Package auth decides who may do what at the central registry.
//
// It knows callers by what they bring: a user's password (users from the
// configuration or an htpasswd file, users.go), a token this registry signed
// (token.go, handed out by the endpoint in endpoint.go), a token of a Kubernetes
// cluster or another issuer (provider.go, oidc.go, kubernetes.go), a client
// certificate (tls.go), or nothing. What a caller may do is in rights.go.
//
// It refuses by default: without a rule nobody may do anything, and what cannot
// be checked is not allowed. It never stores a password or a foreign token, not
// even in memory: what was checked is remembered for minutes as a keyed hash
// (cache.go). Failed logins are limited and logged (limit.go).
//
// The package knows neither repositories that exist nor HTTP routes. What a
// request needs is told to [Authority.Authorize] by the HTTP edge, and the
// answer never depends on what the registry holds.
package auth

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"

	"github.com/larder-registry/larder/internal/oci"
)

// Config is what an Authority is made of. Log is required, and KeyFile.
type Config struct {
	// Users, Rules and HtpasswdFile are what [Authority.Update] replaces.
	Settings Settings
	// KeyFile holds the secrets that tokens are signed with, one in each line;
	// see [Keys] and [EnsureKey]. Replicas that share it take each other's tokens. It is read again when
	// it changes.
	KeyFile string
	// Providers verify tokens of others that arrive as passwords; none means
	// that there are only the registry's own users.
	Providers []Provider
	// Reviewer decides what no rule allows; nil denies it.
	Reviewer Reviewer
	// TokenLifetime is how long a token is good for; zero means 5 minutes.
	TokenLifetime time.Duration
	// PublicURL is scheme and host as clients reach the registry, for the
	// address of the token endpoint. Empty takes what each request came to,
	// see [WithBase], which is wrong behind a proxy that ends TLS.
	PublicURL string
	// Log gets failed logins, as warnings, and what could not be read.
	Log *logrus.Entry
	// Registerer gets the metrics; nil keeps them unseen.
	Registerer prometheus.Registerer
	// Now is the clock; nil means the system's.
	Now func() time.Time
}

// Settings are the part of an Authority that may change while it works.
type Settings struct {
	Users []User
	// HtpasswdFile holds more users, in Apache's format with bcrypt hashes.
	// It is read again when it changes. Empty means none.
	HtpasswdFile string
	Rules        []Rule
}

// Reviewer is asked about what no rule allows: Kubernetes' own rights, by
// SubjectAccessReview. See [Cluster.Allowed].
type Reviewer interface {
	// Allowed reports whether the subject may do action in the repository;
	// an empty name below the first component asks for all of it.
	Allowed(ctx context.Context, s Subject, action oci.Action, repository string) (bool, error)
}

// Authority knows who may do what. Its methods may be called concurrently.
type Authority struct {
	settings  atomic.Pointer[settings]
	keys      *watched[Keys]
	secret    []byte // of this process, for keyed hashes
	providers []Provider
	reviewer  Reviewer
	lifetime  time.Duration
	publicURL string
	logins    *cache[Subject]
	failures  *limiter
	hashing   chan struct{} // held by who checks a password
	asking    chan struct{} // and a token of others
	log       *logrus.Entry
	metrics   *metrics
	now       func() time.Time
}

// settings are Settings, checked and made ready.
type settings struct {
	users *userTable
	rules []rule
}

// New makes an Authority. It fails when a file cannot be read or a rule or user
// is not well formed. There is nothing to close: files are looked at again when
// somebody asks.
func New(cfg Config) (*Authority, error) {
	if cfg.Log == nil || cfg.KeyFile == "" {
		return nil, errors.New("make authority: log and key file are required")
	}
	a := &Authority{
		secret:    make([]byte, 32),
		providers: cfg.Providers,
		reviewer:  cfg.Reviewer,
		lifetime:  cfg.TokenLifetime,
		publicURL: strings.TrimSuffix(cfg.PublicURL, "/"),
		hashing:   make(chan struct{}, bcryptAtOnce()),
		asking:    make(chan struct{}, askedAtOnce),
		log:       cfg.Log,
		metrics:   newMetrics(cfg.Registerer),
		now:       cfg.Now,
	}
	if a.now == nil {
		a.now = time.Now
	}
	if a.lifetime <= 0 {
		a.lifetime = 5 * time.Minute
	}
	if _, err := rand.Read(a.secret); err != nil {
		return nil, fmt.Errorf("make secret: %w", err)
	}
	a.logins = newCache[Subject](maxLogins, a.now)
	a.failures = newLimiter(a.now)
	var err error
	if a.keys, err = watch(a.log, a.now, parseKeys, cfg.KeyFile); err != nil {
		return nil, err
	}
	if err := a.Update(cfg.Settings); err != nil {
		return nil, err
	}
	return a, nil
}

// Update replaces users and rules. What is refused leaves everything as it was.
// Tokens of users who are gone, or whose password is another, stop working at
// once.
func (a *Authority) Update(s Settings) error {
	rules, err := parseRules(s.Rules)
	if err != nil {
		return err
	}
	var before passwords
	if old := a.settings.Load(); old != nil {
		before = old.users.fixed
	}
	users, err := newUserTable(s, before, a.log, a.now)
	if err != nil {
		return err
	}
	a.settings.Store(&settings{users: users, rules: rules})
	return nil
}
