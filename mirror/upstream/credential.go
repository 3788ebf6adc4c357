package upstream

import (
	"context"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
	"oras.land/oras-go/v2/registry/remote/auth"

	"github.com/larder-registry/larder/internal/oci"
)

const (
	// maxLogins bounds the logins one entry keeps; only plugins that tell
	// repositories apart need more than one.
	maxLogins = 64
	// leastLogin is how long a login is used at least. A source whose clock
	// says that what it gives has expired already is not asked for every
	// request: the upstream's word counts.
	leastLogin = time.Minute
	// refusedPause is how old a login must be for its refusal to bring the
	// source into play: a right password that may not read a repository is
	// no reason to run a program for each request.
	refusedPause = 30 * time.Second
	// failedPause is how long a source is left alone that gave nothing, so
	// that a helper that hangs, or a metadata service that is not there, is
	// waited for once and not by every pull.
	failedPause = time.Minute
	// forever is how long a login lasts that nothing ends.
	forever = 100 * 365 * 24 * time.Hour
)

// login is a credential as it stands now.
type login struct {
	auth.Credential
	// expires is when it ends; zero: nobody knows.
	expires time.Time
	// renew is when to fetch the next one, while this one is still good;
	// zero: when three quarters of its life are over.
	renew time.Time
	// shared: it is good for every repository of the entry, although its
	// source tells them apart.
	shared bool
	// once: it is good for those who wait for it now, and is not kept.
	once bool
}

// source is where the logins of one entry come from: a password file, Docker's
// configuration, a plugin, a cloud.
type source interface {
	// scope names what a login for the repository is good for: repositories
	// of one scope share a login. Empty means all.
	scope(repository string) string
	// login gets one; the zero login if the source has none. It may read
	// files, run programs and talk to services, which ctx bounds. Its errors
	// hold no secrets.
	login(ctx context.Context, repository string) (login, error)
}

// whole is part of sources whose logins are good for every repository.
type whole struct{}

func (whole) scope(string) string { return "" }

// credential is what is configured for the repositories of one entry, or what
// its host's name promises (ECR, for one). It asks its source as seldom as it
// can: all requests share a login, one of them renews it ahead of its end, and
// what failed is left alone for a while. A nil credential has nothing.
type credential struct {
	source  source
	timeout time.Duration // of the source
	// found: nobody configured it, so it is told of when it is first of use.
	found bool
	// next is asked where the source has nothing, or fails; it may be nil, and
	// may be shared with others.
	next *credential
	now  func() time.Time
	log  *logrus.Entry

	mu      sync.Mutex
	kept    *lru[string, *keptLogin] // by scope; empty: for all
	flights map[string]*loginFlight
}

// keptLogin is what a source gave, an error included.
type keptLogin struct {
	login
	err     error
	fetched time.Time
	// retry is when a source may be asked again that failed to renew.
	retry time.Time
}

// lasts reports whether the login has not ended yet.
func (k *keptLogin) lasts(now time.Time) bool { return k.expires.IsZero() || now.Before(k.expires) }

// loginFlight is one question to a source under way.
type loginFlight struct {
	done chan struct{} // closed when kept is set
	kept *keptLogin
}

// newCredential makes the credential that what names in the log.
func (c *Client) newCredential(what string, src source, timeout time.Duration) *credential {
	return &credential{
		source: src, timeout: timeout, now: c.now, log: c.log.WithField("credential", what),
		kept: newLRU[string, *keptLogin](maxLogins), flights: map[string]*loginFlight{},
	}
}

// configured reports whether there may be a credential: without one, get need
// not be called. It asks nobody.
func (c *credential) configured() bool { return c != nil }

// get gives the credential for a repository, auth.EmptyCredential if there is
// none after all. It fails with oci.ErrUnavailable and the reason "credential"
// when the source does, and with ctx's error. Most calls ask nobody.
func (c *credential) get(ctx context.Context, repository string) (auth.Credential, error) {
	if c == nil {
		return auth.EmptyCredential, nil
	}
	cred, err := c.ownLogin(ctx, repository)
	if cred != auth.EmptyCredential || c.next == nil || ctx.Err() != nil {
		return cred, err
	}
	if next, nextErr := c.next.get(ctx, repository); next != auth.EmptyCredential || err == nil {
		return next, nextErr
	}
	return cred, err
}

