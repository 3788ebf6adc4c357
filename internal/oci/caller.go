package oci

import (
	"context"
	"fmt"
	"io"
)

// Credential is what a caller logs in to a registry with: a pull secret, as a
// rule. It shows itself to nobody: printed, logged or encoded it is a word,
// also inside another struct. The zero Credential is none.
type Credential struct {
	// login is a function because package fmt, given a wrong verb, prints
	// everything else down to the strings.
	login func() (username, secret string)
}

// NewCredential makes a Credential of a user's name and password.
func NewCredential(username, secret string) Credential {
	return Credential{func() (string, string) { return username, secret }}
}

// IsZero reports whether there is no credential.
func (c Credential) IsZero() bool { return c.login == nil }

// Login gives away what the credential is: to be sent to the registry it is
// for, and to be hashed.
func (c Credential) Login() (username, secret string) {
	if c.login == nil {
		return "", ""
	}
	return c.login()
}

// String says whether there is a credential.
func (c Credential) String() string {
	if c.IsZero() {
		return "none"
	}
	return "[redacted]"
}

// Format prints String for every verb, so that none prints the secret.
func (c Credential) Format(f fmt.State, _ rune) {
	_, _ = io.WriteString(f, c.String()) // a fmt.State keeps its own errors
}

// MarshalText encodes String.
func (c Credential) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// Way is how an upstream let a request in, or that it did not.
type Way int

// The ways.
const (
	// WayRefused: it wants other credentials than it was given (401, 403).
	WayRefused Way = iota + 1
	// WayAnonymous: without credentials.
	WayAnonymous
	// WayConfigured: with the credentials configured for the repository.
	WayConfigured
	// WayCaller: with those of the caller.
	WayCaller
)

// Approach says on whose behalf an upstream is asked. It travels in the context
// of a question; without one the upstream is asked for the node itself.
type Approach struct {
	// Credential is the caller's. It is sent to the registry itself and to the
	// token server that the registry names, and only where the registry refuses
	// what else there is.
	Credential Credential
	// Key is the same for the same Credential, and says nothing about it: what
	// tokens and answers are kept under. Set with Credential.
	Key string
	// Alone: nothing but Credential is tried, so that the answer says whether
	// the caller may.
	Alone bool
	// Fresh: no token that Credential brought before is used, so that one that
	// was taken back is noticed.
	Fresh bool
	// Heard, if it is not nil, is told how the upstream answered, before the
	// question returns. It may be called from any goroutine, and more than
	// once. What is neither content nor a refusal says nothing of access, and
	// is not told.
	Heard func(Way)
}

type approachKey struct{}

// WithApproach returns a context that carries a.
func WithApproach(ctx context.Context, a Approach) context.Context {
	return context.WithValue(ctx, approachKey{}, &a)
}

// ApproachOf returns the Approach ctx carries, or the zero one.
func ApproachOf(ctx context.Context) Approach {
	if a, ok := ctx.Value(approachKey{}).(*Approach); ok {
		return *a
	}
	return Approach{}
}
