package upstream

import (
	"context"
	"sync"
	"time"

	"oras.land/oras-go/v2/registry/remote/auth"
)

// maxTokens bounds the tokens kept; Docker Hub's are about 3 KiB each.
const maxTokens = 512

// tokenKey is what a token is good for: one repository of one endpoint, asked
// with the credentials of one entry, of one caller, or of nobody. Everything
// here is pulled, so the scope follows from the repository.
type tokenKey struct {
	endpoint string // endpoint.key
	who      string // way.who
	// repository is empty, as is who, for Basic: that an endpoint speaks it.
	repository string
}

// token is the value of an Authorization header, in its two parts.
type token struct {
	scheme  auth.Scheme
	value   string
	expires time.Time // zero: never
}

// tokens keeps tokens until shortly before they expire, and lets requests that
// need the same token wait for one fetch of it. Failures are not kept: the next
// request asks again.
type tokens struct {
	timeout time.Duration
	now     func() time.Time

	mu      sync.Mutex
	kept    *lru[tokenKey, token]
	flights map[tokenKey]*flight
}

// flight is one fetch under way.
type flight struct {
	done    chan struct{} // closed when token and err are set
	token   token
	err     error
	waiters int
	cancel  context.CancelFunc
}

func newTokens(timeout time.Duration, now func() time.Time) *tokens {
	return &tokens{timeout: timeout, now: now, kept: newLRU[tokenKey, token](maxTokens), flights: map[tokenKey]*flight{}}
}

// get gives the token kept for key.
func (t *tokens) get(key tokenKey) (token, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.lookup(key)
}

// lookup is get with mu held.
func (t *tokens) lookup(key tokenKey) (token, bool) {
	tok, ok := t.kept.get(key)
	if ok && !tok.expires.IsZero() && !t.now().Before(tok.expires) {
		t.kept.remove(key)
		return token{}, false
	}
	return tok, ok
}

// keep puts a token that cost no request.
func (t *tokens) keep(key tokenKey, tok token) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kept.put(key, tok)
}

// forget drops the token kept for key.
func (t *tokens) forget(key tokenKey) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kept.remove(key)
}

// renew gives a token for key that is not the one already refused: one that
// another request has brought meanwhile, else a fresh one. The fetch belongs to
// all who wait for it: it outlives the request that started it, and is given up
// when the last one has left or after the timeout.
func (t *tokens) renew(ctx context.Context, key tokenKey, refused string, fetch func(context.Context) (token, error)) (token, error) {
	t.mu.Lock()
	if tok, ok := t.lookup(key); ok && tok.value != refused {
		t.mu.Unlock()
		return tok, nil
	}
	f := t.flights[key]
	if f == nil {
		f = t.start(ctx, key, fetch)
	}
	f.waiters++
	t.mu.Unlock()

	select {
	case <-f.done:
		return f.token, f.err
	case <-ctx.Done():
		t.leave(key, f)
		return token{}, context.Cause(ctx)
	}
}

// start begins a fetch; mu is held.
func (t *tokens) start(ctx context.Context, key tokenKey, fetch func(context.Context) (token, error)) *flight {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), t.timeout)
	f := &flight{done: make(chan struct{}), cancel: cancel}
	t.flights[key] = f
	// Ends when the fetch does, which its context's timeout bounds.
	go func() {
		defer cancel()
		tok, err := fetch(ctx)
		t.mu.Lock()
		defer t.mu.Unlock()
		f.token, f.err = tok, err
		if err == nil {
			t.kept.put(key, tok)
		}
		if t.flights[key] == f {
			delete(t.flights, key)
		}
		close(f.done)
	}()
	return f
}

// leave stops waiting for f, and gives it up if nobody else waits.
func (t *tokens) leave(key tokenKey, f *flight) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f.waiters--
	if f.waiters > 0 {
		return
	}
	f.cancel()
	if t.flights[key] == f {
		delete(t.flights, key)
	}
}
