package main

import (
	"context"
	"strings"
)

// small pulls an image of many small layers nobody has: what each costs beside
// its bytes.
func (b *bench) small(ctx context.Context) error {
	if _, err := b.up.tell(ctx, order{Shape: true, Latency: latency}); err != nil {
		return err
	}
	if err := b.restartLarder(ctx, true); err != nil {
		return err
	}
	total := &row{what: "cold pull, 1,000 layers of 10 KiB, upstream 20 ms away: time", unit: "s", ref: direct, how: ratioAtMost, limit: 1.2}
	sizes := make([]int64, 1000)
	for i := range sizes {
		sizes[i] = 10 << 10
	}
	for rep := range b.reps {
		img, err := b.up.addSizes(ctx, sizes)
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
			b.say("1,000 layers, %d of %d, %s: %.3f s", rep+1, b.reps, c.name, p.Took.Seconds())
		}
	}
	b.table.rows = append(b.table.rows, total, peakRow("… peak memory", 64, total))
	return nil
}

// crowd has 500 clients pull 100 images nobody has, five each, all at once. Every
// pull has to succeed: one that fails ends the measurement. Their 1,500
// connections cost about 25 KiB each on the mirror's side, whatever they carry;
// hence the bar for memory.
func (b *bench) crowd(ctx context.Context) error {
	const images, each = 100, 5
	if _, err := b.up.tell(ctx, order{Shape: true, Latency: latency}); err != nil {
		return err
	}
	total := &row{what: "500 clients at once, cold, 100 images of 4 MiB: time, against the same directly", unit: "s", ref: direct, how: ratio}
	sent := &row{what: "… bytes the upstream sent, in images", how: atMost, limit: 1, worst: true}
	for rep := range b.reps {
		if err := b.restartLarder(ctx, true); err != nil {
			return err
		}
		var all []image
		var tags []string
		var size int64
		for range images {
			img, err := b.up.add(ctx, 2, 1, 1)
			if err != nil {
				return err
			}
			all, tags, size = append(all, img), append(tags, img.tag), size+img.Size
		}
		crowd := image{repo: all[0].repo, tag: strings.Join(tags, ",")}
		for _, c := range b.turns(rep, direct, larder) {
			var p pulled
			spent, err := b.metered(ctx, c, func() (_ int64, err error) {
				p, err = b.pull(ctx, c, crowd, each, true)
				return each * size, err
			})
			if err != nil {
				return err
			}
			total.add(c.name, p.Took.Seconds())
			total.spend(c, spent)
			b.say("500 clients, %d of %d, %s: %.3f s", rep+1, b.reps, c.name, p.Took.Seconds())
			if c.name == larder {
				sent.add(larder, float64(spent.fetched)/float64(size))
			}
		}
	}
	b.table.rows = append(b.table.rows, total, sent, peakRow("… peak memory", 96, total))
	return nil
}
