package registry

import (
	"net"
	"sync"
	"time"
)

// mode is what a listener does with connections.
type mode int

const (
	normal  mode = iota
	silent       // accept, and nothing else
	garbled      // answer with noise
)

// shape is the speed of all connections of a server.
type shape struct {
	mu      sync.Mutex
	latency time.Duration
	rate    int64
}

func newShape(latency time.Duration, rate int64) *shape {
	return &shape{latency: latency, rate: rate}
}

func (s *shape) set(latency time.Duration, rate int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.latency, s.rate = latency, rate
}

func (s *shape) get() (time.Duration, int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.latency, s.rate
}

// listener hands connections to the HTTP server, or to nobody.
type listener struct {
	net.Listener
	shape  *shape
	record *record

	mu    sync.Mutex
	mode  mode
	conns map[*conn]struct{}
	empty sync.WaitGroup // one for each connection that is open
}

func newListener(inner net.Listener, s *shape, r *record) *listener {
	return &listener{Listener: inner, shape: s, record: r, conns: map[*conn]struct{}{}}
}

// Accept returns connections in normal mode only.
func (l *listener) Accept() (net.Conn, error) {
	for {
		inner, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c := &conn{Conn: inner, lis: l, closed: make(chan struct{})}
		l.mu.Lock()
		m := l.mode
		l.conns[c] = struct{}{}
		l.empty.Add(1)
		l.mu.Unlock()
		l.record.opened()
		switch m {
		case normal:
			return c, nil
		case garbled:
			// Held open afterwards: a close could overtake the noise. Whether
			// it could be written is the client's affair.
			_, _ = inner.Write([]byte("\x00\xffthis is neither TLS nor HTTP\r\n\r\n"))
		case silent:
		}
	}
}

// setMode changes the mode and breaks the connections of the old one.
func (l *listener) setMode(m mode) {
	l.mu.Lock()
	l.mode = m
	l.mu.Unlock()
	l.drop()
}

// drop breaks every connection.
func (l *listener) drop() {
	l.mu.Lock()
	var all []*conn
	for c := range l.conns {
		all = append(all, c)
	}
	l.mu.Unlock()
	for _, c := range all {
		_ = c.Close() // its only error is that it was closed already
	}
}

// wait returns when every connection is closed.
func (l *listener) wait() { l.empty.Wait() }

// conn sends no faster than the shape allows.
type conn struct {
	net.Conn
	lis    *listener
	once   sync.Once
	closed chan struct{}
	due    time.Time // when the next byte may leave; used by one writer at a time
}

// Close closes the connection once; later calls do nothing.
func (c *conn) Close() error {
	var err error
	c.once.Do(func() {
		close(c.closed)
		err = c.Conn.Close()
		c.lis.mu.Lock()
		delete(c.lis.conns, c)
		c.lis.mu.Unlock()
		c.lis.record.gone()
		c.lis.empty.Done()
	})
	return err
}

// Write is a token bucket that holds a hundredth of a second: it sends a piece
// when the pieces before it have had their time.
func (c *conn) Write(p []byte) (int, error) {
	sent := 0
	for sent < len(p) {
		_, rate := c.lis.shape.get()
		if rate <= 0 {
			n, err := c.Conn.Write(p[sent:])
			return sent + n, err
		}
		piece := p[sent:min(len(p), sent+int(max(rate/100, 1)))]
		now := time.Now()
		if c.due.Before(now) {
			c.due = now
		}
		if !pause(c.due.Sub(now), c.closed) {
			return sent, net.ErrClosed
		}
		n, err := c.Conn.Write(piece)
		sent += n
		if err != nil {
			return sent, err
		}
		c.due = c.due.Add(time.Duration(float64(n) / float64(rate) * float64(time.Second)))
	}
	return sent, nil
}

// pause waits, and reports whether it was left alone until the end.
func pause(d time.Duration, stop <-chan struct{}) bool {
	if d <= 0 {
		return true
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-stop:
		return false
	}
}
