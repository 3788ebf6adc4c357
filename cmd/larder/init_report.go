package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/larder-registry/larder/nodeconfig"
)

// initReport is what larder init tells, as text or, field by field, as JSON.
type initReport struct {
	// Status is unchanged, planned, changed, undone or failed.
	Status        string       `json:"status"`
	Error         string       `json:"error,omitempty"`
	DryRun        bool         `json:"dry_run"`
	Root          string       `json:"root"`
	Target        string       `json:"target,omitempty"`
	Evidence      string       `json:"evidence,omitempty"`
	Mirror        string       `json:"mirror,omitempty"`
	AddressSource string       `json:"address_source,omitempty"`
	Data          *initData    `json:"data,omitempty"`
	Changes       []initChange `json:"changes"`
	Notes         []initNote   `json:"notes"`
	Warnings      []initNote   `json:"warnings"`
	// Restart is what has to be, or was, restarted.
	Restart *initRestart `json:"restart,omitempty"`
}

type initData struct {
	Path    string `json:"path"`
	Changed int    `json:"changed"`
	Removed int    `json:"removed"`
	removal bool
}

type initChange struct {
	Kind   string `json:"kind"`
	Path   string `json:"path"`
	Action string `json:"action"`
	Why    string `json:"why"`
	Diff   string `json:"diff"`
}

type initNote struct {
	Path string `json:"path,omitempty"`
	Text string `json:"text"`
}

type initRestart struct {
	Unit string `json:"unit"`
	Why  string `json:"why"`
	// Reload: the service need not stop for it.
	Reload bool `json:"reload"`
	// Done is false when it is left to the operator.
	Done bool `json:"done"`
}

// plan notes what a target wants to do.
func (r *initReport) plan(changes []nodeconfig.Change) {
	for _, c := range changes {
		switch c.Kind {
		case nodeconfig.Note:
			r.Notes = append(r.Notes, initNote{c.Path, c.Why})
		case nodeconfig.Warning:
			r.Warnings = append(r.Warnings, initNote{c.Path, c.Why})
		case nodeconfig.Restart:
			r.Restart = &initRestart{Unit: c.Path, Why: c.Why, Reload: c.Reload, Done: c.Changes() && !r.DryRun}
		default:
			if c.Changes() {
				r.Changes = append(r.Changes, initChange{string(c.Kind), c.Path, c.Action(), c.Why, c.Diff()})
			}
		}
	}
}

// changes reports whether there is anything to apply.
func (r *initReport) changes() bool { return len(r.Changes) > 0 || r.Restart != nil && r.Restart.Done }

// write tells it all.
func (r *initReport) write(w io.Writer, format string) error {
	if format == "json" {
		// Lists are lists for whoever reads them, also when empty.
		r.Changes = append([]initChange{}, r.Changes...)
		r.Notes = append([]initNote{}, r.Notes...)
		r.Warnings = append([]initNote{}, r.Warnings...)
		encoder := json.NewEncoder(w)
		encoder.SetEscapeHTML(false)
		encoder.SetIndent("", "  ")
		return encoder.Encode(r)
	}
	_, err := io.WriteString(w, r.text())
	return err
}

func (r *initReport) text() string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	if r.Target != "" {
		line("node: %s (%s)", r.Target, r.Evidence)
	}
	if r.Mirror != "" {
		line("mirror: %s (%s)", r.Mirror, r.AddressSource)
	}
	if r.Data != nil {
		if r.Data.removal {
			line("data: %s, %s removed", r.Data.Path, count(r.Data.Removed, "entry", "entries"))
		} else {
			line("data: %s, %s changed", r.Data.Path, count(r.Data.Changed, "entry", "entries"))
		}
	}
	for _, n := range r.Notes {
		line("note: %s", n)
	}
	for _, c := range r.Changes {
		line("%s %s: %s", c.Action, c.Path, c.Why)
		b.WriteString(c.Diff)
	}
	for _, n := range r.Warnings {
		line("warning: %s", n)
	}
	if r.Restart != nil && r.Status != "failed" {
		verb := "restart"
		if r.Restart.Reload {
			verb = "reload"
		}
		if r.Restart.Done {
			line("%sed: %s: %s", verb, r.Restart.Unit, r.Restart.Why)
		} else {
			line("to do: systemctl %s %s: %s", verb, r.Restart.Unit, r.Restart.Why)
		}
	}
	switch r.Status {
	case "unchanged":
		line("nothing to change")
	case "planned":
		line("dry run: %s to make, nothing was touched", count(len(r.Changes), "change", "changes"))
	case "changed", "undone":
		line("%s: %s made and read back", r.Status, count(len(r.Changes), "change", "changes"))
	case "failed":
		line("not configured: %s", r.Error)
	}
	return b.String()
}

// String puts the path, if there is one, before the text.
func (n initNote) String() string {
	if n.Path == "" {
		return n.Text
	}
	return n.Path + ": " + n.Text
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
