package faults

import (
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/larder-registry/larder/test/registry"
)

// TestWaysAround has the holder pull a private image, and then everybody else
// try whatever might lead to it.
func TestWaysAround(t *testing.T) {
	for _, basic := range []bool{true, false} {
		t.Run(fmt.Sprintf("basic %v", basic), func(t *testing.T) {
			t.Parallel()
			waysAround(t, basic)
		})
	}
}

func waysAround(t *testing.T, basic bool) {
	up := newUpstream(t, privateOptions(basic), registry.NewLayer(1, layerSize), registry.NewLayer(2, 1000))
	// A public repository that holds something else, and one layer of the
	// private image; and one that another tenant may pull.
	public := up.AddImage("open/app", tag, registry.NewLayer(2, 1000), registry.NewLayer(3, 1000))
	others := up.AddImage("other/app", tag, registry.NewLayer(4, 1000))
	l := startLarder(t, settings{servers: []*registry.Server{up.Server}})
	all := callers()
	nobody, other, own := all[0], all[2], all[3]
	pull := func(repo string, image registry.Image, c caller) {
		t.Helper()
		for _, b := range append([]registry.Blob{image.Blob, image.Config}, image.Layers...) {
			kind := registry.Blobs
			if b.Digest == image.Digest {
				kind = registry.Manifests
			}
			if got := l.as(t, c, ask{server: up.Server, repo: repo, kind: kind, blob: b}); got != right {
				t.Fatalf("%s cannot pull %s of %s: %s", c.name, b.Digest, repo, got)
			}
			l.awaitFile(t, b.Digest)
		}
	}
	if got := l.as(t, own, tagAsk(up)); got != right {
		t.Fatalf("the holder cannot pull: %s", got)
	}
	pull(repo, up.image, own)
	pull("open/app", public, nobody)
	if got := l.as(t, other, ask{server: up.Server, repo: "other/app", kind: registry.Manifests, tag: tag, blob: others.Blob}); got != right {
		t.Fatalf("the other tenant cannot pull its own: %s", got)
	}

	secret := up.image.Layers[0] // in no other repository
	shared := up.image.Layers[1]
	tries := func(state string) {
		for _, c := range []caller{nobody, all[1], other} {
			for _, r := range []string{repo, "open/app", "other/app", "no/such"} {
				for _, method := range []string{http.MethodGet, http.MethodHead} {
					for _, inPath := range []bool{false, true} {
						for _, b := range []registry.Blob{up.image.Blob, up.image.Config, secret} {
							for _, kind := range []registry.Kind{registry.Manifests, registry.Blobs} {
								a := ask{server: up.Server, method: method, repo: r, kind: kind, blob: b, inPath: inPath}
								if got := l.as(t, c, a); !slices.Contains([]string{"401", "401?", "403", "404", "503"}, got) {
									t.Errorf("%s: %s %s as %s: %s", state, method, a.path(), c.name, got)
								}
							}
						}
					}
				}
			}
			l.refused(t, state, c, "/v2/f/"+up.Host()+"/"+repo+"/referrers/"+up.image.Digest.String())
			l.refused(t, state, c, "/v2/f/"+up.Host()+"/"+repo+"/tags/list")
			if catalog := l.read(t, nobody, "/v2/_catalog", http.StatusOK); strings.Contains(catalog, repo) {
				t.Errorf("%s: the catalog tells of %s: %s", state, repo, catalog)
			}
			// What a client has already is asked about by its digest, too.
			l.refused(t, state, c, "/v2/f/"+up.Host()+"/"+repo+"/blobs/"+secret.Digest.String(), "If-None-Match", `"`+secret.Digest.String()+`"`)
			l.refused(t, state, c, "/v2/f/"+up.Host()+"/"+repo+"/manifests/"+up.image.Digest.String(), "If-None-Match", "*")
			l.refused(t, state, c, "/v2/f/"+up.Host()+"/open/app/blobs/"+secret.Digest.String(), "Range", "bytes=0-0")
			// What the public image has, too, is no secret.
			if got := l.as(t, c, ask{server: up.Server, repo: "open/app", kind: registry.Blobs, blob: shared}); got != right {
				t.Errorf("%s: the public layer as %s: %s", state, c.name, got)
			}
		}
	}
	tries("cached")
	up.Stop()
	tries("outage")
	for _, a := range []ask{digestAsk(up), blobAsk(up)} {
		if got := l.as(t, own, a); got != right {
			t.Errorf("the holder in the outage: %s %s", a.path(), got)
		}
	}
	l.stop()
	l.start()
	tries("restarted in the outage")
	if err := up.Resume(); err != nil {
		t.Fatal(err)
	}
	l.kill()
	l.start()
	tries("killed and restarted")
	pull(repo, up.image, own)
	tries("proved again")

	// The secret is taken back: nobody has proved anything to the next
	// process.
	up.SetUser(holder, "")
	up.ExpireTokens()
	l.stop()
	l.start()
	for _, a := range []ask{tagAsk(up), digestAsk(up), blobAsk(up)} {
		if got := l.as(t, own, a); got != "401" {
			t.Errorf("the holder whose secret was taken back: %s %s", a.path(), got)
		}
	}
}

