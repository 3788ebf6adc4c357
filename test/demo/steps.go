package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/larder-registry/larder/internal/oci"
	"github.com/larder-registry/larder/test/client"
	"github.com/larder-registry/larder/test/process"
)

// demo is one run: what is running, and what was seen.
type demo struct {
	options
	dir     string
	started time.Time

	registry, mirror *process.Process
	gauge            *gauge
	url, admin       string // of the mirror
	args             []string

	first, second, third image
	rows                 []row
	checks               []check
}

// prepare starts the registry, fills it, and starts the mirror.
func (d *demo) prepare(ctx context.Context) error {
	addr, err := process.FreeAddr()
	if err != nil {
		return err
	}
	config := filepath.Join(d.dir, "registry.yml")
	if err := os.WriteFile(config, fmt.Appendf(nil, `version: 0.1
log: {accesslog: {disabled: false}, level: warn}
storage:
  filesystem: {rootdirectory: %q}
  cache: {blobdescriptor: inmemory}
http: {addr: %q}
`, filepath.Join(d.dir, "registry"), addr), 0o600); err != nil {
		return fmt.Errorf("write registry's configuration: %w", err)
	}
	d.say("starting %s", d.options.registry)
	if d.registry, err = process.Start(d.dir, "docker-registry", d.options.registry, "serve", config); err != nil {
		return err
	}
	if err := d.registry.Ready(ctx, "http://"+addr+"/v2/"); err != nil {
		return err
	}
	d.gauge = &gauge{target: addr, rate: d.rate * 1e6, latency: d.latency}
	if err := d.gauge.start("127.0.0.1:0"); err != nil {
		return fmt.Errorf("start counting proxy: %w", err)
	}
	p := pusher{url: "http://" + addr, name: oci.Name{Registry: d.gauge.addr, Repository: "demo/app"}}
	for i, img := range []*image{&d.first, &d.second, &d.third} {
		d.say("pushing image %d of 3, %d layers for linux/amd64 and %d for linux/arm64",
			i+1, len(layers["amd64"]), len(layers["arm64"]))
		if *img, err = p.push(ctx, fmt.Sprintf("v%d", i+1), uint64(i+1)); err != nil {
			return err
		}
	}
	return d.startMirror(ctx)
}

// startMirror starts larder mirror, the first time on free ports, later on the
// same ones.
func (d *demo) startMirror(ctx context.Context) error {
	if d.args == nil {
		config := filepath.Join(d.dir, "larder.yaml")
		if err := os.WriteFile(config, fmt.Appendf(nil, `registry_proxies:
  # By default a quarter of the disk stays free, more than many laptops have.
  min_free: 1%%
  registries:
    - host: %q
      insecure: true
`, d.gauge.addr), 0o600); err != nil {
			return fmt.Errorf("write larder's configuration: %w", err)
		}
		listen, err := process.FreeAddr()
		if err != nil {
			return err
		}
		admin, err := process.FreeAddr()
		if err != nil {
			return err
		}
		d.url, d.admin = "http://"+listen, "http://"+admin
		d.args = []string{
			"mirror", "--config", config, "--listen", listen, "--admin-listen", admin,
			"--data-dir", filepath.Join(d.dir, "data"), "--log-format", "json",
		}
	}
	d.say("starting larder mirror")
	var err error
	if d.mirror, err = process.Start(d.dir, "larder", d.larder, d.args...); err != nil {
		return err
	}
	return d.mirror.Ready(ctx, d.url+"/readyz")
}

// stop ends whatever runs.
func (d *demo) stop() {
	d.mirror.End(syscall.SIGTERM)
	if d.gauge != nil {
		d.gauge.stop()
	}
	d.registry.End(syscall.SIGTERM)
}

// steps pulls in all the ways that are shown.
func (d *demo) steps(ctx context.Context) error {
	amd := d.first.size["amd64"]
	direct := client.Host{URL: "http://" + d.gauge.addr, Form: client.Plain}
	mirror := client.Host{URL: d.url, Form: client.NS}

	r, err := d.measure(ctx, "without Larder", 1, d.pulls(d.first, 1, "", direct))
	if err != nil {
		return err
	}
	d.check("the image is whole at the upstream", r.sent == amd, "%d bytes sent, %d in the image", r.sent, amd)

	if r, err = d.measure(ctx, "cold", 1, d.pulls(d.first, 1, "", mirror)); err != nil {
		return err
	}
	d.check("cold: the upstream sends every byte once", r.sent == amd, "%d bytes sent, %d in the image", r.sent, amd)

	if r, err = d.measure(ctx, "hot", 1, d.pulls(d.first, 1, "", mirror)); err != nil {
		return err
	}
	d.check("hot: the upstream only confirms the tag", r.sent == 0 && r.requests == 1, "%d requests, %d bytes sent", r.requests, r.sent)

	arm := client.Host{URL: d.url, Form: client.Path}
	if r, err = d.measure(ctx, "linux/arm64, /v2/f/ form", 1, d.pulls(d.first, 1, "linux/arm64", arm)); err != nil {
		return err
	}
	own := d.first.size["arm64"] - layers["arm64"][0]<<20
	d.check("other platform: the shared layer is not fetched again", r.sent < own, "%d bytes sent, %d are its own", r.sent, own)

	if r, err = d.measure(ctx, "cold, all at once", d.clients, d.pulls(d.second, d.clients, "", mirror)); err != nil {
		return err
	}
	d.check(fmt.Sprintf("%d clients at once: the upstream sends every byte once", d.clients),
		r.sent == d.second.size["amd64"], "%d bytes sent, %d in the image", r.sent, d.second.size["amd64"])
	d.check("… and most of what clients got they joined", r.from.join > r.from.upstream, "%.0f bytes joined", r.from.join)
	d.check("… and memory stays below 64 MiB", r.peak < 64<<20, "peak is %s MiB", mib(float64(r.peak)))

	if err := d.crash(ctx, mirror); err != nil {
		return err
	}

	d.say("stopping the upstream")
	d.gauge.stop()
	d.registry.End(syscall.SIGTERM)
	if r, err = d.measure(ctx, "by tag, upstream stopped", 1, d.pulls(d.first, 1, "", mirror)); err != nil {
		return err
	}
	d.check("upstream stopped: the tag is served from disk", r.from.disk >= float64(amd), "%.0f bytes from disk, %d in the image", r.from.disk, amd)
	return nil
}

