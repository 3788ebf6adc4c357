package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRowPasses(t *testing.T) {
	values := map[string][]float64{
		larder: {10, 30, 20},
		direct: {10, 20, 10}, // ratios 1, 1.5, 2; differences 0, 10, 10
	}
	for _, tc := range []struct {
		name   string
		how    comparison
		worst  bool
		limit  float64
		figure float64
		ok     bool
	}{
		{"median ratio at its bar", ratioAtMost, false, 1.5, 1.5, true},
		{"median ratio above its bar", ratioAtMost, false, 1.4, 1.5, false},
		{"worst ratio above its bar", ratioAtMost, true, 1.5, 2, false},
		{"ratio at least", ratioAtLeast, false, 1.5, 1.5, true},
		{"ratio below its bar", ratioAtLeast, false, 1.6, 1.5, false},
		{"worst of what should be high is the lowest", ratioAtLeast, true, 1.5, 1, false},
		{"difference", aboveAtMost, false, 10, 10, true},
		{"difference above its bar", aboveAtMost, false, 9, 10, false},
		{"alone", atMost, false, 20, 20, true},
		{"worst alone", atMost, true, 20, 30, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := row{ref: direct, how: tc.how, worst: tc.worst, limit: tc.limit, values: values}
			if v, ok := r.figure(); v != tc.figure || ok != tc.ok {
				t.Errorf("figure is %v, passes %v; want %v, %v", v, ok, tc.figure, tc.ok)
			}
		})
	}
}

// A bar for which nothing was measured is missed.
func TestRowWithoutValues(t *testing.T) {
	tab := table{rows: []*row{{what: "nothing", how: atMost, limit: 1}}}
	if len(tab.missed()) != 1 || !strings.Contains(tab.markdown(), "**no**") {
		t.Errorf("passes:\n%s", tab.markdown())
	}
}

func TestWriteTable(t *testing.T) {
	for _, tc := range []struct{ name, old, want string }{
		{"new file", "", "T\n"},
		{"without marks", "something\n", "T\n"},
		{"with marks", "a\n<!-- bench -->\nold\n<!-- /bench -->\nb\n", "a\n<!-- bench -->\n\nT\n\n<!-- /bench -->\nb\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "table.md")
			if tc.old != "" {
				if err := os.WriteFile(path, []byte(tc.old), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if err := writeTable(path, "T\n"); err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != tc.want {
				t.Errorf("file is %q, want %q", got, tc.want)
			}
		})
	}
}
