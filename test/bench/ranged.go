package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"
)

// segment is the piece in which the mirror fetches, in MiB.
const segment = 8

// ranged asks for the middle of a blob nobody has, reads a little of it, and
// leaves.
func (b *bench) ranged(ctx context.Context) error {
	const trip = 50 * time.Millisecond
	if _, err := b.up.tell(ctx, order{Shape: true, Latency: trip, Rate: 50e6}); err != nil {
		return err
	}
	first := &row{what: "Range in the middle of an uncached 200 MiB blob, upstream 50 ms away: first byte, in upstream round trips", how: atMost, limit: 3}
	sent := &row{what: "… client leaves after 64 KiB: upstream sent, in segments of 8 MiB", how: atMost, limit: 2, worst: true}
	for rep := range b.reps {
		for _, c := range b.turns(rep, direct, larder, nginxCache, dockerRegistry) {
			img, err := b.up.add(ctx, 200)
			if err != nil {
				return err
			}
			took, err := b.peek(ctx, c.url+c.path(b, img, "blobs", img.Layers[0].String()), 100<<20)
			if err != nil {
				b.say("range, %s: %v", c.name, err)
				continue
			}
			first.add(c.name, took.Seconds()/trip.Seconds())
			n, err := b.settle(ctx, img)
			if err != nil {
				return err
			}
			sent.add(c.name, float64(n)/(segment<<20))
			b.say("range, %d of %d, %s: %.0f ms, upstream sent %.1f MiB", rep+1, b.reps, c.name, ms(took), float64(n)/(1<<20))
		}
	}
	b.table.rows = append(b.table.rows, first, sent)
	return nil
}

// peek asks for everything from offset on, reads 64 KiB and hangs up. It returns
// the time to the first byte.
func (b *bench) peek(ctx context.Context, url string, offset int64) (time.Duration, error) {
	t := &http.Transport{DisableCompression: true}
	defer t.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, fmt.Errorf("make request: %w", err)
	}
	req.Header.Set("Range", fmt.Sprintf("bytes=%d-", offset))
	start := time.Now()
	resp, err := t.RoundTrip(req)
	if err != nil {
		return 0, fmt.Errorf("ask for the middle: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusPartialContent {
		return 0, fmt.Errorf("ask for the middle: %s", resp.Status)
	}
	buf := make([]byte, 64<<10)
	if _, err := io.ReadFull(resp.Body, buf[:1]); err != nil {
		return 0, fmt.Errorf("read the middle: %w", err)
	}
	took := time.Since(start)
	if _, err := io.ReadFull(resp.Body, buf[1:]); err != nil {
		return 0, fmt.Errorf("read the middle: %w", err)
	}
	return took, nil
}

// settle waits until the upstream has sent no byte of img for a second and a
// half, at most 20 seconds, and returns how many it sent.
func (b *bench) settle(ctx context.Context, img image) (int64, error) {
	last, quiet := int64(-1), 0
	for range 40 {
		n, err := b.up.sent(ctx, img)
		if err != nil {
			return 0, err
		}
		quiet++
		if n != last {
			last, quiet = n, 0
		}
		if quiet == 3 {
			break
		}
		if err := wait(ctx, 500*time.Millisecond); err != nil {
			return 0, err
		}
	}
	return last, nil
}
