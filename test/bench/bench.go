package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/larder-registry/larder/test/client"
)

// The contenders.
const (
	direct         = "direct"
	larder         = "larder"
	nginxCache     = "nginx cache"
	nginxStatic    = "nginx static"
	dockerRegistry = "docker-registry"
	goFiles        = "Go file server"
	goMemory       = "Go from memory"
)

// contender is something to pull from.
type contender struct {
	name string
	addr string
	url  string // scheme and addr
	form client.Form
}

// path is where c keeps a blob or manifest of img: endpoint is "blobs" or "manifests".
func (c contender) path(b *bench, img image, endpoint, target string) string {
	path := "/v2/" + img.repo + "/" + endpoint + "/" + target
	if c.form == client.NS {
		path += "?ns=" + b.up.addr
	}
	return path
}

// bench is one run.
type bench struct {
	options
	dir     string
	exe     string
	started time.Time
	up      upstream
	servers
	table table
	// extra are tables without bars.
	extra []string
}

// measurement adds rows to the table.
type measurement struct {
	name string
	run  func(*bench, context.Context) error
}

func measurements() []measurement {
	return []measurement{
		{"cold", (*bench).cold},
		{"capped", (*bench).capped},
		{"uncapped", (*bench).uncapped},
		{"small", (*bench).small},
		{"many", (*bench).many},
		{"crowd", (*bench).crowd},
		{"memory", (*bench).memory},
		{"hot", (*bench).hot},
		{"private", (*bench).private},
		{"range", (*bench).ranged},
		{"outage", (*bench).outage},
		{"push", (*bench).pushes},
	}
}

// growthOnly is measured when it is asked for by name, not with all others.
const growthOnly = "growth"

// run measures everything and leaves nothing behind but the table.
func run(ctx context.Context, opts options) error {
	only := strings.FieldsFunc(opts.only, func(r rune) bool { return r == ',' })
	for _, name := range only {
		if name != growthOnly && !slices.ContainsFunc(measurements(), func(m measurement) bool { return m.name == name }) {
			return fmt.Errorf("there is no measurement %q", name)
		}
	}
	exe, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find own program: %w", err)
	}
	dir, err := os.MkdirTemp("", "larder-bench-")
	if err != nil {
		return fmt.Errorf("make temporary directory: %w", err)
	}
	if opts.keep {
		fmt.Println("files are kept in", dir)
	} else {
		defer os.RemoveAll(dir)
	}
	b := &bench{options: opts, dir: dir, exe: exe, started: time.Now()}
	b.table.about = machine(ctx, opts)
	b.say("%s", strings.Join(b.table.about, "; "))
	defer b.stopServers()
	if err := b.startServers(ctx); err != nil {
		return err
	}
	for _, m := range measurements() {
		if len(only) > 0 && !slices.Contains(only, m.name) {
			continue
		}
		if err := m.run(b, ctx); err != nil {
			if ctx.Err() != nil {
				return context.Canceled
			}
			return fmt.Errorf("measure %s: %w", m.name, err)
		}
	}
	if slices.Contains(only, growthOnly) {
		if err := b.growth(ctx); err != nil {
			return fmt.Errorf("measure growth: %w", err)
		}
	}
	text := strings.Join(b.extra, "\n")
	if len(b.table.rows) > 0 || text == "" {
		text = b.table.markdown() + text
	}
	fmt.Print("\n", text)
	if opts.out != "" {
		if err := writeTable(opts.out, text); err != nil {
			return err
		}
	}
	b.say("done")
	if missed := b.table.missed(); len(missed) > 0 {
		fmt.Printf("\n%d bar(s) missed:\n", len(missed))
		for _, m := range missed {
			fmt.Println("  " + m)
		}
		if opts.strict {
			return fmt.Errorf("%d of %d bars missed", len(missed), len(b.table.rows))
		}
	}
	return nil
}

// self runs this program as one of its parts and reads the JSON it prints.
func (b *bench) self(ctx context.Context, into any, args ...string) error {
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, b.exe, args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return errors.Join(err, errors.New(strings.TrimSpace(errs.String())))
	}
	if err := json.Unmarshal(out.Bytes(), into); err != nil {
		return fmt.Errorf("read result: %w", err)
	}
	return nil
}

// turns returns the contenders of those names, beginning with another one in
// each repetition, so that none always comes first.
func (b *bench) turns(rep int, names ...string) []contender {
	var all []contender
	for i := range names {
		name := names[(i+rep)%len(names)]
		for _, c := range b.contenders {
			if c.name == name {
				all = append(all, c)
			}
		}
	}
	return all
}

// say prints a line of progress.
func (b *bench) say(format string, args ...any) {
	fmt.Printf("%6.1fs  %s\n", time.Since(b.started).Seconds(), fmt.Sprintf(format, args...))
}

// wait lets d pass, or fails when ctx ends.
func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
