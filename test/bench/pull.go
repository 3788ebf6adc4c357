package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/internal/oci"
	"github.com/larder-registry/larder/test/client"
)

// pulled is what the pulling process reports.
type pulled struct {
	// Took is the time until the last client was done.
	Took time.Duration
	// First is the time to the first byte, by digest, of the first client.
	First map[digest.Digest]time.Duration
}

// pullMain is the process of the pulling clients, each with connections of its
// own.
func pullMain(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("bench pull", flag.ContinueOnError)
	url := flags.String("host", "", "URL to pull from")
	ns := flags.String("ns", "", "registry to name to a mirror; empty for none")
	repo := flags.String("repo", "", "repository")
	tag := flags.String("tag", "", "tags, separated by commas")
	n := flags.Int("n", 1, "clients for each tag")
	unchecked := flags.Bool("unchecked", false, "do not hash")
	if err := flags.Parse(args); err != nil {
		return flag.ErrHelp
	}
	host := client.Host{URL: *url}
	if *ns != "" {
		host.Form = client.NS
	}
	tags := strings.Split(*tag, ",")

	var wg sync.WaitGroup
	reports := make([]client.Report, *n*len(tags))
	errs := make([]error, len(reports))
	start := time.Now()
	for i := range reports {
		ref := oci.Reference{Name: oci.Name{Registry: *ns, Repository: *repo}, Tag: tags[i%len(tags)]}
		wg.Go(func() {
			c, err := client.New(client.Config{Hosts: []client.Host{host}, Unchecked: *unchecked})
			if err != nil {
				errs[i] = err
				return
			}
			defer c.Close()
			reports[i], errs[i] = c.Pull(ctx, ref)
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	p := pulled{Took: time.Since(start), First: map[digest.Digest]time.Duration{}}
	for _, o := range reports[0].Objects {
		if o.Kind == "layer" || o.Kind == "config" {
			p.First[o.Digest] = o.First
		}
	}
	return json.NewEncoder(os.Stdout).Encode(p)
}

// pull has n clients pull img from c, in a process of their own.
func (b *bench) pull(ctx context.Context, c contender, img image, n int, unchecked bool) (pulled, error) {
	args := []string{"pull", "-host", c.url, "-repo", img.repo, "-tag", img.tag, "-n", strconv.Itoa(n)}
	if c.form == client.NS {
		args = append(args, "-ns", b.up.addr)
	}
	if unchecked {
		args = append(args, "-unchecked")
	}
	var p pulled
	if err := b.self(ctx, &p, args...); err != nil {
		return p, fmt.Errorf("pull from %s: %w", c.name, err)
	}
	return p, nil
}