// crash kills the mirror half way through a cold pull, starts it again, and
// pulls once more.
func (d *demo) crash(ctx context.Context, mirror client.Host) error {
	size := d.third.size["amd64"]
	before := d.gauge.bytes.Load()
	r, err := d.measure(ctx, "cold, kill -9 half way", 1, func(ctx context.Context) (int64, error) {
		var got int64
		var pulling sync.WaitGroup
		var pullErr error
		ended := make(chan struct{})
		pulling.Go(func() {
			defer close(ended)
			got, pullErr = d.pulls(d.third, 1, "", mirror)(ctx)
		})
		defer pulling.Wait()
		for d.gauge.bytes.Load()-before < size/2 {
			select {
			case <-ended:
				return got, errors.Join(errors.New("the pull ended before half of it was there"), pullErr)
			case <-ctx.Done():
				return 0, context.Cause(ctx)
			case <-time.After(time.Millisecond):
			}
		}
		d.mirror.End(syscall.SIGKILL)
		pulling.Wait()
		d.check("kill -9: the pull breaks instead of ending with wrong bytes", pullErr != nil && got < size, "%d bytes of %d, error: %v", got, size, pullErr)
		return got, nil
	})
	if err != nil {
		return err
	}
	first := r.sent
	if err := d.startMirror(ctx); err != nil {
		return err
	}
	if r, err = d.measure(ctx, "again after the restart", 1, d.pulls(d.third, 1, "", mirror)); err != nil {
		return err
	}
	kept := size - r.sent
	d.say("  the upstream sent %s MiB before the kill and %s after, for an image of %s: %s MiB were resumed",
		mib(float64(first)), mib(float64(r.sent)), mib(float64(size)), mib(float64(kept)))
	d.check("after the restart at least half of what had come is resumed", kept >= first/2, "%d bytes of %d", kept, first)
	return nil
}

// pulls returns a function that pulls img from host with n clients at once, each
// with connections of its own, and returns how many bytes they received.
func (d *demo) pulls(img image, n int, platform string, host client.Host) func(context.Context) (int64, error) {
	return func(ctx context.Context) (int64, error) {
		var wg sync.WaitGroup
		var mu sync.Mutex
		var got int64
		var errs []error
		for range n {
			wg.Go(func() {
				c, err := client.New(client.Config{Hosts: []client.Host{host}, Platform: platform})
				if err == nil {
					defer c.Close()
					var rep client.Report
					rep, err = c.Pull(ctx, img.ref)
					mu.Lock()
					got += rep.Bytes()
					mu.Unlock()
				}
				mu.Lock()
				errs = append(errs, err)
				mu.Unlock()
			})
		}
		wg.Wait()
		return got, errors.Join(errs...)
	}
}

// measure runs f and adds a row about it. The mirror may be dead afterwards, or
// another process than before; what it counted is then not in the row.
func (d *demo) measure(ctx context.Context, what string, clients int, f func(context.Context) (int64, error)) (row, error) {
	d.say("pulling %s, %d client(s)", what, clients)
	r := row{what: what, clients: clients}
	if err := d.mirror.ResetPeak(); err != nil {
		return r, err
	}
	before, err := d.quiet(ctx)
	if err != nil {
		return r, err
	}
	requests, sent := d.gauge.requests.Load(), d.gauge.bytes.Load()
	start := time.Now()
	r.got, err = f(ctx)
	r.took = time.Since(start)
	if ctx.Err() != nil {
		return r, context.Cause(ctx)
	}
	if err != nil {
		return r, fmt.Errorf("%s: %w\n%s", what, err, d.mirror.Tail())
	}
	r.requests, r.sent = d.gauge.requests.Load()-requests, d.gauge.bytes.Load()-sent
	select {
	case <-d.mirror.Done():
		r.killed = true
	default:
		after, err := scrape(ctx, d.admin+"/metrics")
		if err != nil {
			return r, err
		}
		r.from = after.minus(before)
		if r.peak, err = d.mirror.Peak(); err != nil {
			return r, err
		}
	}
	d.rows = append(d.rows, r)
	return r, nil
}

// quiet waits until the mirror has committed what it fetched, so that the next
// pull finds it on disk, and returns what it has counted. A mirror that is never
// quiet is taken as it is after ten seconds.
func (d *demo) quiet(ctx context.Context) (served, error) {
	for deadline := time.Now().Add(10 * time.Second); ; {
		s, err := scrape(ctx, d.admin+"/metrics")
		if err != nil || s.fills == 0 || time.Now().After(deadline) {
			return s, err
		}
		if !sleep(ctx, 20*time.Millisecond) {
			return s, context.Cause(ctx)
		}
	}
}

// say prints a line of progress.
func (d *demo) say(format string, args ...any) {
	fmt.Printf("%6.1fs  %s\n", time.Since(d.started).Seconds(), fmt.Sprintf(format, args...))
}

// check records whether something held; what was seen is printed when it did
// not.
func (d *demo) check(what string, ok bool, seen string, args ...any) {
	d.checks = append(d.checks, check{what, ok, fmt.Sprintf(seen, args...)})
}
