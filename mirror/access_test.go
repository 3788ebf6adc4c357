package mirror

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/larder-registry/larder/internal/oci"
	"github.com/larder-registry/larder/mirror/upstream"
	"github.com/larder-registry/larder/test/registry"
)

var (
	team     = oci.NewCredential("team", "secret")
	stranger = oci.NewCredential("team", "wrong")
	nobody   = oci.Credential{}
)

// closedUp is a registry whose image is the team's, and the clock of a mirror.
func closedUp(t *testing.T, basic bool) (*registry.Server, registry.Image, *clock) {
	t.Helper()
	up := registry.Start(t, registry.Options{
		Basic: basic, Tokens: !basic, Anonymous: []string{"open/app"},
		Users: map[string]string{"team": "secret", "node": "own"},
	})
	return up, up.AddImage(repo, "v1", registry.NewLayer(1, 1000)), &clock{t: time.Now()}
}

// startClosed starts a mirror in front of it.
func startClosed(t *testing.T, up *registry.Server, dir string, clk *clock, change func(*configs)) *fixture {
	t.Helper()
	return start(t, up, dir, func(c *configs) {
		c.mirror.Now, c.upstream.Now = clk.now, clk.now
		c.mirror.RevalidateAfter = 100 * 24 * time.Hour // access is what is looked at
		if change != nil {
			change(c)
		}
	})
}

// ways are what may be asked for: each has to be answered alike.
func (fx *fixture) ways(image registry.Image) map[string]func(context.Context, oci.Name) error {
	layer := image.Layers[0]
	return map[string]func(context.Context, oci.Name) error{
		"tag": func(ctx context.Context, name oci.Name) error {
			_, err := fx.Manifest(ctx, oci.Reference{Name: name, Tag: "v1"})
			return err
		},
		"digest": func(ctx context.Context, name oci.Name) error {
			_, err := fx.Manifest(ctx, oci.Reference{Name: name, Digest: image.Digest})
			return err
		},
		"blob": func(ctx context.Context, name oci.Name) error {
			blob, err := fx.Blob(ctx, name, layer.Digest)
			if err != nil {
				return err
			}
			defer blob.Close()
			return sameBytes(blob, section(layer, 0, layer.Size()))
		},
		"stat": func(ctx context.Context, name oci.Name) error {
			_, err := fx.StatBlob(ctx, name, layer.Digest)
			return err
		},
	}
}

func as(t *testing.T, caller oci.Credential) context.Context {
	return oci.WithAccess(t.Context(), &oci.Access{Credential: caller})
}

// all fails the test unless every way ends in want for the caller.
func (fx *fixture) all(t *testing.T, when string, caller oci.Credential, image registry.Image, want error) {
	t.Helper()
	for name, ask := range fx.ways(image) {
		if err := ask(as(t, caller), fx.name); !errors.Is(err, want) {
			t.Errorf("%s: %s: %v, want %v", when, name, err, want)
		}
	}
}

// fetched pulls everything as team, and waits until it is held.
func (fx *fixture) fetched(t *testing.T, image registry.Image) {
	t.Helper()
	fx.all(t, "cold", team, image, nil)
	fx.settled(t, image.Layers[0].Digest)
}

func eachAuth(t *testing.T, run func(t *testing.T, basic bool)) {
	for _, basic := range []bool{true, false} {
		t.Run(fmt.Sprintf("basic %v", basic), func(t *testing.T) { run(t, basic) })
	}
}

func TestAProofIsGoodForAWhile(t *testing.T) {
	eachAuth(t, func(t *testing.T, basic bool) {
		up, image, clk := closedUp(t, basic)
		fx := startClosed(t, up, t.TempDir(), clk, nil)
		fx.fetched(t, image)
		up.Forget()
		for range 20 {
			fx.all(t, "warm", team, image, nil)
			clk.add(29 * time.Second)
		}
		if n := up.Count(); n > 0 {
			t.Errorf("the upstream was asked %d times within proof_ttl", n)
		}
		clk.add(time.Minute)
		fx.all(t, "renewed", team, image, nil)
		// A HEAD, which with tokens is challenged first.
		if n, most := up.Count(), map[bool]int{true: 1, false: 3}[basic]; n > most {
			t.Errorf("the upstream was asked %d times for one proof, want at most %d", n, most)
		}
		// Taken back: good until the proof ends, however busy it is, and also
		// for a token that lasts longer.
		up.SetUser("team", "")
		clk.add(9 * time.Minute)
		fx.all(t, "taken back", team, image, nil)
		clk.add(2 * time.Minute)
		fx.all(t, "taken back, the proof is over", team, image, oci.ErrUnauthorized)
		fx.all(t, "nobody", nobody, image, oci.ErrUnauthorized)
	})
}

