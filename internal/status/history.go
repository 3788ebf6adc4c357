package status

import (
	"sync"
	"time"
)

// The history is a day, in parts of five minutes.
const (
	HistoryEvery = 5 * time.Minute
	historySlots = 288
)

// Series are counts over time, each a part of HistoryEvery. All have as many
// parts; the last one is not over yet.
type Series struct {
	Every int `json:"every_seconds"`
	// Until is where the last part ends, so far.
	Until  time.Time          `json:"until"`
	Counts map[string][]int64 `json:"counts"`
}

// History turns counters that only rise into what came in each part of the last
// day. Its memory is bounded: 288 numbers for each counter. It is for any
// goroutine.
type History struct {
	names []string

	mu    sync.Mutex
	parts [][]int64 // by time, the oldest first; in each by name
	last  []int64   // the counters at the end of the last part
}

// NewHistory makes one for counters with these names.
func NewHistory(names ...string) *History {
	return &History{names: names, last: make([]int64, len(names))}
}

// Note ends a part. It is to be called every HistoryEvery with what the counters
// are, in the order of the names.
func (h *History) Note(counters []int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.parts) == historySlots-1 {
		copy(h.parts, h.parts[1:])
		h.parts = h.parts[:historySlots-2]
	}
	h.parts = append(h.parts, h.since(counters))
	copy(h.last, counters)
}

// Series gives the parts that are over and, from what the counters are now, the
// one that is not.
func (h *History) Series(now time.Time, counters []int64) *Series {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := &Series{Every: int(HistoryEvery.Seconds()), Until: now, Counts: make(map[string][]int64, len(h.names))}
	open := h.since(counters)
	for i, name := range h.names {
		counts := make([]int64, 0, len(h.parts)+1)
		for _, part := range h.parts {
			counts = append(counts, part[i])
		}
		s.Counts[name] = append(counts, open[i])
	}
	return s
}

// since is what came since the last part. mu is held.
func (h *History) since(counters []int64) []int64 {
	part := make([]int64, len(h.names))
	for i := range part {
		part[i] = max(counters[i]-h.last[i], 0)
	}
	return part
}
