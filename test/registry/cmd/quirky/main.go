// Command quirky runs the test registry as a program of its own, for clients
// that are not Go tests: containerd, podman, a benchmark. It prints one line of
// JSON saying where it listens and what it holds, and serves until it gets
// SIGINT or SIGTERM, or until standard input ends if -stdin is given.
//
//	quirky -image demo/app:v1=1MiB,200MiB -fault blob:cut=3 -rate 50MiB
//
// A fault is KIND:NAME or KIND:NAME=TIMES, with a kind of the registry package
// ("all" for every kind) and a name that -faults lists.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"

	"github.com/larder-registry/larder/test/registry"
)

// errUsage is what a bad command line comes to: exit status 2.
var errUsage = errors.New("usage")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdin, os.Stdout)
	stop()
	switch {
	case err == nil:
	case errors.Is(err, errUsage):
		fmt.Fprintln(os.Stderr, "quirky:", err)
		os.Exit(2)
	default:
		fmt.Fprintln(os.Stderr, "quirky:", err)
		os.Exit(1)
	}
}

// list collects the values of a flag that may be repeated.
type list []string

func (l *list) String() string     { return strings.Join(*l, " ") }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

// report is the line quirky prints.
type report struct {
	Address string  `json:"address"`
	URL     string  `json:"url"`
	Images  []image `json:"images"`
}

type image struct {
	Reference string `json:"reference"`
	Digest    string `json:"digest"`
	Bytes     int64  `json:"bytes"`
	Layers    int    `json:"layers"`
}

// run serves until ctx ends, or stdin if the flags say so.
func run(ctx context.Context, args []string, stdin io.Reader, stdout io.Writer) error {
	flags := flag.NewFlagSet("quirky", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	var (
		opts           registry.Options
		images, faults list
		rate, ca       string
		names, onStdin bool
	)
	flags.StringVar(&opts.Addr, "listen", "127.0.0.1:0", "address to listen on")
	flags.BoolVar(&opts.TLS, "tls", false, "serve HTTPS")
	flags.BoolVar(&opts.Tokens, "tokens", false, "ask for a bearer token")
	flags.BoolVar(&opts.Storage, "storage", false, "redirect blobs to a second server")
	flags.DurationVar(&opts.Latency, "latency", 0, "delay before each answer")
	flags.StringVar(&rate, "rate", "", "bytes per second of each connection, such as 50MiB")
	flags.StringVar(&ca, "ca", "", "with -tls: write the CA certificate to this file")
	flags.Var(&images, "image", "REPO:TAG=SIZE,SIZE…: an image of layers of these sizes; repeatable")
	flags.Var(&faults, "fault", "KIND:NAME[=TIMES]: misbehave; repeatable")
	flags.BoolVar(&names, "faults", false, "list the names of faults, and end")
	flags.BoolVar(&onStdin, "stdin", false, "end when standard input does")
	if err := flags.Parse(args); err != nil {
		flags.SetOutput(os.Stderr)
		flags.Usage()
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	if names {
		_, err := fmt.Fprintln(stdout, strings.Join(registry.Names(), "\n"))
		return err
	}
	if rate != "" {
		n, err := parseSize(rate)
		if err != nil {
			return err
		}
		opts.BytesPerSecond = n
	}
	armed, err := parseFaults(faults)
	if err != nil {
		return err
	}
	s, err := registry.New(opts)
	if err != nil {
		return err
	}
	defer s.Close()
	out := report{Address: s.Host(), URL: s.URL(), Images: []image{}}
	for i, spec := range images {
		img, err := addImage(s, uint64(i), spec)
		if err != nil {
			return err
		}
		out.Images = append(out.Images, img)
	}
	s.Set(armed...)
	if ca != "" {
		if err := os.WriteFile(ca, s.CAPEM(), 0o600); err != nil {
			return fmt.Errorf("write CA: %w", err)
		}
	}
	if err := json.NewEncoder(stdout).Encode(out); err != nil {
		return fmt.Errorf("print report: %w", err)
	}
	if onStdin {
		_, err := io.Copy(io.Discard, stdin)
		return err
	}
	<-ctx.Done()
	return nil
}

// addImage reads REPO:TAG=SIZE,SIZE… and makes that image. The same seed and
// sizes give the same image in every run.
func addImage(s *registry.Server, seed uint64, spec string) (image, error) {
	name, sizes, ok := strings.Cut(spec, "=")
	repo, tag, tagged := strings.Cut(name, ":")
	if !ok || !tagged {
		return image{}, fmt.Errorf("%w: -image %q is not REPO:TAG=SIZE,…", errUsage, spec)
	}
	var layers []registry.Layer
	var total int64
	for i, text := range strings.Split(sizes, ",") {
		n, err := parseSize(text)
		if err != nil {
			return image{}, err
		}
		layers = append(layers, registry.NewLayer(seed<<16+uint64(i), n))
		total += n
	}
	img := s.AddImage(repo, tag, layers...)
	return image{
		Reference: s.Host() + "/" + repo + ":" + tag, Digest: img.Digest.String(),
		Bytes: total + img.Config.Size(), Layers: len(layers),
	}, nil
}

func parseFaults(specs []string) ([]registry.Fault, error) {
	var all []registry.Fault
	for _, spec := range specs {
		kind, rest, ok := strings.Cut(spec, ":")
		name, times, counted := strings.Cut(rest, "=")
		f, known := registry.Named(name)
		if !ok || !known {
			return nil, fmt.Errorf("%w: -fault %q is not KIND:NAME; see -faults", errUsage, spec)
		}
		if kind != "all" {
			f.On = registry.Kind(kind)
		}
		if counted {
			n, err := strconv.Atoi(times)
			if err != nil || n < 1 {
				return nil, fmt.Errorf("%w: -fault %q: times must be a number above zero", errUsage, spec)
			}
			f.Times = n
		}
		all = append(all, f)
	}
	return all, nil
}

// parseSize reads a number of bytes with an optional KiB, MiB or GiB.
func parseSize(s string) (int64, error) {
	number, shift := s, 0
	for i, unit := range []string{"KiB", "MiB", "GiB"} {
		if n, ok := strings.CutSuffix(s, unit); ok {
			number, shift = n, 10*(i+1)
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 1 || n > int64(1<<62)>>shift {
		return 0, fmt.Errorf("%w: %q is not a size such as 200MiB", errUsage, s)
	}
	return n << shift, nil
}
