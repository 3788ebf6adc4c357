package auth

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

// ClientConfig is how an issuer or a cluster is reached.
type ClientConfig struct {
	// CAFile holds PEM certificates to trust besides the system's; it is read
	// once.
	CAFile string
	// TokenFile holds a bearer token to send along; it is read for each
	// request, since a cluster replaces it. Empty sends none.
	TokenFile string
	// Proxy chooses a proxy, as http.ProxyFromEnvironment does; nil means
	// none.
	Proxy func(*http.Request) (*url.URL, error)
}

// NewClient makes the client for an issuer or a cluster. It follows no
// redirects, so that a token goes nowhere else. The caller closes its idle
// connections.
func NewClient(cfg ClientConfig) (*http.Client, error) {
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	if cfg.CAFile != "" {
		content, err := os.ReadFile(cfg.CAFile)
		if err != nil {
			return nil, err
		}
		if !roots.AppendCertsFromPEM(content) {
			return nil, fmt.Errorf("read %s: it holds no PEM certificate", cfg.CAFile)
		}
	}
	return &http.Client{
		Transport: bearing{cfg.TokenFile, &http.Transport{
			Proxy:                 cfg.Proxy,
			TLSClientConfig:       &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
			ForceAttemptHTTP2:     true,
			MaxIdleConnsPerHost:   8,
			IdleConnTimeout:       time.Minute,
			TLSHandshakeTimeout:   fetchTimeout,
			ResponseHeaderTimeout: fetchTimeout,
		}},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}

// bearing sends the token of a file with each request.
type bearing struct {
	file string
	next *http.Transport
}

// RoundTrip sends r with a token.
func (b bearing) RoundTrip(r *http.Request) (*http.Response, error) {
	if b.file == "" {
		return b.next.RoundTrip(r)
	}
	token, err := os.ReadFile(b.file)
	if err != nil {
		return nil, err
	}
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	return b.next.RoundTrip(r)
}

// CloseIdleConnections is what http.Client looks for.
func (b bearing) CloseIdleConnections() { b.next.CloseIdleConnections() }

// getJSON fetches a document. Where from is what the operator configured, or
// what an issuer that the operator configured says about itself.
func getJSON(ctx context.Context, client *http.Client, from string, into any) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil) //nolint:gosec // no caller has a say in the address
	if err != nil {
		return err
	}
	return doJSON(client, r, into)
}

// postJSON sends a document and reads the answer.
func postJSON(ctx context.Context, client *http.Client, to string, document, into any) error {
	body, err := json.Marshal(document)
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, to, bytes.NewReader(body)) //nolint:gosec // the address is configured
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	return doJSON(client, r, into)
}

func doJSON(client *http.Client, r *http.Request, into any) error {
	// Kubernetes gives its keys as their own type only (RFC 7517 section 8.5.2).
	r.Header.Set("Accept", "application/json, application/jwk-set+json")
	answer, err := client.Do(r) //nolint:gosec // see getJSON and postJSON
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxDocument+1))
	switch {
	case err != nil:
		return fmt.Errorf("read answer: %w", err)
	case answer.StatusCode != http.StatusOK && answer.StatusCode != http.StatusCreated:
		return &statusError{answer.StatusCode}
	case len(body) > maxDocument:
		return errors.New("the answer is too long")
	}
	if err := json.Unmarshal(body, into); err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	return nil
}

// statusError is an answer that is none. Its body is not repeated: a cluster's
// may quote what it was sent.
type statusError struct{ status int }

func (e *statusError) Error() string {
	return fmt.Sprintf("the answer is %d %s", e.status, http.StatusText(e.status))
}

// isLoopback reports whether a host is this machine.
func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
