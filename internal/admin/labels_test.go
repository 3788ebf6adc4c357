package admin_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/larder-registry/larder/internal/admin"
)

// fill makes labels whose places are taken by r0.test … r19.test, each asked
// for uses times.
func fill(t *testing.T, uses int) *admin.RegistryLabels {
	t.Helper()
	l := admin.NewRegistryLabels([]string{"configured.test"})
	for range uses {
		for i := range 20 {
			name := fmt.Sprintf("r%d.test", i)
			if got := l.Label(name); got != name {
				t.Fatalf("Label(%s) = %s", name, got)
			}
		}
	}
	return l
}

func TestFirstTwentyHaveTheirOwnLabel(t *testing.T) {
	l := fill(t, 1)
	if got := l.Label("late.test"); got != "other" {
		t.Errorf("the 21st is %s", got)
	}
	if got := l.Label("r7.test"); got != "r7.test" {
		t.Errorf("one of the first is %s", got)
	}
	if got := l.Label("configured.test"); got != "configured.test" {
		t.Errorf("a configured one is %s", got)
	}
}

func TestMoreUsedTakesOver(t *testing.T) {
	l := fill(t, 5)
	for i := range 10 {
		if got := l.Label("late.test"); got != "other" {
			t.Fatalf("use %d: %s", i+1, got)
		}
	}
	if got := l.Label("late.test"); got != "late.test" {
		t.Errorf("after more than twice the uses of the least: %s", got)
	}
	kept := 0
	for i := range 20 {
		if name := fmt.Sprintf("r%d.test", i); l.Label(name) == name {
			kept++
		}
	}
	if kept != 19 {
		t.Errorf("%d of the first 20 have a label still, want 19", kept)
	}
}

// TestValuesAreBounded: whatever is asked for, in whatever order.
func TestValuesAreBounded(t *testing.T) {
	l := admin.NewRegistryLabels([]string{"configured.test"})
	values := map[string]bool{}
	for i := range 2000 {
		for range 1 + i%50 {
			values[l.Label(fmt.Sprintf("junk%d.test", i))] = true
		}
	}
	values[l.Label("configured.test")] = true
	if !values["other"] || !values["configured.test"] || len(values) > 42 {
		t.Errorf("%d values", len(values))
	}
}

// TestJunkDoesNotKeepTheUsedOut: names asked for once each neither stop a
// registry that is asked for in earnest from being labelled, nor push one out.
func TestJunkDoesNotKeepTheUsedOut(t *testing.T) {
	l := fill(t, 3)
	for i := range 100 {
		if got := l.Label(fmt.Sprintf("junk%d.test", i)); got != "other" {
			t.Fatalf("junk is %s", got)
		}
		if l.Label("used.test") == "used.test" {
			return
		}
	}
	t.Error("never labelled")
}

func TestLabelsAreConcurrent(t *testing.T) {
	l := admin.NewRegistryLabels(nil)
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 2000 {
				name := fmt.Sprintf("r%d.test", (i*7+w)%400)
				if got := l.Label(name); got != name && got != "other" {
					t.Errorf("Label(%s) = %s", name, got)
				}
			}
		})
	}
	wg.Wait()
}

func BenchmarkLabel(b *testing.B) {
	l := admin.NewRegistryLabels([]string{"docker.io"})
	for i := range 20 {
		l.Label(fmt.Sprintf("r%d.test", i))
	}
	for name, registry := range map[string]string{"configured": "docker.io", "held": "r3.test"} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				l.Label(registry)
			}
		})
	}
}
