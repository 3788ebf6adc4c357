package upstream

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/internal/oci"
)

// TestRedirectToStorage: the blob comes from another origin, which must see the
// range but no credentials, nor where the request came from.
func TestRedirectToStorage(t *testing.T) {
	content := pattern(10_000)
	dgst := digest.FromBytes(content)
	storage := newOrigin(t, blobServer(content))
	for _, test := range []struct {
		name   string
		scheme string // of the registry's challenge
	}{{"basic", "Basic"}, {"bearer", "Bearer"}} {
		t.Run(test.name, func(t *testing.T) {
			g := &gate{}
			g.serve = func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, storage.URL+"/bucket/blob?X-Amz-Signature=sig", http.StatusTemporaryRedirect)
			}
			handler := g.ServeHTTP
			if test.scheme == "Basic" {
				handler = func(w http.ResponseWriter, r *http.Request) {
					if _, _, ok := r.BasicAuth(); !ok {
						w.Header().Set("Www-Authenticate", `Basic realm="r"`)
						w.WriteHeader(http.StatusUnauthorized)
						return
					}
					g.serve(w, r)
				}
			}
			o := newOrigin(t, handler)
			entry := o.entry(t)
			entry.Username, entry.Password = "user", "pass"
			c := newClientOf(t, Config{Registries: []Registry{entry}})
			for range 2 { // with the challenge, and with what is kept from it
				body, err := c.Blob(t.Context(), o.name(), dgst, oci.Span{Start: 100, End: 200})
				if err != nil {
					t.Fatalf("Blob: %v", err)
				}
				got, err := io.ReadAll(body)
				body.Close()
				if err != nil || string(got) != string(content[100:200]) || body.Offset != 100 || body.Size != 10_000 {
					t.Errorf("body: %d bytes at %d of %d, %v", len(got), body.Offset, body.Size, err)
				}
				seen := storage.last(t)
				for _, header := range []string{"Authorization", "Referer", "Cookie"} {
					if value := seen.Header.Get(header); value != "" {
						t.Errorf("storage was sent %s: %s", header, value)
					}
				}
				if seen.Header.Get("Range") != "bytes=100-199" || seen.Header.Get("Accept-Encoding") != "identity" {
					t.Errorf("storage was sent Range %q, Accept-Encoding %q", seen.Header.Get("Range"), seen.Header.Get("Accept-Encoding"))
				}
				if seen.URL.RawQuery != "X-Amz-Signature=sig" {
					t.Errorf("storage was sent the query %q", seen.URL.RawQuery)
				}
			}
		})
	}
}

func TestRedirectsNotFollowed(t *testing.T) {
	other := newOrigin(t, answer(http.StatusOK, manifestHeader(manifestJSON), manifestJSON))
	for _, test := range []struct {
		name   string
		to     string
		err    error
		reason string
		asked  int
	}{
		{"loop", "?again", oci.ErrUnavailable, "redirect", 11},
		{"file", "file:///etc/passwd", oci.ErrUnavailable, "redirect", 1},
		{"https to http", other.URL, oci.ErrUnavailable, "redirect", 1},
		{"link-local", "https://169.254.169.254/latest/meta-data", oci.ErrDenied, "error", 1},
		{"no location", "", oci.ErrUnavailable, "status", 1},
		{"unreadable location", "http://%zz?X-Amz-Signature=MARKER", oci.ErrUnavailable, "protocol", 3},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := newTLSOrigin(t, func(w http.ResponseWriter, _ *http.Request) {
				if test.to != "" {
					w.Header().Set("Location", test.to)
				}
				w.WriteHeader(http.StatusTemporaryRedirect)
			})
			_, err := newClient(t, o).Manifest(t.Context(), o.tag("v1"))
			if !errors.Is(err, test.err) || oci.Reason(err) != test.reason {
				t.Errorf("Manifest: %v (%s), want %v (%s)", err, oci.Reason(err), test.err, test.reason)
			}
			if strings.Contains(err.Error(), "MARKER") || strings.Contains(err.Error(), "?") {
				t.Errorf("the error tells the redirect's query: %v", err)
			}
			if got := len(o.requests()); got != test.asked {
				t.Errorf("asked %d times, want %d", got, test.asked)
			}
		})
	}
	if got := other.requests(); len(got) != 0 {
		t.Errorf("a redirect from https to http was followed: %q", got)
	}
}

// TestRedirectToHTTPWhereInsecure: the entry says that plain HTTP will do.
func TestRedirectToHTTPWhereInsecure(t *testing.T) {
	storage := newOrigin(t, answer(http.StatusOK, nil, "x"))
	front := newTLSOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, storage.URL, http.StatusFound)
	})
	c := newClientOf(t, Config{Registries: []Registry{{
		Host: "registry.test", Insecure: true, CAFile: front.caFile(t), Endpoints: []string{front.URL},
	}}})
	name := oci.Name{Registry: "registry.test", Repository: "team/app"}
	body, err := c.Blob(t.Context(), name, digest.FromString("x"), oci.Span{Start: 0, End: -1})
	if err != nil {
		t.Fatalf("Blob: %v", err)
	}
	defer body.Close()
	if got, err := io.ReadAll(body); string(got) != "x" {
		t.Errorf("read: %q, %v", got, err)
	}
}

// TestStorageRefuses: 401 and 403 from object storage are the storage's
// trouble, not the caller's lack of rights.
func TestStorageRefuses(t *testing.T) {
	for _, status := range []int{http.StatusUnauthorized, http.StatusForbidden} {
		storage := newOrigin(t, answer(status, nil, "<Error>SignatureDoesNotMatch</Error>"))
		o := newOrigin(t, func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, storage.URL+"/b?sig=x", http.StatusTemporaryRedirect)
		})
		_, err := newClient(t, o).Blob(t.Context(), o.name(), digest.FromString("x"), oci.Span{Start: 0, End: -1})
		if !errors.Is(err, oci.ErrUnavailable) || oci.Reason(err) != "status" {
			t.Errorf("Blob with %d from storage: %v", status, err)
		}
	}
}
