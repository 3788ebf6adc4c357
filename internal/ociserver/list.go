package ociserver

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"

	"github.com/larder-registry/larder/internal/oci"
)

// tags answers the list of a repository's tags.
func (h *handler) tags(ctx context.Context, x *exchange) error {
	list, err := x.page(func(n int) ([]string, error) {
		return h.lister.Tags(ctx, x.req.Name, n, x.req.Last)
	})
	if err != nil {
		return err
	}
	return x.sendJSON(struct {
		Name string   `json:"name"`
		Tags []string `json:"tags"`
	}{x.req.Name.Repository, list})
}

// catalog answers the list of repositories, of all registries.
func (h *handler) catalog(ctx context.Context, x *exchange) error {
	list, err := x.page(func(n int) ([]string, error) {
		return h.lister.Repositories(ctx, n, x.req.Last)
	})
	if err != nil {
		return err
	}
	return x.sendJSON(struct {
		Repositories []string `json:"repositories"`
	}{list})
}

// page fetches the page asked for and sets the Link to the one after it. It
// asks for one entry more than it returns, to know whether there is one.
func (x *exchange) page(list func(n int) ([]string, error)) ([]string, error) {
	n := x.req.N
	if n < 0 {
		n = oci.MaxPage
	}
	entries, err := list(n + 1)
	if err != nil {
		return nil, err
	}
	if len(entries) <= n {
		return append([]string{}, entries...), nil // [] in JSON, never null
	}
	entries = entries[:n]
	if n > 0 {
		next := url.Values{"n": {strconv.Itoa(n)}, "last": {entries[n-1]}}
		if ns := x.r.URL.Query().Get("ns"); ns != "" {
			next.Set("ns", ns)
		}
		// RFC 8288 (once 5988), as the distribution spec has it.
		x.w.Header().Set("Link", fmt.Sprintf(`<%s?%s>; rel="next"`, x.r.URL.EscapedPath(), next.Encode()))
	}
	return entries, nil
}

// sendJSON sends a small document of our own making.
func (x *exchange) sendJSON(v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode answer: %w", err)
	}
	header := x.w.Header()
	header.Set("Content-Type", "application/json")
	header.Set("Content-Length", strconv.Itoa(len(body)))
	return x.write(body)
}
