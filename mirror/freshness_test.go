package mirror

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/larder-registry/larder/internal/oci"
	"github.com/larder-registry/larder/test/registry"
)

// clock is a time that tests move.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// tagged is a fixture with an image under a tag, and a clock.
func tagged(t *testing.T, change func(*Config)) (*fixture, registry.Image, *clock) {
	t.Helper()
	up := registry.Start(t, registry.Options{})
	image := up.AddImage(repo, "v1", registry.NewLayer(1, 1000))
	c := &clock{t: time.Now()}
	fx := start(t, up, t.TempDir(), func(cfg *configs) {
		cfg.mirror.Now = c.now
		if change != nil {
			change(&cfg.mirror)
		}
	})
	return fx, image, c
}

// pull asks for the tag and returns what became of the request.
func (fx *fixture) pull(t *testing.T, tag string) (oci.Manifest, oci.Access, error) {
	t.Helper()
	var access oci.Access
	manifest, err := fx.Manifest(oci.WithAccess(t.Context(), &access), oci.Reference{Name: fx.name, Tag: tag})
	return manifest, access, err
}

// mustPull pulls the tag and compares what comes with the image and outcome.
func (fx *fixture) mustPull(t *testing.T, image registry.Image, outcome oci.Outcome) oci.Access {
	t.Helper()
	manifest, access, err := fx.pull(t, "v1")
	if err != nil {
		t.Fatal(err)
	}
	if string(manifest.Bytes) != string(image.Bytes()) || manifest.MediaType != image.MediaType {
		t.Fatalf("got %s %q, want %q", manifest.MediaType, manifest.Bytes, image.Bytes())
	}
	if access.Outcome != outcome {
		t.Fatalf("outcome %q (%s), want %q", access.Outcome, access.Reason, outcome)
	}
	return access
}

func TestTagIsConfirmedEachTime(t *testing.T) {
	fx, image, _ := tagged(t, nil)
	fx.mustPull(t, image, oci.OutcomeFill)
	fx.mustPull(t, image, oci.OutcomeHit)
	requests := fx.up.Requests()
	if len(requests) != 2 || requests[0].Method != "GET" || requests[1].Method != "HEAD" {
		t.Errorf("upstream was asked %v", requests)
	}
}

func TestTagIsBelievedForAWhile(t *testing.T) {
	fx, image, clock := tagged(t, func(c *Config) { c.RevalidateAfter = time.Minute })
	fx.mustPull(t, image, oci.OutcomeFill)
	clock.add(59 * time.Second)
	fx.mustPull(t, image, oci.OutcomeHit)
	if n := fx.up.Count(); n != 1 {
		t.Errorf("%d upstream requests, want 1", n)
	}
	clock.add(2 * time.Second)
	fx.mustPull(t, image, oci.OutcomeHit)
	if n := fx.up.Count(); n != 2 {
		t.Errorf("%d upstream requests, want 2", n)
	}
}

func TestMovedTagIsFetched(t *testing.T) {
	fx, image, _ := tagged(t, nil)
	fx.mustPull(t, image, oci.OutcomeFill)
	moved := fx.up.AddImage(repo, "v1", registry.NewLayer(2, 1000))
	fx.mustPull(t, moved, oci.OutcomeFill)
	fx.up.Stop()
	fx.mustPull(t, moved, oci.OutcomeStale)
}

func TestTagThatIsGoneIsForgotten(t *testing.T) {
	fx, image, clock := tagged(t, nil)
	fx.mustPull(t, image, oci.OutcomeFill)
	fx.up.DeleteTag(repo, "v1")
	if _, _, err := fx.pull(t, "v1"); !errors.Is(err, oci.ErrManifestUnknown) {
		t.Fatalf("deleted tag: %v", err)
	}
	clock.add(rememberFor + time.Second)
	fx.up.Stop()
	if _, _, err := fx.pull(t, "v1"); !errors.Is(err, oci.ErrUnavailable) {
		t.Fatalf("a forgotten tag was served: %v", err)
	}
}

func TestUnknownTagIsAskedForOnce(t *testing.T) {
	fx, _, clock := tagged(t, nil)
	for range 5 {
		if _, _, err := fx.pull(t, "missing"); !errors.Is(err, oci.ErrManifestUnknown) {
			t.Fatal(err)
		}
	}
	if n := fx.up.Count(registry.Manifests); n != 1 {
		t.Errorf("%d upstream requests, want 1", n)
	}
	clock.add(rememberFor + time.Second)
	if _, _, err := fx.pull(t, "missing"); !errors.Is(err, oci.ErrManifestUnknown) {
		t.Fatal(err)
	}
	if n := fx.up.Count(registry.Manifests); n != 2 {
		t.Errorf("%d upstream requests, want 2", n)
	}
}

func TestRefusalIsNotAnsweredFromDisk(t *testing.T) {
	for _, status := range []int{401, 403} {
		fx, image, _ := tagged(t, nil)
		fx.mustPull(t, image, oci.OutcomeFill)
		fx.up.Set(registry.Fault{Status: status})
		_, _, err := fx.pull(t, "v1")
		refusal, ok := errors.AsType[*oci.Refusal](err)
		if !ok || !errors.Is(err, oci.ErrUnauthorized) || len(refusal.Challenges) != 1 {
			t.Errorf("%d: %v, want a challenge", status, err)
		}
	}
}

