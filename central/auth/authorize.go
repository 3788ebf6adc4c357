package auth

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/larder-registry/larder/internal/oci"
)

// Authorize lets a caller in who may do all that is wanted. It fails with an
// *oci.Refusal.
//
// A caller who brought nothing, or a token that is made out for too little, is
// told by the challenge where a better one is to be had. One who is known and
// has not the right is DENIED. The version check, which clients make to find
// out how to log in, and the list of repositories, which is another one for each
// caller, ask everybody to log in who brings nothing, also where anonymous
// callers may pull: most clients send no password before they are asked. Who
// wants to be nobody gets a token for nobody.
func (a *Authority) Authorize(ctx context.Context, from oci.Caller, want oci.Want) (oci.Subject, error) {
	c, err := a.identify(ctx, from)
	if err != nil {
		why := ""
		if isBearer(from.Authorization) {
			why = "invalid_token"
		}
		return nil, a.refuse(ctx, err, want, why)
	}
	lists := slices.Contains(want.Actions, oci.ActionCatalog)
	if (lists || len(want.Actions) == 0) && c.IsAnonymous() && from.Authorization == "" {
		return nil, a.refuse(ctx, oci.ErrUnauthorized, want, "")
	}
	for _, action := range want.Actions {
		entitled, err := a.entitled(ctx, c.Subject, action, want.Repository)
		switch {
		case err != nil:
			return nil, a.refuse(ctx, err, want, "")
		case !entitled && c.IsAnonymous():
			return nil, a.refuse(ctx, oci.ErrUnauthorized, want, "")
		case !entitled:
			return nil, a.refuse(ctx, oci.ErrDenied, want, "")
		case !c.holds(action, want.Repository):
			return nil, a.refuse(ctx, oci.ErrUnauthorized, want, "insufficient_scope")
		}
	}
	return &visitor{a, c, lists}, nil
}

// refuse makes the answer to a caller who is not let in. Errors that are not
// the spec's come from whoever could not be asked, and stay in the log.
func (a *Authority) refuse(ctx context.Context, err error, want oci.Want, why string) *oci.Refusal {
	spec, ok := errors.AsType[*oci.Error](err)
	if !ok {
		if ctx.Err() == nil {
			a.log.WithError(err).Error("who may do what cannot be found out now")
		}
		spec = oci.Errorf(oci.ErrUnavailable, "credentials and rights cannot be checked now")
	}
	refusal := &oci.Refusal{Cause: spec}
	if spec.Code == oci.CodeUnauthorized {
		refusal.Challenges = []string{a.challenge(ctx, want, why)}
	}
	return refusal
}

// visitor is a caller who was let in.
type visitor struct {
	authority *Authority
	caller    caller
	// lists: the visitor came for the list of repositories, for which its
	// token names none.
	lists bool
}

// Name gives the subject's name; empty for an anonymous one.
func (v *visitor) Name() string {
	if v.caller.IsAnonymous() {
		return ""
	}
	return v.caller.Name
}

// May reports whether the visitor also has one more right.
func (v *visitor) May(ctx context.Context, repository string, action oci.Action) bool {
	if v.lists && action == oci.ActionPull {
		return v.authority.sees(ctx, v.caller.Subject, repository)
	}
	if action == oci.ActionMount {
		entitled, err := v.authority.entitled(ctx, v.caller.Subject, oci.ActionPull, repository)
		return err == nil && entitled
	}
	entitled, err := v.authority.entitled(ctx, v.caller.Subject, action, repository)
	return err == nil && entitled && v.caller.holds(action, repository)
}

// caller is a subject, and what its token limits it to.
type caller struct {
	Subject
	// scope is what a token of this registry was made out for; nil when the
	// caller proved itself without one.
	scope *scope
}

func (c caller) holds(action oci.Action, repository string) bool {
	return c.scope == nil || c.scope.holds(action, repository)
}

// identify finds out who sends from. It fails with oci.ErrUnauthorized when the
// credentials are not right, or of no kind that is known here, and with
// oci.ErrTooManyRequests after too many failures; other errors are of those who
// could not be asked. No credentials at all are the anonymous subject, and no
// failure.
func (a *Authority) identify(ctx context.Context, from oci.Caller) (caller, error) {
	if from.Authorization == "" {
		if from.Certificate != nil && from.Certificate.Subject.CommonName != "" {
			return caller{Subject: Subject{Name: "cert:" + from.Certificate.Subject.CommonName}}, nil
		}
		return caller{Subject: Anonymous()}, nil
	}
	scheme, value, _ := strings.Cut(from.Authorization, " ")
	value = strings.TrimSpace(value)
	switch {
	case strings.EqualFold(scheme, "basic"):
		user, password, ok := parseBasic(value)
		if !ok {
			return caller{}, errWrong
		}
		s, err := a.login(ctx, user, password, from.Peer)
		return caller{Subject: s}, err
	case isBearer(from.Authorization) && a.foreign(value):
		s, err := a.login(ctx, "", value, from.Peer)
		return caller{Subject: s}, err
	case isBearer(from.Authorization):
		return a.verify(value)
	}
	return caller{}, oci.Errorf(oci.ErrUnauthorized, "the authentication scheme is not known: use Basic or Bearer")
}

// isBearer reports whether an Authorization header holds a token (RFC 6750
// section 2.1).
func isBearer(authorization string) bool {
	scheme, _, _ := strings.Cut(authorization, " ")
	return strings.EqualFold(scheme, "bearer")
}

type baseKey struct{}

// WithBase puts scheme and host, as a client has them, into a request's
// context: "https://registry.example:5000".
func WithBase(ctx context.Context, base string) context.Context {
	return context.WithValue(ctx, baseKey{}, base)
}

// challenge gives the value of WWW-Authenticate for a 401: where to get a token
// (RFC 6750 section 3, and the distribution project's token specification), and
// for what. why is empty or one of RFC 6750's error codes.
func (a *Authority) challenge(ctx context.Context, want oci.Want, why string) string {
	base := a.publicURL
	if base == "" {
		base, _ = ctx.Value(baseKey{}).(string)
	}
	if strings.ContainsFunc(base, func(r rune) bool { return r <= ' ' || r > '~' || r == '"' || r == '\\' }) {
		base = "" // it would end the quoted string that it stands in
	}
	var b strings.Builder
	fmt.Fprintf(&b, `Bearer realm="%s",service="%s"`, base+TokenPath, service)
	if len(want.Actions) > 0 {
		var s scope
		if slices.Contains(want.Actions, oci.ActionPush) {
			// Who pushes looks first what is there, and should not need a
			// second token for it.
			s = s.with(want.Repository, oci.ActionPull)
		}
		fmt.Fprintf(&b, `,scope="%s"`, s.with(want.Repository, want.Actions...))
	}
	if why != "" {
		fmt.Fprintf(&b, `,error="%s"`, why)
	}
	return b.String()
}
