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

// askedAtOnce is how many tokens of others are checked at a time.
const askedAtOnce = 16

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

// check is how one kind of credentials is checked.
type check struct {
	kind string
	// user is who it is about, for the log and the limits; empty for tokens,
	// where a name says nothing and would give each guess a bucket of its own.
	user string
	// key is under what it is remembered.
	key cacheKey
	// turn bounds how many of the kind are checked at once.
	turn chan struct{}
	// do checks, and says for how long a yes counts.
	do func(context.Context) (Subject, time.Duration, error)
}

// checkOf chooses how credentials are checked: as a user's password, or as a
// token of somebody a provider vouches for.
func (a *Authority) checkOf(user, password string) check {
	if len(a.providers) > 0 && looksLikeToken(password) {
		return check{
			kind: "token", key: keyOf(a.secret, "token", password), turn: a.asking,
			do: func(ctx context.Context) (Subject, time.Duration, error) { return a.vouched(ctx, password) },
		}
	}
	e, known := a.settings.Load().users.find(user, a.secret)
	return check{
		kind: "password", user: user, key: keyOf(a.secret, "password", user, e.hash, password), turn: a.hashing,
		do: func(context.Context) (Subject, time.Duration, error) { return compare(user, e.hash, known, password) },
	}
}

// login finds out whose credentials these are. Errors are those of identify.
func (a *Authority) login(ctx context.Context, user, password string, peer netip.Addr) (Subject, error) {
	if len(password) > maxPassword {
		return Subject{}, errWrong
	}
	c := a.checkOf(user, password)
	if s, ok := a.logins.get(c.key); ok {
		return s, nil
	}
	if err := a.limited(c, peer); err != nil {
		return Subject{}, err
	}
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
		return Subject{}, ctx.Err()
	}
	// Meanwhile the same may have been found right, or others wrong.
	if s, ok := a.logins.get(c.key); ok {
		return s, nil
	}
	if err := a.limited(c, peer); err != nil {
		return Subject{}, err
	}
	s, keep, err := c.do(ctx)
	switch {
	case err == nil:
		a.metrics.login(c.kind, "ok")
		a.logins.put(c.key, s, keep)
		a.log.WithFields(map[string]any{"peer": peer, "subject": s.Name}).Debug("logged in")
		return s, nil
	case errors.Is(err, oci.ErrUnauthorized):
		a.metrics.login(c.kind, "refused")
		a.failures.failed(peer, c.user)
		a.log.WithError(err).WithFields(map[string]any{"peer": peer, "user": c.user}).Warn("login failed")
		return Subject{}, errWrong
	default:
		a.metrics.login(c.kind, "error")
		return Subject{}, fmt.Errorf("check login: %w", err)
	}
}

// limited refuses where too many logins failed.
func (a *Authority) limited(c check, peer netip.Addr) error {
	wait, news := a.failures.refused(peer, c.user)
	if wait <= 0 {
		return nil
	}
	a.metrics.login(c.kind, "limited")
	if news {
		a.log.WithFields(map[string]any{"peer": peer, "user": c.user}).Warn("too many failed logins; further ones are refused for a while")
	}
	return &oci.Error{Code: oci.CodeTooManyRequests, Message: "too many failed logins", RetryAfter: wait}
}

// compare holds a password against a hash: always one comparison, however the
// login ends.
func compare(user, hash string, known bool, password string) (Subject, time.Duration, error) {
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