func TestAProofLastsLongerInAnOutage(t *testing.T) {
	for name, trouble := range map[string]func(*registry.Server){
		"refused": (*registry.Server).Stop,
		"silent":  (*registry.Server).Silence,
		"500":     func(up *registry.Server) { up.Set(registry.Fault{Status: 500}) },
		"429":     func(up *registry.Server) { up.Set(registry.Fault{Status: 429}) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			up, image, clk := closedUp(t, true)
			fx := startClosed(t, up, t.TempDir(), clk, func(c *configs) { c.mirror.RevalidateTimeout = 50 * time.Millisecond })
			fx.fetched(t, image)
			trouble(up)
			clk.add(23 * time.Hour)
			begun := time.Now()
			fx.all(t, "in grace", team, image, nil)
			if took := time.Since(begun); took > 10*time.Second {
				t.Errorf("what a proof is good enough for took %v", took)
			}
			// Who proved nothing is refused, and asked for credentials.
			fx.all(t, "nobody", nobody, image, oci.ErrUnauthorized)
			if name == "silent" {
				return // the rest would wait for it
			}
			for what, ask := range fx.ways(image) {
				if err := ask(as(t, stranger), fx.name); err == nil {
					t.Errorf("a stranger got %s", what)
				}
			}
			clk.add(2 * time.Hour)
			for what, ask := range fx.ways(image) {
				if err := ask(as(t, team), fx.name); err == nil {
					t.Errorf("%s was served after the grace", what)
				}
			}
		})
	}
}

func TestManyShareOneProof(t *testing.T) {
	up, image, clk := closedUp(t, true)
	fx := startClosed(t, up, t.TempDir(), clk, nil)
	fx.fetched(t, image)
	clk.add(11 * time.Minute)
	up.Forget()
	gate := registry.NewGate()
	up.Set(registry.Fault{Hold: gate})
	var group sync.WaitGroup
	ask := fx.ways(image)["blob"]
	for range 50 {
		group.Go(func() {
			if err := ask(as(t, team), fx.name); err != nil {
				t.Error(err)
			}
		})
	}
	if err := up.WaitFor(t.Context(), func(all []registry.Request) bool { return len(all) > 0 }); err != nil {
		t.Fatal(err)
	}
	gate.Open()
	group.Wait()
	if n := up.Count(); n != 1 {
		t.Errorf("50 requests of one caller cost %d questions, want 1", n)
	}
}

// TestWhatIsUnknownIsClosed has the index lost, and with it who may read what.
func TestWhatIsUnknownIsClosed(t *testing.T) {
	up, image, clk := closedUp(t, true)
	dir := t.TempDir()
	fx := startClosed(t, up, dir, clk, nil)
	fx.fetched(t, image)
	fx.stop()
	if err := os.RemoveAll(filepath.Join(dir, "index")); err != nil {
		t.Fatal(err)
	}
	up.Stop()
	fx = startClosed(t, up, dir, clk, nil)
	if !fx.onDisk(t, image.Layers[0]) {
		t.Fatal("the layer went with the index")
	}
	for _, caller := range []oci.Credential{nobody, stranger, team} {
		for what, ask := range fx.ways(image) {
			if err := ask(as(t, caller), fx.name); err == nil {
				t.Errorf("%s was served while nobody knows whose it is", what)
			}
		}
	}
	if err := up.Resume(); err != nil {
		t.Fatal(err)
	}
	fx.stop()
	fx = startClosed(t, up, dir, clk, nil)
	fx.all(t, "nobody", nobody, image, oci.ErrUnauthorized)
	fx.all(t, "team", team, image, nil)
}

