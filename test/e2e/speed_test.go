//go:build bench

package e2e

import (
	"context"
	"flag"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/larder-registry/larder/test/registry"
)

var repsFlag = flag.Int("reps", 3, "repetitions of what is measured")

// TestColdPullByCRI has containerd 2 pull an image of 5 layers of 100 MiB as the
// kubelet has it done, unpacking included, from an upstream 20 ms away that caps
// every connection at 50 MB/s: directly, and through a mirror that has nothing of
// it. The median of the ratios has to be at most 0.6. It is built by make
// bench-cri only, since it measures time.
func TestColdPullByCRI(t *testing.T) {
	const limit = 0.6
	var ratios []float64
	for rep := range *repsFlag {
		t.Run(fmt.Sprint(rep+1), func(t *testing.T) {
			up := registry.Start(t, registry.Options{})
			var layers []registry.Layer
			for i := range uint64(5) {
				layers = append(layers, registry.NewLayer(uint64(rep)<<8|i, 100<<20))
			}
			own := up.AddImage(repo, tag, layers...)
			img := imageOf(own)
			up.Shape(20*time.Millisecond, 50e6)
			took := map[string]time.Duration{}
			names := []string{"direct", "mirror"}
			if rep%2 == 1 {
				slices.Reverse(names)
			}
			for _, name := range names {
				took[name] = pullByCRI(t, up, own, img, name)
			}
			ratio := took["mirror"].Seconds() / took["direct"].Seconds()
			t.Logf("direct %.2f s, through the mirror %.2f s: %.3f", took["direct"].Seconds(), took["mirror"].Seconds(), ratio)
			ratios = append(ratios, ratio)
		})
	}
	slices.Sort(ratios)
	if len(ratios) == 0 {
		t.Fatal("nothing was measured")
	}
	median := ratios[len(ratios)/2]
	t.Logf("median %.3f (%.3f–%.3f), bar %.1f", median, ratios[0], ratios[len(ratios)-1], limit)
	if median > limit {
		t.Errorf("a cold pull through the mirror takes %.3f of a direct one, want at most %.1f", median, limit)
	}
}

// pullByCRI pulls with a containerd of its own, whose host is the upstream itself
// or a mirror of it, and reports how long that took.
func pullByCRI(t *testing.T, up *registry.Server, own registry.Image, img image, name string) time.Duration {
	to := target{upstream: up.Host(), mirror: up.Host(), repo: repo, tag: tag}
	var m *mirror
	if name == "mirror" {
		m = startMirror(t, up.Host())
		to.mirror = m.addr
	}
	var took time.Duration
	t.Run(name, func(t *testing.T) {
		n := containerd{name: "containerd-2-cri", byCRI: true, overlay: true}.fresh(t, to)
		up.Forget()
		ctx, cancel := context.WithTimeout(t.Context(), pullPatience)
		defer cancel()
		begin := time.Now()
		if err := n.pull(ctx); err != nil {
			t.Fatal(err)
		}
		took = time.Since(begin)
		n.check(t, img)
		var sent int64
		var asked int
		for _, r := range up.Requests() {
			asked++
			if r.Kind == registry.Blobs {
				sent += r.Sent
				if byMirror(r) != (m != nil) {
					t.Errorf("%s was asked for by %q", r.Path, r.Header.Get("User-Agent"))
				}
			}
		}
		t.Logf("%.2f s, %d upstream requests, %d MiB%s", took.Seconds(), asked, sent>>20, peakOf(t, m))
	})
	return took
}

// peakOf says how much memory a mirror has taken at most.
func peakOf(t *testing.T, m *mirror) string {
	if m == nil {
		return ""
	}
	peak, err := m.Peak()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf(", peak memory %d KiB", peak>>10)
}
