package auth

import (
	"bytes"
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"go.uber.org/goleak"

	"github.com/larder-registry/larder/internal/oci"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// clock is a clock that tests move.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Unix(1_800_000_000, 0)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// logs is a logger whose text a test reads.
func logs() (*logrus.Entry, *lockedBuffer) {
	l := logrus.New()
	out := &lockedBuffer{}
	l.SetOutput(out)
	l.SetLevel(logrus.DebugLevel)
	return logrus.NewEntry(l), out
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// cheap makes a user whose password costs little to check, and is hashed
// already.
func cheap(t testing.TB, name, password string) User {
	t.Helper()
	hash, ok := map[string]string{ // bcrypt, at the least cost there is
		"wonder":  "$2a$04$1Wnw4jt55M8QNKLvDIJ/xOsOhT3rjW9jA78yJ6NuFQCWMF7PfuoiK",
		"builder": "$2a$04$wIl0pwOo5wjPotJ/mp4N0eCNNKPHhTM7FEHKJYazshYisM07QZgry",
		"singer":  "$2a$04$UijwoXDomzAYxIv2SXLtZeZAcnwY3GdqKoMVqO/9FU7XoRZNpn.B.",
		"other":   "$2a$04$UGQyV9qoEakfZ79pUgCCrOTweyp7uZRVXUe9qA94L/K98O/r.U/qG",
		"b":       "$2a$04$ez8UNGXpo3tJUrLbRCDHVut1qMTTopOLpe2xrJC/Y0e3/HoHP1crq",
	}[password]
	if !ok {
		t.Fatalf("hash %q first", password)
	}
	return User{Name: name, PasswordHash: hash}
}

// keyFile writes a file with one key for each text.
func keyFile(t testing.TB, texts ...string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "keys")
	var content strings.Builder
	for _, text := range texts {
		content.WriteString(strings.Repeat(text, minSecret) + "\n")
	}
	if err := os.WriteFile(name, []byte(content.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// authority makes one with the users alice (all of team-a), bob (pulls team-a)
// and carol (nothing), and anonymous pull of public.
func authority(t testing.TB, more ...func(*Config)) (*Authority, *clock) {
	t.Helper()
	c := newClock()
	log, _ := logs()
	cfg := Config{
		Settings: Settings{
			Users: []User{cheap(t, "alice", "wonder"), cheap(t, "bob", "builder"), cheap(t, "carol", "singer")},
			Rules: []Rule{
				{Subjects: []string{"user:alice", "cert:build"}, Repositories: []string{"team-a"}, Actions: actions()},
				{Subjects: []string{"user:bob"}, Repositories: []string{"team-a/"}, Actions: []oci.Action{oci.ActionPull}},
				{Subjects: []string{"anonymous", "authenticated"}, Repositories: []string{"public"}, Actions: []oci.Action{oci.ActionPull}},
			},
		},
		KeyFile: keyFile(t, "first-key"),
		Log:     log,
		Now:     c.Now,
	}
	for _, change := range more {
		change(&cfg)
	}
	a, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return a, c
}

var peer = netip.MustParseAddr("127.0.0.1")

func withBasic(user, password string) oci.Caller {
	return oci.Caller{Authorization: basic(user, password), Peer: peer}
}

func withToken(token string) oci.Caller {
	return oci.Caller{Authorization: "Bearer " + token, Peer: peer}
}

func withCertificate(name string) oci.Caller {
	return oci.Caller{Certificate: &x509.Certificate{Subject: pkix.Name{CommonName: name}}, Peer: peer}
}

func want(repository string, actions ...oci.Action) oci.Want {
	return oci.Want{Repository: repository, Actions: actions}
}

// verdict says in a word what became of a request: "ok", or the error's code,
// with the challenge's error behind it.
func verdict(err error) string {
	if err == nil {
		return "ok"
	}
	r, ok := errors.AsType[*oci.Refusal](err)
	if !ok {
		return "not a refusal: " + err.Error()
	}
	text := string(r.Cause.Code)
	if (r.Cause.Code == oci.CodeUnauthorized) != (len(r.Challenges) == 1) {
		return text + " with challenges " + strings.Join(r.Challenges, "; ")
	}
	for _, c := range r.Challenges {
		if _, why, found := strings.Cut(c, `,error="`); found {
			text += " " + strings.TrimSuffix(why, `"`)
		}
	}
	return text
}

// ask authorizes and gives the verdict.
func ask(t testing.TB, a *Authority, from oci.Caller, w oci.Want) string {
	t.Helper()
	_, err := a.Authorize(t.Context(), from, w)
	return verdict(err)
}

// getToken asks the token endpoint over HTTP.
func getToken(t testing.TB, a *Authority, authorization string, scopes ...string) (status int, token, granted string, answer map[string]any) {
	t.Helper()
	server := httptest.NewServer(a.Handler(http.NotFoundHandler()))
	defer server.Close()
	query := url.Values{"service": {service}, "scope": scopes}
	r, err := http.NewRequestWithContext(context.Background(), http.MethodGet, server.URL+TokenPath+"?"+query.Encode(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if authorization != "" {
		r.Header.Set("Authorization", authorization)
	}
	res, err := server.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		t.Fatalf("%v in %s", err, body)
	}
	token, _ = answer["token"].(string)
	granted, _ = answer["scope"].(string)
	return res.StatusCode, token, granted, answer
}

func encode(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
