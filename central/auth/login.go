package auth

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/crypto/bcrypt"

	"github.com/larder-registry/larder/internal/oci"
)

const (
	// loginsKept is how long credentials that were right count as right
	// without being checked again. A user whose hash changes is checked at
	// once all the same.
	loginsKept = 5 * time.Minute
	// foreignKept is the same for tokens of others, which their issuer may
	// take back.
	foreignKept = time.Minute
	// maxLogins bounds how many are remembered.
	maxLogins = 10_000
	// maxPassword bounds a password or token, in bytes.
	maxPassword = 32 << 10
)

// bcryptAtOnce is how many passwords are checked at a time, so that a flood of
// logins leaves a processor to serve pulls.
func bcryptAtOnce() int { return max(1, runtime.GOMAXPROCS(0)-1) }

// parseBasic reads the credentials of RFC 7617.
func parseBasic(value string) (user, password string, ok bool) {
	if len(value) > 2*maxPassword {
		return "", "", false
	}
	raw, err := base64.StdEncoding.DecodeString(strings.TrimSpace(value))
	if err != nil {
		return "", "", false
	}
	user, password, ok = strings.Cut(string(raw), ":")
	if strings.ContainsFunc(string(raw), func(r rune) bool { return r < ' ' || r == 0x7f }) || !utf8.ValidString(user) {
		return "", "", false
	}
	return user, password, ok
}

// errWrong is the same for every way a login can be wrong.
var errWrong = oci.Errorf(oci.ErrUnauthorized, "user name, password or token are not right")

// login checks a user's password, or a token of somebody a provider vouches
// for; then the user's name does not count. Errors are those of Identify.
func (a *Authority) login(ctx context.Context, user, password string, peer netip.Addr) (Subject, error) {
	if len(password) > maxPassword {
		return Subject{}, errWrong
	}
	var (
		kind  string
		key   cacheKey
		check func() (Subject, time.Duration, error)
	)
	if len(a.providers) > 0 && looksLikeToken(password) {
		user = "" // it says nothing, and would give each guess a bucket of its own
		kind, key = "token", keyOf(a.secret, "token", password)
		check = func() (Subject, time.Duration, error) { return a.vouched(ctx, password) }
	} else {
		e, known := a.settings.Load().users.find(user, a.secret)
		kind, key = "password", keyOf(a.secret, "password", user, e.hash, password)
		check = func() (Subject, time.Duration, error) { return a.compare(ctx, key, user, e.hash, known, password) }
	}
	if s, ok := a.logins.get(key); ok {
		return s, nil
	}
	attempt, wait, news := a.failures.begin(peer, user)
	if wait > 0 {
		a.metrics.login(kind, "limited")
		if news {
			a.log.WithFields(map[string]any{"peer": peer, "user": user}).Warn("too many failed logins; further ones are refused for a while")
		}
		return Subject{}, &oci.Error{Code: oci.CodeTooManyRequests, Message: "too many failed logins", RetryAfter: wait}
	}
	s, keep, err := check()
	switch {
	case err == nil:
		attempt.right()
		a.metrics.login(kind, "ok")
		a.logins.put(key, s, keep)
		a.log.WithFields(map[string]any{"peer": peer, "subject": s.Name}).Debug("logged in")
		return s, nil
	case errors.Is(err, oci.ErrUnauthorized):
		a.metrics.login(kind, "refused")
		a.log.WithError(err).WithFields(map[string]any{"peer": peer, "user": user}).Warn("login failed")
		return Subject{}, errWrong
	default:
		attempt.right()
		a.metrics.login(kind, "error")
		return Subject{}, fmt.Errorf("check login: %w", err)
	}
}

// compare holds a password against a hash: always one comparison, however the
// login ends.
func (a *Authority) compare(ctx context.Context, key cacheKey, user, hash string, known bool, password string) (Subject, time.Duration, error) {
	select {
	case a.hashing <- struct{}{}:
		defer func() { <-a.hashing }()
	case <-ctx.Done():
		return Subject{}, 0, ctx.Err()
	}
	if s, ok := a.logins.get(key); ok && known { // another request was before us
		return s, loginsKept, nil
	}
	if hash == "" {
		return Subject{}, 0, oci.Errorf(oci.ErrUnauthorized, "there are no users with passwords")
	}
	err := bcrypt.CompareHashAndPassword([]byte(hash), []byte(password))
	switch {
	case !known:
		return Subject{}, 0, oci.Errorf(oci.ErrUnauthorized, "there is no such user")
	case err != nil:
		return Subject{}, 0, oci.Errorf(oci.ErrUnauthorized, "the password is wrong")
	}
	return Subject{Name: "user:" + user}, loginsKept, nil
}
