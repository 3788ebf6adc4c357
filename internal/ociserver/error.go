package ociserver

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"

	"github.com/larder-registry/larder/internal/oci"
)

// statusClientLeft stands in the log and the metrics where the client was gone
// before there was a status to send (nginx's convention; never on the wire).
const statusClientLeft = 499

// statusOf gives the status for an error code. It is the only place that
// chooses one, and it chooses for containerd, for which every status above 299
// means "try the next host", with these exceptions:
//
//   - 408 and 429 mean "ask the same host again at once", five times over. An
//     upstream's TOOMANYREQUESTS is therefore a 503, and without Retry-After.
//   - 401 with a challenge makes it log in, if it has something to log in with
//     (callers.go); without one it moves on.
//   - 3xx it follows or fails on. There is no 3xx here.
//
// Content an upstream got wrong is a 502, as of any gateway.
func statusOf(code oci.Code) int {
	switch code {
	case oci.CodeBlobUnknown, oci.CodeManifestUnknown, oci.CodeNameUnknown, oci.CodeBlobUploadUnknown:
		return http.StatusNotFound
	case oci.CodeNameInvalid, oci.CodePageInvalid, oci.CodeManifestBlobUnknown, oci.CodeBlobUploadInvalid:
		return http.StatusBadRequest
	case oci.CodeUnauthorized:
		return http.StatusUnauthorized
	case oci.CodeDenied:
		return http.StatusForbidden
	case oci.CodeUnsupported:
		return http.StatusMethodNotAllowed
	case oci.CodeRangeInvalid:
		return http.StatusRequestedRangeNotSatisfiable
	case oci.CodeDigestInvalid, oci.CodeManifestInvalid, oci.CodeSizeInvalid:
		return http.StatusBadGateway
	case oci.CodeTooManyRequests, oci.CodeUnavailable:
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

// refuse answers a request that was not understood or not allowed: nobody has
// been asked for anything yet.
func (h *handler) refuse(x *exchange, err error) {
	if spec, ok := errors.AsType[*oci.Error](err); ok && spec.Code == oci.CodeDigestInvalid {
		// The digest in the path, not the content.
		x.sendError(err, http.StatusBadRequest, spec)
		return
	}
	h.fail(x, err)
}

// fail ends a request that went wrong: with a status while that is possible,
// else by breaking the connection (net/http does so on http.ErrAbortHandler), so
// that no client takes half a body for a whole one.
func (h *handler) fail(x *exchange, err error) {
	x.err = err
	x.left = x.w.failed || x.r.Context().Err() != nil
	switch {
	case x.w.committed:
		panic(http.ErrAbortHandler)
	case x.left:
		x.w.status = statusClientLeft
		panic(http.ErrAbortHandler) // returning would send an empty 200
	}
	spec, ok := errors.AsType[*oci.Error](err)
	switch {
	case ok:
		// Its message was written for clients.
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		// Not the client's leaving: whoever should have answered gave up.
		spec = oci.ErrUnavailable
	default:
		// Text of unknown origin stays in the log.
		spec = &oci.Error{Code: oci.CodeUnknown, Message: "internal error"}
	}
	status := h.status(spec.Code)
	if status == http.StatusUnauthorized {
		h.challenge(x, err)
	}
	x.sendError(err, status, spec)
}

// sendError sends the spec's error document ("Error Codes").
func (x *exchange) sendError(err error, status int, spec *oci.Error) {
	x.err = err
	x.introduce()
	header := x.w.Header()
	for _, described := range []string{"Docker-Content-Digest", "ETag", "Accept-Ranges", "Age", "Warning", "Link", "OCI-Filters-Applied"} {
		header.Del(described)
	}
	if status != http.StatusRequestedRangeNotSatisfiable {
		header.Del("Content-Range")
	}
	if status == http.StatusMethodNotAllowed {
		header.Set("Allow", cmp.Or(x.allow, "GET, HEAD"))
	}
	type detail struct {
		Code    oci.Code `json:"code"`
		Message string   `json:"message"`
	}
	body, _ := json.Marshal(struct { // of strings only: it cannot fail
		Errors []detail `json:"errors"`
	}{[]detail{{spec.Code, spec.Message}}})
	header.Set("Content-Type", "application/json")
	header.Set("Content-Length", strconv.Itoa(len(body)))
	x.w.WriteHeader(status)
	_ = x.write(body) // if it fails the client is gone, and the log knows the cause before it
}
