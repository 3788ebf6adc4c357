// Package bottlerocket speaks to the settings API of Bottlerocket, the
// container operating system, to put a mirror into its registry settings.
//
// On Bottlerocket files are not edited: the settings are the truth, and the
// files under /etc are rendered from them at every boot and every change. So a
// change is staged in a transaction of its own, committed and applied in one
// request, and read back (settings.go). What the user has set stays (merge.go).
// A change that would change nothing is not committed, because applying it
// restarts containerd.
//
// The package refuses to guess: what the API does not confirm is an error. It
// never reads the credentials among the registry settings, only for which
// registries there are some. Ready-made user data is in userdata.go. Package
// nodeconfig decides when this is the way, and what to do where it is not.
package bottlerocket

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"
)

const (
	// Socket is where the API listens: on the host, and mounted at the same
	// place in bootstrap and host containers.
	Socket = "/run/api.sock"
	// RootFS is where bootstrap and host containers find the host's files.
	RootFS = "/.bottlerocket/rootfs"
)

var (
	// ErrNoAPI means that there is no socket, or nobody listens on it.
	ErrNoAPI = errors.New("the Bottlerocket API is not there")
	// ErrForbidden means that the socket may not be used. It takes a container
	// with the SELinux label control_t or super_t: a privileged pod, a
	// bootstrap container, a host container.
	ErrForbidden = errors.New("the Bottlerocket API is not open to this process")
	// ErrUnsupported means that the API does not know the setting; this release
	// is too old.
	ErrUnsupported = errors.New("this Bottlerocket has no setting for registry mirrors")
	// ErrNotKept means that the API acknowledged a change which its settings do
	// not show.
	ErrNotKept = errors.New("the Bottlerocket API did not keep the setting")
)

// StatusError is an answer of the API that says no.
type StatusError struct {
	Method, Path string
	Code         int
	// Text is what the API said, one line of at most 200 bytes; empty for
	// requests whose answers may hold secrets.
	Text string
}

// Error names the request and the status.
func (e *StatusError) Error() string {
	text := fmt.Sprintf("%s %s: status %d", e.Method, e.Path, e.Code)
	if e.Text != "" {
		text += ": " + e.Text
	}
	return text
}

// Is makes 401 and 403 an ErrForbidden.
func (e *StatusError) Is(target error) bool {
	return target == ErrForbidden && (e.Code == http.StatusForbidden || e.Code == http.StatusUnauthorized)
}

// maxAnswer bounds what is read of an answer. All settings of a node are some
// tens of kilobytes.
const maxAnswer = 4 << 20

// Client is a connection to the API. It keeps nothing open between requests,
// and is safe for concurrent use.
type Client struct {
	http    *http.Client
	timeout time.Duration
}

// New makes a client for the API behind a socket. Each request may take as long
// as timeout; ten seconds if it is zero.
func New(socket string, timeout time.Duration) *Client {
	if timeout == 0 {
		timeout = 10 * time.Second
	}
	var dialer net.Dialer
	return &Client{
		timeout: timeout,
		http: &http.Client{
			Transport: &http.Transport{
				DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
					return dialer.DialContext(ctx, "unix", socket)
				},
				DisableKeepAlives: true,
			},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// Release is which Bottlerocket this is.
type Release struct {
	// Name is as in "Bottlerocket OS 1.56.0 (aws-k8s-1.35)".
	Name string `json:"pretty-name"`
	// Variant is as in "aws-k8s-1.35", Version as in "1.56.0".
	Variant string `json:"variant-id"`
	Version string `json:"version-id"`
}

// Release asks which Bottlerocket this is. It fails with ErrNoAPI, ErrForbidden,
// a StatusError, or what is wrong with the answer.
func (c *Client) Release(ctx context.Context) (Release, error) {
	var r Release
	if err := c.get(ctx, "/os", nil, &r); err != nil {
		return Release{}, fmt.Errorf("ask for the release: %w", err)
	}
	if r.Version == "" {
		return Release{}, errors.New("ask for the release: the answer names no version-id")
	}
	return r, nil
}

// get reads the JSON object at path into what answer points to.
func (c *Client) get(ctx context.Context, path string, query url.Values, answer any) error {
	body, err := c.do(ctx, http.MethodGet, path, query, nil)
	if err != nil {
		return err
	}
	if trimmed := bytes.TrimSpace(body); len(trimmed) == 0 || trimmed[0] != '{' {
		return fmt.Errorf("GET %s: the answer is no JSON object", path)
	}
	if err := json.Unmarshal(body, answer); err != nil {
		return fmt.Errorf("GET %s: read answer: %w", path, err)
	}
	return nil
}

// do makes one request, and returns the whole answer if its status is one of
// success.
func (c *Client) do(ctx context.Context, method, path string, query url.Values, body []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	target := url.URL{Scheme: "http", Host: "bottlerocket", Path: path, RawQuery: query.Encode()}
	req, err := http.NewRequestWithContext(ctx, method, target.String(), bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, path, reach(err))
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s %s: read answer: %w", method, path, err)
	case resp.StatusCode/100 != 2:
		e := &StatusError{Method: method, Path: path, Code: resp.StatusCode}
		if method != http.MethodGet {
			e.Text = oneLine(answer)
		}
		return nil, e
	case len(answer) > maxAnswer:
		return nil, fmt.Errorf("%s %s: the answer is longer than %d bytes", method, path, maxAnswer)
	}
	return answer, nil
}

// reach tells apart why the socket could not be used.
func reach(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ENOTSOCK):
		return fmt.Errorf("%w: %w", ErrNoAPI, cause(err))
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: %w", ErrForbidden, cause(err))
	}
	return cause(err)
}

// cause takes off the URL that net/http puts before its errors: the host in it
// is made up.
func cause(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err
	}
	return err
}

// oneLine makes the text of an answer fit for an error.
func oneLine(answer []byte) string {
	text := strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == '\uFFFD' {
			return ' '
		}
		return r
	}, string(answer[:min(len(answer), 200)]))
	return strings.Join(strings.Fields(text), " ")
}
