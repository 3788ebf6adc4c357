package main

import "sync"

// labels bounds the values of the metrics' registry label. Clients choose which
// registries they name, and each value costs memory for ever in the mirror and
// in whatever scrapes it.
//
// Configured registries keep their name. Of the others, those named often do:
// the first maxLabels that were named labelUses times. The rest is "other".
type labels struct {
	mu     sync.Mutex
	named  map[string]bool
	free   int
	counts map[string]int // of names that have no label yet
}

const (
	maxLabels     = 20
	labelUses     = 3
	maxCandidates = 256
)

func newLabels(configured []string) *labels {
	l := &labels{named: map[string]bool{}, free: maxLabels, counts: map[string]int{}}
	for _, registry := range configured {
		l.named[registry] = true
	}
	return l
}

// of returns registry, or "other".
func (l *labels) of(registry string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.named[registry] {
		return registry
	}
	if l.free == 0 {
		return "other"
	}
	if len(l.counts) >= maxCandidates {
		// Somebody names one registry after the other; start over.
		clear(l.counts)
	}
	l.counts[registry]++
	if l.counts[registry] < labelUses {
		return "other"
	}
	delete(l.counts, registry)
	l.named[registry] = true
	l.free--
	return registry
}
