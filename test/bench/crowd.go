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
			p, err := b.pull(ctx, c, img, 1, false)
			if err != nil {
				return err
			}
			total.add(c.name, p.Took.Seconds())
			b.say("1,000 layers, %d of %d, %s: %.3f s", rep+1, b.reps, c.name, p.Took.Seconds())
		}
	}
	b.table.rows = append(b.table.rows, total)
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
	peak := &row{what: "… peak memory", unit: "MiB", how: atMost, limit: 96, worst: true}
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
			if _, err := b.up.tell(ctx, order{Forget: true}); err != nil {
				return err
			}
			p, err := b.pull(ctx, c, crowd, each, true)
			if err != nil {
				return err
			}
			total.add(c.name, p.Took.Seconds())
			b.say("500 clients, %d of %d, %s: %.3f s", rep+1, b.reps, c.name, p.Took.Seconds())
			if c.name != larder {
				continue
			}
			n, err := b.up.tell(ctx, order{})
			if err != nil {
				return err
			}
			var bytes int64
			for _, img := range all {
				for _, d := range append(img.Layers, img.Config) {
					bytes += n.Sent[d]
				}
			}
			sent.add(larder, float64(bytes)/float64(size))
			rss, err := b.larderProc.Peak()
			if err != nil {
				return err
			}
			peak.add(larder, float64(rss)/(1<<20))
		}
	}
	b.table.rows = append(b.table.rows, total, sent, peak)
	return nil
}