// TestPublicByDigestIsAskedAboutAgain has an image, pulled by nothing but its
// digest, turn private.
// A mirror killed right before it committed a blob finds all of it on disk, and
// knows nothing of its repository. It has to ask the upstream who may have it.
func TestAPartialThatLacksNothingIsAskedAbout(t *testing.T) {
	for _, c := range []struct {
		name, repo string
		caller     oci.Credential
		want       error
	}{
		{"everybody's", "open/app", nobody, nil},
		{"the team's, to the team", repo, team, nil},
		{"the team's, to nobody", repo, nobody, oci.ErrUnauthorized},
		{"the team's, to a stranger", repo, stranger, oci.ErrUnauthorized},
	} {
		t.Run(c.name, func(t *testing.T) {
			up, _, clk := closedUp(t, false)
			b := up.AddBlob(c.repo, "", registry.Random(17, 3*mib))
			fx := startClosed(t, up, t.TempDir(), clk, nil)
			ingest, err := fx.store.Ingest(t.Context(), b.Digest, b.Size())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := ingest.WriteAt(b.Bytes(), 0); err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(ingest.SaveHeld([]oci.Span{{End: b.Size()}}), ingest.Close()); err != nil {
				t.Fatal(err)
			}
			name := oci.Name{Registry: fx.name.Registry, Repository: c.repo}
			blob, err := fx.Blob(oci.WithAccess(t.Context(), &oci.Access{Credential: c.caller}), name, b.Digest)
			if !errors.Is(err, c.want) {
				t.Fatalf("got %v, want %v", err, c.want)
			}
			if err == nil {
				readAll(t, blob, section(b, 0, b.Size()))
				blob.Close()
			}
			fx.settled(t, b.Digest)
			if sent := up.Sent(b.Digest); sent != 0 {
				t.Errorf("upstream sent %d bytes of a blob that lacks none", sent)
			}
		})
	}
}

func TestPublicByDigestIsAskedAboutAgain(t *testing.T) {
	up, image, clk := closedUp(t, true)
	up.SetAnonymous(repo)
	fx := startClosed(t, up, t.TempDir(), clk, nil)
	fx.all(t, "public", nobody, image, nil)
	fx.settled(t, image.Layers[0].Digest)
	up.SetAnonymous()
	up.Forget()
	byDigest := fx.ways(image)["digest"]
	clk.add(23 * time.Hour)
	if err := byDigest(as(t, nobody), fx.name); err != nil || up.Count() > 0 {
		t.Fatalf("within a day: %v, and the upstream was asked %d times", err, up.Count())
	}
	clk.add(2 * time.Hour)
	if err := byDigest(as(t, nobody), fx.name); err != nil {
		t.Fatalf("the request that has it asked about: %v", err)
	}
	err := up.WaitFor(t.Context(), func(all []registry.Request) bool {
		return slices.ContainsFunc(all, func(r registry.Request) bool { return r.Target == "v1" && r.Done })
	})
	if err != nil {
		t.Fatal(err)
	}
	for byDigest(as(t, nobody), fx.name) == nil {
		if t.Context().Err() != nil {
			t.Fatal("what is private by now is still served")
		}
	}
	fx.all(t, "private", nobody, image, oci.ErrUnauthorized)
	fx.all(t, "private, the team", team, image, nil)
}

// TestOneForbiddenImageClosesNothing has the upstream refuse one manifest of a
// public repository.
func TestOneForbiddenImageClosesNothing(t *testing.T) {
	up, image, clk := closedUp(t, true)
	up.SetAnonymous(repo)
	bad := up.AddImage(repo, "bad", registry.NewLayer(9, 1000))
	fx := startClosed(t, up, t.TempDir(), clk, nil)
	fx.all(t, "public", nobody, image, nil)
	fx.settled(t, image.Layers[0].Digest)
	up.Set(registry.Fault{Status: 403, Match: func(r registry.Request) bool {
		return r.Target == "bad" || r.Target == bad.Digest.String()
	}})
	for range 3 {
		if _, err := fx.Manifest(as(t, nobody), oci.Reference{Name: fx.name, Tag: "bad"}); !errors.Is(err, oci.ErrDenied) {
			t.Errorf("the forbidden image: %v", err)
		}
	}
	up.Forget()
	fx.all(t, "the others", nobody, image, nil)
	if n := up.Count(); n > 0 {
		t.Errorf("the upstream was asked %d times", n)
	}
}

