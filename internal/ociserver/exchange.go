package ociserver

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/larder-registry/larder/internal/oci"
	"github.com/larder-registry/larder/internal/tracing"
)

// exchange is one request and its answer. It lives as long as the request and
// is used by its goroutine alone.
type exchange struct {
	w       response
	r       *http.Request
	req     oci.Request
	access  oci.Access
	user    string // who was let in, where somebody decides about that
	allow   string // the methods there are, where those are not GET and HEAD
	started time.Time
	span    tracing.Span
	// err is why the request was not answered in full, for the log.
	err error
	// left: the client went away, or took no bytes, before the end.
	left bool
	// values holds those of the header, so that they need not be allocated one
	// by one; n of them are in use.
	values [12]string
	n      int
}

// set sets a header whose name is in canonical form.
func (x *exchange) set(header http.Header, name, value string) {
	if x.n == len(x.values) {
		header[name] = []string{value}
		return
	}
	x.values[x.n] = value
	x.n++
	header[name] = x.values[x.n-1 : x.n : x.n]
}

// serve answers one request of the distribution API.
func (h *handler) serve(inner http.ResponseWriter, r *http.Request) {
	x := &exchange{w: newResponse(inner, r, h.stallTimeout), r: r, started: time.Now()}
	if h.callers {
		x.access.Credential = credentialOf(r)
	}
	x.access.Taken = r.Method == http.MethodGet
	ctx := oci.WithAccess(h.trace(x), &x.access)
	defer h.account(x) // also when the connection is broken by a panic

	if r.ContentLength != 0 {
		// No request served here has a body. It is not read, so that nothing
		// can be made to wait for it.
		x.w.Header().Set("Connection", "close")
		_ = x.w.control().SetReadDeadline(x.started.Add(readHeaderTimeout))
	}
	if err := h.parse(x); err != nil {
		h.refuse(x, err)
		return
	}
	if !x.content() {
		x.introduce()
	}
	if err := h.answer(ctx, x); err != nil {
		h.fail(x, err)
		return
	}
	x.w.finish()
}

// introduce says who answers, which larder init looks for and old clients, too.
// Content comes without: it says what it is, and each header costs.
func (x *exchange) introduce() {
	header := x.w.Header()
	header.Set("Docker-Distribution-Api-Version", "registry/2.0")
	header.Set("Server", "larder")
}

// parse takes the request apart, or says why it is refused.
func (h *handler) parse(x *exchange) error {
	if !h.peers.allowed(x.r.RemoteAddr) {
		return oci.Errorf(oci.ErrDenied, "this registry does not serve your address")
	}
	if len(x.r.URL.RawQuery) > maxQuery {
		return oci.Errorf(oci.ErrNameInvalid, "the query is longer than %d bytes", maxQuery)
	}
	known, ok := h.known.recall(x.r)
	if !ok {
		// A parameter that cannot be decoded is refused, not dropped: without its
		// ns the request would mean another registry's content.
		query, err := url.ParseQuery(x.r.URL.RawQuery)
		if err != nil {
			return oci.Errorf(oci.ErrNameInvalid, "the query is badly encoded")
		}
		if known.req, err = oci.ParseRequest(x.r.Method, x.r.URL.EscapedPath(), query, h.defaultRegistry); err != nil {
			x.req = known.req
			return err
		}
		known.ns = query.Get("ns")
		h.known.note(x.r, known)
	}
	x.req = known.req
	if x.req.Namespaced {
		// The namespace as the client spelled it, which is what it compares.
		x.set(x.w.Header(), "Oci-Namespace", known.ns)
	}
	return nil
}

// answer sends what was asked for. It fails with nothing sent, or with the
// body begun; see fail.
func (h *handler) answer(ctx context.Context, x *exchange) error {
	switch x.req.Kind {
	case oci.KindPing:
		return x.sendJSON(struct{}{})
	case oci.KindManifest:
		return h.manifest(ctx, x)
	case oci.KindBlob:
		return h.blob(ctx, x)
	case oci.KindReferrers:
		return h.referrers(ctx, x)
	case oci.KindTags:
		return h.tags(ctx, x)
	case oci.KindCatalog:
		return h.catalog(ctx, x)
	}
	return fmt.Errorf("answer request: kind %q is not known", x.req.Kind)
}

// announce sets the headers for content and works out which part of it the
// Range header asks for.
func (x *exchange) announce(desc oci.Descriptor, rangeHeader string) (oci.Span, error) {
	spans, partial, err := oci.ParseRange(rangeHeader, desc.Size)
	if err != nil {
		x.w.Header().Set("Content-Range", "bytes */"+strconv.FormatInt(desc.Size, 10))
		return oci.Span{}, err
	}
	x.describe(desc)
	if !partial {
		return oci.Span{Start: 0, End: desc.Size}, nil
	}
	span := spans[0]
	x.w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", span.Start, span.End-1, desc.Size))
	x.w.Header().Set("Content-Length", strconv.FormatInt(span.Len(), 10))
	x.w.status = http.StatusPartialContent
	return span, nil
}

// describe sets the headers that say what content is.
func (x *exchange) describe(desc oci.Descriptor) {
	header := x.w.Header()
	x.set(header, "Content-Type", desc.MediaType)
	if x.req.Kind == oci.KindBlob {
		x.set(header, "Accept-Ranges", "bytes")
	}
	if desc.Digest != "" {
		x.set(header, "Docker-Content-Digest", desc.Digest.String())
		x.set(header, "Etag", etag(desc.Digest))
	}
	if desc.Size >= 0 {
		x.set(header, "Content-Length", strconv.FormatInt(desc.Size, 10))
	}
	if x.access.Outcome == oci.OutcomeStale {
		header.Set("Age", strconv.FormatInt(int64(x.access.Age/time.Second), 10))
		header.Set("Warning", `110 larder "response is stale"`) // RFC 7234 section 5.5.1
	}
}

// write sends a body that is in memory.
func (x *exchange) write(body []byte) error {
	if x.r.Method == http.MethodHead {
		return nil
	}
	if _, err := x.w.Write(body); err != nil {
		return fmt.Errorf("send answer: %w", err)
	}
	return nil
}
