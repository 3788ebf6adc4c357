package faults

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/test/registry"
)

// Who asks, in the tests of private images. The mirror's own user is in
// table_test.go.
const (
	holder, holderSecret = "team", "MARKERholder" // may pull the image
	tenant, tenantSecret = "other", "MARKERtenant"
	wrongSecret          = "MARKERwrong"
)

// caller logs in to the mirror as containerd does with a pull secret; without a
// user it brings none.
type caller struct {
	name, user, secret string
}

func callers() []caller {
	return []caller{
		{name: "nobody"},
		{"wrong secret", holder, wrongSecret},
		{"another tenant", tenant, tenantSecret},
		{"holder", holder, holderSecret},
	}
}

// loggedIn sends the caller's credentials with every request.
type loggedIn struct {
	*http.Transport
	caller
}

func (l loggedIn) RoundTrip(req *http.Request) (*http.Response, error) {
	if l.user != "" {
		req.SetBasicAuth(l.user, l.secret)
	}
	return l.Transport.RoundTrip(req)
}

// as asks as the caller, and gives a word: that of seen, with a "?" behind a 401
// that asks for credentials.
func (l *larder) as(t *testing.T, c caller, a ask) string {
	t.Helper()
	return l.asOver(t, client(t), c, a)
}

// asOver is as, over connections that are used again.
func (l *larder) asOver(t *testing.T, tr *http.Transport, c caller, a ask) string {
	t.Helper()
	s := l.getWith(t.Context(), loggedIn{tr, c}, a)
	switch challenge := s.header.Get("WWW-Authenticate"); {
	case challenge == "":
		return s.word
	case s.word == "401" && challenge == fmt.Sprintf("Basic realm=%q", a.server.Host()):
		return "401?"
	default:
		return s.word + " with the challenge " + challenge
	}
}

// privateOptions make a registry whose image the holder and the mirror's own
// user may pull.
func privateOptions(basic bool) registry.Options {
	return registry.Options{
		Basic: basic, Tokens: !basic, Anonymous: []string{"open/app"},
		Users:  map[string]string{holder: holderSecret, tenant: tenantSecret, user: password},
		Rights: map[string][]string{tenant: {"other/app"}},
	}
}

// privateRow is one configuration of the mirror and what it comes to. Each cell
// holds what a tag, a manifest by digest and a blob are answered with, in this
// order: one word for all of them, or three; alternatives by "|". A number
// behind a colon is how many requests the upstream and its token server may
// see for the three together.
type privateRow struct {
	name  string
	extra string // below registry_proxies
	entry string // of the registry
	repo  string
	kept  bool // the image manifest and the layer are on disk
	some  bool // the image manifest may be
	// By state, then by caller in the order of callers().
	cold, warm, outage, restartedInOutage, restarted [4]string
}

func privateRows() []privateRow {
	// A refusal of credentials is remembered for ten seconds: on a slow
	// machine the next state finds it, or does not.
	const unproven = "401|503"
	open := [4]string{"right", "right", "right", "right"}
	stays := [4]string{"stale right right", "stale right right", "stale right right", "stale right right"}
	return []privateRow{
		{
			name: "challenge", repo: repo, kept: true,
			cold:              [4]string{"401?:4", "401:9", "401|403:9", "right:14"},
			warm:              [4]string{"401?:0", "401:6", "401|403:6", "right:2"},
			outage:            [4]string{"401?", unproven, "401|403|503", "stale right right"},
			restartedInOutage: [4]string{"401?", "503", "503", "503"},
			restarted:         [4]string{"401?:4", "401:9", "401|403:9", "right:9"},
		},
		{
			name: "bypass", repo: repo, extra: "private_images: bypass",
			cold:   [4]string{"404:4", "404:0", "404:0", "404:0"},
			warm:   [4]string{"404:0", "404:0", "404:0", "404:0"},
			outage: [4]string{"404", "404", "404", "404"},
			// Nothing is held of it, so nothing is known of it.
			restartedInOutage: [4]string{"503", "503", "503", "503"},
			restarted:         [4]string{"404", "404", "404", "404"},
		},
		{
			name: "shared", repo: repo, extra: "private_images: shared", kept: true,
			cold:              [4]string{"401?:4", "401:9", "401|403:9", "right:14"},
			warm:              [4]string{"stale right right:0", "stale right right:4", "stale right right:4", "right:3"},
			outage:            stays,
			restartedInOutage: stays,
			restarted:         [4]string{"stale right right:4", "stale right right:4", "stale right right:4", "right:4"},
		},
		{
			name: "access: node", repo: repo, kept: true,
			entry:             "{username: " + user + ", password: " + password + ", access: node}",
			cold:              [4]string{"right:12", "right:2", "right:2", "right:2"},
			warm:              [4]string{"right:2", "right:2", "right:2", "right:2"},
			outage:            stays,
			restartedInOutage: stays,
			restarted:         open,
		},
		{
			name: "access: caller", repo: repo, kept: true,
			entry:             "{username: " + user + ", password: " + password + ", access: caller}",
			cold:              [4]string{"401?:12", "401:9", "401|403:9", "right:14"},
			warm:              [4]string{"401?:0", "401:6", "401|403:6", "right:3"},
			outage:            [4]string{"401?", unproven, "401|403|503", "stale right right"},
			restartedInOutage: [4]string{"401?", "503", "503", "503"},
			restarted:         [4]string{"401?:9", "401:9", "401|403:9", "right:9"},
		},
		{
			name: "access: caller, bypass", repo: repo, extra: "private_images: bypass", some: true,
			entry:             "{username: " + user + ", password: " + password + ", access: caller}",
			cold:              [4]string{"404", "404:0", "404:0", "404:0"},
			warm:              [4]string{"404:0", "404:0", "404:0", "404:0"},
			outage:            [4]string{"404", "404", "404", "404"},
			restartedInOutage: [4]string{"404", "404", "404", "404"},
			restarted:         [4]string{"404", "404", "404", "404"},
		},
		{
			name: "public", repo: "open/app", kept: true,
			cold:              [4]string{"right:9", "right:2", "right:2", "right:2"},
			warm:              [4]string{"right:2", "right:2", "right:2", "right:2"},
			outage:            stays,
			restartedInOutage: stays,
			restarted:         open,
		},
		{
			name: "public, bypass", repo: "open/app", extra: "private_images: bypass", kept: true,
			cold:              [4]string{"right:9", "right:2", "right:2", "right:2"},
			warm:              [4]string{"right:2", "right:2", "right:2", "right:2"},
			outage:            stays,
			restartedInOutage: stays,
			restarted:         open,
		},
	}
}

