package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"
)

// hot has 16 connections ask for what everybody holds: a layer of 64 MiB, and
// an image manifest by digest.
func (b *bench) hot(ctx context.Context) error {
	if _, err := b.up.tell(ctx, order{Shape: true}); err != nil {
		return err
	}
	img, err := b.up.add(ctx, 64)
	if err != nil {
		return err
	}
	caches := []string{larder, nginxCache, dockerRegistry}
	for _, c := range b.turns(0, caches...) {
		if _, err := b.pull(ctx, c, img, 1, false); err != nil {
			return err
		}
	}
	blob := &row{what: "hot, 16 connections: layer of 64 MiB", unit: "MB/s", ref: goFiles, how: ratioAtLeast, limit: 0.95}
	manifest := &row{what: "hot, 16 connections: image manifest by digest", unit: "/s", ref: goFiles, how: ratioAtLeast, limit: 0.8}
	for _, m := range []struct {
		row      *row
		endpoint string
		target   digest.Digest
		value    func(loaded) float64
	}{
		{blob, "blobs", img.Layers[0], func(l loaded) float64 { return float64(l.Bytes) / 1e6 / l.Took.Seconds() }},
		{manifest, "manifests", img.Manifest, func(l loaded) float64 { return float64(l.Requests) / l.Took.Seconds() }},
	} {
		if err := b.save(ctx, img, m.endpoint, m.target); err != nil {
			return err
		}
		for rep := range b.reps {
			for _, c := range b.turns(rep, append(caches, nginxStatic, goFiles)...) {
				path := c.path(b, img, m.endpoint, m.target.String())
				if c.name == nginxStatic || c.name == goFiles {
					path = "/" + m.target.Encoded()
				}
				l, err := b.load(ctx, c.addr, path, 16)
				if err != nil {
					return err
				}
				m.row.add(c.name, m.value(l))
				b.say("hot %s, %d of %d, %s: %.0f %s", m.endpoint, rep+1, b.reps, c.name, m.value(l), m.row.unit)
			}
		}
		b.table.rows = append(b.table.rows, m.row)
	}
	return nil
}

// save puts a blob or manifest where the static servers serve it from.
func (b *bench) save(ctx context.Context, img image, endpoint string, target digest.Digest) error {
	c := b.turns(0, direct)[0]
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.url+c.path(b, img, endpoint, target.String()), nil)
	if err != nil {
		return fmt.Errorf("make request: %w", err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("fetch %s: %w", target, err)
	}
	defer resp.Body.Close()
	f, err := os.OpenFile(filepath.Join(b.files, target.Encoded()), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o644)
	if err != nil {
		return fmt.Errorf("make file: %w", err)
	}
	defer f.Close()
	check := target.Verifier()
	if _, err := io.Copy(io.MultiWriter(f, check), resp.Body); err != nil {
		return fmt.Errorf("fetch %s: %w", target, err)
	}
	if !check.Verified() {
		return fmt.Errorf("fetch %s: other content", target)
	}
	return nil
}
