package upstream

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/larder-registry/larder/internal/oci"
)

// How often one call asks: every endpoint once, in order and without a pause
// between them; then those again whose failure may pass (a refused or broken
// connection, a name server's fault, a 5xx without Retry-After), after a pause.
// No more than maxTries in all, or one for each endpoint if there are more of
// those. Never again on the same endpoint: 4xx, timeouts (they cost seconds),
// certificates, and bad content.
const maxTries = 3

// pauses are the waits before the second and the third round, each give or take
// a quarter.
var pauses = [maxTries - 1]time.Duration{100 * time.Millisecond, 400 * time.Millisecond}

// attempt is one try at one endpoint.
type attempt struct {
	endpoint   *endpoint
	repository string
	kind       kind
	label      string
	ticket     *ticket
	way        oci.Way // the last exchange was let in by
}

// ask tries the endpoints of name's registry until one gives what is wanted.
// When none does, the verdict is that of the registry itself: an endpoint in
// front of it may lack what the registry has.
func (c *Client) ask(ctx context.Context, name oci.Name, k kind, try func(context.Context, *attempt) error) error {
	endpoints, err := c.endpointsFor(name)
	if err != nil {
		return err
	}
	if oci.ApproachOf(ctx).Alone { // what callers have is for the registry itself
		endpoints = slices.DeleteFunc(slices.Clone(endpoints), func(ep *endpoint) bool { return !ep.own })
	}
	left := max(maxTries, len(endpoints))
	var verdict error
	for round := 0; len(endpoints) > 0 && left > 0; round++ {
		if round > 0 && !pause(ctx, pauses[round-1]) {
			return contextFailure(ctx, name.Registry)
		}
		var again []*endpoint
		for _, ep := range c.shyLast(endpoints) {
			if left == 0 {
				break
			}
			err, asked := c.tryOne(ctx, ep, name, k, try)
			if err == nil {
				return nil
			}
			if ctx.Err() != nil {
				return err
			}
			if asked {
				left--
			}
			if ep.own && (asked || verdict == nil) {
				verdict = err
			}
			if f, ok := errors.AsType[*failure](err); ok && f.again {
				again = append(again, ep)
			}
		}
		endpoints = again
	}
	return verdict
}

// tryOne makes one try, unless the endpoint is to be left alone just now, and
// tells the breaker how it went.
func (c *Client) tryOne(ctx context.Context, ep *endpoint, name oci.Name, k kind, try func(context.Context, *attempt) error) (err error, asked bool) { //nolint:revive // the error is half of the answer
	if left := c.limits.left(ep, k); left > 0 {
		return &failure{err: tooMany(ep.base.Host, "asked to be left alone", left), ours: true}, false
	}
	t, ok := c.breakers.admit(ep.origin)
	if !ok {
		return &failure{err: unavailable(ep.base.Host, "breaker", "failed too often just now"), ours: true}, false
	}
	a := &attempt{endpoint: ep, repository: name.Repository, kind: k, label: c.label(name.Registry), ticket: t}
	err = try(ctx, a)
	c.breakers.note(ep.origin, a.label, err)
	if err == nil {
		return nil, true // the verdict was given, or is left to the body
	}
	a.judge(err)
	c.log.WithFields(logrus.Fields{
		"registry": name.Registry, "repository": name.Repository, "endpoint": ep.origin, "reason": oci.Reason(err),
	}).WithError(err).Debug("upstream try failed")
	return err, true
}

// judge gives the ticket the verdict that err stands for.
func (a *attempt) judge(err error) {
	f, ok := errors.AsType[*failure](err)
	switch {
	case !ok || f.ours:
		a.ticket.release()
	case f.weight == 0:
		a.ticket.success()
	case f.cause == nil && f.reason() == "timeout" && a.kind == kindManifest:
		// A registry that cannot answer for a manifest within the header
		// timeout is as good as down, and finding out again costs a client
		// as much each time. Blobs may be slow: some registries fetch first.
		a.ticket.failure(breakerThreshold)
	default:
		a.ticket.failure(f.weight)
	}
}

// shyLast puts endpoints whose bodies broke off lately behind the others, so
// that a resume goes elsewhere if it can.
func (c *Client) shyLast(endpoints []*endpoint) []*endpoint {
	if len(endpoints) < 2 {
		return endpoints
	}
	sorted := slices.Clone(endpoints)
	slices.SortStableFunc(sorted, func(a, b *endpoint) int {
		switch shyA, shyB := c.breakers.shy(a.origin), c.breakers.shy(b.origin); {
		case shyA == shyB:
			return 0
		case shyA:
			return 1
		default:
			return -1
		}
	})
	return sorted
}

// pause waits about d, and reports whether ctx is still alive then.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(time.Duration(float64(d) * (0.75 + rand.Float64()/2))) //nolint:gosec // jitter
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// patience bounds a call until its answer is there. The context it gives lives
// on after met, for the body; end ends it.
type patience struct {
	timer *time.Timer
	end   context.CancelCauseFunc
}

func (c *Client) patience(ctx context.Context) (context.Context, patience) {
	ctx, cancel := context.WithCancelCause(ctx)
	return ctx, patience{end: cancel, timer: time.AfterFunc(c.timeouts.Answer, func() { cancel(errAnswerTimeout) })}
}

// met stops the clock; it reports whether that was in time.
func (p patience) met() bool { return p.timer.Stop() }

// done ends the call.
func (p patience) done() {
	p.timer.Stop()
	p.end(nil)
}
