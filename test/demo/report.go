package main

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// row is one line of the table.
type row struct {
	what    string
	clients int
	took    time.Duration
	got     int64  // bytes the clients received
	from    served // bytes the mirror sent, by source
	killed  bool   // the mirror did not live to say from and peak
	// requests and sent (bytes) are counted at the upstream.
	requests, sent int64
	peak           int64 // mirror's resident memory, bytes
}

// check is something that has to hold.
type check struct {
	what string
	ok   bool
	seen string
}

// report prints table and checks. It fails when a check does.
func (d *demo) report(w io.Writer) error {
	fmt.Fprintf(w, "\nImage: %s MiB for linux/amd64 in %d layers, %s MiB for linux/arm64 in %d; pushed three times with other content.\n",
		mib(float64(d.first.size["amd64"])), len(layers["amd64"]), mib(float64(d.first.size["arm64"])), len(layers["arm64"]))
	fmt.Fprintf(w, "Upstream: docker-registry, held to %d MB/s on each connection, %v for each answer. All sizes in MiB.\n\n", d.rate, d.latency)

	table := [][]string{
		{"pull", "clients", "seconds", "received", "from upstream", "joined", "from disk", "upstream requests", "upstream sent", "peak memory"},
	}
	for _, r := range d.rows {
		from := []string{"-", "-", "-"}
		peak := "-"
		if !r.killed {
			peak = mib(float64(r.peak))
			if r.from != (served{}) {
				from = []string{mib(r.from.upstream), mib(r.from.join), mib(r.from.disk)}
			}
		}
		table = append(table, []string{
			r.what, fmt.Sprint(r.clients), fmt.Sprintf("%.2f", r.took.Seconds()), mib(float64(r.got)),
			from[0], from[1], from[2], fmt.Sprint(r.requests), mib(float64(r.sent)), peak,
		})
	}
	printTable(w, table)

	fmt.Fprintln(w)
	failed := 0
	all := append([]check{{what: "every byte of every finished pull matched its digest", ok: true}}, d.checks...)
	for _, c := range all {
		if c.ok {
			fmt.Fprintf(w, "  ok      %s\n", c.what)
			continue
		}
		failed++
		fmt.Fprintf(w, "  FAILED  %s (%s)\n", c.what, c.seen)
	}
	fmt.Fprintf(w, "\n%.0f seconds in all.\n", time.Since(d.started).Seconds())
	if failed > 0 {
		return fmt.Errorf("%d of %d checks failed", failed, len(all))
	}
	return nil
}

// printTable prints rows under a header, first column to the left, the rest to
// the right.
func printTable(w io.Writer, table [][]string) {
	width := make([]int, len(table[0]))
	for _, line := range table {
		for i, cell := range line {
			width[i] = max(width[i], len(cell))
		}
	}
	for n, line := range table {
		for i, cell := range line {
			if i == 0 {
				fmt.Fprintf(w, "%-*s", width[i], cell)
			} else {
				fmt.Fprintf(w, "  %*s", width[i], cell)
			}
		}
		fmt.Fprintln(w)
		if n == 0 {
			for i := range line {
				if i > 0 {
					fmt.Fprint(w, "  ")
				}
				fmt.Fprint(w, strings.Repeat("-", width[i]))
			}
			fmt.Fprintln(w)
		}
	}
}

// mib writes bytes as MiB with one decimal.
func mib(bytes float64) string { return fmt.Sprintf("%.1f", bytes/(1<<20)) }
