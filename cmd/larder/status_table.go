package main

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/larder-registry/larder/internal/status"
)

// The widths of what is written where the terminal's is not known, and at least.
const (
	plainWidth = 120
	leastWidth = 60
)

// width is how many columns w has.
func width(w io.Writer) int {
	if f, ok := w.(*os.File); ok && isTerminal(f) {
		if size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ); err == nil && size.Col > 0 {
			return max(int(size.Col), leastWidth)
		}
	}
	return plainWidth
}

// writeStatus writes a document for people.
func writeStatus(b *bytes.Buffer, d *status.Document, width int) {
	ready := "ready"
	if !d.Ready {
		ready = "NOT READY"
	}
	fmt.Fprintf(b, "larder %s on %s, version %s: %s, running for %s\n", clean(d.Mode), clean(d.Host), clean(d.Version), ready, status.Span(d.At.Sub(d.Started)))
	for _, c := range d.Checks {
		if c.Problem != "" {
			fmt.Fprintf(b, "  %s: %s\n", clean(c.Name), clean(c.Problem))
		}
	}
	writeSums(b, d)
	if d.Fills != nil && d.Fills.Total > 0 {
		t := table{head: []string{"FETCHING", "SO FAR", "OF", "RATE", "WAITING"}}
		for _, f := range d.Fills.Items {
			t.row(bar(f.Bytes, f.Size)+" "+title(f.Registry+"/"+f.Repository)+" "+status.ShortDigest(f.Digest), status.Percent(f.Bytes, f.Size), status.Size(f.Size), status.Size(f.Rate)+"/s", fmt.Sprint(f.Followers))
		}
		t.write(b, width, d.Fills.More())
	}
	if d.Upstreams != nil && d.Upstreams.Total > 0 {
		t := table{head: []string{"UPSTREAM", "STATE", "LIMIT LEFT", "LAST ERROR"}}
		for _, u := range d.Upstreams.Items {
			left, problem := "-", "-"
			if u.Remaining != nil {
				left = fmt.Sprint(*u.Remaining)
			}
			if u.Reason != "" {
				problem = status.Since(u.ErrorAt, d.At) + ": " + u.Reason
			}
			t.row(u.Endpoint, stateOf(u, d.At), left, problem)
		}
		t.write(b, width, d.Upstreams.More())
	}
	if d.Mode == "mirror" && d.Traffic != nil && d.Traffic.Total > 0 {
		t := table{head: []string{"REGISTRY", "REQUESTS", "HITS", "SAVED", "FETCHED", "STALE", "DENIED"}}
		for _, r := range d.Traffic.Items {
			t.row(r.Registry, fmt.Sprint(r.Requests), status.Percent(r.Hits, r.Requests), status.Size(r.Saved), status.Size(r.Fetched), fmt.Sprint(r.Stale), fmt.Sprint(r.Denied))
		}
		t.write(b, width, d.Traffic.More())
	}
	if d.Repositories != nil && d.Repositories.Total > 0 {
		t := table{head: []string{"REPOSITORY", "TAGS", "REFERRERS", "SIZE", "PUSHED"}}
		for _, r := range d.Repositories.Items {
			t.row(title(r.Name), fmt.Sprint(r.Tags), fmt.Sprint(r.Referrers), status.Size(r.Size), status.Since(r.Pushed, d.At))
		}
		t.write(b, width, d.Repositories.More())
	}
	if d.Images != nil && len(d.Images.Items) > 0 {
		last := "LAST USE"
		if d.Mode != "mirror" {
			last = "PUSHED"
		}
		t := table{head: []string{"IMAGE", "SIZE", last, "PLATFORMS", ""}}
		for i := range d.Images.Items {
			image := &d.Images.Items[i]
			when := image.Used
			if when.IsZero() {
				when = image.Pushed
			}
			t.row(imageName(image), status.Size(image.Size), status.Since(when, d.At), strings.Join(image.Platforms, " "), marks(image))
		}
		t.write(b, width, d.Images.More())
	}
	writeVerdicts(b, d, width)
	if d.Errors != nil && len(d.Errors.Items) > 0 {
		t := table{head: []string{"LAST ERRORS", "WHEN", "TIMES"}}
		const shown = 5
		for _, e := range d.Errors.Items[:min(len(d.Errors.Items), shown)] {
			t.row(strings.Join(slices.DeleteFunc([]string{e.Message, e.Error, e.Subject}, func(s string) bool { return s == "" }), "; "), status.Since(e.At, d.At), fmt.Sprint(e.Count))
		}
		t.write(b, width, 0)
	}
	if !d.Names {
		fmt.Fprint(b, "\nNames of private images are left out: ask from the same host, or through kubectl port-forward.\n")
	}
}

