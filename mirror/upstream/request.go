package upstream

import (
	"context"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"

	"github.com/larder-registry/larder/internal/oci"
)

// acceptManifests is what is sent as Accept for image manifests and indexes,
// the same as containerd sends.
const acceptManifests = "application/vnd.docker.distribution.manifest.v2+json, " +
	"application/vnd.docker.distribution.manifest.list.v2+json, " +
	"application/vnd.oci.image.manifest.v1+json, " +
	"application/vnd.oci.image.index.v1+json, */*"

// question is one request to an endpoint, without what all have in common.
type question struct {
	method string
	path   string // below the repository: "manifests/latest"
	query  url.Values
	accept string
	ranged string // the Range header; empty for the whole
}

// send asks a's endpoint. With a nil error the answer is 200, or 206 if a range
// was asked for, and in no content coding; its body, which the caller closes,
// enforces its length and its pace (body.go). ctx governs the body too. A HEAD
// answer's body is closed already.
func (c *Client) send(ctx context.Context, a *attempt, q question) (*http.Response, error) {
	ctx, span := askSpan(ctx, a, q)
	asked := call{label: a.label, conn: new(atomic.Pointer[net.Conn])}
	ctx, cancel := context.WithCancelCause(withRegistry(withCall(ctx, asked), a.endpoint.base))
	resp, err := c.exchangeOnce(ctx, a, q)
	if err != nil {
		cancel(nil)
		endSpan(span, err)
		return nil, err
	}
	if q.method == http.MethodHead {
		cancel(nil)
		span.End()
		return resp, nil
	}
	a.ticket.answered()
	b := c.newBody(ctx, cancel, a, resp)
	if conn := asked.conn.Load(); conn != nil {
		b.conn = *conn
	}
	resp.Body = b
	return resp, nil
}

// exchangeBy asks by one way, and notes in a which it came to be.
func (c *Client) exchangeBy(ctx context.Context, a *attempt, q question, w way) (*http.Response, error) {
	ep := a.endpoint
	req, err := http.NewRequestWithContext(ctx, q.method, ep.base.String()+"/"+a.repository+"/"+q.path, nil)
	if err != nil {
		return nil, &failure{err: unavailable(ep.base.Host, "name", "the name makes no URL"), ours: true}
	}
	query := q.query
	if ns := ep.namespace(); ns != "" {
		if query == nil {
			query = url.Values{}
		}
		query.Set("ns", ns)
	}
	req.URL.RawQuery = query.Encode()
	req.Header.Set("Accept", q.accept)
	req.Header.Set("Accept-Encoding", "identity")
	if q.ranged != "" {
		req.Header.Set("Range", q.ranged)
	}

	client, session := c.authorized(ep, a.repository, w)
	resp, err := client.Do(req)
	if err != nil {
		f := clientFailure(ctx, ep.base.Host, err)
		if f.status == http.StatusTooManyRequests { // by the token server
			c.limits.set(ep, a.kind, f.err.RetryAfter)
		}
		return nil, f
	}
	if f := c.checkAnswer(a, q, w, resp); f != nil {
		_ = resp.Body.Close() //nolint:errcheck // the failure says more
		return nil, f
	}
	if q.method == http.MethodHead {
		_ = resp.Body.Close() //nolint:errcheck // it is empty
	}
	if a.way = w.kind; session.used == "" && !ep.exchange.certified() {
		a.way = oci.WayAnonymous // it never asked for what there was
	}
	return resp, nil
}

// checkAnswer refuses what is not the content asked for; nil if it is.
func (c *Client) checkAnswer(a *attempt, q question, w way, resp *http.Response) *failure {
	host := resp.Request.URL.Host
	if resp.StatusCode != http.StatusOK && (resp.StatusCode != http.StatusPartialContent || q.ranged == "") {
		return c.statusFailure(a.endpoint, a.kind, w, resp)
	}
	if coding := resp.Header.Get("Content-Encoding"); coding != "" && !strings.EqualFold(coding, "identity") {
		return &failure{err: unavailable(host, "encoding", "sent the content in a coding that was not asked for"), status: resp.StatusCode}
	}
	return nil
}
