package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
)

// comparison is how a row's values become the figure that has to pass the bar.
type comparison int

const (
	ratioAtMost  comparison = iota // Larder's by the reference's
	ratioAtLeast                   // the same
	aboveAtMost                    // Larder's less the reference's
	atMost                         // Larder's alone
	ratio                          // Larder's by the reference's; no bar
)

// row is one line of the table. Values are one for each repetition, by
// contender; those of one index belong together.
type row struct {
	what, unit string
	ref        string // the contender Larder is compared with
	how        comparison
	limit      float64
	// worst compares the worst of the figures instead of their median.
	worst  bool
	values map[string][]float64
	// costs are what Larder spent on it, one for each repetition.
	costs []cost
}

func (r *row) add(name string, v float64) {
	if r.values == nil {
		r.values = map[string][]float64{}
	}
	r.values[name] = append(r.values[name], v)
}

// figures are what is compared with the bar, one for each repetition.
func (r *row) figures() []float64 {
	var all []float64
	for i, v := range r.values[larder] {
		switch r.how {
		case ratioAtMost, ratioAtLeast, ratio:
			v /= r.values[r.ref][i]
		case aboveAtMost:
			v -= r.values[r.ref][i]
		}
		all = append(all, v)
	}
	return all
}

// figure is the one that counts, and whether it passes.
func (r *row) figure() (float64, bool) {
	all := r.figures()
	if len(all) == 0 {
		return 0, false
	}
	v := median(all)
	if r.how == ratio {
		return v, true
	}
	if r.how == ratioAtLeast {
		if r.worst {
			v = slices.Min(all)
		}
		return v, v >= r.limit
	}
	if r.worst {
		v = slices.Max(all)
	}
	return v, v <= r.limit
}

// bar says what has to hold.
func (r *row) bar() string {
	switch r.how {
	case ratio:
		return "none"
	case ratioAtMost:
		return fmt.Sprintf("≤ %.4g × %s", r.limit, r.ref)
	case ratioAtLeast:
		return fmt.Sprintf("≥ %.4g × %s", r.limit, r.ref)
	case aboveAtMost:
		return fmt.Sprintf("≤ %s + %s", r.ref, r.show(r.limit))
	default:
		return "≤ " + r.show(r.limit)
	}
}

// show writes a value with its unit.
func (r *row) show(v float64) string {
	if v >= 1000 {
		return fmt.Sprintf("%.0f %s", v, r.unit)
	}
	return strings.TrimSpace(fmt.Sprintf("%.3g %s", v, r.unit))
}

// seen is the median of a contender's values, or a dash.
func (r *row) seen(name string) string {
	if len(r.values[name]) == 0 {
		return "–"
	}
	return r.show(median(r.values[name]))
}

// compared writes the figure with its spread.
func (r *row) compared() string {
	all := r.figures()
	if len(all) == 0 {
		return "–"
	}
	v, _ := r.figure()
	write := func(v float64) string { return fmt.Sprintf("%.3f", v) }
	switch r.how {
	case aboveAtMost:
		write = func(v float64) string { return fmt.Sprintf("%+.3g", v) }
	case atMost:
		write = func(v float64) string { return fmt.Sprintf("%.3g", v) }
	}
	return fmt.Sprintf("%s (%s–%s)", write(v), write(slices.Min(all)), write(slices.Max(all)))
}

// table is the result of a run.
type table struct {
	about []string
	rows  []*row
}

// markdown writes the table.
func (t *table) markdown() string {
	var s strings.Builder
	fmt.Fprintf(&s, "%s.\n\n", strings.Join(t.about, "; "))
	columns := []string{nginxCache, nginxStatic, dockerRegistry}
	fmt.Fprintf(&s, "| measured | bar | Larder | reference | compared: median or worst (min–max) | holds | CPU s/GiB | upstream requests | upstream MiB | peak MiB | %s |\n", strings.Join(columns, " | "))
	s.WriteString("|---|---|--:|--:|--:|---|--:|--:|--:|--:|--:|--:|--:|\n")
	for _, r := range t.rows {
		ref := "–"
		if r.ref != "" {
			ref = r.seen(r.ref)
		}
		var others []string
		for _, c := range columns {
			others = append(others, r.seen(c))
		}
		_, ok := r.figure()
		fmt.Fprintf(&s, "| %s | %s | %s | %s | %s | %s | %s | %s |\n", r.what, r.bar(), r.seen(larder), ref, r.compared(),
			map[bool]string{true: "yes", false: "**no**"}[ok], strings.Join(r.spent(), " | "), strings.Join(others, " | "))
	}
	return s.String()
}

// missed names the rows whose bar was missed.
func (t *table) missed() []string {
	var all []string
	for _, r := range t.rows {
		if _, ok := r.figure(); !ok {
			all = append(all, fmt.Sprintf("%s: %s, bar %s", r.what, r.compared(), r.bar()))
		}
	}
	return all
}

// writeTable writes text to a file, or between the marks if the file has them.
func writeTable(path, text string) error {
	const open, end = "<!-- bench -->\n", "<!-- /bench -->"
	old, err := os.ReadFile(path)
	if err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("read old table: %w", err)
	}
	if before, rest, ok := strings.Cut(string(old), open); ok {
		if _, after, ok := strings.Cut(rest, end); ok {
			text = before + open + "\n" + text + "\n" + end + after
		}
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		return fmt.Errorf("write table: %w", err)
	}
	return nil
}

// median of at least one value.
func median[T float64 | int64](values []T) T {
	s := slices.Sorted(slices.Values(values))
	if n := len(s); n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[len(s)/2]
}

// machine describes what the figures were measured with, and how busy it was.
func machine(ctx context.Context, opts options) []string {
	about := []string{fmt.Sprintf("%d cores", runtime.NumCPU())}
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if key, model, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
				about[0] += " of " + strings.TrimSpace(model)
				break
			}
		}
	}
	if b, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		about = append(about, "Linux "+strings.TrimSpace(string(b)))
	}
	about = append(about, runtime.Version())
	// Both print their version where the other does not, or with an error
	// status; what is printed is taken, and nothing if it cannot be run.
	out, _ := exec.CommandContext(ctx, opts.nginx, "-v").CombinedOutput()
	_, version, _ := strings.Cut(strings.TrimSpace(string(out)), ": ")
	about = append(about, strings.TrimPrefix(version, "nginx version: "))
	out, _ = exec.CommandContext(ctx, opts.registry, "--version").CombinedOutput()
	if f := strings.Fields(string(out)); len(f) > 0 {
		about = append(about, "docker-registry "+f[len(f)-1])
	}
	about = append(about, fmt.Sprintf("%d repetitions", opts.reps))
	if b, err := os.ReadFile("/proc/loadavg"); err == nil {
		load, _, _ := strings.Cut(string(b), " ")
		about = append(about, "load before the run "+load)
	}
	return about
}
