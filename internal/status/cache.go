package status

import (
	"sync"
	"time"
)

// Cache keeps what is dear to find out while somebody looks at it: for at least
// For, and at least 20 times as long as finding it out took, so that looking
// never takes more than a twentieth of one processor. Nobody having looked for
// some time, it lets go of the memory. It is for any goroutine.
type Cache[T any] struct {
	For time.Duration

	mu     sync.Mutex
	value  *T
	until  time.Time
	forget *time.Timer
}

// Get gives what find found a moment ago, or calls it. Of several who come at
// once, one finds out and all wait.
func (c *Cache[T]) Get(find func() T) T {
	c.mu.Lock()
	defer c.mu.Unlock()
	began := time.Now()
	if c.value == nil || began.After(c.until) {
		value := find()
		c.value = &value
		took := time.Since(began)
		c.until = began.Add(took + max(c.For, 20*took))
		if c.forget != nil {
			c.forget.Stop()
		}
		var self *time.Timer
		self = time.AfterFunc(2*time.Until(c.until)+time.Minute, func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			if c.forget == self {
				c.value = nil
			}
		})
		c.forget = self
	}
	return *c.value
}
