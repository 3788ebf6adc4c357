package upstream

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"sync"
	"time"

	"oras.land/oras-go/v2/registry/remote/auth"

	"github.com/larder-registry/larder/internal/oci"
)

// A registry is asked by one way after another until one is not refused:
//
//	the configured credentials, then none      as a rule
//	none, then the configured credentials      where callers have to prove that
//	                                           they may (Registry.Proof)
//	the caller's credentials                   after those, at the registry itself
//	                                           and nowhere else
//
// The configured credentials come first because they are worth something also
// where none are needed: an account at Docker Hub raises its limit. An
// Approach.Alone takes the last way only.

// knownFor is how long the way that was taken last is tried first, and maxKnown
// bounds the repositories this is remembered of.
const (
	knownFor = 10 * time.Minute
	maxKnown = 2048
)

// way is one way to be let in.
type way struct {
	kind    oci.Way
	who     string // keeps apart what was given to different comers
	logins  logins
	secrets []string // must not be repeated to anybody
}

// nobody has no credentials.
type nobody struct{}

func (nobody) get(context.Context, string) (auth.Credential, error) {
	return auth.EmptyCredential, nil
}

func (nobody) refused(string, auth.Credential) bool { return false }

// callers are the credentials that one caller brought: there are no others.
type callers struct{ auth.Credential }

func (c callers) get(context.Context, string) (auth.Credential, error) { return c.Credential, nil }

func (callers) refused(string, auth.Credential) bool { return false }

// waysTo lists the ways to try at a's endpoint, in order.
func (c *Client) waysTo(a *attempt, ap oci.Approach) []way {
	ep := a.endpoint
	var all []way
	if !ap.Alone {
		none := way{kind: oci.WayAnonymous, who: "anonymous", logins: nobody{}}
		if ep.exchange.certified() {
			none.kind = oci.WayConfigured // by the client certificate
		}
		all = append(all, none)
		if ep.cred.configured() {
			all = slices.Insert(all, 0, way{kind: oci.WayConfigured, logins: ep.cred})
			if ep.proof {
				slices.Reverse(all)
			}
			if last := c.known.get(a); last != 0 && all[0].kind != last {
				slices.Reverse(all)
			}
		}
	}
	if ep.own && !ap.Credential.IsZero() {
		username, secret := ap.Credential.Login()
		all = append(all, way{
			kind: oci.WayCaller, who: "caller " + ap.Key, secrets: []string{secret},
			logins: callers{auth.Credential{Username: username, Password: secret}},
		})
	}
	return all
}

// exchangeOnce asks a's endpoint once, by the first way that it does not refuse.
func (c *Client) exchangeOnce(ctx context.Context, a *attempt, q question) (*http.Response, error) {
	ap := oci.ApproachOf(ctx)
	hear := func(w oci.Way) {
		if ap.Heard != nil {
			ap.Heard(w)
		}
	}
	var refusal, broken error
	for _, w := range c.waysTo(a, ap) {
		if ap.Fresh && w.kind == oci.WayCaller {
			c.tokens.forget(tokenKey{endpoint: a.endpoint.key, who: w.who, repository: a.repository})
		}
		resp, err := c.exchangeBy(ctx, a, q, w)
		switch {
		case err == nil:
			c.known.put(a, a.way)
			hear(a.way)
			return resp, nil
		case oci.Reason(err) == "credential":
			broken = err // its source failed; others may do
		case !refused(err):
			return nil, err
		case refusal == nil || w.kind == oci.WayCaller:
			refusal = err
		}
	}
	if broken != nil && refusal != nil && ap.Credential.IsZero() {
		// What the configured credentials would have come to is not known.
		return nil, broken
	}
	// A HEAD may be forbidden where a GET is not.
	if a.endpoint.own && !(q.method == http.MethodHead && hasStatus(refusal, http.StatusForbidden)) {
		hear(oci.WayRefused)
	}
	return nil, refusal
}

// refused reports whether err is an upstream's refusal of the credentials it
// was given, or of having been given none.
func refused(err error) bool {
	return hasStatus(err, http.StatusUnauthorized, http.StatusForbidden) &&
		(errors.Is(err, oci.ErrUnauthorized) || errors.Is(err, oci.ErrDenied))
}

// knownWays remembers which of the ways that everybody has was taken last.
type knownWays struct {
	now func() time.Time

	mu sync.Mutex
	of *lru[tokenKey, knownWay]
}

type knownWay struct {
	kind  oci.Way
	until time.Time
}

func newKnownWays(now func() time.Time) *knownWays {
	return &knownWays{now: now, of: newLRU[tokenKey, knownWay](maxKnown)}
}

// get gives the way taken last to what a asks, 0 if none is known.
func (k *knownWays) get(a *attempt) oci.Way {
	k.mu.Lock()
	defer k.mu.Unlock()
	last, ok := k.of.get(tokenKey{endpoint: a.endpoint.key, repository: a.repository})
	if !ok || !k.now().Before(last.until) {
		return 0
	}
	return last.kind
}

// put remembers the way that was taken. How long it is remembered counts from
// when it was first taken, so that one further up is tried again.
func (k *knownWays) put(a *attempt, kind oci.Way) {
	if kind == oci.WayCaller || !a.endpoint.cred.configured() {
		return
	}
	key := tokenKey{endpoint: a.endpoint.key, repository: a.repository}
	k.mu.Lock()
	defer k.mu.Unlock()
	if last, ok := k.of.get(key); !ok || last.kind != kind || !k.now().Before(last.until) {
		k.of.put(key, knownWay{kind: kind, until: k.now().Add(knownFor)})
	}
}

// NodeAccess reports whether there are credentials configured for name, or
// found for it, and everybody on the node may have what they fetch.
func (c *Client) NodeAccess(name oci.Name) bool {
	endpoints, err := c.endpointsFor(name)
	return err == nil && slices.ContainsFunc(endpoints, func(ep *endpoint) bool {
		return (ep.cred.configured() || ep.exchange.certified()) && !ep.proof
	})
}
