package upstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// metadataPatience bounds how long a metadata service is waited for. On a
// machine that has none, a pull is held up for that long, once.
const metadataPatience = 1500 * time.Millisecond

// maxMetadata bounds an answer of a metadata or identity service, in bytes.
const maxMetadata = 64 << 10

// errNoMetadata: this machine has no such metadata service.
var errNoMetadata = errors.New("no metadata service")

// metadataClient asks clouds' metadata services. They are on the node's own
// link, so there is no proxy; a service that redirects is none of theirs.
func metadataClient(resolver *net.Resolver) *http.Client {
	return &http.Client{
		Timeout:       metadataPatience,
		CheckRedirect: refuseRedirect,
		Transport: &http.Transport{
			DialContext:            (&net.Dialer{Timeout: metadataPatience / 2, Resolver: resolver}).DialContext,
			MaxResponseHeaderBytes: 64 << 10,
			DisableKeepAlives:      true,
		},
	}
}

func refuseRedirect(*http.Request, []*http.Request) error {
	return &redirectError{why: "not expected here"}
}

// askMetadata asks a metadata service for JSON into v. No answer in time, or
// none of status 200, gives errNoMetadata: the machine is elsewhere, or has no
// identity there.
func askMetadata(ctx context.Context, client *http.Client, where string, header http.Header, v any) (http.Header, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, where, nil)
	if err != nil {
		return nil, errors.New("ask metadata service: its address is not a URL")
	}
	req.Header = header
	resp, err := client.Do(req)
	if err != nil {
		return nil, errNoMetadata
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, errNoMetadata
	}
	if err := readJSON(resp.Body, v); err != nil {
		return nil, fmt.Errorf("ask metadata service: %w", err)
	}
	return resp.Header, nil
}

// postForm sends a form and reads a JSON answer into v. Its errors hold neither
// what was sent nor what was answered.
func postForm(ctx context.Context, transport http.RoundTripper, where string, form url.Values, v any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, where, strings.NewReader(form.Encode()))
	if err != nil {
		return errors.New("the address to ask is not a URL")
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	client := &http.Client{Transport: transport, CheckRedirect: refuseRedirect}
	resp, err := client.Do(req)
	if err != nil {
		return wireFailure(ctx, req.URL.Host, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return &statusError{host: req.URL.Host, status: resp.StatusCode}
	}
	if err := readJSON(resp.Body, v); err != nil {
		return fmt.Errorf("ask %s: %w", req.URL.Host, err)
	}
	return nil
}

// statusError is an answer of another status than 200.
type statusError struct {
	host   string
	status int
}

func (e *statusError) Error() string { return fmt.Sprintf("%s answered %d", e.host, e.status) }

func readJSON(r io.Reader, v any) error {
	content, err := io.ReadAll(io.LimitReader(r, maxMetadata+1))
	switch {
	case err != nil:
		return errors.New("its answer broke off")
	case len(content) > maxMetadata:
		return errors.New("its answer is too long")
	case json.Unmarshal(content, v) != nil:
		return errors.New("its answer is not JSON as expected")
	}
	return nil
}
