package status

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/internal/status"
)

// now is when the documents below were true.
func now() time.Time { return time.Date(2026, 3, 14, 15, 9, 26, 0, time.UTC) }

func ago(d time.Duration) time.Time { return now().Add(-d) }

func dgst(s string) string { return digest.FromString(s).String() }

// empty is a node that has just been started.
func empty() *status.Document {
	return &status.Document{
		Schema: status.Schema, Mode: "mirror", Version: "v0.1.0", Host: "ip-10-0-41-7", At: now(), Started: ago(12 * time.Second), Ready: true, Names: true,
		Checks:  []status.Check{{Name: "running"}, {Name: "keeping content", Advisory: true}},
		Disk:    &status.Disk{Limit: 50 << 30, Free: 61 << 30, Total: 80 << 30, MinFree: 20 << 30},
		Traffic: status.First([]status.Traffic{}, 10), Fills: status.First([]status.Fill{}, 10), Upstreams: status.First([]status.Upstream{}, 10),
		Images: &status.List[status.Image]{Items: []status.Image{}, At: now()}, Errors: &status.List[status.Event]{Items: []status.Event{}},
		History: &status.Series{Every: 300, Until: now(), Counts: map[string][]int64{"requests": {0}, "hits": {0}, "saved": {0}, "passed": {0}}},
	}
}

// busy is a node with everything going on.
func busy() *status.Document {
	d := empty()
	d.Started = ago(9 * 24 * time.Hour)
	d.Checks[1].Problem = ""
	d.Disk = &status.Disk{
		Bytes: 38 << 30, Arriving: 1200 << 20, Limit: 50 << 30, Blobs: 2187, Free: 34 << 30, Total: 80 << 30, MinFree: 20 << 30,
		Evictions: map[string]uint64{"size": 412, "manifest": 57},
	}
	d.Traffic = status.First([]status.Traffic{
		{Registry: "docker.io", Requests: 48211, Hits: 46730, Misses: 12, Saved: 412 << 30, Passed: 21 << 30, Fetched: 22 << 30, Stale: 84},
		{Registry: "123456789012.dkr.ecr.eu-central-1.amazonaws.com", Requests: 20877, Hits: 19011, Saved: 201 << 30, Passed: 33 << 30, Fetched: 33 << 30, Denied: 3},
		{Registry: "ghcr.io", Requests: 5120, Hits: 5001, Saved: 40 << 30, Passed: 1 << 30, Fetched: 1 << 30},
		{Registry: "registry.k8s.io", Requests: 902, Hits: 899, Saved: 3 << 30, Passed: 90 << 20, Fetched: 90 << 20},
	}, 50)
	d.Fills = status.First([]status.Fill{
		{Registry: "docker.io", Repository: "pytorch/pytorch", Digest: dgst("a"), Size: 3400 << 20, Bytes: 1428 << 20, Rate: 212 << 20, Began: ago(7 * time.Second), Followers: 3, Streams: 8},
		{Registry: "ghcr.io", Repository: "acme/checkout-service", Digest: dgst("b"), Size: 87 << 20, Bytes: 80 << 20, Rate: 41 << 20, Began: ago(2 * time.Second), Followers: 1, Streams: 1, Private: true},
		{Registry: "docker.io", Repository: "library/postgres", Digest: dgst("c"), Size: 31 << 20, Bytes: 512 << 10, Followers: 0, Streams: 1, Ahead: true},
		{Registry: "quay.io", Repository: "prometheus/node-exporter", Digest: dgst("d"), Size: -1, Followers: 1},
	}, 50)
	left := int64(87)
	d.Upstreams = status.First([]status.Upstream{
		{Endpoint: "https://quay.io", Registry: "quay.io", Breaker: "open", Failures: 5, Until: now().Add(23 * time.Second), Error: "quay.io: the upstream answers 503 Service Unavailable", Reason: "status", ErrorAt: ago(40 * time.Second)},
		{Endpoint: "https://registry-1.docker.io", Registry: "docker.io", Breaker: "closed", Remaining: &left, QuietUntil: now().Add(4 * time.Minute), Error: "registry-1.docker.io: too many requests", Reason: "ratelimit", ErrorAt: ago(11 * time.Minute)},
		{Endpoint: "https://ghcr.io", Registry: "ghcr.io", Breaker: "closed"},
		{Endpoint: "https://123456789012.dkr.ecr.eu-central-1.amazonaws.com", Registry: "123456789012.dkr.ecr.eu-central-1.amazonaws.com", Breaker: "closed"},
	}, 50)
	images := []status.Image{
		{Registry: "docker.io", Repository: "library/nginx", Tag: "1.29.1", Digest: dgst("1"), Kind: "index", Platforms: []string{"linux/arm64/v8"}, Listed: 8, Size: 71 << 20, Used: ago(20 * time.Second), Pinned: true},
		{Registry: "registry.k8s.io", Repository: "pause", Tag: "3.10", Digest: dgst("2"), Kind: "index", Platforms: []string{"linux/arm64"}, Listed: 7, Size: 268 << 10, Used: ago(70 * time.Second), Pinned: true, Warm: true},
		{Registry: "123456789012.dkr.ecr.eu-central-1.amazonaws.com", Repository: "checkout/service", Tag: "2026-03-14-9f2c1ab", Digest: dgst("3"), Kind: "image", Platforms: []string{"linux/arm64"}, Listed: 1, Size: 188 << 20, Used: ago(3 * time.Minute), Private: true},
		{Registry: "docker.io", Repository: "pytorch/pytorch", Tag: "2.9.0-cuda13.0-cudnn9-runtime", Digest: dgst("4"), Kind: "index", Platforms: []string{"linux/amd64"}, Listed: 1, Size: 4100 << 20, Used: ago(4 * time.Minute), Partial: true},
		{Registry: "quay.io", Repository: "prometheus/node-exporter", Digest: dgst("5"), Kind: "index", Platforms: []string{"linux/arm64"}, Listed: 5, Size: 12 << 20, Used: ago(2 * time.Hour)},
		{Registry: "ghcr.io", Repository: "acme/checkout-service", Tag: "sha256-0a1b2c.sig", Digest: dgst("6"), Kind: "application/vnd.dev.cosign.artifact.sig.v1+json", Size: 3 << 10, Used: ago(6 * time.Hour), Private: true},
		{Registry: "docker.io", Repository: "library/redis", Tag: "8", Digest: dgst("7"), Kind: "index", Platforms: []string{"linux/amd64", "linux/arm64/v8"}, Listed: 8, Size: 96 << 20, Used: ago(31 * time.Hour)},
		{Registry: "docker.io", Repository: "library/postgres", Tag: "18.1", Digest: dgst("8"), Kind: "index", Platforms: []string{"linux/arm64/v8"}, Listed: 9, Size: 160 << 20, Used: ago(8 * 24 * time.Hour)},
	}
	d.Images = &status.List[status.Image]{Total: 143, Bytes: 37 << 30, At: now(), Items: images}
	d.Errors = &status.List[status.Event]{Total: 9, Items: []status.Event{
		{At: ago(40 * time.Second), Level: "warning", Message: "upstream fails, leaving it alone", Subject: "https://quay.io", Count: 1},
		{At: ago(44 * time.Second), Level: "warning", Message: "GET manifest answered with 503", Error: "quay.io: failed too often just now", Subject: "quay.io/prometheus/node-exporter:v1.9.1 breaker", Count: 7},
		{At: ago(26 * time.Hour), Level: "error", Message: "blob cannot be read from disk any more and is dropped", Error: "read /var/lib/larder/blobs/sha256/ab/abcd: input/output error", Subject: dgst("9"), Count: 1},
	}}
	d.History = history(288, map[string]float64{})
	return d
}

