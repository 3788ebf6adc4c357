// Command demo shows what a node gains from Larder, against a registry of
// somebody else's: Debian's docker-registry. It pushes three images, runs
// larder mirror as a process of its own, and pulls through it cold, hot, from
// 20 clients at once, across a kill -9 of the mirror, and while the upstream is
// down. The result is a table and a list of checks; the exit status is 0 only
// when every check holds.
//
// It is a demonstration, not a benchmark: clients, counting proxy and mirror
// share the machine. Use test/bench for figures. The steps are in steps.go, the
// images in image.go, the proxy that counts what the upstream sends in
// gauge.go, the mirror's own count in metrics.go, the table in report.go. The script
// run beside it builds and finds everything.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	var opts options
	flag.StringVar(&opts.larder, "larder", "", "path of the larder binary")
	flag.StringVar(&opts.registry, "registry", "", "path of the docker-registry binary")
	flag.Int64Var(&opts.rate, "rate", 40, "megabytes a second the upstream sends on one connection")
	flag.DurationVar(&opts.latency, "latency", 10*time.Millisecond, "delay of each of the upstream's answers")
	flag.IntVar(&opts.clients, "clients", 20, "clients that pull at once")
	flag.BoolVar(&opts.keep, "keep", false, "keep the temporary directory")
	flag.Parse()
	if opts.larder == "" || opts.registry == "" || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, opts)
	stop()
	switch {
	case errors.Is(err, context.Canceled):
		fmt.Fprintln(os.Stderr, "demo: interrupted, cleaned up")
		os.Exit(130)
	case err != nil:
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

type options struct {
	larder, registry string
	rate             int64 // MB/s
	latency          time.Duration
	clients          int
	keep             bool
}

// run does everything and leaves nothing behind, however it ends.
func run(ctx context.Context, opts options) (err error) {
	dir, err := os.MkdirTemp("", "larder-demo-")
	if err != nil {
		return fmt.Errorf("make temporary directory: %w", err)
	}
	if opts.keep {
		fmt.Println("files are kept in", dir)
	} else {
		defer os.RemoveAll(dir)
	}
	d := &demo{options: opts, dir: dir, started: time.Now()}
	defer d.stop()
	if err := d.prepare(ctx); err != nil {
		return err
	}
	if err := d.steps(ctx); err != nil {
		if ctx.Err() == nil {
			// What was seen until then helps to understand the failure.
			err = errors.Join(err, d.report(os.Stdout))
		}
		return err
	}
	return d.report(os.Stdout)
}
