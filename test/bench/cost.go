package main

import (
	"context"
	"fmt"
	"time"

	"github.com/larder-registry/larder/test/process"
)

// cost is what one piece of work took.
type cost struct {
	cpu      time.Duration // of the contender's processes
	served   int64         // bytes clients were sent
	requests int           // to the upstream
	fetched  int64         // bytes of blobs the upstream sent
	peak     int64         // bytes of resident memory
}

// perGiB is processor time for what clients were sent, in seconds.
func (c cost) perGiB() float64 { return c.cpu.Seconds() / (float64(c.served) / (1 << 30)) }

// processOf is the contender's process; nil where it has none to be measured.
func (b *bench) processOf(c contender) *process.Process {
	switch c.name {
	case larder:
		return b.larderProc
	case nginxCache, nginxStatic:
		return b.nginxProc
	case dockerRegistry:
		return b.registryProc
	case goFiles, goMemory:
		return b.filesProc
	default:
		return nil
	}
}

// lag is waited after a piece of work for what servers do behind it: writing to
// disk, and counting.
const lag = 300 * time.Millisecond

// metered does a piece of work, which returns how many bytes clients were sent,
// and says what it cost at c. The upstream's count starts anew with it.
func (b *bench) metered(ctx context.Context, c contender, work func() (int64, error)) (cost, error) {
	if _, err := b.up.tell(ctx, order{Forget: true}); err != nil {
		return cost{}, err
	}
	proc := b.processOf(c)
	var before time.Duration
	var spent cost
	var err error
	if proc != nil {
		if err := proc.ResetPeak(); err != nil {
			return cost{}, err
		}
		if before, err = proc.CPU(); err != nil {
			return cost{}, err
		}
	}
	if spent.served, err = work(); err != nil {
		return cost{}, err
	}
	if err := wait(ctx, lag); err != nil {
		return cost{}, err
	}
	if proc != nil {
		after, err := proc.CPU()
		if err != nil {
			return cost{}, err
		}
		spent.cpu = after - before
		if spent.peak, err = proc.Peak(); err != nil {
			return cost{}, err
		}
	}
	n, err := b.up.tell(ctx, order{})
	if err != nil {
		return cost{}, err
	}
	spent.requests = n.Requests
	for _, sent := range n.Sent {
		spent.fetched += sent
	}
	return spent, nil
}

// spend notes what c spent on the row's work, if it is Larder.
func (r *row) spend(c contender, spent cost) {
	if c.name == larder {
		r.costs = append(r.costs, spent)
	}
}

// spent writes the medians of what Larder spent: processor seconds for each GiB
// clients were sent, upstream requests, MiB from the upstream; and the highest
// memory.
func (r *row) spent() []string {
	if len(r.costs) == 0 {
		return []string{"", "", "", ""}
	}
	var cpu, requests, fetched []float64
	var peak int64
	for _, c := range r.costs {
		if c.served > 0 {
			cpu = append(cpu, c.perGiB())
		}
		requests = append(requests, float64(c.requests))
		fetched = append(fetched, float64(c.fetched)/(1<<20))
		peak = max(peak, c.peak)
	}
	perGiB := "–"
	if len(cpu) > 0 {
		perGiB = fmt.Sprintf("%.3g", median(cpu))
	}
	return []string{perGiB, fmt.Sprintf("%.0f", median(requests)), fmt.Sprintf("%.4g", median(fetched)), fmt.Sprintf("%.3g", float64(peak)/(1<<20))}
}

// peakRow is a row about the memory Larder took for the rows given.
func peakRow(what string, limit float64, of ...*row) *row {
	r := &row{what: what, unit: "MiB", how: atMost, limit: limit, worst: true}
	for _, o := range of {
		for _, c := range o.costs {
			r.add(larder, float64(c.peak)/(1<<20))
		}
	}
	return r
}
