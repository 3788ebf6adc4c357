package main

import (
	"context"
	"fmt"
	"strings"
)

// growth measures how the cost of a cold pull grows with its clients, its layers
// and their size, from an upstream without a cap: a table of its own, without
// bars. Every pull is of an image that nobody has, and each is measured once, or
// reps times where it is small. The largest, a layer of 10 GiB, takes as much room
// on disk, which is given back right after.
func (b *bench) growth(ctx context.Context) error {
	if _, err := b.up.tell(ctx, order{Shape: true, Latency: latency}); err != nil {
		return err
	}
	type work struct {
		what    string
		clients int
		sizes   []int64
	}
	var all []work
	for _, n := range []int{1, 4, 16, 64} {
		all = append(all, work{fmt.Sprintf("%d clients, 3 layers of 16 MiB", n), n, []int64{16 << 20, 16 << 20, 16 << 20}})
	}
	for _, n := range []int{1, 8, 64} {
		sizes := make([]int64, n)
		for i := range sizes {
			sizes[i] = 128 << 20 / int64(n)
		}
		all = append(all, work{fmt.Sprintf("128 MiB in %d layers", n), 1, sizes})
	}
	for _, mib := range []int64{1, 10, 100, 1 << 10, 10 << 10} {
		all = append(all, work{fmt.Sprintf("one layer of %d MiB", mib), 1, []int64{mib << 20}})
	}
	var s strings.Builder
	s.WriteString("| cold pull, upstream 20 ms away | time | MiB/s to clients | CPU s/GiB | upstream requests | upstream, in images | peak MiB |\n|---|--:|--:|--:|--:|--:|--:|\n")
	for _, w := range all {
		if err := b.restartLarder(ctx, true); err != nil {
			return err
		}
		reps := b.reps
		if len(w.sizes) == 1 && w.sizes[0] >= 1<<30 {
			reps = 1
		}
		var took []float64
		var size int64
		r := &row{}
		for range reps {
			img, err := b.up.addSizes(ctx, w.sizes)
			if err != nil {
				return err
			}
			size = img.Size
			var p pulled
			spent, err := b.metered(ctx, b.turns(0, larder)[0], func() (_ int64, err error) {
				p, err = b.pull(ctx, b.turns(0, larder)[0], img, w.clients, w.clients > 1)
				return int64(w.clients) * img.Size, err
			})
			if err != nil {
				return err
			}
			took = append(took, p.Took.Seconds())
			r.costs = append(r.costs, spent)
			b.say("%s: %.3f s", w.what, p.Took.Seconds())
		}
		spent := r.spent()
		fetched := make([]float64, len(r.costs))
		for i, c := range r.costs {
			fetched[i] = float64(c.fetched) / float64(size)
		}
		fmt.Fprintf(&s, "| %s | %.3g s | %.0f | %s | %s | %.3g | %s |\n", w.what, median(took),
			float64(int64(w.clients)*size)/(1<<20)/median(took), spent[0], spent[1], median(fetched), spent[3])
	}
	b.extra = append(b.extra, s.String())
	return nil
}
