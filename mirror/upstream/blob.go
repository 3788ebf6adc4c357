package upstream

import (
	"context"
	"net/http"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/internal/oci"
)

// StatBlob asks for a blob's size without its content. The descriptor's Size is
// -1 if the upstream would not say. Where HEAD is not allowed (and from object
// storage, whose signatures are for one method) the header of a GET is read.
//
// It fails as Blob does.
func (c *Client) StatBlob(ctx context.Context, name oci.Name, dgst digest.Digest) (oci.Descriptor, error) {
	ctx, patience := c.patience(ctx)
	defer patience.done()
	desc := oci.Descriptor{Digest: dgst, Size: -1}
	err := c.ask(ctx, name, kindBlob, func(ctx context.Context, a *attempt) error {
		resp, err := c.send(ctx, a, question{method: http.MethodHead, path: blobPath(dgst), accept: "*/*"})
		switch {
		case err == nil:
			desc.Size = resp.ContentLength
		case !headRefused(err):
			return err
		}
		// No content has length 0 but the empty one.
		if desc.Size < 0 || desc.Size == 0 && dgst != dgst.Algorithm().FromString("") {
			body, err := c.openBlob(ctx, a, dgst, oci.Span{Start: 0, End: 1})
			if err != nil {
				return err
			}
			desc.Size = body.Size
			_ = body.Close() //nolint:errcheck // only its size was wanted
		}
		a.ticket.success()
		return nil
	})
	if err != nil {
		return oci.Descriptor{}, err
	}
	return desc, nil
}

// Blob opens a blob, or the span of it that is wanted: Start 0 and End -1 ask
// for the whole without a Range header, End -1 for all from Start on. What the
// upstream sends instead is the body's Offset and Length to tell. ctx governs
// the body too, which the caller closes.
//
// It fails with oci.ErrBlobUnknown, oci.ErrRangeInvalid (the blob ends before
// the span), oci.ErrUnauthorized and oci.ErrDenied, oci.ErrTooManyRequests, or
// oci.ErrUnavailable with a Reason; when ctx ended, with its error. A body that
// breaks off fails with oci.ErrUnavailable and io.ErrUnexpectedEOF; asking for
// the rest of it goes to the next endpoint, if there is one.
func (c *Client) Blob(ctx context.Context, name oci.Name, dgst digest.Digest, want oci.Span) (oci.Body, error) {
	if want.Start < 0 || want.End >= 0 && want.End <= want.Start {
		return oci.Body{}, oci.Errorf(oci.ErrRangeInvalid, "span %d-%d names no byte", want.Start, want.End)
	}
	ctx, patience := c.patience(ctx)
	var content oci.Body
	err := c.ask(ctx, name, kindBlob, func(ctx context.Context, a *attempt) error {
		var err error
		content, err = c.openBlob(ctx, a, dgst, want)
		return err
	})
	if err != nil {
		patience.done()
		return oci.Body{}, err
	}
	patience.met()
	if src, ok := content.ReadCloser.(*body); ok {
		src.release = patience.done
	}
	return content, nil
}

// openBlob asks one endpoint.
func (c *Client) openBlob(ctx context.Context, a *attempt, dgst digest.Digest, want oci.Span) (oci.Body, error) {
	q := question{method: http.MethodGet, path: blobPath(dgst), accept: "*/*", ranged: rangeHeader(want)}
	resp, err := c.send(ctx, a, q)
	if err != nil {
		return oci.Body{}, err
	}
	src, _ := resp.Body.(*body)
	content := oci.Body{ReadCloser: src, Length: resp.ContentLength, Size: resp.ContentLength}
	if resp.StatusCode == http.StatusPartialContent {
		content.Offset, content.Size = want.Start, -1
		header := resp.Header.Get("Content-Range")
		span, size, ok := contentRange(header)
		switch {
		case header == "" && !strings.HasPrefix(resp.Header.Get("Content-Type"), "multipart/"):
			// What was asked for, then; the digest will tell.
		case !ok:
			_ = src.Close() //nolint:errcheck // not used
			return oci.Body{}, &failure{err: unavailable(src.host, "range", "sent a Content-Range that makes no sense"), status: resp.StatusCode}
		default:
			content.Offset, content.Length, content.Size = span.Start, span.Len(), size
			src.announce(span.Len())
		}
	}
	return content, nil
}

// rangeHeader is the Range header for want (RFC 9110 section 14.2).
func rangeHeader(want oci.Span) string {
	switch {
	case want.End >= 0:
		return "bytes=" + strconv.FormatInt(want.Start, 10) + "-" + strconv.FormatInt(want.End-1, 10)
	case want.Start > 0:
		return "bytes=" + strconv.FormatInt(want.Start, 10) + "-"
	default:
		return ""
	}
}

func blobPath(dgst digest.Digest) string { return "blobs/" + dgst.String() }

// headRefused reports whether err may be about the method only.
func headRefused(err error) bool {
	return hasStatus(err, http.StatusForbidden, http.StatusMethodNotAllowed, http.StatusNotImplemented)
}
