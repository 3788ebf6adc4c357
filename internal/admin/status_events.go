package admin

import (
	"encoding/json"
	"hash/maphash"
	"io"
	"net/http"
	"time"
)

const (
	// watchEvery is how often it is looked whether something has changed.
	watchEvery = 2 * time.Second
	// quietBeats is after how many looks without a change a watcher is sent
	// something all the same, so that a connection that is gone is found out.
	quietBeats = 8
	// watchPatience is how long a watcher may take to read what it is sent.
	watchPatience = 10 * time.Second
)

// change is one part of the page as it is now.
type change struct {
	ID   string `json:"id"`
	HTML string `json:"html"`
}

// events sends the parts of the page that have changed since they were sent
// last, as server-sent events (HTML standard, section 9.2). The goroutine is the
// request's own: it ends when the client leaves, does not read, or the server
// closes.
func (p *statusPages) events(w http.ResponseWriter, r *http.Request) {
	view, ok := p.begin(w, r)
	if !ok {
		return
	}
	select {
	case p.watchers <- struct{}{}:
		defer func() { <-p.watchers }()
	default:
		w.Header().Set("Retry-After", "60")
		http.Error(w, "too many are watching", http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	wire := http.NewResponseController(w)
	if r.Method == http.MethodHead {
		return
	}
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	seed, sent := maphash.MakeSeed(), map[string]uint64{}
	var d page
	for quiet := 0; ; quiet++ {
		doc := p.document(view)
		d.Reset()
		for _, s := range sections(doc) {
			from := d.Len()
			s.fill(&d, doc, view)
			html := d.Bytes()[from:]
			if sum := maphash.Bytes(seed, html); sum != sent[s.id] {
				sent[s.id], quiet = sum, 0
				if err := p.send(w, wire, change{s.id, string(html)}); err != nil {
					return
				}
			}
		}
		if quiet >= quietBeats {
			quiet = 0
			_ = wire.SetWriteDeadline(time.Now().Add(watchPatience)) // net/http's own writers have it
			if _, err := w.Write([]byte(":\n\n")); err != nil {
				return
			}
		}
		if wire.Flush() != nil {
			return
		}
		select {
		case <-tick.C:
		case <-r.Context().Done():
			return
		}
	}
}

// send writes one event. JSON has no line ends, so it is one line of data.
func (p *statusPages) send(w http.ResponseWriter, wire *http.ResponseController, c change) error {
	_ = wire.SetWriteDeadline(time.Now().Add(watchPatience)) // as above
	if _, err := io.WriteString(w, "event: part\ndata: "); err != nil {
		return err
	}
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)              // it is no part of a page here
	if err := encoder.Encode(c); err != nil { // ends the line
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}
