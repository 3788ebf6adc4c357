package upstream

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"

	"github.com/larder-registry/larder/internal/oci"
)

// secrets are the markers that must not turn up anywhere.
var secrets = []string{
	"MARKERpassword", "MARKERtoken", "MARKERsignature", "MARKERrealm",
	base64.StdEncoding.EncodeToString([]byte("user:MARKERpassword")),
}

// echo answers with status and repeats all it was sent, as chatty servers do.
func echo(w http.ResponseWriter, r *http.Request, status int) {
	w.WriteHeader(status)
	said := strings.NewReplacer(`"`, `'`, `\`, `/`).Replace(fmt.Sprintf("%s %s %v", r.Method, r.URL, r.Header))
	_, _ = fmt.Fprintf(w, `{"errors":[{"code":"OTHER","message":"you sent %s and %s"}]}`, r.Header.Get("Authorization"), said)
}

// TestNoSecretLeaks provokes every kind of failure with secrets in play, and
// looks for them in every error, log line and metric.
func TestNoSecretLeaks(t *testing.T) {
	const signed = "?X-Amz-Signature=MARKERsignature&X-Amz-Credential=MARKERsignature"
	closed := newOrigin(t, answer(200, nil, ""))
	closed.Close()
	storage := newOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		switch status := r.URL.Path; status {
		case "/cut":
			w.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(w, "x")
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		case "/loop":
			http.Redirect(w, r, "/loop"+signed, http.StatusFound)
		case "/garbage":
			hijack(w, "MARKERsignature is no HTTP\r\n\r\n")
		case "/hang":
			<-r.Context().Done()
		default:
			var code int
			_, _ = fmt.Sscanf(status, "/%d", &code)
			echo(w, r, code)
		}
	})
	redirects := map[string]string{
		"closed": closed.URL + "/x" + signed, "unreadable": "http://%zz" + signed, "file": "file:///x" + signed,
		"unresolved": "http://gone.test/x" + signed, "link-local": "http://169.254.169.254/x" + signed,
	}
	for _, path := range []string{"cut", "loop", "garbage", "hang", "400", "401", "403", "404", "416", "429", "500", "503"} {
		redirects[path] = storage.URL + "/" + path + signed
	}
	for _, scheme := range []string{"Basic", "Bearer"} {
		for realm, status := range map[string]int{"": 200, "500": 500, "401": 401, "429": 429, "garbage": 200, "closed": 0} {
			if scheme == "Basic" && realm != "" {
				continue
			}
			t.Run(scheme+" "+realm, func(t *testing.T) {
				o := newOrigin(t, func(w http.ResponseWriter, r *http.Request) {
					authorization := r.Header.Get("Authorization")
					switch {
					case r.URL.Path == "/token" && realm == "garbage":
						_, _ = io.WriteString(w, "MARKERtoken")
					case r.URL.Path == "/token" && status == 200:
						_, _ = io.WriteString(w, `{"token":"MARKERtoken"}`)
					case r.URL.Path == "/token":
						echo(w, r, status)
					case authorization == "" && scheme == "Basic":
						w.Header().Set("Www-Authenticate", "Basic realm=x")
						w.WriteHeader(http.StatusUnauthorized)
					case authorization == "":
						at := "http://" + r.Host + "/token?key=MARKERrealm"
						if realm == "closed" {
							at = closed.URL + "/token?key=MARKERrealm"
						}
						w.Header().Set("Www-Authenticate", `Bearer realm="`+at+`",service="s"`)
						w.WriteHeader(http.StatusUnauthorized)
					default:
						what := strings.TrimPrefix(strings.Split(r.URL.Path, "/")[2], "to-")
						if to := redirects[what]; to != "" {
							w.Header().Set("Location", to)
							w.WriteHeader(http.StatusTemporaryRedirect)
							return
						}
						var code int
						_, _ = fmt.Sscanf(what, "own-%d", &code)
						echo(w, r, code)
					}
				})
				leaks := newLeaks(t)
				var paths []string
				for name := range redirects {
					paths = append(paths, "to-"+name)
				}
				for _, code := range []int{400, 401, 403, 404, 429, 500} {
					paths = append(paths, fmt.Sprintf("own-%d", code))
				}
				var all sync.WaitGroup
				var metrics []*prometheus.Registry
				for _, path := range paths {
					c, reg := leaks.client(t, o)
					all.Go(func() { leaks.provoke(t.Context(), c, oci.Name{Registry: o.host(), Repository: path}) })
					metrics = append(metrics, reg)
				}
				all.Wait()
				for _, reg := range metrics {
					_, _ = fmt.Fprintln(leaks, series(t, reg))
				}
				leaks.check(t)
			})
		}
	}
}

// leaks collects all that gets out of a client.
type leaks struct {
	mu     sync.Mutex
	text   bytes.Buffer
	errors int
	log    *logrus.Entry
	names  *net.Resolver
}

func (l *leaks) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func newLeaks(t *testing.T) *leaks {
	t.Helper()
	l := &leaks{}
	logger := logrus.New()
	logger.SetOutput(l)
	logger.SetLevel(logrus.TraceLevel)
	l.log = logrus.NewEntry(logger)
	l.names = resolver(t, nil)
	return l
}

// client is a fresh one, whose breakers are closed, and its metrics.
func (l *leaks) client(t *testing.T, o *origin) (*Client, *prometheus.Registry) {
	t.Helper()
	reg := prometheus.NewRegistry()
	return newClientOf(t, Config{
		Registries: []Registry{{Host: o.host(), Insecure: true, Username: "user", Password: "MARKERpassword"}},
		Resolver:   l.names, Log: l.log, Registerer: reg, Label: func(registry string) string { return registry },
		Timeouts: Timeouts{Header: 200 * time.Millisecond, Answer: 5 * time.Second},
	}), reg
}

// provoke asks for everything in one repository.
func (l *leaks) provoke(ctx context.Context, c *Client, name oci.Name) {
	_, err := c.Manifest(ctx, oci.Reference{Name: name, Tag: "v1"})
	l.note(err)
	_, err = c.Resolve(ctx, oci.Reference{Name: name, Tag: "v1"})
	l.note(err)
	body, err := c.Blob(ctx, name, digest.FromString("x"), oci.Span{Start: 0, End: -1})
	if err == nil {
		_, err = io.ReadAll(body)
		body.Close()
	}
	l.note(err)
	_, _ = fmt.Fprintln(l, c.State())
}

func (l *leaks) note(err error) {
	if err == nil {
		return
	}
	l.mu.Lock()
	l.errors++
	l.mu.Unlock()
	for _, e := range chain(err) {
		_, _ = fmt.Fprintf(l, "%v\n%+v\n%#v\n", e, e, e)
	}
}

// chain is err and all it wraps.
func chain(err error) []error {
	all := []error{err}
	switch e := err.(type) { //nolint:errorlint // the chain is walked by hand
	case interface{ Unwrap() error }:
		if inner := e.Unwrap(); inner != nil {
			all = append(all, chain(inner)...)
		}
	case interface{ Unwrap() []error }:
		for _, inner := range e.Unwrap() {
			all = append(all, chain(inner)...)
		}
	}
	return all
}

func (l *leaks) check(t *testing.T) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	text := l.text.String()
	if l.errors == 0 || !strings.Contains(text, "upstream try failed") {
		t.Fatalf("%d errors and %d bytes of text: nothing was provoked", l.errors, len(text))
	}
	for _, secret := range secrets {
		if at := strings.Index(text, secret); at >= 0 {
			t.Errorf("%s leaks: …%s…", secret, text[max(0, at-200):min(len(text), at+100)])
		}
	}
	if strings.Contains(text, "X-Amz-Signature") {
		t.Error("a signed query leaks")
	}
}

// hijack answers with raw bytes.
func hijack(w http.ResponseWriter, raw string) {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	_, _ = io.WriteString(conn, raw)
	_ = conn.Close()
}
