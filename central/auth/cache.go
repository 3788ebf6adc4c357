package auth

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"sync"
	"time"
)

// cache remembers answers for a while, under keyed hashes: whoever reads the
// memory of the process finds no password and no token in it. It holds at most
// a set number; when it is full, an arbitrary entry goes.
type cache[T any] struct {
	most int
	now  func() time.Time

	mu      sync.Mutex
	entries map[cacheKey]cached[T]
}

type cacheKey [sha256.Size]byte

type cached[T any] struct {
	value T
	until time.Time
}

func newCache[T any](most int, now func() time.Time) *cache[T] {
	return &cache[T]{most: most, now: now, entries: map[cacheKey]cached[T]{}}
}

// keyOf hashes parts with a secret. Lengths go in too, so that no two lists of
// parts are alike.
func keyOf(secret []byte, parts ...string) cacheKey {
	mac := hmac.New(sha256.New, secret)
	var length [8]byte
	for _, part := range parts {
		binary.BigEndian.PutUint64(length[:], uint64(len(part)))
		mac.Write(length[:])
		mac.Write([]byte(part))
	}
	return cacheKey(mac.Sum(nil))
}

// get finds what is remembered and not too old.
func (c *cache[T]) get(key cacheKey) (value T, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.entries[key]
	if !ok {
		return value, false
	}
	if !c.now().Before(e.until) {
		delete(c.entries, key)
		return value, false
	}
	return e.value, true
}

// put remembers value for as long as d.
func (c *cache[T]) put(key cacheKey, value T, d time.Duration) {
	if d <= 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, there := c.entries[key]; !there && len(c.entries) >= c.most {
		c.makeRoom()
	}
	c.entries[key] = cached[T]{value, c.now().Add(d)}
}

// makeRoom drops what is too old, or else any one entry.
func (c *cache[T]) makeRoom() {
	now := c.now()
	looked := 0
	for key, e := range c.entries {
		if looked++; looked > 64 {
			break
		}
		if !now.Before(e.until) {
			delete(c.entries, key)
		}
	}
	if len(c.entries) < c.most {
		return
	}
	for key := range c.entries {
		delete(c.entries, key)
		return
	}
}
