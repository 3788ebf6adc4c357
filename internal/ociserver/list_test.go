package ociserver_test

import (
	"encoding/json"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/larder-registry/larder/internal/oci"
)

// follow reads a list page by page, as clients do.
func follow(t *testing.T, s *server, target, key string) (entries []string, pages int) {
	t.Helper()
	for target != "" {
		a := s.do(t, "GET", target)
		a.want(t, 200, "Content-Type", "application/json")
		var doc map[string]any
		if err := json.Unmarshal(a.body, &doc); err != nil {
			t.Fatal(err)
		}
		list, ok := doc[key].([]any)
		if !ok {
			t.Fatalf("%s: %s is no list in %s", target, key, a.body)
		}
		for _, e := range list {
			entries = append(entries, e.(string))
		}
		pages++
		link := a.Header.Get("Link")
		if link == "" {
			return entries, pages
		}
		next, rel, ok := strings.Cut(strings.TrimPrefix(link, "<"), ">")
		if !ok || rel != `; rel="next"` || pages > 100 {
			t.Fatalf("after %d pages: Link %q", pages, link)
		}
		if _, err := url.ParseRequestURI(next); err != nil {
			t.Fatalf("Link %q: %v", link, err)
		}
		target = next
	}
	return entries, pages
}

func TestTags(t *testing.T) {
	g := newRegistry()
	tags := []string{"1.0", "1.1", "2.0", "latest", "v2"}
	g.tags[app] = tags
	g.tags[oci.Name{Registry: "ghcr.io", Repository: "empty"}] = nil
	s := start(t, g, nil, nil)

	tests := map[string]struct {
		target string
		want   []string
		pages  int
	}{
		"all":                {"/v2/org/app/tags/list?ns=ghcr.io", tags, 1},
		"two at a time":      {"/v2/org/app/tags/list?n=2&ns=ghcr.io", tags, 3},
		"path form":          {"/v2/f/ghcr.io/org/app/tags/list?n=2", tags, 3},
		"exactly a page":     {"/v2/f/ghcr.io/org/app/tags/list?n=5", tags, 1},
		"last without n":     {"/v2/f/ghcr.io/org/app/tags/list?last=1.1", tags[2:], 1},
		"last of no entry":   {"/v2/f/ghcr.io/org/app/tags/list?last=1.5", tags[2:], 1},
		"last and n":         {"/v2/f/ghcr.io/org/app/tags/list?last=1.1&n=1", tags[2:], 3},
		"none":               {"/v2/f/ghcr.io/org/app/tags/list?n=0", nil, 1},
		"empty repository":   {"/v2/f/ghcr.io/empty/tags/list", nil, 1},
		"beyond the biggest": {"/v2/f/ghcr.io/org/app/tags/list?n=99999999999999999999", tags, 1},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, pages := follow(t, s, tt.target, "tags")
			if !slices.Equal(got, tt.want) || pages != tt.pages {
				t.Errorf("got %v in %d pages, want %v in %d", got, pages, tt.want, tt.pages)
			}
		})
	}
	a := s.do(t, "GET", "/v2/f/ghcr.io/org/app/tags/list?n=1")
	if got, want := string(a.body), `{"name":"org/app","tags":["1.0"]}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	s.do(t, "GET", "/v2/f/ghcr.io/other/tags/list").want(t, 404)
	s.do(t, "GET", "/v2/f/ghcr.io/org/app/tags/list?n=many").want(t, 400)
}

func TestCatalog(t *testing.T) {
	g := newRegistry()
	var want []string
	for _, n := range []oci.Name{app, {Registry: "docker.io", Repository: "library/nginx"}, {Registry: "quay.io", Repository: "a/b"}} {
		g.tags[n] = []string{"v1"}
		want = append(want, n.String())
	}
	slices.Sort(want)
	s := start(t, g, nil, nil)
	for target, pages := range map[string]int{"/v2/_catalog": 1, "/v2/_catalog?n=1": 3, "/v2/_catalog?n=2": 2} {
		got, n := follow(t, s, target, "repositories")
		if !slices.Equal(got, want) || n != pages {
			t.Errorf("%s: got %v in %d pages, want %v in %d", target, got, n, want, pages)
		}
	}
}
