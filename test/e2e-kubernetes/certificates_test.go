package kubernetes

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/larder-registry/larder/test/process"
)

// registered reads what the registration trusts, and its version.
func (w *webhook) registered(t testing.TB) (bundles [][]byte, version string) {
	t.Helper()
	var r struct {
		Metadata struct{ ResourceVersion string }
		Webhooks []struct {
			ClientConfig struct{ CABundle []byte }
		}
	}
	if err := w.Get(t.Context(), registration, &r); err != nil {
		t.Fatal(err)
	}
	for _, hook := range r.Webhooks {
		bundles = append(bundles, hook.ClientConfig.CABundle)
	}
	return bundles, r.Metadata.ResourceVersion
}

// kept reads the Secret's data.
func (w *webhook) kept(t testing.TB) map[string][]byte {
	t.Helper()
	var s struct{ Data map[string][]byte }
	if err := w.Get(t.Context(), secret, &s); err != nil {
		t.Fatal(err)
	}
	return s.Data
}

func authorities(t testing.TB, bundle []byte) (names []string) {
	t.Helper()
	for {
		var block *pem.Block
		if block, bundle = pem.Decode(bundle); block == nil {
			return names
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, cert.Subject.CommonName)
	}
}

// load asks for reviews all the time, until stop is called, which returns how
// many there were. Each has to be answered by the policy.
func (w *webhook) load(t testing.TB) (stop func() int64) {
	t.Helper()
	var (
		done   = make(chan struct{})
		all    sync.WaitGroup
		count  atomic.Int64
		failed atomic.Int64
	)
	for range 4 {
		all.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				status, answer, err := w.probe("default", "nginx")
				if err != nil || status != 201 {
					if failed.Add(1) < 5 {
						t.Errorf("a good image: status %d, %v: %.500s", status, err, answer)
					}
				}
				status, answer, err = w.probe("default", "quay.io/evil")
				if err != nil || status != 403 || !strings.Contains(answer, "the image policy of this cluster") {
					if failed.Add(1) < 5 {
						t.Errorf("a bad image: status %d, %v: %.500s", status, err, answer)
					}
				}
				count.Add(2)
			}
		})
	}
	var once sync.Once
	stop = func() int64 {
		once.Do(func() { close(done) })
		all.Wait()
		t.Logf("%d reviews, %d failed", count.Load(), failed.Load())
		return count.Load()
	}
	t.Cleanup(func() { stop() })
	return stop
}

// TestReplicasStartAtOnce starts three over an empty Secret: one authority comes
// of it, and all of them serve it.
func TestReplicasStartAtOnce(t *testing.T) {
	w := install(t, "Fail")
	w.config = w.write(t, rules)
	var all sync.WaitGroup
	started := make(chan *replica, 3)
	for range 3 {
		all.Go(func() { started <- w.launch(t, w.config) })
	}
	all.Wait()
	close(started)
	for r := range started {
		w.listening(t, r)
	}
	w.serve(t, w.replicas...)
	w.reviewed(t)
	data := w.kept(t)
	if names := authorities(t, data["ca.crt"]); len(names) != 1 || len(data["ca.key"]) == 0 || len(data) != 2 {
		t.Errorf("the Secret holds %v, and %d keys", names, len(data))
	}
	bundles, _ := w.registered(t)
	if len(bundles) != 2 {
		t.Fatalf("there are %d webhooks", len(bundles))
	}
	for _, b := range bundles {
		if string(b) != string(data["ca.crt"]) {
			t.Errorf("a caBundle is %s", b)
		}
	}
	made := 0
	for _, r := range w.replicas {
		made += len(r.lines("made a new authority for the webhook's certificates"))
		w.balancer.to(r.addr) // new connections only; the API server's live on
		w.reviewed(t)
	}
	if made != 1 {
		t.Errorf("%d authorities were made", made)
	}
}

// TestLeastRights asks the API server what the service account may do.
func TestLeastRights(t *testing.T) {
	w := install(t, "Ignore")
	may := func(want string, args ...string) {
		t.Helper()
		out, _ := w.Kubectl(t, "", append([]string{"auth", "can-i", "--as", "system:serviceaccount:larder:larder-webhook"}, args...)...)
		if answer := strings.TrimSpace(out[strings.LastIndex("\n"+strings.TrimSpace(out), "\n"):]); answer != want {
			t.Errorf("may %v: %s, want %s", args, out, want)
		}
	}
	may("yes", "get", "secrets/larder-webhook-authority", "-n", namespace)
	may("yes", "update", "secrets/larder-webhook-authority", "-n", namespace)
	may("yes", "get", "validatingwebhookconfigurations/larder-webhook")
	may("yes", "patch", "validatingwebhookconfigurations/larder-webhook")
	may("no", "get", "secrets/other", "-n", namespace)
	may("no", "list", "secrets", "-n", namespace)
	may("no", "create", "secrets", "-n", namespace)
	may("no", "delete", "secrets/larder-webhook-authority", "-n", namespace)
	may("no", "get", "secrets/larder-webhook-authority", "-n", "default")
	may("no", "patch", "validatingwebhookconfigurations/other")
	may("no", "update", "validatingwebhookconfigurations/larder-webhook")
	may("no", "delete", "validatingwebhookconfigurations/larder-webhook")
	may("no", "list", "validatingwebhookconfigurations")
	may("no", "get", "pods", "-n", "default")
}

