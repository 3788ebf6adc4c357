package admission_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/larder-registry/larder/central/admission"
)

// With -load 60s, TestLoad measures the binary that -larder names, a process of
// its own as in a cluster, and holds it to the bounds below. Without, it only
// sees that a server under TLS answers what is asked at the same time.
var (
	loadFlag   = flag.Duration("load", 0, "measure the webhook for so long, and hold it to its bounds")
	larderFlag = flag.String("larder", "../../bin/larder", "the binary to measure")
	tickFlag   = flag.Duration("burst", 0, "send what is due in bursts, so far apart; 0: each review by itself, at random")
)

// The bounds, on a machine that has two cores for server and clients together.
const (
	loadRate   = 2000 // reviews a second
	loadP99    = time.Millisecond
	loadGrowth = 16 << 20 // bytes of resident memory, over the whole time
	// loadClients is how many reviews are under way at most; what is due
	// beyond that waits, and its wait is counted.
	loadClients = 64
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
	if *loadFlag > 0 {
		measure(t, *loadFlag)
		return
	}
	w := start(t, rules(t, ""))
	server := httptest.NewUnstartedServer(w)
	server.TLS = &tls.Config{NextProtos: []string{"http/1.1"}, MinVersion: tls.VersionTLS12}
	server.StartTLS()
	defer server.Close()
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	clients := newLoad(server.URL, roots)
	defer clients.client.CloseIdleConnections()
	if took := clients.send(t, 200, 500*time.Millisecond); len(took) == 0 {
		t.Error("nothing was sent")
	}
}

// load is many clients of one webhook.
type load struct {
	url     string
	client  *http.Client
	reviews [][]byte
	random  *rand.Rand
}

func newLoad(url string, roots *x509.CertPool) *load {
	return &load{
		url: url + admission.Path,
		client: &http.Client{Transport: &http.Transport{
			TLSClientConfig:     &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
			MaxIdleConnsPerHost: loadClients,
		}},
		reviews: [][]byte{
			[]byte(typicalPod("ghcr.io/org/app:1")), []byte(typicalPod("nginx")),
			[]byte(typicalPod("ghcr.io/org/other@sha256:" + strings.Repeat("a", 64))),
		},
		random: rand.New(rand.NewPCG(1, 2)),
	}
}

// ask sends one review, which has to be let through.
func (l *load) ask(ctx context.Context, body []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, l.url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := l.client.Do(req)
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

// send sends rate reviews a second whether or not they are answered, and returns
// how long each took from when it was due, sorted. They come as those of many
// who know nothing of each other: with exponentially distributed pauses.
func (l *load) send(t *testing.T, rate int, span time.Duration) []time.Duration {
	t.Helper()
	type job struct {
		body []byte
		due  time.Time
	}
	var (
		mu      sync.Mutex
		took    []time.Duration
		clients sync.WaitGroup
	)
	work := make(chan job, rate)
	for range loadClients {
		clients.Go(func() { // ends when work is closed
			for j := range work {
				if err := l.ask(t.Context(), j.body); err != nil {
					t.Error(err)
				}
				d := time.Since(j.due)
				mu.Lock()
				took = append(took, d)
				mu.Unlock()
			}
		})
	}
	began := time.Now()
	sent := 0
	for due := began; due.Sub(began) < span; sent++ {
		at := due
		if *tickFlag > 0 {
			at = began.Add((due.Sub(began) / *tickFlag + 1) * *tickFlag)
		}
		nap(time.Until(at))
		work <- job{l.reviews[sent%len(l.reviews)], at}
		due = due.Add(time.Duration(l.random.ExpFloat64() * float64(time.Second) / float64(rate)))
	}
	close(work)
	clients.Wait()
	if len(took) != sent {
		t.Errorf("%d reviews were sent and %d answered", sent, len(took))
	}
	slices.Sort(took)
	return took
}

// nap waits by the kernel's clock. The runtime's timers may be a millisecond
// late, and reviews would come in bursts.
func nap(d time.Duration) {
	if d > 0 {
		ts := syscall.NsecToTimespec(int64(d))
		_ = syscall.Nanosleep(&ts, nil) // a signal ends it early: that is no matter
	}
}

// histogram is the time inside the handler, as the webhook itself counts it:
// by upper bound, how many took no longer.
type histogram map[float64]float64

// readHistogram reads it from the admin port.
func readHistogram(t *testing.T, admin string) histogram {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+admin+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	h := histogram{}
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		rest, ok := strings.CutPrefix(lines.Text(), `larder_admission_review_duration_seconds_bucket{le="`)
		if !ok {
			continue
		}
		bound, count, _ := strings.Cut(rest, `"} `)
		le, err := strconv.ParseFloat(bound, 64)
		if err != nil {
			t.Fatal(err)
		}
		if h[le], err = strconv.ParseFloat(count, 64); err != nil {
			t.Fatal(err)
		}
	}
	return h
}

// since is what was added after before.
func (h histogram) since(before histogram) histogram {
	d := histogram{}
	for le, n := range h {
		d[le] = n - before[le]
	}
	return d
}

// within is the share of reviews that took no longer than d, which is one of the
// bounds.
func (h histogram) within(d time.Duration) float64 {
	all := 0.0
	for _, n := range h {
		all = max(all, n)
	}
	return h[d.Seconds()] / all
}

// String shows the shares.
func (h histogram) String() string {
	var parts []string
	for _, us := range []int{50, 100, 250, 500, 1000, 2500, 5000, 10000} {
		d := time.Duration(us) * time.Microsecond
		parts = append(parts, fmt.Sprintf("%s %.2f %%", d, 100*h.within(d)))
	}
	return strings.Join(parts, ", ")
}

// BenchmarkReview is what one review of that size costs, without a network.
func BenchmarkReview(b *testing.B) {
	w, body := start(b, rules(b, "")), typicalPod("nginx")
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		if rec := w.post(body); rec.Code != http.StatusOK {
			b.Fatal(rec.Code, rec.Body)
		}
	}
}
