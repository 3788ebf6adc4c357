package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/larder-registry/larder/internal/oci"
)

// Form is how a host is told which registry is meant.
type Form int

// The forms.
const (
	// Plain is the registry's own API: /v2/<repository>/….
	Plain Form = iota
	// NS adds ?ns=<registry>, as containerd does for a mirror.
	NS
	// Path puts the registry into the path, /v2/f/<registry>/<repository>/…,
	// for clients whose mirrors get no namespace.
	Path
)

// Host is one entry of the list.
type Host struct {
	// URL is scheme and authority, "http://127.0.0.1:8000".
	URL  string
	Form Form
}

// url is where h keeps target ("manifests" or "blobs") of name.
func (h Host) url(name oci.Name, endpoint, target string) string {
	switch h.Form {
	case NS:
		return h.URL + "/v2/" + name.Repository + "/" + endpoint + "/" + target + "?ns=" + url.QueryEscape(name.Registry)
	case Path:
		return h.URL + "/v2/f/" + name.String() + "/" + endpoint + "/" + target
	default:
		return h.URL + "/v2/" + name.Repository + "/" + endpoint + "/" + target
	}
}

// Error says that a host answered with a status that ends the attempt there.
type Error struct {
	Status int
	Host   string
	// Body is the start of the answer, at most 1 KiB.
	Body string
}

// Error gives status, host and the start of the answer.
func (e *Error) Error() string {
	return fmt.Sprintf("%s answered %d: %s", e.Host, e.Status, strings.TrimSpace(e.Body))
}

// attempts is how often containerd asks one host for one thing when the answers
// invite it to (core/remotes/docker/resolver.go, retryRequest).
const attempts = 6

// request is one thing to ask for, of whichever host has it.
type request struct {
	method   string
	endpoint string // "manifests" or "blobs"
	target   string // tag or digest
	accept   string
	offset   int64 // first byte wanted; a Range is sent when it is not 0
}

// do asks the hosts in order, from the first one on, and returns the first good
// answer and who gave it. sent counts every request made. When no host has a
// good answer the error holds all of theirs.
func (p *pull) do(ctx context.Context, r request, sent *int) (*http.Response, Host, error) {
	var errs []error
	for i, h := range p.hosts {
		resp, err := p.ask(ctx, h, r, i == len(p.hosts)-1, sent)
		if err == nil {
			return resp, h, nil
		}
		errs = append(errs, err)
		if ctx.Err() != nil {
			break
		}
	}
	return nil, Host{}, errors.Join(errs...)
}

// ask asks one host, again where containerd would ask it again: at 405 to a
// HEAD with GET, at 408 and 429 at once, at 500, 503 and 504 when there is
// nobody else to ask.
func (p *pull) ask(ctx context.Context, h Host, r request, last bool, sent *int) (*http.Response, error) {
	for n := 1; ; n++ {
		req, err := http.NewRequestWithContext(ctx, r.method, h.url(p.ref.Name, r.endpoint, r.target), nil)
		if err != nil {
			return nil, fmt.Errorf("make request: %w", err)
		}
		req.Header.Set("Accept", r.accept)
		if r.method == http.MethodGet {
			req.Header.Set("Accept-Encoding", "zstd;q=1.0, gzip;q=0.8, deflate;q=0.5")
		}
		if r.offset > 0 {
			req.Header.Set("Range", fmt.Sprintf("bytes=%d-", r.offset))
		}
		*sent++
		resp, err := p.http.Do(req)
		if err != nil {
			return nil, err
		}
		if resp.StatusCode < 300 {
			return resp, nil
		}
		body, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
		resp.Body.Close()
		again := false
		switch resp.StatusCode {
		case http.StatusMethodNotAllowed:
			again = r.method == http.MethodHead
			r.method = http.MethodGet
		case http.StatusForbidden:
			// Some registries answer HEAD with 403 and no reason; containerd
			// asks with GET once more to learn it.
			again = r.method == http.MethodHead
			r.method = http.MethodGet
		case http.StatusRequestTimeout, http.StatusTooManyRequests:
			again = true
		case http.StatusInternalServerError, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
			again = last
		}
		if !again || n == attempts {
			return nil, &Error{Status: resp.StatusCode, Host: h.URL, Body: string(body)}
		}
	}
}
