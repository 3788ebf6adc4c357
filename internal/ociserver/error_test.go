package ociserver_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/internal/oci"
)

// TestErrorTable: what a reader fails with, and what a client sees of it.
func TestErrorTable(t *testing.T) {
	tests := map[string]struct {
		err    error
		status int
		code   oci.Code
	}{
		"blob unknown":        {oci.ErrBlobUnknown, 404, oci.CodeBlobUnknown},
		"manifest unknown":    {oci.ErrManifestUnknown, 404, oci.CodeManifestUnknown},
		"name unknown":        {oci.ErrNameUnknown, 404, oci.CodeNameUnknown},
		"upload unknown":      {&oci.Error{Code: oci.CodeBlobUploadUnknown}, 404, oci.CodeBlobUploadUnknown},
		"name invalid":        {oci.ErrNameInvalid, 400, oci.CodeNameInvalid},
		"page invalid":        {oci.ErrPageInvalid, 400, oci.CodePageInvalid},
		"upload invalid":      {&oci.Error{Code: oci.CodeBlobUploadInvalid}, 400, oci.CodeBlobUploadInvalid},
		"blob of a manifest":  {&oci.Error{Code: oci.CodeManifestBlobUnknown}, 400, oci.CodeManifestBlobUnknown},
		"unauthorized":        {oci.ErrUnauthorized, 401, oci.CodeUnauthorized},
		"denied":              {oci.ErrDenied, 403, oci.CodeDenied},
		"unsupported":         {oci.ErrUnsupported, 405, oci.CodeUnsupported},
		"range invalid":       {oci.ErrRangeInvalid, 416, oci.CodeRangeInvalid},
		"digest invalid":      {oci.ErrDigestInvalid, 502, oci.CodeDigestInvalid},
		"manifest invalid":    {oci.ErrManifestInvalid, 502, oci.CodeManifestInvalid},
		"size invalid":        {oci.ErrSizeInvalid, 502, oci.CodeSizeInvalid},
		"too many requests":   {&oci.Error{Code: oci.CodeTooManyRequests, RetryAfter: time.Minute}, 503, oci.CodeTooManyRequests},
		"unavailable":         {oci.ErrUnavailable, 503, oci.CodeUnavailable},
		"wrapped":             {fmt.Errorf("resolve tag: %w", oci.ErrUnavailable), 503, oci.CodeUnavailable},
		"deadline":            {fmt.Errorf("ask: %w", context.DeadlineExceeded), 503, oci.CodeUnavailable},
		"canceled inside":     {fmt.Errorf("ask: %w", context.Canceled), 503, oci.CodeUnavailable},
		"unknown code":        {&oci.Error{Code: oci.CodeUnknown}, 500, oci.CodeUnknown},
		"code never heard of": {&oci.Error{Code: "TEAPOT"}, 500, "TEAPOT"},
		"error of no code":    {errors.New("open /secret/path: token=hunter2"), 500, oci.CodeUnknown},
	}
	dgst := digest.FromString("any").String()
	targets := []string{
		"/v2/f/a.b/c/manifests/v1", "/v2/f/a.b/c/blobs/" + dgst, "/v2/f/a.b/c/referrers/" + dgst, "/v2/f/a.b/c/tags/list", "/v2/_catalog",
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			g := newRegistry()
			g.err = tt.err
			s := start(t, g, nil, nil)
			for _, target := range targets {
				for _, method := range []string{"GET", "HEAD"} {
					a := s.do(t, method, target)
					a.want(t, tt.status, "Content-Type", "application/json", "WWW-Authenticate", "", "Retry-After", "",
						"Docker-Distribution-Api-Version", "registry/2.0")
					if method == "HEAD" {
						continue
					}
					var doc struct {
						Errors []struct {
							Code    oci.Code
							Message string
						}
					}
					if err := json.Unmarshal(a.body, &doc); err != nil || len(doc.Errors) != 1 || doc.Errors[0].Code != tt.code {
						t.Errorf("body %s, %v; want one error with code %s", a.body, err, tt.code)
					}
					if strings.Contains(string(a.body), "hunter2") {
						t.Errorf("body %s tells what is for the log", a.body)
					}
					// containerd asks the same host again at once on these.
					if a.StatusCode == 408 || a.StatusCode == 429 {
						t.Errorf("%s: status %d", target, a.StatusCode)
					}
				}
			}
		})
	}
}

func TestOtherMethodsAreRefused(t *testing.T) {
	s := start(t, newRegistry(), nil, nil)
	for _, method := range []string{"POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "NONSENSE"} {
		s.do(t, method, "/v2/f/a.b/c/manifests/v1").want(t, 405, "Allow", "GET, HEAD")
	}
	s.do(t, "POST", "/v2/f/a.b/c/blobs/uploads/").want(t, 405, "Allow", "GET, HEAD")
}

func TestOddRequests(t *testing.T) {
	s := start(t, newRegistry(), nil, nil)
	for target, status := range map[string]int{
		"/":                             404,
		"/v1/":                          404,
		"/v2x":                          404,
		"/favicon.ico":                  404,
		"/%76%32/":                      404,
		"/v2/a/b":                       404,
		"/v2/a%2Fb/tags/list":           400,
		"/v2/a/tags/list?ns=%zz":        400,
		"/v2/a/tags/list?ns=u:p@a.b":    400,
		"/v2/a/tags/list?ns=http://a.b": 400,
		"/v2/a/tags/list?ns=a.b;x=y":    400,
		"/v2/a/tags/list?x=" + strings.Repeat("y", 5000): 400,
	} {
		s.do(t, "GET", target).want(t, status, "Content-Type", "application/json")
	}
}
