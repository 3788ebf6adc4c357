package admission_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/larder-registry/larder/central/admission"
)

// With -load 60s, TestLoad is a measurement with bounds; without, it only sees
// that a server under TLS answers what is asked at the same time.
var loadFlag = flag.Duration("load", 0, "measure the webhook for so long, and hold it to its bounds")

// The bounds, on a machine that has two cores for server and clients together.
const (
	loadRate   = 2000 // reviews a second
	loadP99    = time.Millisecond
	loadGrowth = 16 << 20 // bytes of heap, over the whole time
)

// typicalPod is a review of the size API servers send: a pod with defaults,
// managed fields and a mounted token, some 5 KB.
func typicalPod(image string) string {
	env := l{}
	for i := range 20 {
		env = append(env, m{"name": fmt.Sprintf("VARIABLE_%d", i), "value": strings.Repeat("v", 20)})
	}
	container := func(name, image string) m {
		return m{
			"name": name, "image": image, "env": env, "imagePullPolicy": "IfNotPresent", "terminationMessagePath": "/dev/termination-log",
			"resources":    m{"requests": m{"cpu": "100m", "memory": "128Mi"}},
			"volumeMounts": l{m{"name": "kube-api-access", "readOnly": true, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}},
		}
	}
	a := pod(m{
		"containers":     l{container("app", image), container("proxy", "ghcr.io/org/proxy:2")},
		"initContainers": l{container("init", "busybox")},
		"volumes":        l{m{"name": "kube-api-access", "projected": m{"sources": l{m{"serviceAccountToken": m{"expirationSeconds": 3607, "path": "token"}}}}}},
		"restartPolicy":  "Always", "serviceAccountName": "default", "schedulerName": "default-scheduler",
	})
	return a.String()
}

func TestLoad(t *testing.T) {
	span, rate := *loadFlag, loadRate
	if span == 0 {
		span, rate = 500*time.Millisecond, 200
	}
	var (
		mu   sync.Mutex
		took []time.Duration
	)
	w := start(t, rules(t, ""))
	w.logged.Reset()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		began := time.Now()
		w.ServeHTTP(rw, r)
		d := time.Since(began)
		mu.Lock()
		took = append(took, d)
		mu.Unlock()
	}))
	server.TLS = &tls.Config{NextProtos: []string{"http/1.1"}, MinVersion: tls.VersionTLS12}
	server.StartTLS()
	defer server.Close()
	client := server.Client()
	client.Transport.(*http.Transport).MaxIdleConnsPerHost = 64 //nolint:errcheck // httptest says so
	reviews := [][]byte{[]byte(typicalPod("ghcr.io/org/app:1")), []byte(typicalPod("nginx")), []byte(typicalPod("ghcr.io/org/other@sha256:" + strings.Repeat("a", 64)))}
	t.Logf("%d bytes a review, %d reviews a second", len(reviews[0]), rate)

	ask := func(ctx context.Context, body []byte) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, server.URL+admission.Path, bytes.NewReader(body))
		if err != nil {
			return err
		}
		req.Header.Set("Content-Type", "application/json")
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		answer, err := io.ReadAll(resp.Body)
		if err == nil && !bytes.Contains(answer, []byte(`"allowed":true`)) {
			err = fmt.Errorf("answered %s", answer)
		}
		return err
	}
	work := make(chan []byte, rate) // what is late waits here, and shows
	var clients sync.WaitGroup
	for range 16 {
		clients.Go(func() { // ends when work is closed
			for body := range work {
				if err := ask(t.Context(), body); err != nil {
					t.Error(err)
				}
			}
		})
	}
	heap := func() uint64 {
		runtime.GC()
		var s runtime.MemStats
		runtime.ReadMemStats(&s)
		return s.HeapAlloc
	}
	sent := 0
	send := func(span time.Duration) {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		began, before := time.Now(), sent
		for now := began; now.Sub(began) < span; now = <-tick.C {
			for due := before + int(now.Sub(began).Seconds()*float64(rate)); sent < due; sent++ {
				work <- reviews[sent%len(reviews)]
			}
		}
	}
	send(span / 5)
	mu.Lock()
	took = slices.Grow(took, int(2*span.Seconds()*float64(rate)))
	warm := len(took)
	mu.Unlock()
	low := heap()
	send(span)
	high := heap()
	close(work)
	clients.Wait()

	mu.Lock()
	defer mu.Unlock()
	if len(took) != sent {
		t.Errorf("%d reviews were sent and %d answered", sent, len(took))
	}
	if *loadFlag == 0 {
		return
	}
	took = took[warm:]
	slices.Sort(took)
	at := func(q float64) time.Duration { return took[int(q*float64(len(took)-1))] }
	t.Logf("%d reviews in %s: p50 %s, p99 %s, p99.9 %s, most %s; heap %d KiB, then %d KiB", len(took), span, at(.5), at(.99), at(.999), at(1), low>>10, high>>10)
	if got := float64(len(took)) / span.Seconds(); got < loadRate*0.95 {
		t.Errorf("%.0f reviews a second, want %d", got, loadRate)
	}
	if at(.99) > loadP99 {
		t.Errorf("p99 is %s, want at most %s", at(.99), loadP99)
	}
	if high > low+loadGrowth {
		t.Errorf("the heap grew from %d to %d bytes", low, high)
	}
}

func BenchmarkReview(b *testing.B) {
	big := l{}
	for i := range 500 {
		big = append(big, m{"name": fmt.Sprintf("c-%d", i), "image": fmt.Sprintf("ghcr.io/org/app-%d:1", i)})
	}
	bad := l{}
	for i := range 500 {
		bad = append(bad, m{"name": fmt.Sprintf("c-%d", i), "image": fmt.Sprintf("quay.io/org/app-%d:1", i)})
	}
	huge := pod(m{"containers": containers("nginx")})
	huge.object.(m)["metadata"] = m{"annotations": m{"a": strings.Repeat("0123456789", 3<<20/10)}}
	update := pod(m{"containers": big})
	update.op, update.old = "UPDATE", update.object
	for _, c := range []struct{ name, body string }{
		{"typical", typicalPod("nginx")},
		{"denied", typicalPod("quay.io/x")},
		{"500 containers", pod(m{"containers": big}).String()},
		{"500 containers denied", pod(m{"containers": bad}).String()},
		{"500 containers updated", update.String()},
		{"3 MiB", huge.String()},
	} {
		b.Run(c.name, func(b *testing.B) {
			w := start(b, rules(b, ""))
			b.SetBytes(int64(len(c.body)))
			b.ReportAllocs()
			for b.Loop() {
				if rec := w.post(c.body); rec.Code != http.StatusOK {
					b.Fatal(rec.Code, rec.Body)
				}
				w.logged.Reset()
			}
		})
	}
}
