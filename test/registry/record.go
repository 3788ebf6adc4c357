package registry

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
)

// Request is one request as the server saw it, and how far its answer got.
type Request struct {
	Kind   Kind
	Method string
	// Path is as it came over the wire, escapes and all; Query too.
	Path, Query string
	// Repo and Target (a tag or a digest) are empty where the kind has none.
	Repo, Target string
	Header       http.Header
	// Time is when the request's head was read.
	Time time.Time
	// Remote is the client's address, one for each connection.
	Remote string
	// Status is zero until the answer's head is sent.
	Status int
	// Sent counts the bytes of the body handed to the connection. What a
	// client that hung up never read counts, too.
	Sent int64
	// Done says that nothing more will be sent.
	Done bool
}

// Range is the request's Range header.
func (r Request) Range() string { return r.Header.Get("Range") }

// Stats count connections and requests of registry, token server and storage
// together, over the server's life.
type Stats struct {
	// Connections are open now; Peak is the most that ever were; Accepted is
	// how many there have been.
	Connections, Peak, Accepted int
	// InFlight requests are being answered now; Busiest is the most that ever
	// were.
	InFlight, Busiest int
}

type record struct {
	mu       sync.Mutex
	changed  chan struct{} // closed and replaced at every change
	requests []*Request
	stats    Stats
}

func (r *record) init() { r.changed = make(chan struct{}) }

// change runs f under the lock and wakes who waits.
func (r *record) change(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
	close(r.changed)
	r.changed = make(chan struct{})
}

// begin records a request; the answer's writer updates it.
func (r *record) begin(req *Request) {
	r.change(func() {
		r.requests = append(r.requests, req)
		r.stats.InFlight++
		r.stats.Busiest = max(r.stats.Busiest, r.stats.InFlight)
	})
}

func (r *record) end(req *Request) {
	r.change(func() {
		req.Done = true
		r.stats.InFlight--
	})
}

func (r *record) opened() {
	r.change(func() {
		r.stats.Accepted++
		r.stats.Connections++
		r.stats.Peak = max(r.stats.Peak, r.stats.Connections)
	})
}

func (r *record) gone() { r.change(func() { r.stats.Connections-- }) }

func (r *record) snapshot() ([]Request, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]Request, len(r.requests))
	for i, req := range r.requests {
		all[i] = *req
	}
	return all, r.changed
}

// Requests are the requests seen since the start or the last Forget, oldest
// first.
func (s *Server) Requests() []Request {
	all, _ := s.record.snapshot()
	return all
}

// Forget empties the record; Stats go on counting. An answer on its way then is
// no longer seen.
func (s *Server) Forget() { s.record.change(func() { s.record.requests = nil }) }

// Stats counts connections and requests.
func (s *Server) Stats() Stats {
	s.record.mu.Lock()
	defer s.record.mu.Unlock()
	return s.record.stats
}

// Count is how many requests of one of the kinds were seen; without kinds, all.
func (s *Server) Count(kinds ...Kind) int {
	return Count(s.Requests(), kinds...)
}

// Count is how many of the requests are of one of the kinds; without kinds,
// all.
func Count(requests []Request, kinds ...Kind) int {
	n := 0
	for _, r := range requests {
		if len(kinds) == 0 {
			n++
		}
		for _, k := range kinds {
			if r.Kind == k {
				n++
			}
		}
	}
	return n
}

// Sent is how many bytes of that blob or manifest were sent, by registry and
// storage together.
func (s *Server) Sent(dgst digest.Digest) int64 {
	var n int64
	for _, r := range s.Requests() {
		if r.Target == dgst.String() {
			n += r.Sent
		}
	}
	return n
}

// WaitFor waits until cond holds for the requests seen so far. cond is called
// again at each change, and must not call the Server's methods that change it.
// The error is ctx's, wrapped.
func (s *Server) WaitFor(ctx context.Context, cond func([]Request) bool) error {
	for {
		all, changed := s.record.snapshot()
		if cond(all) {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("wait for requests, %d seen: %w", len(all), ctx.Err())
		}
	}
}

// WaitIdle waits until no request is being answered.
func (s *Server) WaitIdle(ctx context.Context) error {
	return s.WaitFor(ctx, func(all []Request) bool {
		for _, r := range all {
			if !r.Done {
				return false
			}
		}
		return true
	})
}