func TestTroubleIsAnsweredFromDisk(t *testing.T) {
	for name, trouble := range map[string]func(*registry.Server){
		"500":        func(up *registry.Server) { up.Set(registry.Fault{Status: 500}) },
		"429":        func(up *registry.Server) { up.Set(registry.Fault{Status: 429, RetryAfter: "60"}) },
		"refused":    (*registry.Server).Stop,
		"black hole": (*registry.Server).Silence,
		"garbage":    (*registry.Server).Garble,
	} {
		t.Run(name, func(t *testing.T) {
			fx, image, clock := tagged(t, nil)
			fx.mustPull(t, image, oci.OutcomeFill)
			trouble(fx.up)
			clock.add(time.Hour)
			for range 5 {
				access := fx.mustPull(t, image, oci.OutcomeStale)
				if access.Age < time.Hour || access.Reason == "" {
					t.Errorf("age %v for %q", access.Age, access.Reason)
				}
			}
			if name == "black hole" {
				// The bound would be reached only by waiting for the upstream.
				return
			}
			clock.add(7 * 24 * time.Hour)
			if _, _, err := fx.pull(t, "v1"); err == nil {
				t.Error("a tag was served after stale_if_error")
			}
		})
	}
}

func TestSilentUpstreamCostsOneWait(t *testing.T) {
	fx, image, _ := tagged(t, nil)
	fx.mustPull(t, image, oci.OutcomeFill)
	fx.up.Silence()
	fx.mustPull(t, image, oci.OutcomeStale)
	if !fx.checks.isSilent(fx.name.Registry) {
		t.Fatal("the upstream is not known to be silent")
	}
	// Known silence is not waited for: this context would not outlive a wait.
	ctx, cancel := context.WithTimeout(t.Context(), fx.revalidateTimeout/2)
	defer cancel()
	for range 100 {
		if _, err := fx.Manifest(ctx, oci.Reference{Name: fx.name, Tag: "v1"}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestOfflineContactsNobody(t *testing.T) {
	fx, image, _ := tagged(t, nil)
	fx.mustPull(t, image, oci.OutcomeFill)
	fx.up.Forget()
	fx.Mirror.offline = true
	fx.mustPull(t, image, oci.OutcomeStale)
	if _, _, err := fx.pull(t, "missing"); !errors.Is(err, oci.ErrManifestUnknown) {
		t.Error(err)
	}
	if _, err := fx.Blob(t.Context(), fx.name, image.Config.Digest); err == nil {
		t.Error("a blob came from nowhere")
	}
	if n := fx.up.Count(); n != 0 {
		t.Errorf("%d upstream requests", n)
	}
}

func TestImageManifestByDigestAsksOnce(t *testing.T) {
	fx, image, _ := tagged(t, nil)
	ref := oci.Reference{Name: fx.name, Digest: image.Digest}
	var pulls sync.WaitGroup
	for range 20 {
		pulls.Go(func() {
			manifest, err := fx.Manifest(t.Context(), ref)
			if err != nil || string(manifest.Bytes) != string(image.Bytes()) {
				t.Errorf("%q, %v", manifest.Bytes, err)
			}
		})
	}
	pulls.Wait()
	if n := fx.up.Count(); n != 1 {
		t.Errorf("%d upstream requests, want 1", n)
	}
	fx.up.Stop()
	if _, err := fx.Manifest(t.Context(), ref); err != nil {
		t.Error(err)
	}
	other := ref
	other.Repository = "other/app"
	if _, err := fx.Manifest(t.Context(), other); err == nil {
		t.Error("a repository vouched for an image manifest it was never asked about")
	}
}

func TestReferrersPassThrough(t *testing.T) {
	fx, image, clock := tagged(t, nil)
	fx.up.AddReferrer(repo, image.Blob, "application/vnd.test", []byte("payload"))
	first, err := fx.Referrers(t.Context(), fx.name, image.Digest, "")
	if err != nil {
		t.Fatal(err)
	}
	asked := fx.up.Count()
	if again, err := fx.Referrers(t.Context(), fx.name, image.Digest, ""); err != nil || string(again.Bytes) != string(first.Bytes) {
		t.Errorf("%q, %v", again.Bytes, err)
	}
	if fx.up.Count() != asked {
		t.Error("the upstream was asked again at once")
	}
	clock.add(time.Hour)
	fx.up.Stop()
	if again, err := fx.Referrers(t.Context(), fx.name, image.Digest, ""); err != nil || string(again.Bytes) != string(first.Bytes) {
		t.Errorf("while the upstream is down: %q, %v", again.Bytes, err)
	}
}

func TestTagWhoseHeadNamesNothingIsFetched(t *testing.T) {
	fx, image, _ := tagged(t, nil)
	fx.mustPull(t, image, oci.OutcomeFill)
	// As when a tag moves between HEAD and GET, and what it named is deleted.
	fx.up.Set(registry.Fault{On: registry.Manifests, Method: "HEAD", Digest: "sha256:" + strings.Repeat("0", 64)})
	fx.mustPull(t, image, oci.OutcomeHit)
}
