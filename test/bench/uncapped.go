package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"
)

// hashed is what one pass of sha256 over a number of bytes costs on this machine:
// what a mirror that checks what it was sent has to spend, and a cache that does
// not saves.
const hashed = "nginx cache + sha256"

// uncapped pulls an image nobody has from an upstream that sends as fast as it
// can: what the mirror itself costs, beside nginx as a cache.
func (b *bench) uncapped(ctx context.Context) error {
	if _, err := b.up.tell(ctx, order{Shape: true}); err != nil {
		return err
	}
	if err := b.restartLarder(ctx, true); err != nil {
		return err
	}
	const mib, layers = 100, 5
	total := &row{what: "cold pull, 5 layers of 100 MiB, upstream on loopback without a cap: time", unit: "s", ref: nginxCache, how: ratioAtMost, limit: 1.3}
	cpu := &row{what: "… processor time for each GiB", unit: "s", ref: hashed, how: ratioAtMost, limit: 1}
	sent := &row{what: "… bytes the upstream sent, in images", how: atMost, limit: 1, worst: true}
	for rep := range b.reps {
		for _, c := range b.turns(rep, direct, larder, nginxCache) {
			img, err := b.up.add(ctx, mib, mib, mib, mib, mib)
			if err != nil {
				return err
			}
			var p pulled
			spent, err := b.metered(ctx, c, func() (_ int64, err error) {
				p, err = b.pull(ctx, c, img, 1, false)
				return img.Size, err
			})
			if err != nil {
				return err
			}
			total.add(c.name, p.Took.Seconds())
			total.spend(c, spent)
			switch c.name {
			case larder:
				cpu.add(larder, spent.perGiB())
				sent.add(larder, float64(spent.fetched)/float64(img.Size))
			case nginxCache:
				var pass hashPass
				if err := b.self(ctx, &pass, "sha256", "-mib", strconv.Itoa(mib*layers)); err != nil {
					return fmt.Errorf("measure sha256: %w", err)
				}
				cpu.add(nginxCache, spent.perGiB())
				cpu.add(hashed, spent.perGiB()+pass.CPU.Seconds()/(float64(img.Size)/(1<<30)))
			}
			b.say("uncapped, %d of %d, %s: %.3f s, CPU %.3f s/GiB", rep+1, b.reps, c.name, p.Took.Seconds(), spent.perGiB())
		}
	}
	b.table.rows = append(b.table.rows, total, cpu, sent, peakRow("… peak memory", 64, total))
	return nil
}

// hashPass is what the hashing process reports.
type hashPass struct{ CPU time.Duration }

// hashMain hashes so many MiB once, from memory, and reports the processor time
// that the hashing took.
func hashMain(args []string) error {
	flags := flag.NewFlagSet("bench sha256", flag.ContinueOnError)
	mib := flags.Int("mib", 1024, "how much")
	if err := flags.Parse(args); err != nil {
		return flag.ErrHelp
	}
	buf := make([]byte, 1<<20)
	sum := sha256.New()
	before, err := processorTime()
	if err != nil {
		return err
	}
	for range *mib {
		sum.Write(buf)
	}
	after, err := processorTime()
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(hashPass{after - before})
}

// processorTime is what this process has used so far.
func processorTime() (time.Duration, error) {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		return 0, fmt.Errorf("read own processor time: %w", err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano()), nil
}