// writeSums writes what there is to know at a glance.
func writeSums(b *bytes.Buffer, d *status.Document) {
	if t := d.Traffic; t != nil && d.Mode == "mirror" {
		sum := status.Sum(t.Items)
		fmt.Fprintf(b, "  hits      %s of %d requests; %s saved of %s sent\n", status.Percent(sum.Hits, sum.Requests), sum.Requests, status.Size(sum.Saved), status.Size(sum.Saved+sum.Passed))
	} else if t != nil {
		sum := status.Sum(t.Items)
		fmt.Fprintf(b, "  served    %s in %d requests\n", status.Size(sum.Saved+sum.Passed), sum.Requests)
	}
	if disk := d.Disk; disk != nil {
		fmt.Fprintf(b, "  disk      %s", status.Size(disk.Bytes+disk.Arriving))
		if disk.Limit > 0 {
			fmt.Fprintf(b, " of %s allowed", status.Size(disk.Limit))
		}
		if disk.Total > 0 {
			fmt.Fprintf(b, "; %s of %s free, %s to stay so", status.Size(disk.Free), status.Size(disk.Total), status.Size(disk.MinFree))
		}
		fmt.Fprintln(b)
		if disk.Problem != "" {
			fmt.Fprintf(b, "            nothing can be kept: %s\n", clean(disk.Problem))
		}
	}
	if d.Images != nil {
		fmt.Fprintf(b, "  images    %d\n", d.Images.Total)
	}
	if r := d.Reviews; r != nil {
		var counts []string
		for _, decision := range slices.Sorted(maps.Keys(r.Counts)) {
			counts = append(counts, fmt.Sprintf("%d %s", r.Counts[decision], clean(strings.ReplaceAll(decision, "_", " "))))
		}
		fmt.Fprintf(b, "  reviews   %s; policy %s\n", cmp.Or(strings.Join(counts, ", "), "none"), clean(r.Revision))
	}
}

// writeVerdicts writes the last reviews that were denied, or would be.
func writeVerdicts(b *bytes.Buffer, d *status.Document, width int) {
	if d.Reviews == nil || len(d.Reviews.Denied) == 0 {
		return
	}
	t := table{head: []string{"LAST DENIED", "VERDICT", "WHEN", "IMAGE"}}
	for _, v := range d.Reviews.Denied[:min(len(d.Reviews.Denied), 10)] {
		t.row(strings.Trim(v.Namespace+"/"+v.Object, "/"), strings.ReplaceAll(v.Decision, "_", " "), status.Since(v.At, d.At), v.Image)
	}
	t.write(b, width, len(d.Reviews.Denied)-10)
}

// table is columns, the first of which gives way when there is no room.
type table struct {
	head []string
	rows [][]string
}

func (t *table) row(cells ...string) {
	for i := range cells {
		cells[i] = clean(cells[i])
	}
	t.rows = append(t.rows, cells)
}

// write writes the table, and how many rows it lacks.
func (t *table) write(b *bytes.Buffer, width, more int) {
	widths := make([]int, len(t.head))
	for _, row := range append([][]string{t.head}, t.rows...) {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	rest := 0
	for i := range widths[1:] {
		widths[i+1] = min(widths[i+1], max(width/3, 12))
		rest += widths[i+1] + 2
	}
	widths[0] = max(min(widths[0], width-rest), 24)
	fmt.Fprintln(b)
	for _, row := range append([][]string{t.head}, t.rows...) {
		var line strings.Builder
		for i, cell := range row {
			cell = fit(cell, widths[i])
			line.WriteString(cell + strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)+2))
		}
		fmt.Fprintln(b, strings.TrimRight(line.String(), " "))
	}
	if more > 0 {
		fmt.Fprintf(b, "… and %d more\n", more)
	}
}

// fit cuts the middle out of what is too long: both ends of a name tell most.
func fit(cell string, width int) string {
	runes := []rune(cell)
	if len(runes) <= width {
		return cell
	}
	tail := (width - 1) / 2
	return string(runes[:width-1-tail]) + "…" + string(runes[len(runes)-tail:])
}

func imageName(i *status.Image) string {
	if i.Repository == "" {
		return i.Registry + "/(private)"
	}
	if i.Tag != "" {
		return i.Name() + ":" + i.Tag
	}
	return i.Name() + "@" + status.ShortDigest(i.Digest)
}

// marks is what else there is to say of an image.
func marks(i *status.Image) string {
	var all []string
	for _, m := range []struct {
		yes  bool
		word string
	}{{i.Pinned, "pinned"}, {i.Warm, "warm"}, {i.Private, "private"}, {i.Partial, "in part"}} {
		if m.yes {
			all = append(all, m.word)
		}
	}
	if i.Referrers > 0 {
		all = append(all, fmt.Sprintf("%d referrers", i.Referrers))
	}
	if len(all) == 0 {
		return " "
	}
	return strings.Join(all, " ")
}

func stateOf(u status.Upstream, now time.Time) string {
	switch {
	case u.Breaker == "open":
		return "left alone for " + status.Span(u.Until.Sub(now))
	case u.Breaker == "half-open":
		return "to be tried again"
	case !u.QuietUntil.IsZero():
		return "asked for quiet for " + status.Span(u.QuietUntil.Sub(now))
	case u.Failures > 0:
		return fmt.Sprintf("failing, %d in a row", u.Failures)
	}
	return "healthy"
}

func title(name string) string { return cmp.Or(strings.TrimSuffix(name, "/"), "(private)") }

// bar is how far something has come, in ten characters.
func bar(part, whole int64) string {
	filled := 0
	if whole > 0 {
		filled = int(min(part*10/whole, 10))
	}
	return "[" + strings.Repeat("#", filled) + strings.Repeat(".", 10-filled) + "]"
}