// history is a day of made-up traffic: little at night.
func history(n int, _ map[string]float64) *status.Series {
	r := rand.New(rand.NewPCG(1, 2))
	s := &status.Series{Every: 300, Until: now(), Counts: map[string][]int64{}}
	for i := range n {
		day := 0.15 + 0.85*max(0, 1-abs(float64(i-180))/120)
		requests := int64(day * (80 + 160*r.Float64()))
		if i > 60 && i < 75 {
			requests = 0
		}
		hits := int64(float64(requests) * (0.8 + 0.2*r.Float64()))
		saved := requests * (6 << 20)
		passed := (requests - hits) * (9 << 20)
		if i%47 == 0 {
			passed += int64(r.Float64() * (4 << 30))
		}
		for name, v := range map[string]int64{"requests": requests, "hits": hits, "saved": saved, "passed": passed} {
			s.Counts[name] = append(s.Counts[name], v)
		}
	}
	return s
}

func abs(x float64) float64 { return max(x, -x) }

// many are 10,000 images.
func many() []status.Image {
	images := make([]status.Image, 10_000)
	for i := range images {
		images[i] = status.Image{
			Registry: "registry.example.com", Repository: fmt.Sprintf("team-%02d/service-%03d", i%40, i%500), Tag: fmt.Sprintf("v1.%d.%d", i/500, i%7),
			Digest: dgst(fmt.Sprint(i)), Kind: "index", Platforms: []string{"linux/arm64"}, Listed: 2, Size: int64(i%900+1) << 20, Used: ago(time.Duration(i) * time.Minute),
		}
	}
	return images
}

// hostile is in every place where somebody else's text may come to stand.
const hostile = `"><script>window.stolen=1</script><img src=x onerror=window.stolen=1> ' onload=window.stolen=1 ` + "\u202egnp.exe\u202c" + ` </style></title> <!-- ]]> {{.}} %s%n שלום مرحبا`