// TestTheBundleIsWipedByHand, as by a tool that applies a manifest again: the
// next review fails, and its failure has the bundle restored.
func TestTheBundleIsWipedByHand(t *testing.T) {
	w := enforce(t, 2, rules)
	before, _ := w.registered(t)
	for range 3 {
		w.Do(t, "patch", "validatingwebhookconfiguration", "larder-webhook", "--type=json", "-p",
			`[{"op":"remove","path":"/webhooks/0/clientConfig/caBundle"},{"op":"add","path":"/webhooks/1/clientConfig/caBundle","value":""}]`)
		w.reviewed(t)
		process.Await(t, "the bundle", func(context.Context) error {
			after, _ := w.registered(t)
			for i := range after {
				if string(after[i]) != string(before[i]) {
					return fmt.Errorf("it is %q", after[i])
				}
			}
			return nil
		})
	}
}

// TestTheSecretIsDeleted: what is served stays, a replica that starts says what
// is missing, and an empty Secret is all it takes to go on, without a review
// that fails.
func TestTheSecretIsDeleted(t *testing.T) {
	w := enforce(t, 2, rules)
	first := authorities(t, w.kept(t)["ca.crt"])
	stop := w.load(t)
	w.Do(t, "delete", "secret", "-n", namespace, "larder-webhook-authority")
	r := w.start(t, w.config)
	process.Await(t, "the new replica to say what is missing", func(ctx context.Context) error {
		if err := r.ready(ctx); err == nil || !strings.Contains(err.Error(), `secrets \"larder-webhook-authority\" not found; make it as in docs/admission.md`) {
			return fmt.Errorf("it says %v", err)
		}
		return nil
	})
	for _, old := range w.replicas[:2] {
		if err := old.ready(t.Context()); err != nil {
			t.Error(err)
		}
	}
	w.Do(t, "create", "secret", "generic", "-n", namespace, "larder-webhook-authority")
	process.Await(t, "the new authority to be in force", func(ctx context.Context) error {
		bundles, _ := w.registered(t)
		for _, b := range bundles {
			if names := authorities(t, b); len(names) != 2 || names[0] == first[0] || names[1] != first[0] {
				return fmt.Errorf("the bundle has %v", names)
			}
		}
		for _, r := range w.replicas {
			if err := r.ready(ctx); err != nil {
				return err
			}
			line, ok := r.logged("serving a new certificate")
			if made := len(r.lines("serving a new certificate")); !ok || r != w.replicas[2] && made < 2 {
				return fmt.Errorf("a replica has served %d certificates, %v", made, line)
			}
		}
		return nil
	})
	w.serve(t, w.replicas...)
	w.reviewed(t)
	if stop() < 20 {
		t.Error("there was no load to speak of")
	}
}

// TestTheAuthorityIsReplacedUnderLoad lets authorities last for a minute, sees
// them replaced twice, and stops and starts replicas meanwhile. No review fails.
func TestTheAuthorityIsReplacedUnderLoad(t *testing.T) {
	w := enforce(t, 2, rules+"webhook: {authority_lifetime: 1m, certificate_lifetime: 1m}\n")
	seen := map[string]bool{}
	stop := w.load(t)
	process.Await(t, "three authorities", func(context.Context) error {
		bundles, _ := w.registered(t)
		for _, name := range authorities(t, bundles[0]) {
			seen[name] = true
		}
		if len(seen) == 2 && len(w.replicas) == 2 {
			// In the middle of it, one replica makes room for another.
			w.serve(t, w.replicas[0], w.start(t, w.config))
			w.replicas[1].Stop(t)
		}
		if len(seen) < 3 {
			return fmt.Errorf("there were %d", len(seen))
		}
		return nil
	})
	process.Await(t, "the third to be served", func(ctx context.Context) error {
		bundles, _ := w.registered(t)
		if names := authorities(t, bundles[0]); len(names) != 1 {
			return fmt.Errorf("the bundle has %v", names)
		}
		return errors.Join(w.replicas[0].ready(ctx), w.replicas[2].ready(ctx))
	})
	stop()
	for _, r := range w.replicas {
		for _, line := range r.lines("a client does not trust the webhook's certificate") {
			t.Errorf("a replica said %v", line)
		}
	}
}

// TestARollingUpdate replaces replicas one by one under load, as a Deployment
// does: the new one is ready, the old one is told to stop while it is still
// asked, and then it leaves the Service.
func TestARollingUpdate(t *testing.T) {
	w := enforce(t, 2, rules)
	stop := w.load(t)
	for range 3 {
		fresh, old := w.start(t, w.config), w.replicas[len(w.replicas)-3]
		process.Await(t, "the new replica to be ready", fresh.ready)
		var gone sync.WaitGroup
		gone.Go(func() { old.Stop(t) })
		process.Await(t, "the old replica to say so", func(ctx context.Context) error {
			if old.ready(ctx) == nil {
				return errors.New("it says it is ready")
			}
			return nil
		})
		n := len(w.replicas)
		w.balancer.to(w.replicas[n-2].addr, w.replicas[n-1].addr)
		gone.Wait()
	}
	stop()
}
