package ociserver

import (
	"context"

	"github.com/larder-registry/larder/internal/oci"
)

// Authorizer decides who may do what. It is asked once for each request, before
// anything of the registry is looked at and before a byte of the body is read,
// so that a refusal says nothing about what there is.
type Authorizer interface {
	// Authorize lets the caller in, if it may do all that is wanted. It fails
	// with a *oci.Refusal; any other error is taken for UNAVAILABLE, and no
	// error ever lets anybody in. ctx is the request's.
	Authorize(ctx context.Context, caller oci.Caller, want oci.Want) (oci.Subject, error)
}
