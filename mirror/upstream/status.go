package upstream

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/larder-registry/larder/internal/oci"
)

// maxErrorBody bounds how much of an error's body is read, in bytes.
const maxErrorBody = 64 << 10

// statusFailure classifies an answer that is not the content asked for, and
// reads its body. Authorization is what the request was sent with.
func (c *Client) statusFailure(ep *endpoint, k kind, w way, resp *http.Response) *failure {
	host := resp.Request.URL.Host
	text := errorText(resp, secretsOf(ep, w, resp.Request.Header.Get("Authorization")))
	f := &failure{status: resp.StatusCode}
	switch code := resp.StatusCode; {
	case code == http.StatusNotFound || code == http.StatusGone:
		kind := oci.ErrManifestUnknown
		if k == kindBlob {
			kind = oci.ErrBlobUnknown
		}
		f.err = oci.Errorf(kind, "%s: %s", host, text)
	case code == http.StatusUnauthorized && !foreign(ep, resp):
		f.err = oci.Errorf(oci.ErrUnauthorized, "%s: %s", host, text)
	case code == http.StatusForbidden && !foreign(ep, resp):
		f.err = oci.Errorf(oci.ErrDenied, "%s: %s", host, text)
	case code == http.StatusTooManyRequests:
		f.err = tooMany(host, text, retryAfter(resp.Header, c.now()))
		c.limits.set(ep, k, f.err.RetryAfter)
	case code == http.StatusRequestedRangeNotSatisfiable:
		f.err = oci.Errorf(oci.ErrRangeInvalid, "%s: %s", host, text)
	default:
		f.err = unavailable(host, "status", "%s", text)
		f.err.RetryAfter = retryAfter(resp.Header, c.now())
		if code >= 500 {
			f.weight = 1
		}
		f.again = (code >= 500 || foreign(ep, resp)) && f.err.RetryAfter == 0
	}
	return f
}

// tooMany is the error for an endpoint that asked to be left alone for d.
func tooMany(host, text string, d time.Duration) *oci.Error {
	if d <= 0 {
		d = defaultPause
	}
	e := oci.Errorf(oci.ErrTooManyRequests, "%s: %s", host, text)
	e.Reason, e.RetryAfter = "ratelimit", d
	return e
}

// errorText reads what an answer says about itself: its status and the first
// message of the spec's error body.
func errorText(resp *http.Response, secrets []string) string {
	content, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody)) //nolint:errcheck // what arrived is enough
	var body struct {
		Errors []struct {
			Code    string `json:"code"`
			Message string `json:"message"`
		} `json:"errors"`
	}
	text := "answered " + strconv.Itoa(resp.StatusCode)
	if json.Unmarshal(content, &body) == nil && len(body.Errors) > 0 {
		first := body.Errors[0]
		if said := sanitise(strings.TrimSpace(first.Code+" "+first.Message), secrets...); said != "" {
			text += ": " + said
		}
	}
	return text
}

// tokenFailure classifies why a token could not be had.
func tokenFailure(ctx context.Context, answer *tokenAnswer, err error) *failure {
	if f := contextFailure(ctx, "token server"); f != nil {
		return f
	}
	switch code := answer.status; {
	case code == 0:
		return clientFailure(ctx, "token server", err)
	case code >= 300 && code < 400:
		f := clientFailure(ctx, "token server", err)
		if f.reason() == "protocol" { // refused by oras-go, in words only
			return unauthorized("%s: the token server's redirect is refused", answer.host)
		}
		return f
	case code == http.StatusOK:
		return &failure{err: unavailable(answer.host, "token", "the token server's answer holds no token"), weight: 1, again: true}
	case code == http.StatusTooManyRequests:
		return &failure{err: tooMany(answer.host, "the token server answered 429", retryAfter(answer.header, time.Now())), status: code}
	case code >= 500:
		return &failure{err: unavailable(answer.host, "status", "the token server answered %d", code), status: code, weight: 1, again: true}
	default:
		return unauthorized("%s: the token server answered %d", answer.host, code)
	}
}

// retryAfter reads a Retry-After header, seconds or a date (RFC 9110 section
// 10.2.3): zero if there is none or it makes no sense, an hour at most.
func retryAfter(header http.Header, now time.Time) time.Duration {
	value := strings.TrimSpace(header.Get("Retry-After"))
	if seconds, err := strconv.ParseUint(value, 10, 31); err == nil {
		return min(time.Duration(seconds)*time.Second, maxPause)
	} else if errors.Is(err, strconv.ErrRange) {
		return maxPause
	}
	at, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	return max(0, min(at.Sub(now), maxPause))
}
