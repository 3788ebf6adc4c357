package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"syscall"

	"oras.land/oras-go/v2/registry/remote/auth"

	"github.com/larder-registry/larder/internal/oci"
)

// failure is why one try came to nothing, and what follows from it. To callers
// it is an *oci.Error and its cause.
//
// Texts are made here from the kinds of errors that are known. The text of an
// error of net/http or oras-go is never used: most hold the URL, and with it a
// signed query.
type failure struct {
	err    *oci.Error
	cause  error // seen by errors.Is, never printed
	status int   // of the answer; 0 if there was none
	weight int   // failures it counts for at the breaker; 0: the endpoint works
	again  bool  // asking the same endpoint once more may help
	ours   bool  // nothing was learnt about the endpoint
}

func (f *failure) Error() string { return f.err.Error() }

func (f *failure) Unwrap() []error {
	if f.cause == nil {
		return []error{f.err}
	}
	return []error{f.err, f.cause}
}

// reason is a word for metrics.
func (f *failure) reason() string { return oci.Reason(f.err) }

// hasStatus reports whether err stands for an answer with one of the codes.
func hasStatus(err error, codes ...int) bool {
	f, ok := errors.AsType[*failure](err)
	return ok && slices.Contains(codes, f.status)
}

// unavailable makes the error for an upstream that did not answer as it should.
func unavailable(host, reason, format string, args ...any) *oci.Error {
	e := oci.Errorf(oci.ErrUnavailable, "%s: %s", host, fmt.Sprintf(format, args...))
	e.Reason = reason
	return e
}

// What ended a context that the caller did not end.
var (
	errAnswerTimeout = errors.New("no answer in time")
	errStalled       = errors.New("no byte in time")
)

// contextFailure says why ctx ended; nil while it lives. A caller that leaves
// says nothing about the upstream; a caller's deadline that passes does.
func contextFailure(ctx context.Context, host string) *failure {
	if ctx.Err() == nil {
		return nil
	}
	switch cause := context.Cause(ctx); {
	case errors.Is(cause, errStalled):
		return &failure{err: unavailable(host, "stall", "the body stalled"), cause: io.ErrUnexpectedEOF, weight: 1, again: true}
	case errors.Is(cause, errAnswerTimeout):
		return &failure{err: unavailable(host, "timeout", "no answer in time"), weight: 1}
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return &failure{err: unavailable(host, "timeout", "no answer before the caller's deadline"), cause: ctx.Err(), weight: 1}
	default:
		e := &oci.Error{Code: oci.CodeUnknown, Message: "request cancelled", Reason: "cancelled"}
		return &failure{err: e, cause: ctx.Err(), ours: true}
	}
}

// clientFailure classifies an error of oras-go's client: one of the exchange
// itself, of the token server, or of a challenge it could not answer.
func clientFailure(ctx context.Context, host string, err error) *failure {
	if f := contextFailure(ctx, host); f != nil {
		return f
	}
	if f, ok := errors.AsType[*failure](err); ok {
		return f // of the token server
	}
	switch e, isExchange := errors.AsType[*url.Error](err); {
	case errors.Is(err, auth.ErrBasicCredentialNotFound):
		return unauthorized("%s: asks for credentials, none are configured", host)
	case errors.Is(err, errRefused):
		return unauthorized("%s: refused the configured credentials", host)
	case !isExchange || e.Op == "parse":
		return unauthorized("%s: sent a challenge that cannot be answered", host)
	}
	return wireFailure(ctx, host, err)
}

// wireFailure classifies an error of net/http.
func wireFailure(ctx context.Context, host string, err error) *failure {
	if f := contextFailure(ctx, host); f != nil {
		return f
	}
	if blocked, ok := errors.AsType[*blockedError](err); ok {
		return &failure{err: blocked.denied(), ours: true}
	}
	if denied, ok := errors.AsType[*oci.Error](err); ok {
		return &failure{err: denied, ours: true} // by checkRedirect
	}
	if realm, ok := errors.AsType[*realmError](err); ok {
		return unauthorized("%s: is in another domain than the registry and gets no credentials; "+
			"to trust it, name it as token_server in the registry's entry", realm.host)
	}
	if redirect, ok := errors.AsType[*redirectError](err); ok {
		return &failure{err: unavailable(host, "redirect", "%s", redirect.Error())}
	}
	return networkFailure(host, err)
}

// unauthorized is a failure that asking again does not mend.
func unauthorized(format string, args ...any) *failure {
	return &failure{err: oci.Errorf(oci.ErrUnauthorized, format, args...), status: http.StatusUnauthorized}
}

// networkFailure classifies what went wrong below HTTP.
func networkFailure(host string, err error) *failure {
	f := &failure{weight: 1}
	dns, isDNS := errors.AsType[*net.DNSError](err)
	timeout, isNet := errors.AsType[net.Error](err)
	switch {
	case isDNS:
		f.err = unavailable(host, "dns", "the name cannot be resolved")
		f.again = !dns.IsNotFound && !dns.IsTimeout
	case isNet && timeout.Timeout():
		f.err = unavailable(host, "timeout", "no answer in time")
		if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
			// Nothing listens there for anybody, and each try costs seconds.
			f.weight = breakerThreshold
		}
	case isTLS(err):
		f.err = unavailable(host, "tls", "%s", tlsText(err))
	case errors.Is(err, syscall.ECONNREFUSED):
		f.err = unavailable(host, "refused", "connection refused")
		f.again = true
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		f.err = unavailable(host, "unreachable", "no route")
		f.again = true
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF),
		errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		f.err = unavailable(host, "cut", "the connection broke")
		f.again = true
	default:
		f.err = unavailable(host, "protocol", "the answer could not be read")
		f.again = true
	}
	return f
}

func isTLS(err error) bool {
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return true
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return true
	}
	if _, ok := errors.AsType[tls.AlertError](err); ok {
		return true
	}
	op, ok := errors.AsType[*net.OpError](err)
	return ok && (op.Op == "remote error" || op.Op == "local error") || errors.Is(err, http.ErrSchemeMismatch)
}

// tlsText says what is wrong with the certificate; it names hosts only.
func tlsText(err error) string {
	if verify, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return sanitise(verify.Err.Error())
	}
	if errors.Is(err, http.ErrSchemeMismatch) {
		return "speaks plain HTTP; if it should, set insecure in its entry"
	}
	return "the TLS handshake failed"
}
