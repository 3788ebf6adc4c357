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
	for _, c := range b.turns(0, larder, nginxCache, dockerRegistry) {
		if _, err := b.pull(ctx, c, img, 1, false); err != nil {
			return err
		}
	}
	for _, s := range []struct{ endpoint, target string }{{"blobs", img.Layers[0].String()}, {"manifests", img.Manifest.String()}} {
		if err := b.save(ctx, img, s.endpoint, digest.Digest(s.target)); err != nil {
			return err
		}
	}
	if err := b.hotBlob(ctx, img); err != nil {
		return err
	}
	for _, method := range []string{http.MethodGet, http.MethodHead} {
		if err := b.hotManifest(ctx, img, method); err != nil {
			return err
		}
	}
	return nil
}

// hotBlob measures a layer: bytes a second, and what they cost.
func (b *bench) hotBlob(ctx context.Context, img image) error {
	blob := &row{what: "hot, 16 connections: layer of 64 MiB", unit: "MB/s", ref: nginxStatic, how: ratioAtLeast, limit: 0.95}
	cpu := &row{what: "… processor time for each GiB", unit: "s", ref: nginxStatic, how: ratioAtMost, limit: 1.1}
	bare := &row{what: "… throughput against another server", unit: "MB/s", ref: goFiles, how: ratioAtLeast, limit: 0.95}
	for rep := range b.reps {
		for _, c := range b.turns(rep, larder, nginxCache, dockerRegistry, nginxStatic, goFiles) {
			l, spent, err := b.loadHot(ctx, c, img, "blobs", img.Layers[0], http.MethodGet)
			if err != nil {
				return err
			}
			rate := float64(l.Bytes) / 1e6 / l.Took.Seconds()
			blob.add(c.name, rate)
			blob.spend(c, spent)
			cpu.add(c.name, spent.perGiB())
			bare.add(c.name, rate)
			b.say("hot layer, %d of %d, %s: %.0f MB/s, CPU %.3f s/GiB", rep+1, b.reps, c.name, rate, spent.perGiB())
		}
	}
	b.table.rows = append(b.table.rows, blob, cpu, bare, peakRow("… peak memory", 64, blob))
	return nil
}

// hotManifest measures an image manifest by digest: requests a second.
func (b *bench) hotManifest(ctx context.Context, img image, method string) error {
	manifest := &row{what: "hot, 16 connections: " + method + " of an image manifest by digest", unit: "/s", ref: goMemory, how: ratioAtLeast, limit: 0.9}
	for rep := range b.reps {
		for _, c := range b.turns(rep, larder, nginxCache, dockerRegistry, nginxStatic, goMemory) {
			l, spent, err := b.loadHot(ctx, c, img, "manifests", img.Manifest, method)
			if err != nil {
				return err
			}
			rate := float64(l.Requests) / l.Took.Seconds()
			manifest.add(c.name, rate)
			manifest.spend(c, spent)
			b.say("hot manifest, %s, %d of %d, %s: %.0f /s, CPU %.1f µs each", method, rep+1, b.reps, c.name, rate, spent.cpu.Seconds()*1e6/float64(l.Requests))
		}
	}
	b.table.rows = append(b.table.rows, manifest, peakRow("… peak memory", 64, manifest))
	return nil
}

// loadHot has 16 connections ask c for one thing for two seconds.
func (b *bench) loadHot(ctx context.Context, c contender, img image, endpoint string, target digest.Digest, method string) (loaded, cost, error) {
	path := c.path(b, img, endpoint, target.String())
	switch c.name {
	case nginxStatic, goFiles:
		path = "/" + target.Encoded()
	case goMemory:
		path = "/memory/" + target.Encoded()
	}
	var l loaded
	spent, err := b.metered(ctx, c, func() (_ int64, err error) {
		l, err = b.load(ctx, c.addr, path, 16, "-method", method)
		return l.Bytes, err
	})
	return l, spent, err
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
