package registry

import (
	"maps"
	"net/http"
	"slices"
	"sync"
)

// Kind is what a request asks for.
type Kind string

// The kinds of request. The registry itself answers all but Tokens and Storage,
// which have listeners of their own.
const (
	Ping      Kind = "ping"
	Manifests Kind = "manifest"
	Blobs     Kind = "blob"
	TagLists  Kind = "tags"
	Referrers Kind = "referrers"
	Tokens    Kind = "token"
	Storage   Kind = "storage"
	Other     Kind = "other"
)

// Fault is one way to misbehave: which requests it befalls, and what happens
// to their answers. The fields that say what happens can be combined; the zero
// value of each means "as it should be".
type Fault struct {
	// On selects a kind of request; empty means every kind.
	On Kind
	// Method selects GET or HEAD; empty means both.
	Method string
	// Match selects further; nil means all. It sees the request before its
	// answer, and must not call the Server.
	Match func(Request) bool
	// Times is how many of the selected requests are befallen, the first
	// ones; zero means all.
	Times int

	// Hang sends nothing, not even a status, until the client leaves or the
	// faults are replaced.
	Hang bool
	// Hold does the same until the gate opens, and then answers.
	Hold *Gate
	// Drop closes the connection instead of answering.
	Drop bool
	// Status answers with an error of that status; RetryAfter is its header.
	Status     int
	RetryAfter string
	// Location answers 307 to that address.
	Location string

	// NoDigest leaves Docker-Content-Digest out, Digest sends another.
	NoDigest bool
	Digest   string
	// NoLength leaves Content-Length out: the body is chunked.
	NoLength bool
	// ContentType is sent instead of the true one; "none" sends none.
	ContentType string
	// Encoding claims a Content-Encoding that was not applied; Gzip applies
	// gzip and says so, whatever the client accepts.
	Encoding string
	Gzip     bool

	// IgnoreRange answers a Range with 200 and everything.
	IgnoreRange bool
	// ContentRange is sent instead of the true one; "none" sends none.
	ContentRange string
	// Shift starts a ranged body that many bytes later than it says.
	Shift int64

	// Short ends the body that many bytes early, and cleanly: Content-Length
	// says the short length. Long adds that many bytes, and says so, too.
	Short, Long int64
	// Flip inverts one byte, at At.
	Flip bool
	// Cut breaks the connection at At.
	Cut bool
	// Stall sends nothing more from At on, until the client leaves or the
	// faults are replaced.
	Stall bool
	// Gate holds the body back at At until it is opened.
	Gate *Gate
	// At is an offset into the body of the answer; negative counts from its
	// end. An offset past the end never comes.
	At int64
	// Rate caps the body, in bytes per second; zero means no cap.
	Rate int64
}

// Gate holds an answer back until a test opens it.
type Gate struct {
	reached, open chan struct{}
	arrive, leave sync.Once
}

// NewGate returns a closed gate.
func NewGate() *Gate {
	return &Gate{reached: make(chan struct{}), open: make(chan struct{})}
}

// Reached is closed when the first answer stands before the gate.
func (g *Gate) Reached() <-chan struct{} { return g.reached }

// Open lets everybody through, now and later. It may be called more than once.
func (g *Gate) Open() { g.leave.Do(func() { close(g.open) }) }

// pass waits for the gate, and reports whether it opened before the client was
// gone.
func (g *Gate) pass(gone <-chan struct{}) bool {
	g.arrive.Do(func() { close(g.reached) })
	select {
	case <-g.open:
		return true
	case <-gone:
		return false
	}
}

// armed is a Fault in force.
type armed struct {
	Fault
	left int // how many times more; -1 means always
}

// Set replaces the faults in force, all at once, and lets go of the answers
// that the old ones hold: a stalled or hanging one is broken off. For each
// request the first fault that selects it applies, and no other. Without
// arguments the server behaves.
func (s *Server) Set(faults ...Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.faults = nil
	for _, f := range faults {
		a := &armed{Fault: f, left: f.Times}
		if f.Times == 0 {
			a.left = -1
		}
		s.faults = append(s.faults, a)
	}
	close(s.healed)
	s.healed = make(chan struct{})
}

// fault picks the fault that befalls req, or the zero one, and the channel
// that is closed when it is over.
func (s *Server) fault(req Request) (Fault, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	healed := s.healed
	if s.closed {
		return Fault{Drop: true}, nil
	}
	for _, a := range s.faults {
		if a.left == 0 || (a.On != "" && a.On != req.Kind) || (a.Method != "" && a.Method != req.Method) {
			continue
		}
		if a.Match != nil && !a.Match(req) {
			continue
		}
		if a.left > 0 {
			a.left--
		}
		return a.Fault, healed
	}
	return Fault{}, healed
}

// Named returns the fault of that name, for programs that choose faults by
// name, and whether there is one. On and Times are the caller's to set.
func Named(name string) (Fault, bool) {
	f, ok := named()[name]
	return f, ok
}

// Names lists what Named knows, in order.
func Names() []string { return slices.Sorted(maps.Keys(named())) }

func named() map[string]Fault {
	const early = 1000 // an offset that even a small manifest may not have, but every layer has
	return map[string]Fault{
		"no-digest":         {NoDigest: true},
		"wrong-digest":      {Digest: "sha256:0000000000000000000000000000000000000000000000000000000000000000"},
		"no-length":         {NoLength: true},
		"short":             {Short: 1},
		"short-chunked":     {Short: 1, NoLength: true},
		"long":              {Long: 1},
		"flip":              {Flip: true, At: -1},
		"cut":               {Cut: true, At: early},
		"cut-head":          {Drop: true},
		"stall":             {Stall: true, At: early},
		"hang":              {Hang: true},
		"drip":              {Rate: 64 << 10},
		"429":               {Status: http.StatusTooManyRequests, RetryAfter: "3600"},
		"500":               {Status: http.StatusInternalServerError},
		"503":               {Status: http.StatusServiceUnavailable},
		"404":               {Status: http.StatusNotFound},
		"401":               {Status: http.StatusUnauthorized},
		"403":               {Status: http.StatusForbidden},
		"head-405":          {Method: http.MethodHead, Status: http.StatusMethodNotAllowed},
		"redirect-refused":  {Location: "http://127.0.0.1:1/gone"},
		"no-range":          {IgnoreRange: true},
		"range-shifted":     {Shift: 1},
		"range-wrong":       {ContentRange: "bytes 1-2/3"},
		"range-unsaid":      {ContentRange: "none"},
		"wrong-type":        {ContentType: "text/html"},
		"no-type":           {ContentType: "none"},
		"type-with-charset": {ContentType: MediaTypeManifest + "; charset=utf-8"},
		"gzip":              {Gzip: true},
		"gzip-claimed":      {Encoding: "gzip"},
	}
}
