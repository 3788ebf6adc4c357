package main

import (
	"context"
	"fmt"
	"time"
)

// memory looks at the mirror's resident memory: at rest, with 50 clients on a
// layer of 1 GiB that nobody has, and at rest after that.
func (b *bench) memory(ctx context.Context) error {
	if _, err := b.up.tell(ctx, order{Shape: true}); err != nil {
		return err
	}
	if err := b.restartLarder(ctx, true); err != nil {
		return err
	}
	idle := &row{what: "memory at rest, after the start", unit: "MiB", how: atMost, limit: 25}
	peak := &row{what: "50 clients at once, cold, one layer of 1 GiB, no cap: peak memory", unit: "MiB", how: atMost, limit: 64}
	sent := &row{what: "… bytes the upstream sent, in layers", unit: "", how: atMost, limit: 1}
	after := &row{what: "memory at rest, 30 s after that", unit: "MiB", how: atMost, limit: 25}

	resident := func(r *row, of func() (int64, error)) error {
		n, err := of()
		r.add(larder, float64(n)/(1<<20))
		return err
	}
	if err := wait(ctx, 3*time.Second); err != nil {
		return err
	}
	if err := resident(idle, b.larderProc.Resident); err != nil {
		return err
	}
	const size = 1 << 10
	img, err := b.up.add(ctx, size)
	if err != nil {
		return err
	}
	c := b.turns(0, larder)[0]
	var l loaded
	spent, err := b.metered(ctx, c, func() (_ int64, err error) {
		l, err = b.load(ctx, c.addr, c.path(b, img, "blobs", img.Layers[0].String()), 50, "-once")
		return l.Bytes, err
	})
	if err != nil {
		return err
	}
	peak.spend(c, spent)
	if l.Bytes != 50*size<<20 {
		return fmt.Errorf("clients received %d bytes of %d", l.Bytes, 50*size<<20)
	}
	b.say("50 clients, 1 GiB layer: %.1f s", l.Took.Seconds())
	if err := resident(peak, b.larderProc.Peak); err != nil {
		return err
	}
	sent.add(larder, float64(spent.fetched)/(size<<20))
	if err := wait(ctx, 30*time.Second); err != nil {
		return err
	}
	if err := resident(after, b.larderProc.Resident); err != nil {
		return err
	}
	b.table.rows = append(b.table.rows, idle, peak, sent, after)
	return nil
}
