package ociserver

import (
	"context"
	"errors"
	"math"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"

	"github.com/larder-registry/larder/internal/oci"
	"github.com/larder-registry/larder/internal/tracing"
)

// OwnConfig is what the handler of a registry is made of that holds content of
// its own. All of the registry's parts, Authorizer and Log are required.
type OwnConfig struct {
	Reader    oci.Reader
	Lister    oci.Lister
	Uploader  oci.Uploader
	Writer    oci.Writer
	Referrals Referrals
	// Authorizer decides about every request.
	Authorizer Authorizer
	// Names are the hosts this registry is known by, normalised: ?ns= with one
	// of them means its own content, with any other name another registry's.
	Names []string
	// Foreign answers requests for content of other registries, once the
	// caller may pull it; it never learns what the caller logged in with. Nil
	// knows no other registries.
	Foreign http.Handler
	// Ready, StallTimeout, Log, Registerer and Tracer are as in Config.
	// StallTimeout is also how long a client may send no byte of a body.
	Ready        func() error
	StallTimeout time.Duration
	Log          *logrus.Entry
	Registerer   prometheus.Registerer
	Tracer       *tracing.Tracer
}

// Referrals lists referrers page by page: what comes after last, and what to ask
// for as last next, empty when that was all.
type Referrals interface {
	ReferrersPage(ctx context.Context, name oci.Name, dgst digest.Digest, artifactType string, last digest.Digest) (m oci.Manifest, next digest.Digest, err error)
}

// own answers a registry's requests for its own content.
type own struct {
	*handler
	cfg  OwnConfig
	near *near
}

// NewOwn makes the handler for the port of a registry that can be pushed to:
// /v2/, /healthz and /readyz. Serve it with a server made by [NewServer].
func NewOwn(cfg OwnConfig) (http.Handler, error) {
	if cfg.Reader == nil || cfg.Lister == nil || cfg.Uploader == nil || cfg.Writer == nil || cfg.Referrals == nil ||
		cfg.Authorizer == nil || cfg.Log == nil {
		return nil, errors.New("make registry handler: the registry, an authorizer and a log are required")
	}
	o := &own{cfg: cfg, near: newNear(), handler: newHandler(Config{
		Reader: cfg.Reader, Lister: cfg.Lister, Ready: cfg.Ready, StallTimeout: cfg.StallTimeout, Log: cfg.Log, Registerer: cfg.Registerer, Tracer: cfg.Tracer,
	})}
	o.handler.status = ownStatusOf
	return o.routes(o.serve), nil
}

// ownStatusOf is statusOf for content of the registry's own: what is wrong with
// it is wrong with what the client sent, and clients who come too fast are told
// to wait.
func ownStatusOf(code oci.Code) int {
	switch code {
	case oci.CodeDigestInvalid, oci.CodeManifestInvalid, oci.CodeSizeInvalid:
		return http.StatusBadRequest
	case oci.CodeTooManyRequests:
		return http.StatusTooManyRequests
	case oci.CodeInsufficientStorage:
		return http.StatusInsufficientStorage
	}
	return statusOf(code)
}

// ownExchange is an exchange with what a push has besides.
type ownExchange struct {
	*exchange
	req     oci.Own
	subject oci.Subject
	body    *body
}

