package oci

import (
	"context"
	"time"
)

// Outcome is what an answer to a pull came from; the words of the access log
// and of the metrics.
type Outcome string

// The outcomes.
const (
	// OutcomeHit: from disk or memory, confirmed or immutable.
	OutcomeHit Outcome = "hit"
	// OutcomeJoin: from a fill that an earlier request started.
	OutcomeJoin Outcome = "join"
	// OutcomeFill: from upstream, and kept.
	OutcomeFill Outcome = "fill"
	// OutcomeStale: from disk although the upstream could not confirm it.
	OutcomeStale Outcome = "stale"
	// OutcomePass: from upstream, and not kept.
	OutcomePass Outcome = "pass"
	// OutcomeMiss: nothing to serve; the client goes elsewhere.
	OutcomeMiss Outcome = "miss"
)

// Access is what became of one request. The HTTP edge puts one in the
// request's context; whoever answers fills it in before the answer's first
// byte, from one goroutine.
type Access struct {
	// Credential is what the client logged in with, for the upstream; set by
	// the HTTP edge. It shows itself to nobody.
	Credential Credential
	// Range is what part of a blob the client asked for, set by the HTTP edge
	// before it asks for the blob; nil for all of it. An End of -1 is an open
	// end, a negative Start counts from the blob's end ("bytes=-100").
	Range *Span
	// Taken: the client takes the content (GET) and does not only ask about it
	// (HEAD); set by the HTTP edge.
	Taken   bool
	Outcome Outcome
	// Upstream is the time spent waiting for an upstream's headers.
	Upstream time.Duration
	// Age is how long ago what is served was confirmed; set with
	// OutcomeStale, and sent as the Age header (RFC 9111 section 5.1).
	Age time.Duration
	// Reason says in a word why the outcome is stale, pass or miss
	// ("timeout", "refused", "status", "ratelimit", "breaker", "offline",
	// "disk", …).
	Reason string
}

type accessKey struct{}

// WithAccess returns a context that carries a.
func WithAccess(ctx context.Context, a *Access) context.Context {
	return context.WithValue(ctx, accessKey{}, a)
}

// AccessOf returns the Access ctx carries, or a fresh one nobody reads, so that
// callers need not ask whether there is one.
func AccessOf(ctx context.Context) *Access {
	if a, ok := ctx.Value(accessKey{}).(*Access); ok {
		return a
	}
	return &Access{}
}
