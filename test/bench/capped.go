package main

import (
	"context"
	"fmt"
)

// capped pulls large images nobody has from an upstream that caps every
// connection, as registries and object stores do: with more connections than
// containerd's three a mirror can be faster than no mirror.
func (b *bench) capped(ctx context.Context) error {
	if _, err := b.up.tell(ctx, order{Shape: true, Latency: latency, Rate: 50e6}); err != nil {
		return err
	}
	for _, m := range []struct {
		what  string
		mib   []int64
		limit float64
	}{
		{"cold pull, 5 layers of 100 MiB, upstream 20 ms away with 50 MB/s a connection: time", []int64{100, 100, 100, 100, 100}, 0.4},
		{"cold pull, one layer of 1 GiB, the same: time", []int64{1024}, 0.2},
	} {
		if err := b.restartLarder(ctx, true); err != nil {
			return err
		}
		total := &row{what: m.what, unit: "s", ref: direct, how: ratioAtMost, limit: m.limit}
		sent := &row{what: "… bytes the upstream sent, in images", how: atMost, limit: 1, worst: true}
		for rep := range b.reps {
			img, err := b.up.add(ctx, m.mib...)
			if err != nil {
				return err
			}
			for _, c := range b.turns(rep, direct, larder) {
				var p pulled
				spent, err := b.metered(ctx, c, func() (_ int64, err error) {
					p, err = b.pull(ctx, c, img, 1, false)
					return img.Size, err
				})
				if err != nil {
					return err
				}
				total.add(c.name, p.Took.Seconds())
				total.spend(c, spent)
				if c.name == larder {
					sent.add(larder, float64(spent.fetched)/float64(img.Size))
				}
				b.say("%s, %d of %d, %s: %.3f s", fmt.Sprint(m.mib), rep+1, b.reps, c.name, p.Took.Seconds())
			}
		}
		b.table.rows = append(b.table.rows, total, sent, peakRow("… peak memory", 64, total))
	}
	return nil
}
