package oci

import (
	"errors"
	"fmt"
	"time"
)

// Code is an error code of the distribution spec (section "Error Codes").
type Code string

// The spec's codes, and some that registries in the field use besides.
const (
	CodeBlobUnknown         Code = "BLOB_UNKNOWN"
	CodeBlobUploadInvalid   Code = "BLOB_UPLOAD_INVALID"
	CodeBlobUploadUnknown   Code = "BLOB_UPLOAD_UNKNOWN"
	CodeDigestInvalid       Code = "DIGEST_INVALID"
	CodeManifestBlobUnknown Code = "MANIFEST_BLOB_UNKNOWN"
	CodeManifestInvalid     Code = "MANIFEST_INVALID"
	CodeManifestUnknown     Code = "MANIFEST_UNKNOWN"
	CodeNameInvalid         Code = "NAME_INVALID"
	CodeNameUnknown         Code = "NAME_UNKNOWN"
	CodeSizeInvalid         Code = "SIZE_INVALID"
	CodeUnauthorized        Code = "UNAUTHORIZED"
	CodeDenied              Code = "DENIED"
	CodeUnsupported         Code = "UNSUPPORTED"
	CodeTooManyRequests     Code = "TOOMANYREQUESTS"
	CodeRangeInvalid        Code = "RANGE_INVALID"
	CodeUnavailable         Code = "UNAVAILABLE"
	CodePageInvalid         Code = "PAGINATION_NUMBER_INVALID"
	CodeUnknown             Code = "UNKNOWN"
	// CodeInsufficientStorage goes with 507 (RFC 4918 section 11.5).
	CodeInsufficientStorage Code = "INSUFFICIENT_STORAGE"
)

// Error is a failure in the words of the distribution spec. Two Errors are the
// same to errors.Is when their codes are, so an error an upstream sent and one
// made here compare equal.
type Error struct {
	Code Code
	// Message is for people; it reaches clients, so it never holds a secret
	// or a signed URL.
	Message string
	// Reason says in one word what failed, for logs and metrics: "refused",
	// "timeout", "stall", "dns", "tls", "status", "ratelimit", "breaker",
	// "encoding", "offline". Empty where the code says it all.
	Reason string
	// RetryAfter is how long an upstream asked to be left alone; zero if it
	// did not.
	RetryAfter time.Duration
}

// Error gives the code in words, then the message.
func (e *Error) Error() string {
	if e.Message == "" {
		return string(e.Code)
	}
	return fmt.Sprintf("%s: %s", e.Code, e.Message)
}

// Is reports whether target is an Error of the same code.
func (e *Error) Is(target error) bool {
	t, ok := errors.AsType[*Error](target)
	return ok && t.Code == e.Code
}

// The failures the parts of Larder tell apart. Match them with errors.Is; make
// one with a message by [Errorf].
var (
	ErrBlobUnknown = &Error{Code: CodeBlobUnknown, Message: "blob unknown to registry"}
	// The failures of pushes.
	ErrBlobUploadUnknown   = &Error{Code: CodeBlobUploadUnknown, Message: "upload unknown to registry"}
	ErrBlobUploadInvalid   = &Error{Code: CodeBlobUploadInvalid, Message: "upload invalid"}
	ErrManifestBlobUnknown = &Error{Code: CodeManifestBlobUnknown, Message: "manifest refers to content unknown to the repository"}
	ErrInsufficientStorage = &Error{Code: CodeInsufficientStorage, Message: "the registry has no room for this; pulls go on"}

	ErrManifestUnknown = &Error{Code: CodeManifestUnknown, Message: "manifest unknown to registry"}
	ErrNameUnknown     = &Error{Code: CodeNameUnknown, Message: "repository name not known to registry"}
	ErrNameInvalid     = &Error{Code: CodeNameInvalid, Message: "invalid repository name"}
	ErrDigestInvalid   = &Error{Code: CodeDigestInvalid, Message: "content does not match its digest"}
	ErrManifestInvalid = &Error{Code: CodeManifestInvalid, Message: "manifest invalid"}
	ErrSizeInvalid     = &Error{Code: CodeSizeInvalid, Message: "content does not have the length announced"}
	ErrUnauthorized    = &Error{Code: CodeUnauthorized, Message: "authentication required"}
	ErrDenied          = &Error{Code: CodeDenied, Message: "requested access to the resource is denied"}
	ErrUnsupported     = &Error{Code: CodeUnsupported, Message: "the operation is unsupported"}
	ErrTooManyRequests = &Error{Code: CodeTooManyRequests, Message: "too many requests"}
	ErrRangeInvalid    = &Error{Code: CodeRangeInvalid, Message: "range cannot be satisfied"}
	ErrPageInvalid     = &Error{Code: CodePageInvalid, Message: "invalid list parameter"}
	// ErrUnavailable: the upstream could not be asked, or failed to answer:
	// refused, timed out, 5xx, TLS or DNS failure, circuit breaker open.
	ErrUnavailable = &Error{Code: CodeUnavailable, Message: "upstream unavailable"}
)

// Errorf makes an Error of kind's code with a message of its own.
func Errorf(kind *Error, format string, args ...any) *Error {
	return &Error{Code: kind.Code, Message: fmt.Sprintf(format, args...)}
}

// RetryAfter returns how long err's upstream asked to be left alone; zero if
// it said nothing.
func RetryAfter(err error) time.Duration {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.RetryAfter
	}
	return 0
}

// Reason returns err's Reason, or "error" when it has none.
func Reason(err error) string {
	if e, ok := errors.AsType[*Error](err); ok && e.Reason != "" {
		return e.Reason
	}
	return "error"
}
