package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/opencontainers/go-digest"
)

// What the upstream's private repository wants.
const (
	privateRepo   = "bench/private"
	publicRepo    = "bench/app"
	privateUser   = "bench"
	privateSecret = "opensesame"
)

// publicHot stands for the mirror asked for a public image, in the rows about
// private ones.
const publicHot = "larder, public"

// private compares hot pulls of a private image, with a caller's credentials on
// each request, with those of a public one of the same size.
func (b *bench) private(ctx context.Context) error {
	if _, err := b.up.tell(ctx, order{Shape: true}); err != nil {
		return err
	}
	c := b.turns(0, larder)[0]
	images := map[string]image{}
	for _, repo := range []string{publicRepo, privateRepo} {
		img, err := b.up.addTo(ctx, repo, []int64{64 << 20})
		if err != nil {
			return err
		}
		if err := b.warm(ctx, c, img); err != nil {
			return err
		}
		images[repo] = img
	}
	blob := &row{what: "private image, hot, 16 connections: layer of 64 MiB", unit: "MB/s", ref: publicHot, how: ratioAtLeast, limit: 0.95}
	manifest := &row{what: "private image, hot, 16 connections: image manifest by digest", unit: "/s", ref: publicHot, how: ratioAtLeast, limit: 0.95}
	for _, m := range []struct {
		row      *row
		endpoint string
		target   func(image) digest.Digest
		value    func(loaded) float64
	}{
		{blob, "blobs", func(i image) digest.Digest { return i.Layers[0] }, func(l loaded) float64 { return float64(l.Bytes) / 1e6 / l.Took.Seconds() }},
		{manifest, "manifests", func(i image) digest.Digest { return i.Manifest }, func(l loaded) float64 { return float64(l.Requests) / l.Took.Seconds() }},
	} {
		for rep := range b.reps {
			names := []string{privateRepo, publicRepo}
			if rep%2 == 1 {
				names = []string{publicRepo, privateRepo}
			}
			for _, repo := range names {
				img, name, more := images[repo], publicHot, []string(nil)
				if repo == privateRepo {
					name, more = larder, []string{"-user", privateUser, "-secret", privateSecret}
				}
				l, err := b.load(ctx, c.addr, c.path(b, img, m.endpoint, m.target(img).String()), 16, more...)
				if err != nil {
					return err
				}
				m.row.add(name, m.value(l))
				b.say("private %s, %d of %d, %s: %.0f %s", m.endpoint, rep+1, b.reps, repo, m.value(l), m.row.unit)
			}
		}
		b.table.rows = append(b.table.rows, m.row)
	}
	return nil
}

// warm pulls an image through c until it is held.
func (b *bench) warm(ctx context.Context, c contender, img image) error {
	for _, path := range []string{
		c.path(b, img, "manifests", img.tag), c.path(b, img, "manifests", img.Manifest.String()), c.path(b, img, "blobs", img.Layers[0].String()),
	} {
		if err := fetch(ctx, c.url+path); err != nil {
			return err
		}
	}
	// The last byte reaches the client before the blob is committed.
	return wait(ctx, time.Second)
}

// fetch asks for something with credentials, and drops it.
func fetch(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return fmt.Errorf("make request: %w", err)
	}
	req.SetBasicAuth(privateUser, privateSecret)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("fetch %s: %w", url, err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != http.StatusOK {
		return fmt.Errorf("fetch %s: %s, %v", url, resp.Status, err)
	}
	return nil
}