// attacked is a node all of whose texts are hostile, and long.
func attacked() *status.Document {
	d := busy()
	long := hostile + strings.Repeat("a-very-long-name-without-an-end", 12)
	d.Host, d.Version = hostile, hostile
	d.Ready = false
	d.Checks = []status.Check{{Name: hostile, Problem: long}, {Name: "keeping content", Problem: "limit \"free\" is exceeded by 12 bytes", Advisory: true}}
	d.Disk.Problem = long
	d.Disk.Evictions = map[string]uint64{hostile: 3}
	for i := range d.Traffic.Items {
		d.Traffic.Items[i].Registry = long
	}
	for i := range d.Fills.Items {
		f := &d.Fills.Items[i]
		f.Registry, f.Repository, f.Digest = long, long, long
	}
	for i := range d.Upstreams.Items {
		u := &d.Upstreams.Items[i]
		u.Endpoint, u.Registry, u.Error, u.Reason = long, long, long, long
	}
	for i := range d.Images.Items {
		m := &d.Images.Items[i]
		m.Registry, m.Repository, m.Tag, m.Digest, m.Kind, m.Platforms = long, long, long, long, long, []string{long, hostile}
	}
	for i := range d.Errors.Items {
		e := &d.Errors.Items[i]
		e.Level, e.Message, e.Error, e.Subject = hostile, long, long, long
	}
	c := central()
	for i := range c.Reviews.Denied {
		v := &c.Reviews.Denied[i]
		v.Namespace, v.Object, v.Operation, v.Decision, v.Mode, v.Image, v.Rule = long, long, hostile, hostile, hostile, long, long
	}
	c.Reviews.Revision, c.Reviews.Counts = hostile, map[string]int64{hostile: 1}
	for i := range c.Repositories.Items {
		c.Repositories.Items[i].Name = long
	}
	d.Reviews, d.Repositories = c.Reviews, c.Repositories
	return d
}

// central is a registry with a webhook.
func central() *status.Document {
	d := empty()
	d.Mode, d.Host, d.Started = "central", "larder-central-0", ago(40*24*time.Hour)
	d.Disk = &status.Disk{Bytes: 212 << 30, Blobs: 18044, Free: 180 << 30, Total: 400 << 30, MinFree: 20 << 30}
	d.Fills, d.Upstreams = nil, nil
	d.Traffic = status.First([]status.Traffic{{Registry: "none", Requests: 120443, Hits: 120443, Saved: 801 << 30}}, 10)
	d.Repositories = &status.List[status.Repository]{Total: 3, Bytes: 90 << 30, Items: []status.Repository{
		{Name: "team-a/checkout", Size: 60 << 30, Tags: 412, Manifests: 1290, Referrers: 380, Pushed: ago(8 * time.Minute), Private: true},
		{Name: "team-b/search", Size: 22 << 30, Tags: 97, Manifests: 201, Pushed: ago(5 * time.Hour), Private: true},
		{Name: "base/distroless", Size: 8 << 30, Tags: 12, Manifests: 40, Referrers: 24, Pushed: ago(9 * 24 * time.Hour)},
	}}
	d.Images = &status.List[status.Image]{Total: 521, At: ago(30 * time.Second), Items: []status.Image{
		{Repository: "team-a/checkout", Tag: "v4.12.0", Digest: dgst("x"), Kind: "index", Platforms: []string{"linux/amd64", "linux/arm64"}, Listed: 2, Size: 410 << 20, Pushed: ago(8 * time.Minute), Private: true, Referrers: 3},
		{Repository: "team-b/search", Tag: "main", Digest: dgst("y"), Kind: "image", Platforms: []string{"linux/amd64"}, Listed: 1, Size: 220 << 20, Pushed: ago(5 * time.Hour), Private: true, Referrers: 1},
		{Repository: "base/distroless", Tag: "nonroot", Digest: dgst("z"), Kind: "index", Platforms: []string{"linux/amd64", "linux/arm64"}, Listed: 2, Size: 21 << 20, Pushed: ago(9 * 24 * time.Hour)},
	}}
	d.Reviews = &status.Reviews{
		Counts: map[string]int64{"allowed": 18211, "denied": 41, "would_deny": 120, "skipped": 902}, Revision: "5d2f8a91",
		Denied: []status.Verdict{
			{At: ago(2 * time.Minute), Namespace: "team-c", Object: "ReplicaSet/web-7d9f", Operation: "CREATE", Resource: "pods", Decision: "denied", Mode: "enforce", Image: "docker.io/library/nginx:latest", Images: 2, Rule: "image_validation.default: Deny"},
			{At: ago(50 * time.Minute), Namespace: "batch", Object: "Job/nightly", Operation: "CREATE", Resource: "jobs", Decision: "would_deny", Mode: "warn", Image: "quay.io/someone/tool:1", Images: 1, Rule: "image_validation.deny[2]", DryRun: true},
		},
		Allowed: []status.Verdict{{At: ago(10 * time.Second), Namespace: "team-a", Object: "Pod", Operation: "CREATE", Resource: "pods", Decision: "allowed"}},
	}
	h := history(288, nil)
	d.History = &status.Series{Every: 300, Until: now(), Counts: map[string][]int64{"served": h.Counts["saved"], "received": h.Counts["passed"], "reviews": h.Counts["requests"], "denied": sparse(h.Counts["requests"])}}
	return d
}

func sparse(of []int64) []int64 {
	list := make([]int64, len(of))
	for i := range list {
		if i%13 == 0 {
			list[i] = of[i] / 8
		}
	}
	return list
}
