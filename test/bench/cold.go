package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"time"
)

// latency is how far the upstream is away from whoever pulls cold.
const latency = 20 * time.Millisecond

// cold pulls an image nobody has, with one client, from an upstream that caps
// every connection.
func (b *bench) cold(ctx context.Context) error {
	if _, err := b.up.tell(ctx, order{Shape: true, Latency: latency, Rate: 50e6}); err != nil {
		return err
	}
	trip, err := b.localTrip(ctx)
	if err != nil {
		return err
	}
	total := &row{what: "cold pull, 144 MiB, upstream 20 ms away with 50 MB/s a connection: time", unit: "s", ref: direct, how: ratioAtMost, limit: 1.05}
	first := &row{what: "… first byte of a blob (worst blob; bar: one local round trip more)", unit: "ms", ref: direct, how: aboveAtMost, limit: trip, worst: true}
	firsts := map[string][][]float64{} // by contender, blob, repetition
	for rep := range b.reps {
		img, err := b.up.add(ctx, 64, 48, 32)
		if err != nil {
			return err
		}
		for _, c := range b.turns(rep, direct, larder, nginxCache, dockerRegistry) {
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
			for i, d := range append(img.Layers, img.Config) {
				if len(firsts[c.name]) == i {
					firsts[c.name] = append(firsts[c.name], nil)
				}
				firsts[c.name][i] = append(firsts[c.name][i], ms(p.First[d]))
			}
			b.say("cold, %d of %d, %s: %.3f s", rep+1, b.reps, c.name, p.Took.Seconds())
		}
	}
	for name, blobs := range firsts {
		for _, reps := range blobs {
			first.add(name, median(reps))
		}
	}
	b.table.rows = append(b.table.rows, total, first, peakRow("… peak memory", 64, total))
	return nil
}

// many has 50 clients pull an image nobody has, all at once.
func (b *bench) many(ctx context.Context) error {
	const clients = 50
	if _, err := b.up.tell(ctx, order{Shape: true, Latency: latency, Rate: 5e6}); err != nil {
		return err
	}
	if err := b.restartLarder(ctx, true); err != nil {
		return err
	}
	total := &row{what: "50 clients at once, cold, 48 MiB, 5 MB/s a connection: time, against one client", unit: "s", ref: direct, how: ratioAtMost, limit: 1.1}
	sent := &row{what: "… bytes the upstream sent, in images", unit: "", how: atMost, limit: 1, worst: true}
	for rep := range b.reps {
		img, err := b.up.add(ctx, 16, 16, 16)
		if err != nil {
			return err
		}
		for _, c := range b.turns(rep, direct, larder, nginxCache, dockerRegistry) {
			n := clients
			if c.name == direct {
				n = 1
			}
			var p pulled
			spent, err := b.metered(ctx, c, func() (_ int64, err error) {
				p, err = b.pull(ctx, c, img, n, true)
				return int64(n) * img.Size, err
			})
			if err != nil {
				return err
			}
			total.add(c.name, p.Took.Seconds())
			total.spend(c, spent)
			sent.add(c.name, float64(spent.fetched)/float64(img.Size))
			b.say("%d clients, %d of %d, %s: %.3f s", n, rep+1, b.reps, c.name, p.Took.Seconds())
		}
	}
	b.table.rows = append(b.table.rows, total, sent, peakRow("… peak memory", 64, total))
	return nil
}

// localTrip is how many milliseconds a request takes to a server on this
// machine and back: the median of 500, each on a connection of its own, as the
// first request for a blob has one.
func (b *bench) localTrip(ctx context.Context) (float64, error) {
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	url := b.turns(0, goFiles)[0].url + "/small"
	var all []float64
	for range 500 {
		start := time.Now()
		if _, err := get(ctx, c, url, nil); err != nil {
			return 0, err
		}
		all = append(all, ms(time.Since(start)))
	}
	return median(all), nil
}

// get fetches a small thing and demands 200.
func get(ctx context.Context, c *http.Client, url string, header http.Header) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	maps.Copy(req.Header, header)
	resp, err := c.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("read answer: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("get %s: %s", url, resp.Status)
	}
	return body, nil
}

// ms is d in milliseconds.
func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