// read asks for something that is no content, and gives the body.
func (l *larder) read(t *testing.T, c caller, path string, status int, headers ...string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, l.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := loggedIn{client(t), c}.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || status != 0 && resp.StatusCode != status || status == 0 && resp.StatusCode < 400 {
		t.Errorf("GET %s: status %d, %v: %.200s", path, resp.StatusCode, err, body)
	}
	return string(body)
}

// refused fails the test unless the answer is a refusal.
func (l *larder) refused(t *testing.T, state string, c caller, path string, headers ...string) {
	t.Helper()
	if body := l.read(t, c, path, 0, headers...); !strings.Contains(body, `"errors"`) {
		t.Errorf("%s: GET %s as %s: %.200s", state, path, c.name, body)
	}
}

// TestAccessIsLearntAnew has a repository turn from public to private and back.
func TestAccessIsLearntAnew(t *testing.T) {
	for _, basic := range []bool{true, false} {
		t.Run(fmt.Sprintf("basic %v", basic), func(t *testing.T) {
			t.Parallel()
			up := newUpstream(t, privateOptions(basic))
			up.SetAnonymous(repo)
			l := startLarder(t, settings{servers: []*registry.Server{up.Server}, extra: []string{"proof_ttl: 1s"}})
			nobody, own := callers()[0], callers()[3]
			everything := []ask{tagAsk(up), digestAsk(up), blobAsk(up)}
			for _, a := range everything {
				if got := l.as(t, nobody, a); got != right {
					t.Fatalf("public: %s: %s", a.path(), got)
				}
			}
			up.SetAnonymous()
			up.ExpireTokens()
			// The next question to the upstream finds out.
			for _, a := range everything {
				if got := l.as(t, nobody, a); got != "401?" {
					t.Errorf("private by now: %s: %s", a.path(), got)
				}
				if got := l.as(t, own, a); got != right {
					t.Errorf("private by now, the holder: %s: %s", a.path(), got)
				}
			}
			up.SetAnonymous(repo)
			// Whoever comes without credentials is asked about again after
			// proof_ttl.
			tick := time.NewTicker(20 * time.Millisecond)
			defer tick.Stop()
			for deadline := time.Now().Add(patience); l.as(t, nobody, tagAsk(up)) != right; <-tick.C {
				if time.Now().After(deadline) {
					t.Fatal("public again, and nobody may pull")
				}
			}
			for _, a := range everything {
				if got := l.as(t, nobody, a); got != right {
					t.Errorf("public again: %s: %s", a.path(), got)
				}
			}
		})
	}
}

// TestProofsEnd has a secret taken back: it is good for proof_ttl at most.
func TestProofsEnd(t *testing.T) {
	for _, basic := range []bool{true, false} {
		t.Run(fmt.Sprintf("basic %v", basic), func(t *testing.T) {
			t.Parallel()
			up := newUpstream(t, privateOptions(basic))
			const ttl = 2 * time.Second
			l := startLarder(t, settings{servers: []*registry.Server{up.Server}, extra: []string{"proof_ttl: 2s", "revalidate_after: 1h"}})
			own := callers()[3]
			for _, a := range []ask{tagAsk(up), blobAsk(up)} {
				if got := l.as(t, own, a); got != right {
					t.Fatalf("%s: %s", a.path(), got)
				}
			}
			l.awaitFile(t, up.image.Layers[0].Digest)
			up.SetUser(holder, "")
			revoked := time.Now()
			// Using it all the time does not make it last.
			for {
				asked := time.Now()
				got := l.as(t, own, blobAsk(up))
				if got == "401" {
					break
				}
				if got != right {
					t.Fatalf("after %v: %s", time.Since(revoked), got)
				}
				if asked.Sub(revoked) > ttl {
					t.Fatalf("the secret was taken back %v ago and is still good", asked.Sub(revoked))
				}
			}
			for _, a := range []ask{tagAsk(up), digestAsk(up)} {
				if got := l.as(t, own, a); got != "401" {
					t.Errorf("%s: %s", a.path(), got)
				}
			}
		})
	}
}

