package main

import (
	"fmt"
	"testing"
)

func TestLabels(t *testing.T) {
	l := newLabels([]string{"configured.example"})
	if got := l.of("configured.example"); got != "configured.example" {
		t.Errorf("a configured registry is %q", got)
	}
	for i, want := range []string{"other", "other", "docker.io", "docker.io"} {
		if got := l.of("docker.io"); got != want {
			t.Errorf("use %d of docker.io is %q, want %q", i+1, got, want)
		}
	}
	// A thousand names once each leave nothing behind.
	for i := range 1000 {
		if got := l.of(fmt.Sprintf("once-%d.example", i)); got != "other" {
			t.Fatalf("a name used once is %q", got)
		}
	}
	if len(l.counts) > maxCandidates {
		t.Errorf("%d candidates are remembered", len(l.counts))
	}
	values := map[string]bool{}
	for i := range 1000 {
		for range 2 * labelUses {
			values[l.of(fmt.Sprintf("often-%d.example", i))] = true
		}
	}
	// 19 beside docker.io, and "other".
	if len(values) != maxLabels {
		t.Errorf("%d values for the label", len(values))
	}
	if got := l.of("configured.example"); got != "configured.example" {
		t.Errorf("a configured registry is %q afterwards", got)
	}
}