// serve answers one request.
func (o *own) serve(inner http.ResponseWriter, r *http.Request) {
	x := &ownExchange{exchange: &exchange{w: newResponse(inner, r, o.stallTimeout), r: r, started: time.Now()}}
	x.access.Taken = r.Method == http.MethodGet
	x.w.near = o.near.of(r)
	x.body = newBody(r.Body, x.w.control(), o.stallTimeout)
	query, err := url.ParseQuery(r.URL.RawQuery)
	switch {
	case len(r.URL.RawQuery) > maxQuery:
		err = oci.Errorf(oci.ErrNameInvalid, "the query is longer than %d bytes", maxQuery)
	case err != nil:
		err = oci.Errorf(oci.ErrNameInvalid, "the query is badly encoded")
	case oci.Foreign(r.URL.EscapedPath(), query, o.cfg.Names):
		o.foreign(x, inner, query)
		return
	}
	defer o.account(x.exchange) // also when the connection is broken by a panic
	x.introduce()
	// Whoever pushes chooses what content is called; a browser that shows it takes
	// it for nothing but that, and runs nothing.
	x.w.Header().Set("Content-Security-Policy", "sandbox")
	x.w.Header().Set("X-Content-Type-Options", "nosniff")
	if err == nil {
		err = o.take(x, query)
	}
	ctx := oci.WithAccess(o.trace(x.exchange), &x.access)
	if err == nil {
		err = o.authorize(ctx, x, wantOf(x.req, r.Method))
	}
	if err == nil {
		err = o.answerOwn(ctx, x)
	}
	if err != nil {
		o.failOwn(x, err)
		return
	}
	x.w.finish()
}

// take takes the request apart.
func (o *own) take(x *ownExchange, query url.Values) (err error) {
	x.req, err = oci.ParseOwn(x.r.Method, x.r.URL.EscapedPath(), query)
	x.exchange.req = x.req.Request
	if x.exchange.req.Digest == "" {
		x.exchange.req.Digest = x.req.Content // for the log
	}
	if errors.Is(err, oci.ErrUnsupported) {
		x.allow = strings.Join(oci.MethodsOf(x.req.Kind), ", ")
	}
	if ns := query.Get("ns"); err == nil && ns != "" {
		x.w.Header().Set("OCI-Namespace", ns) // as the client spelled it
	}
	return err
}

// wantOf says what a request needs.
func wantOf(req oci.Own, method string) oci.Want {
	want := oci.Want{Repository: req.Name.Repository}
	switch {
	case req.Kind == oci.KindPing:
	case req.Kind == oci.KindCatalog:
		want.Actions = []oci.Action{oci.ActionCatalog}
	case req.Kind == oci.KindUploads, req.Kind == oci.KindUpload, method == http.MethodPut:
		want.Actions = []oci.Action{oci.ActionPush}
	case method == http.MethodDelete:
		want.Actions = []oci.Action{oci.ActionDelete}
	default:
		want.Actions = []oci.Action{oci.ActionPull}
	}
	return want
}

// authorize lets the caller in, or not.
func (o *own) authorize(ctx context.Context, x *ownExchange, want oci.Want) error {
	caller := oci.Caller{Authorization: x.r.Header.Get("Authorization")}
	if peer, err := netip.ParseAddrPort(x.r.RemoteAddr); err == nil {
		caller.Peer = peer.Addr().Unmap()
	}
	if x.r.TLS != nil && len(x.r.TLS.VerifiedChains) > 0 {
		caller.Certificate = x.r.TLS.VerifiedChains[0][0]
	}
	subject, err := o.cfg.Authorizer.Authorize(ctx, caller, want)
	if err == nil && subject != nil {
		x.subject = subject
		x.user = subject.Name()
		return nil
	}
	refusal, ok := errors.AsType[*oci.Refusal](err)
	if !ok || refusal.Cause == nil {
		if err == nil {
			err = errors.New("authorize: nobody was named")
		}
		// Whatever it is, nobody is let in; its text stays in the log.
		return &refused{oci.ErrUnavailable, err}
	}
	if wait := refusal.Cause.RetryAfter; wait > 0 {
		x.w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(wait.Seconds()))))
	}
	return err
}

// refused is an error that clients are told of in other words than the log.
type refused struct {
	spec  *oci.Error
	cause error
}

func (e *refused) Error() string   { return e.cause.Error() }
func (e *refused) Unwrap() []error { return []error{e.spec, e.cause} }

