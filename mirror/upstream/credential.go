package upstream

import (
	"context"
	"errors"
	"sync"
	"time"

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
}

// source is where the logins of one entry come from: a password file, Docker's
// configuration, a plugin, a cloud. It may read files, run programs and talk
// to services; ctx bounds that. It gives the zero login where it has none.
type source interface {
	login(ctx context.Context, repository string) (login, error)
}

// credential is what is configured for the repositories of one entry, or what
// its host's name promises (ECR, for one). It asks its source as seldom as it
// can: all requests share a login, one of them renews it ahead of its end, and
// what failed is left alone for a while. A nil credential has nothing.
type credential struct {
	source  source
	apart   bool          // the source tells repositories apart
	timeout time.Duration // of the source
	now     func() time.Time

	mu      sync.Mutex
	kept    *lru[string, *keptLogin] // by repository; empty: for all
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

func newCredential(src source, timeout time.Duration, now func() time.Time) *credential {
	return &credential{
		source: src, timeout: timeout, now: now,
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
	case kept == nil || kept.Credential != cred:
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
	return all
}

// lookup gives what is kept for a repository, nil for nothing, and the key it
// is or would be kept under; mu is held.
func (c *credential) lookup(repository string) (kept *keptLogin, key string) {
	if c.apart {
		if kept, ok := c.kept.get(repository); ok {
			return kept, repository
		}
	}
	if kept, ok := c.kept.get(""); ok || !c.apart {
		return kept, ""
	}
	return nil, repository
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
		err = credentialFailure(err)
		if old, _ := c.lookup(repository); old != nil && old.err == nil && old.lasts(now) {
			old.retry = now.Add(failedPause)
			return old
		}
		l = login{shared: l.shared}
	}
	kept := &keptLogin{login: l, err: err, fetched: now}
	switch {
	case err != nil || l.Credential == auth.EmptyCredential:
		kept.renew = now.Add(failedPause)
	case !l.expires.IsZero():
		life := max(l.expires.Sub(now), leastLogin)
		kept.expires = now.Add(life)
		if l.renew.IsZero() || l.renew.After(kept.expires) || !l.renew.After(now) {
			kept.renew = now.Add(life - life/4)
		}
	case l.renew.IsZero():
		kept.renew = now.Add(100 * 365 * 24 * time.Hour)
	}
	if l.shared || !c.apart {
		repository = ""
	}
	c.kept.put(repository, kept)
	return kept
}

// credentialFailure is the failure of a source. Its text is the source's, which
// holds no secrets. Nothing was learnt about the endpoint.
func credentialFailure(err error) error {
	e := oci.Errorf(oci.ErrUnavailable, "get credential: %v", err)
	e.Reason = "credential"
	f := &failure{err: e, ours: true}
	if errors.Is(err, context.DeadlineExceeded) {
		f.err.Message = "get credential: no answer in time"
	}
	return f
}

// password is the source of an entry with a username and a password.
type password struct{ username, password string }

func (p password) login(context.Context, string) (login, error) {
	return login{Credential: auth.Credential{Username: p.username, Password: p.password}}, nil
}

// credentialOf makes the credential of an entry; nil if it has none.
func (c *Client) credentialOf(r Registry) *credential {
	if r.Username == "" && r.Password == "" {
		return nil
	}
	return newCredential(password{r.Username, r.Password}, c.timeouts.Token, c.now)
}