// ownLogin is get without next.
func (c *credential) ownLogin(ctx context.Context, repository string) (auth.Credential, error) {
	c.mu.Lock()
	kept, key := c.lookup(repository)
	now := c.now()
	if kept != nil && now.Before(kept.renew) {
		c.mu.Unlock()
		return kept.Credential, kept.err
	}
	good := kept != nil && kept.err == nil && kept.lasts(now)
	if good && now.Before(kept.retry) {
		c.mu.Unlock()
		return kept.Credential, nil
	}
	flight := c.fetch(ctx, key, repository)
	c.mu.Unlock()
	if good {
		return kept.Credential, nil // while the next one is on its way
	}
	select {
	case <-flight.done:
		return flight.kept.Credential, flight.kept.err
	case <-ctx.Done():
		return auth.EmptyCredential, context.Cause(ctx)
	}
}

// refused tells that the upstream would not have cred, and reports whether get
// may now give another. A login is fetched anew once for that, unless it is
// fresh.
func (c *credential) refused(repository string, cred auth.Credential) bool {
	if c == nil || cred == auth.EmptyCredential {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	kept, key := c.lookup(repository)
	switch {
	case kept == nil:
		return true
	case c.next != nil && kept.Credential == auth.EmptyCredential:
		return c.next.refused(repository, cred)
	case kept.Credential != cred:
		return true // renewed meanwhile
	case c.now().Sub(kept.fetched) < refusedPause:
		return false
	}
	c.kept.remove(key)
	return true
}

// secrets are the texts that must not be repeated to anybody.
func (c *credential) secrets() (all []string) {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.kept.all(func(_ string, kept *keptLogin) {
		all = append(all, kept.Password, kept.RefreshToken, kept.AccessToken)
	})
	return append(all, c.next.secrets()...)
}

// lookup gives what is kept for a repository, nil for nothing, and the key it
// is or would be kept under; mu is held.
func (c *credential) lookup(repository string) (kept *keptLogin, key string) {
	scope := c.source.scope(repository)
	if kept, ok := c.kept.get(scope); ok {
		return kept, scope
	}
	if kept, ok := c.kept.get(""); ok {
		return kept, ""
	}
	return nil, scope
}

// fetch asks the source, or joins who does so already; mu is held. The question
// outlives the request that asked it: its answer is for all.
func (c *credential) fetch(ctx context.Context, key, repository string) *loginFlight {
	if f := c.flights[key]; f != nil {
		return f
	}
	f := &loginFlight{done: make(chan struct{})}
	c.flights[key] = f
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.timeout)
	// Ends when the source has answered, which the timeout bounds.
	go func() {
		defer cancel()
		l, err := c.source.login(ctx, repository)
		c.mu.Lock()
		defer c.mu.Unlock()
		f.kept = c.keep(repository, l, err)
		delete(c.flights, key)
		close(f.done)
	}()
	return f
}

// keep puts what the source gave in its place; mu is held.
func (c *credential) keep(repository string, l login, err error) *keptLogin {
	now := c.now()
	if err != nil {
		c.log.WithError(err).Warn("no credential can be had; asking again later")
		if old, _ := c.lookup(repository); old != nil && old.err == nil && old.Credential != auth.EmptyCredential && old.lasts(now) {
			old.retry = now.Add(failedPause)
			return old
		}
		l, err = login{shared: l.shared}, credentialFailure(err)
	}
	if c.found && l.Credential != auth.EmptyCredential {
		c.found = false
		c.log.Info("using the identity that this machine has in its cloud; what it fetches is the node's own")
	}
	kept := &keptLogin{login: l, err: err, fetched: now}
	switch {
	case err != nil || l.Credential == auth.EmptyCredential:
		kept.expires, kept.renew = time.Time{}, now.Add(failedPause)
	case l.once:
		kept.expires, kept.renew = now, now
	case !l.expires.IsZero():
		life := max(l.expires.Sub(now), leastLogin)
		kept.expires = now.Add(life)
		if l.renew.IsZero() || l.renew.After(kept.expires) || l.renew.Before(now) {
			kept.renew = now.Add(life - life/4)
		}
	case l.renew.IsZero():
		kept.renew = now.Add(forever)
	}
	key := c.source.scope(repository)
	if l.shared {
		key = ""
	}
	c.kept.put(key, kept)
	return kept
}

// credentialFailure is the failure of a source, about which the log says more:
// what the text names, files and programs, is no business of clients. Nothing
// was learnt about the endpoint.
func credentialFailure(err error) error {
	e := oci.Errorf(oci.ErrUnavailable, "the mirror's own credential for this registry cannot be had just now")
	e.Reason = "credential"
	return &failure{err: e, cause: err, ours: true}
}
