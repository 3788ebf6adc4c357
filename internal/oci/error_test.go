package oci_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/larder-registry/larder/internal/oci"
)

func TestErrorsCompareByCode(t *testing.T) {
	err := fmt.Errorf("open blob: %w", oci.Errorf(oci.ErrBlobUnknown, "gone since %d", 3))
	if !errors.Is(err, oci.ErrBlobUnknown) {
		t.Errorf("%v is not ErrBlobUnknown", err)
	}
	if errors.Is(err, oci.ErrManifestUnknown) {
		t.Errorf("%v is ErrManifestUnknown", err)
	}
	if got, want := err.Error(), "open blob: BLOB_UNKNOWN: gone since 3"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := (&oci.Error{Code: oci.CodeDenied}).Error(), "DENIED"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestReasonAndRetryAfter(t *testing.T) {
	err := fmt.Errorf("ask: %w", &oci.Error{Code: oci.CodeTooManyRequests, Reason: "ratelimit", RetryAfter: time.Minute})
	if oci.Reason(err) != "ratelimit" || oci.RetryAfter(err) != time.Minute {
		t.Errorf("got %q, %v", oci.Reason(err), oci.RetryAfter(err))
	}
	plain := errors.New("plain")
	if oci.Reason(plain) != "error" || oci.RetryAfter(plain) != 0 {
		t.Errorf("got %q, %v", oci.Reason(plain), oci.RetryAfter(plain))
	}
}

func TestAccessOf(t *testing.T) {
	var access oci.Access
	oci.AccessOf(oci.WithAccess(t.Context(), &access)).Outcome = oci.OutcomeHit
	if access.Outcome != oci.OutcomeHit {
		t.Errorf("the outcome did not reach the Access given: %+v", access)
	}
	a, b := oci.AccessOf(context.Background()), oci.AccessOf(context.Background())
	if a == nil || a == b {
		t.Errorf("without one, want a fresh Access each time: %p, %p", a, b)
	}
}