// answerOwn sends what was asked for, or does it.
func (o *own) answerOwn(ctx context.Context, x *ownExchange) error {
	switch {
	case x.req.Kind == oci.KindUploads:
		return o.start(ctx, x)
	case x.req.Kind == oci.KindUpload:
		return o.upload(ctx, x)
	case x.req.Kind == oci.KindManifest && x.r.Method == http.MethodPut:
		return o.putManifest(ctx, x)
	case x.r.Method == http.MethodDelete:
		return o.remove(ctx, x)
	case x.req.Kind == oci.KindCatalog:
		return o.catalogOf(ctx, x)
	case x.req.Kind == oci.KindReferrers:
		return o.referrersOf(ctx, x)
	}
	return o.answer(ctx, x.exchange)
}

// failOwn ends a request that went wrong. A body that broke off says that the
// client did, but it may still listen.
func (o *own) failOwn(x *ownExchange, err error) {
	if x.body.err != nil && !x.w.committed {
		x.left = true
		x.w.Header().Set("Connection", "close")
		x.sendError(err, http.StatusBadRequest, oci.Errorf(oci.ErrBlobUploadInvalid, "the body broke off after %d bytes", x.body.n))
		return
	}
	if x.body.n > 0 || x.r.Header.Get("Expect") == "" { // else it was not sent yet
		x.body.drain(x.r.ContentLength)
	}
	o.fail(x.exchange, err)
}

// foreign passes a request for another registry's content on.
func (o *own) foreign(x *ownExchange, inner http.ResponseWriter, query url.Values) {
	req, err := oci.ParseRequest(x.r.Method, x.r.URL.EscapedPath(), query, "")
	x.exchange.req, x.req.Request = req, req
	if err == nil {
		want := oci.Want{Repository: "f/" + req.Name.String(), Actions: []oci.Action{oci.ActionPull}}
		err = o.authorize(x.r.Context(), x, want)
	}
	if err == nil && o.cfg.Foreign == nil {
		err = oci.Errorf(oci.ErrNameUnknown, "this registry has no content of %s; pulling through is not configured", req.Name.Registry)
	}
	if err != nil {
		defer o.account(x.exchange)
		x.introduce()
		o.failOwn(x, err)
		return
	}
	r := x.r.Clone(x.r.Context())
	r.Header.Del("Authorization")
	o.cfg.Foreign.ServeHTTP(inner, r)
}

// catalogOf answers the list of repositories that the caller may pull from.
func (o *own) catalogOf(ctx context.Context, x *ownExchange) error {
	list, err := x.page(func(n int) ([]string, error) { return o.visible(ctx, x, n) })
	if err != nil {
		return err
	}
	return x.sendJSON(struct {
		Repositories []string `json:"repositories"`
	}{list})
}

// visible lists the first n repositories after the one asked for that the caller
// may pull from.
func (o *own) visible(ctx context.Context, x *ownExchange, n int) ([]string, error) {
	const page = 1000
	visible, last := []string{}, x.req.Last
	for len(visible) < n {
		list, err := o.lister.Repositories(ctx, page, last)
		if err != nil {
			return nil, err
		}
		for _, name := range list {
			if x.subject.May(ctx, name, oci.ActionPull) {
				visible = append(visible, name)
			}
			last = name
		}
		if len(list) < page {
			break
		}
	}
	return slices.Clip(visible[:min(n, len(visible))]), nil
}

// referrersOf answers a page of what refers to an image manifest.
func (o *own) referrersOf(ctx context.Context, x *ownExchange) error {
	m, next, err := o.cfg.Referrals.ReferrersPage(ctx, x.req.Name, x.req.Digest, x.req.ArtifactType, digest.Digest(x.req.Last))
	if err != nil {
		return err
	}
	if x.req.ArtifactType != "" {
		x.w.Header().Set("OCI-Filters-Applied", "artifactType")
	}
	if next != "" {
		query := url.Values{"last": {string(next)}}
		if x.req.ArtifactType != "" {
			query.Set("artifactType", x.req.ArtifactType)
		}
		x.w.Header().Set("Link", "<"+x.r.URL.EscapedPath()+"?"+query.Encode()+`>; rel="next"`)
	}
	return x.sendManifest(m)
}
