package oci

import (
	"context"
	"crypto/x509"
	"net/netip"
)

// Action is one right, on one repository or on the registry.
type Action string

// The actions.
const (
	// ActionPull reads blobs, image manifests, tags and referrers.
	ActionPull Action = "pull"
	// ActionMount reads a blob in order to have it in another repository, too.
	// It is the right to pull, whatever repositories a token is made out for:
	// clients mount what they have not been asked to prove they may pull.
	ActionMount Action = "mount"
	// ActionPush writes blobs, image manifests and tags.
	ActionPush Action = "push"
	// ActionDelete removes blobs, image manifests and tags.
	ActionDelete Action = "delete"
	// ActionCatalog lists repositories. It is asked for without a repository;
	// whoever has it still sees only what it may pull, see [Subject].
	ActionCatalog Action = "catalog"
)

// Caller is what a request brings to prove who sends it, and where it comes
// from. It holds secrets: it is never logged and never kept longer than the
// request, but for keyed hashes.
type Caller struct {
	// Authorization is the header as it came; empty when there is none.
	Authorization string
	// Certificate is the client's, already verified against the configured
	// authorities by the TLS handshake; nil when there is none.
	Certificate *x509.Certificate
	// Peer is the address the connection comes from, for counting failed
	// logins; the zero Addr when it is not known.
	Peer netip.Addr
}

// Want is what a request needs: all the actions, on one repository. Repository
// is empty for the version check (then Actions is empty as well: any caller
// who would be let in somewhere) and for [ActionCatalog]. Content of another
// registry that is pulled through has the path form as its repository:
// "f/docker.io/library/nginx".
type Want struct {
	Repository string
	Actions    []Action
}

// Subject is a caller who was let in.
type Subject interface {
	// Name is for logs: a user, a service account; "" for an anonymous one.
	Name() string
	// May reports whether the subject also has one more right. It decides what
	// a catalog shows, and from where a blob may be mounted; a right that could
	// not be found out is one the subject does not have.
	May(ctx context.Context, repository string, action Action) bool
}

// Refusal is why a caller was not let in. Its cause is an [Error]: UNAUTHORIZED
// for a caller who is not known, DENIED for one who may not, TOOMANYREQUESTS
// for one who tried too often (with RetryAfter), UNAVAILABLE when who decides
// cannot be reached.
type Refusal struct {
	Cause *Error
	// Challenges are the values of the WWW-Authenticate headers that go with a
	// 401 (RFC 9110 section 11.6.1): `Bearer realm="…",service="…",scope="…"`,
	// `Basic realm="…"`. They hold no secret.
	Challenges []string
}

// Error gives the cause.
func (r *Refusal) Error() string {
	if r.Cause == nil {
		return "refused without a cause"
	}
	return r.Cause.Error()
}

// Unwrap gives the cause, so that it is found by errors.Is and errors.As.
func (r *Refusal) Unwrap() error {
	if r.Cause == nil {
		return nil
	}
	return r.Cause
}