// TestManyPulls has 50 callers pull a private image 1,000 times: the upstream is
// asked about each of them once.
func TestManyPulls(t *testing.T) {
	const pullers, pulls = 50, 1000
	for _, basic := range []bool{true, false} {
		t.Run(fmt.Sprintf("basic %v", basic), func(t *testing.T) {
			t.Parallel()
			opts := privateOptions(basic)
			var all []caller
			for i := range pullers {
				c := caller{name: "puller", user: fmt.Sprintf("user%d", i), secret: fmt.Sprintf("MARKERsecret%d", i)}
				opts.Users[c.user] = c.secret
				all = append(all, c)
			}
			up := newUpstream(t, opts)
			l := startLarder(t, settings{servers: []*registry.Server{up.Server}, extra: []string{"revalidate_after: 1h"}})
			objects := []ask{
				tagAsk(up), digestAsk(up), blobAsk(up),
				{server: up.Server, repo: repo, kind: registry.Blobs, blob: up.image.Config},
			}
			pull := func(tr *http.Transport, c caller) {
				for _, a := range objects {
					// As containerd does: without credentials first.
					if got := l.asOver(t, tr, caller{}, a); got != "401?" {
						t.Errorf("nobody: %s: %s", a.path(), got)
					}
					if got := l.asOver(t, tr, c, a); got != right {
						t.Errorf("%s: %s: %s", c.user, a.path(), got)
					}
				}
			}
			pull(client(t), all[0])
			l.awaitFile(t, up.image.Layers[0].Digest)
			l.awaitFile(t, up.image.Config.Digest)
			up.Forget()
			next := make(chan caller)
			var group sync.WaitGroup
			for range 8 {
				tr := client(t)
				group.Go(func() {
					for c := range next {
						pull(tr, c)
					}
				})
			}
			for i := range pulls {
				next <- all[i%pullers]
			}
			close(next)
			group.Wait()

			checks := map[string]int{}
			for _, r := range up.Requests() {
				if r.Method == http.MethodGet && r.Kind != registry.Tokens {
					t.Errorf("content was fetched again: %s %s", r.Method, r.Path)
				}
				if sent := r.Header.Get("Authorization"); strings.HasPrefix(sent, "Basic ") {
					checks[sent]++
				}
			}
			for i, c := range all {
				who := "Basic " + base64.StdEncoding.EncodeToString([]byte(c.user+":"+c.secret))
				want := 1
				if i == 0 {
					want = 0 // it proved it by its first pull
				}
				if checks[who] != want {
					t.Errorf("%s was checked %d times, want %d", c.user, checks[who], want)
				}
			}
			// Basic: a HEAD with the password. Tokens: a HEAD that is
			// challenged, the token, a HEAD with it.
			most := pullers - 1
			if !basic {
				most *= 3
			}
			if n := up.Count(); n > most {
				t.Errorf("%d upstream requests for %d pulls by %d callers, want at most %d", n, pulls, pullers, most)
			}
			l.checkDump(t, all)
		})
	}
}

// checkDump has the process write all it knows of itself, and looks for secrets
// in everything it ever wrote.
func (l *larder) checkDump(t *testing.T, all []caller) {
	t.Helper()
	metrics := l.metrics(t)
	l.signal(syscall.SIGQUIT)
	<-l.exited
	l.exited = nil
	if !l.log.contains("goroutine ") {
		t.Error("the process wrote no stacks")
	}
	secrets := []string{"MARKER", "Authorization"}
	for _, c := range all {
		secrets = append(secrets, base64.StdEncoding.EncodeToString([]byte(c.user+":"+c.secret)))
	}
	noSecrets(t, secrets, "what the process wrote", l.log.String())
	noSecrets(t, secrets, "the metrics", metrics)
	noSecretFiles(t, secrets, l.dir)
}