// TestAnotherRepositorysFill has a client ask for a digest under a repository of
// its own while it is being brought in for another.
func TestAnotherRepositorysFill(t *testing.T) {
	up, image, clk := closedUp(t, true)
	up.AddImage("open/app", "v1", registry.NewLayer(2, 1000))
	layer := image.Layers[0]
	fx := startClosed(t, up, t.TempDir(), clk, nil)
	if _, err := fx.Manifest(as(t, team), oci.Reference{Name: fx.name, Tag: "v1"}); err != nil {
		t.Fatal(err)
	}
	open := oci.Name{Registry: fx.name.Registry, Repository: "open/app"}
	if _, err := fx.Manifest(as(t, nobody), oci.Reference{Name: open, Tag: "v1"}); err != nil {
		t.Fatal(err)
	}
	gate := registry.NewGate()
	up.Set(registry.Fault{On: registry.Blobs, Method: "GET", Gate: gate, At: 500})
	own, err := fx.Blob(as(t, team), fx.name, layer.Digest)
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	<-gate.Reached()
	for what, ask := range fx.ways(image) {
		if what == "tag" {
			continue // it has one of its own
		}
		if err := ask(as(t, nobody), open); err == nil {
			t.Errorf("%s was served under a repository that never held it", what)
		}
		if err := ask(as(t, nobody), fx.name); !errors.Is(err, oci.ErrUnauthorized) {
			t.Errorf("%s of a running fill: %v", what, err)
		}
	}
	gate.Open()
	readAll(t, own, section(layer, 0, layer.Size()))
}

// TestListsShowNothingPrivate: what exists is part of the secret.
func TestListsShowNothingPrivate(t *testing.T) {
	up, image, clk := closedUp(t, true)
	public := up.AddImage("open/app", "v1", registry.NewLayer(2, 1000))
	fx := startClosed(t, up, t.TempDir(), clk, nil)
	fx.fetched(t, image)
	open := oci.Name{Registry: fx.name.Registry, Repository: "open/app"}
	if _, err := fx.Manifest(as(t, nobody), oci.Reference{Name: open, Digest: public.Digest}); err != nil {
		t.Fatal(err)
	}
	for _, caller := range []oci.Credential{nobody, team} {
		for n, want := range map[int][]string{-1: {open.String()}, 0: {}, 1: {open.String()}} {
			if got, err := fx.Repositories(as(t, caller), n, ""); err != nil || !slices.Equal(got, want) {
				t.Errorf("%d repositories are %v, %v; want %v", n, got, err, want)
			}
		}
	}
	if _, err := fx.Tags(as(t, nobody), fx.name, -1, ""); !errors.Is(err, oci.ErrUnauthorized) {
		t.Errorf("tags for nobody: %v", err)
	}
	clk.add(time.Hour) // it is proved anew
	if got, err := fx.Tags(as(t, team), fx.name, -1, ""); err != nil || !slices.Equal(got, []string{"v1"}) {
		t.Errorf("tags for the team are %v, %v", got, err)
	}
	if _, err := fx.Tags(as(t, stranger), fx.name, -1, ""); !errors.Is(err, oci.ErrUnauthorized) {
		t.Errorf("tags for a stranger: %v", err)
	}
}

