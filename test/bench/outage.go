package main

import (
	"context"
	"net/http"
	"time"
)

// outage asks for a cached tag while the upstream is dead in three ways: first
// once, then over and over.
func (b *bench) outage(ctx context.Context) error {
	if _, err := b.up.tell(ctx, order{Shape: true}); err != nil {
		return err
	}
	img, err := b.up.add(ctx, 1)
	if err != nil {
		return err
	}
	for _, c := range b.turns(0, larder, nginxCache, dockerRegistry) {
		if _, err := b.pull(ctx, c, img, 1, false); err != nil {
			return err
		}
	}
	for _, mode := range []string{"refused", "503", "silent"} {
		first := &row{what: "cached tag, upstream " + mode + ": first answer", unit: "ms", how: atMost, limit: 1000, worst: true}
		then := &row{what: "… slowest of the next 100", unit: "ms", how: atMost, limit: 5}
		for rep := range b.reps {
			for _, c := range b.turns(rep, larder, nginxCache, dockerRegistry) {
				if err := b.die(ctx, mode, c, img, first, then); err != nil {
					return err
				}
			}
		}
		b.table.rows = append(b.table.rows, first, then)
	}
	return nil
}

// die measures one contender through one outage. One that has no answer within
// ten seconds, or none but an error, gets no value.
func (b *bench) die(ctx context.Context, mode string, c contender, img image, first, then *row) error {
	if _, err := b.up.tell(ctx, order{Mode: "normal"}); err != nil {
		return err
	}
	if c.name == larder {
		// Its circuit breakers may be open from the outage before.
		if err := b.restartLarder(ctx, false); err != nil {
			return err
		}
	}
	t := &http.Transport{}
	defer t.CloseIdleConnections()
	client := &http.Client{Transport: t, Timeout: 10 * time.Second}
	url := c.url + c.path(b, img, "manifests", img.tag)
	accept := http.Header{"Accept": {"application/vnd.oci.image.index.v1+json, */*"}}
	if _, err := get(ctx, client, url, accept); err != nil {
		return err
	}
	if _, err := b.up.tell(ctx, order{Mode: mode}); err != nil {
		return err
	}
	// What was just confirmed may be taken for fresh by nginx for a second.
	if err := wait(ctx, 1500*time.Millisecond); err != nil {
		return err
	}
	start := time.Now()
	if _, err := get(ctx, client, url, accept); err != nil {
		b.say("outage, %s, %s: %v", mode, c.name, err)
		return ctx.Err()
	}
	took := ms(time.Since(start))
	first.add(c.name, took)
	var slowest float64
	for range 100 {
		start := time.Now()
		if _, err := get(ctx, client, url, accept); err != nil {
			b.say("outage, %s, %s, later: %v", mode, c.name, err)
			return ctx.Err()
		}
		slowest = max(slowest, ms(time.Since(start)))
		if slowest > 2000 {
			break
		}
		if err := wait(ctx, 10*time.Millisecond); err != nil {
			return err
		}
	}
	then.add(c.name, slowest)
	b.say("outage, %s, %s: first %.1f ms, then at most %.2f ms", mode, c.name, took, slowest)
	return nil
}