// TestPrivateImages is the table of every mode, caller and state of the
// upstream, for registries with passwords and with tokens.
func TestPrivateImages(t *testing.T) {
	for _, row := range privateRows() {
		for _, basic := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, basic %v", row.name, basic), func(t *testing.T) {
				t.Parallel()
				row.run(t, basic)
			})
		}
	}
}

func (row privateRow) run(t *testing.T, basic bool) {
	up := newUpstream(t, privateOptions(basic))
	up.AddImage("open/app", tag, registry.NewLayer(1, layerSize))
	s := settings{servers: []*registry.Server{up.Server}}
	if row.extra != "" {
		s.extra = []string{row.extra}
	}
	if row.entry != "" {
		s.entry = strings.Split(strings.Trim(row.entry, "{}"), ", ")
	}
	l := startLarder(t, s)
	state := func(name string, cells [4]string) {
		for i, c := range callers() {
			up.Forget()
			row.check(t, l, up, name, c, cells[i])
		}
	}
	state("cold", row.cold)
	if row.kept {
		l.awaitFile(t, up.image.Digest)
		l.awaitFile(t, up.image.Layers[0].Digest)
	} else if l.kept(up.image.Layers[0].Digest) || l.kept(up.image.Digest) && !row.some {
		t.Error("the image is kept")
	}
	state("warm", row.warm)
	up.Stop()
	state("outage", row.outage)
	l.stop()
	l.start()
	state("restarted in the outage", row.restartedInOutage)
	if err := up.Resume(); err != nil {
		t.Fatal(err)
	}
	l.stop()
	l.start()
	state("restarted", row.restarted)
	row.checkSecrets(t, l, up)
}

// awaitFile waits until a blob or manifest is on disk, which is after its client
// has its last byte. A disk that others keep busy may take its time.
func (l *larder) awaitFile(t *testing.T, dgst digest.Digest) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(4 * patience); !l.kept(dgst); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("%s is not kept", dgst)
		}
	}
}

// check asks for tag, manifest and blob as one caller.
func (row privateRow) check(t *testing.T, l *larder, up *upstream, state string, c caller, cell string) {
	t.Helper()
	words, most, counted := strings.Cut(cell, ":")
	want := strings.Fields(words)
	if len(want) == 1 {
		want = []string{want[0], want[0], want[0]}
	}
	for i, a := range []ask{tagAsk(up), digestAsk(up), blobAsk(up)} {
		a.repo = row.repo
		if got := l.as(t, c, a); !slices.Contains(strings.Split(want[i], "|"), got) {
			t.Errorf("%s, %s, %s: %s, want %s", state, c.name, a.path(), got, want[i])
		}
	}
	if counted && up.Count() > atoi(t, most) {
		t.Errorf("%s, %s: %d upstream requests, want at most %s:%s", state, c.name, up.Count(), most, list(up.Requests()))
	}
	for _, r := range up.Requests() {
		sentBy := r.Header.Get("Authorization")
		for _, c := range callers() {
			mine := "Basic " + base64.StdEncoding.EncodeToString([]byte(c.user+":"+c.secret))
			if sentBy == mine && (row.repo != repo || strings.HasSuffix(row.extra, "bypass") || strings.HasSuffix(row.name, "node")) {
				t.Errorf("%s: the credentials of %s were sent upstream for nothing", state, c.name)
			}
		}
	}
}

// checkSecrets looks for secrets wherever the mirror leaves something.
func (row privateRow) checkSecrets(t *testing.T, l *larder, up *upstream) {
	t.Helper()
	metrics := l.metrics(t)
	denied := strings.Contains(metrics, "larder_private_denied_total{")
	if wantDenied := row.repo == repo && !strings.HasSuffix(row.name, "node") && row.name != "shared"; denied != wantDenied {
		t.Errorf("larder_private_denied_total is there: %v, want %v", denied, wantDenied)
	}
	l.stop()
	secrets := []string{password}
	for _, c := range callers()[1:] {
		secrets = append(secrets, c.secret, base64.StdEncoding.EncodeToString([]byte(c.user+":"+c.secret)))
	}
	noSecrets(t, secrets, "the log", l.log.String())
	noSecrets(t, secrets, "the metrics", metrics)
	noSecretFiles(t, secrets, l.dir)
	l.start() // as the cleanup expects it
}
