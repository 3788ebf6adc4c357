// Command bench measures larder mirror against pulling directly, against
// Debian's nginx (proxy_cache with slice and lock; static files with sendfile),
// against Debian's docker-registry as a pull-through proxy, and against a bare
// Go file server: the same work, in the same run, on loopback.
//
// Everything is a process of its own, so that none is measured inside another:
// the program starts itself again as upstream (upstream.go), file server
// (files.go), pulling clients (pull.go) and load (load.go); the servers it
// compares are started in servers.go. The measurements are in cold.go, capped.go, uncapped.go,
// crowd.go, hot.go, private.go, ranged.go, outage.go, memory.go, push.go and growth.go; each adds rows to the table of table.go,
// with the bar it has to pass. Every measurement is repeated, contenders taking
// turns, and the table shows medians of ratios within one repetition.
//
// It keeps nothing but the table. What it does not measure is said in
// docs/performance.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := dispatch(ctx, os.Args[1:])
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	case errors.Is(err, context.Canceled):
		fmt.Fprintln(os.Stderr, "bench: interrupted, cleaned up")
		os.Exit(130)
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// dispatch runs one of the program's parts, or the benchmark.
func dispatch(ctx context.Context, args []string) error {
	if len(args) > 0 {
		switch args[0] {
		case "upstream":
			return serveUpstream(ctx, args[1:])
		case "files":
			return serveFiles(ctx, args[1:])
		case "pull":
			return pullMain(ctx, args[1:])
		case "load":
			return loadMain(ctx, args[1:])
		case "sha256":
			return hashMain(args[1:])
		}
	}
	var opts options
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.StringVar(&opts.larder, "larder", "bin/larder", "path of the larder binary")
	flags.StringVar(&opts.registry, "registry", "docker-registry", "path of the docker-registry binary")
	flags.StringVar(&opts.nginx, "nginx", "nginx", "path of the nginx binary")
	flags.IntVar(&opts.reps, "reps", 5, "repetitions of every measurement")
	flags.BoolVar(&opts.strict, "strict", false, "fail when a bar is missed")
	flags.StringVar(&opts.out, "o", "", "file to write the table to; in a Markdown file with a line '<!-- bench -->', what follows the line up to '<!-- /bench -->' is replaced")
	flags.StringVar(&opts.only, "only", "", "run only the measurements of this name: cold, capped, uncapped, small, many, crowd, memory, hot, private, range, outage, push, and growth, which is a table of its own; separated by commas")
	flags.BoolVar(&opts.keep, "keep", false, "keep the temporary directory")
	if err := flags.Parse(args); err != nil {
		return flag.ErrHelp
	}
	return run(ctx, opts)
}

type options struct {
	larder, registry, nginx string
	reps                    int
	strict, keep            bool
	out, only               string
}
