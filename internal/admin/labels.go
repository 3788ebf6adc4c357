package admin

import "sync"

// maxOthers is how many registries besides the configured ones have a label of
// their own at a time, and how many may take one over in a process' life.
const maxOthers = 20

// maxWaiting bounds the registries whose requests are counted while they have
// no label.
const maxWaiting = 256

// otherRegistry is the label of all the rest. No registry has this name: theirs
// have a dot or a port.
const otherRegistry = "other"

// RegistryLabels bounds the values of the metrics' registry label. Clients
// choose the registries they name, and every value costs memory for ever here
// and in whatever scrapes the metrics.
//
// The rule: configured registries always have their own label. So have the
// first 20 others that are asked for. One that comes later is "other" until it
// has been asked for more than twice as often as the least used of the 20, and
// then takes that one's place, whose series stop; that happens at most 20
// times. There are thus never more than the configured and 41 values.
//
// It is safe for concurrent use.
type RegistryLabels struct {
	configured map[string]bool

	mu      sync.Mutex
	held    map[string]uint64 // requests of the others that have a label
	waiting map[string]uint64 // requests of those that have none, about
	changes int
}

// NewRegistryLabels makes the labels for a configuration that names these
// registries.
func NewRegistryLabels(configured []string) *RegistryLabels {
	l := &RegistryLabels{configured: map[string]bool{}, held: map[string]uint64{}, waiting: map[string]uint64{}}
	for _, registry := range configured {
		l.configured[registry] = true
	}
	return l
}

// Label notes a use of a registry and gives its label: its own name, or "other".
func (l *RegistryLabels) Label(registry string) string {
	if l.configured[registry] {
		return registry
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.held[registry]; ok || len(l.held) < maxOthers {
		l.held[registry]++
		return registry
	}
	if l.changes == maxOthers {
		return otherRegistry
	}
	uses := l.wait(registry)
	least := l.leastUsed()
	if uses <= 2*l.held[least] {
		return otherRegistry
	}
	delete(l.held, least)
	delete(l.waiting, registry)
	l.held[registry] = uses
	l.changes++
	return registry
}

// wait counts a use of a registry without a label. When there are too many of
// them all lose a use, so that those asked for once give way to those asked for
// again and again (Misra and Gries' algorithm for frequent items).
func (l *RegistryLabels) wait(registry string) uint64 {
	if _, ok := l.waiting[registry]; !ok && len(l.waiting) == maxWaiting {
		for name := range l.waiting {
			if l.waiting[name]--; l.waiting[name] == 0 {
				delete(l.waiting, name)
			}
		}
		return 0
	}
	l.waiting[registry]++
	return l.waiting[registry]
}

// leastUsed is the labelled registry with the fewest requests.
func (l *RegistryLabels) leastUsed() (least string) {
	for name, uses := range l.held {
		if least == "" || uses < l.held[least] || uses == l.held[least] && name < least {
			least = name
		}
	}
	return least
}