// TestTheNodesRightsEndWithItsCredentials restarts the mirror with other
// credentials than those that fetched what it holds.
func TestTheNodesRightsEndWithItsCredentials(t *testing.T) {
	up, image, clk := closedUp(t, true)
	dir := t.TempDir()
	with := func(username string, proof bool) func(*configs) {
		return func(c *configs) {
			c.upstream.Registries[0].Username, c.upstream.Registries[0].Proof = username, proof
			if username != "" {
				c.upstream.Registries[0].Password = "own"
			}
		}
	}
	startWith := func(username string, proof bool) *fixture {
		t.Helper()
		var fx *fixture
		fx = startClosed(t, up, dir, clk, func(c *configs) {
			with(username, proof)(c)
			c.mirror.NodeAccess = func(name oci.Name) bool {
				client, ok := fx.upstream.(*upstream.Client)
				return ok && client.NodeAccess(name)
			}
		})
		return fx
	}
	fx := startWith("node", false)
	fx.all(t, "the node's", nobody, image, nil)
	fx.settled(t, image.Layers[0].Digest)
	fx.stop()
	up.Stop()
	fx = startWith("node", false)
	fx.all(t, "restarted in an outage", nobody, image, nil)
	fx.stop()
	if err := up.Resume(); err != nil {
		t.Fatal(err)
	}
	fx = startWith("node", true)
	fx.all(t, "callers have to prove", nobody, image, oci.ErrUnauthorized)
	fx.all(t, "callers have to prove, the team", team, image, nil)
	fx.stop()
	fx = startWith("", false)
	fx.all(t, "without credentials", nobody, image, oci.ErrUnauthorized)
	fx.all(t, "without credentials, the team", team, image, nil)
}

// TestCallersAreToldApart: one key for one credential, and none that shows it.
func TestCallersAreToldApart(t *testing.T) {
	p, q := newProofs([]byte("one process")), newProofs([]byte("another"))
	seen := map[string]string{}
	for _, c := range [][2]string{{"a", "bc"}, {"ab", "c"}, {"", "abc"}, {"abc", ""}, {"a", "bc\x00"}, {"a\x00", "bc"}} {
		cred := oci.NewCredential(c[0], c[1])
		key := p.key(cred)
		if key != p.key(oci.NewCredential(c[0], c[1])) {
			t.Errorf("%q has two keys", c)
		}
		if key == q.key(cred) {
			t.Errorf("%q has the same key in two processes", c)
		}
		if other, taken := seen[key]; taken {
			t.Errorf("%q and %q have one key", c, other)
		}
		seen[key] = fmt.Sprint(c)
	}
}

// TestProofsAreBounded: a caller who makes up credentials drives nobody out, and
// those whom the upstream lets in do not fill the memory.
func TestProofsAreBounded(t *testing.T) {
	p := newProofs([]byte("key"))
	now := time.Now()
	name := oci.Name{Registry: "r.test", Repository: "a"}
	p.add("mine", name, now)
	for i := range 3 * maxRefusals {
		p.drop(fmt.Sprint(i), name, now)
	}
	if _, ok := p.age("mine", name, now); !ok || len(p.refusal) > maxRefusals {
		t.Errorf("refusals: %d remembered, and the proof is there: %v", len(p.refusal), ok)
	}
	for i := range 2 * maxProofs {
		now = now.Add(time.Millisecond)
		p.add(fmt.Sprint(i), name, now)
		if len(p.at) > maxProofs {
			t.Fatalf("%d proofs are remembered", len(p.at))
		}
	}
	if _, ok := p.age(fmt.Sprint(2*maxProofs-1), name, now); !ok {
		t.Error("the latest proof is not remembered")
	}
	for i := range maxProofs + 1 { // all of one moment
		p.add(fmt.Sprint("at once", i), name, now)
	}
	if len(p.at) > maxProofs {
		t.Errorf("%d proofs are remembered", len(p.at))
	}
}

// TestAManifestStaysAManifest also when its bytes are asked for as a blob's.
func TestAManifestStaysAManifest(t *testing.T) {
	up, image, clk := closedUp(t, true)
	up.SetAnonymous(repo)
	fx := startClosed(t, up, t.TempDir(), clk, nil)
	fx.all(t, "public", nobody, image, nil)
	blob, err := fx.Blob(as(t, nobody), fx.name, image.Digest)
	if err != nil {
		t.Fatal(err)
	}
	defer blob.Close()
	readAll(t, blob, section(image.Blob, 0, image.Size()))
	if _, err := fx.Manifest(as(t, nobody), oci.Reference{Name: fx.name, Digest: image.Digest}); err != nil {
		t.Errorf("asked for as a blob it is no image manifest any more: %v", err)
	}
}
