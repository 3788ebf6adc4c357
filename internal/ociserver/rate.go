package ociserver

import (
	"net"
	"sync"

	"golang.org/x/time/rate"
)

// paceStep is how much is sent at a time to a client whose rate is bounded, in
// bytes.
const paceStep = 64 << 10

// rates bounds what each client is sent. A client is known only while something
// is being sent to it, so there are never more than there are connections.
type rates struct {
	bytesPerSecond int64

	mu sync.Mutex
	of map[string]*clientRate // by address, without the port
}

// clientRate is shared by all that is sent to one client.
type clientRate struct {
	limiter *rate.Limiter
	users   int
}

// newRates returns nil, which bounds nothing, for a rate of zero or less.
func newRates(bytesPerSecond int64) *rates {
	if bytesPerSecond <= 0 {
		return nil
	}
	return &rates{bytesPerSecond: bytesPerSecond, of: make(map[string]*clientRate)}
}

// take returns what a client's bytes have to wait for, nil for nothing, and what
// is to be called when they have been sent.
func (r *rates) take(remote string) (turn *rate.Limiter, done func()) {
	if r == nil {
		return nil, func() {}
	}
	host, _, err := net.SplitHostPort(remote)
	if err != nil {
		host = remote
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.of[host]
	if c == nil {
		burst := int(max(r.bytesPerSecond/5, paceStep))
		c = &clientRate{limiter: rate.NewLimiter(rate.Limit(r.bytesPerSecond), burst)}
		r.of[host] = c
	}
	c.users++
	return c.limiter, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if c.users--; c.users == 0 {
			delete(r.of, host)
		}
	}
}
