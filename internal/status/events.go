package status

import (
	"slices"
	"sync"
	"time"
)

// maxEvents bounds the events remembered, maxEventText each text of one in
// bytes.
const (
	maxEvents    = 50
	maxEventText = 400
)

// Event is a line of the log that is worth a look.
type Event struct {
	At      time.Time `json:"at"`
	Level   string    `json:"level"` // "warning" or "error"
	Message string    `json:"message"`
	Error   string    `json:"error,omitempty"`
	// What it is about, as far as the line said.
	Subject string `json:"subject,omitempty"`
	// Count is how many such lines there were in a row.
	Count int `json:"count"`
}

// Events remembers the last 50 events. The zero value is ready for use, from any
// goroutine.
type Events struct {
	mu   sync.Mutex
	last []Event // the oldest first
	seen int
}

// Add remembers an event; one like the last only counts there.
func (es *Events) Add(e Event) {
	e.Message, e.Error, e.Subject, e.Count = bounded(e.Message), bounded(e.Error), bounded(e.Subject), 1
	es.mu.Lock()
	defer es.mu.Unlock()
	es.seen++
	if n := len(es.last) - 1; n >= 0 && es.last[n].same(e) {
		e.Count += es.last[n].Count
		es.last[n] = e
		return
	}
	if len(es.last) == maxEvents {
		es.last = slices.Delete(es.last, 0, 1)
	}
	es.last = append(es.last, e)
}

func (e Event) same(as Event) bool {
	return e.Level == as.Level && e.Message == as.Message && e.Error == as.Error && e.Subject == as.Subject
}

// List gives the events, the latest first, and how many there ever were.
func (es *Events) List() *List[Event] {
	es.mu.Lock()
	defer es.mu.Unlock()
	list := &List[Event]{Total: es.seen, Items: append([]Event{}, es.last...)}
	slices.Reverse(list.Items)
	return list
}

// bounded cuts a text at a rune, into memory of its own.
func bounded(text string) string {
	if len(text) <= maxEventText {
		return text
	}
	end := 0
	for i := range text {
		if i > maxEventText {
			break
		}
		end = i
	}
	return string(append([]byte(text[:end]), "…"...))
}
