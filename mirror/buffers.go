package mirror

import (
	"sync"
	"sync/atomic"
)

const (
	// bufferSize is what a fetcher reads at a time, in bytes; smallBuffer when
	// there is little to read or many do, and what is sent from memory at a
	// time, so that a thousand slow clients hold little.
	bufferSize  = 256 << 10
	smallBuffer = 16 << 10
	// maxLarge is how many large buffers are lent at a time.
	maxLarge = 40
)

// buffers are lent to fetchers and followers, and reused.
type buffers struct {
	large, small sync.Pool
	lent         atomic.Int64 // large ones
}

// get lends a buffer for size bytes in all.
func (b *buffers) get(size int64) *[]byte {
	if size > smallBuffer {
		if b.lent.Add(1) <= maxLarge {
			return take(&b.large, bufferSize)
		}
		b.lent.Add(-1)
	}
	return take(&b.small, smallBuffer)
}

// put takes one back.
func (b *buffers) put(buf *[]byte) {
	if len(*buf) == smallBuffer {
		b.small.Put(buf)
		return
	}
	b.lent.Add(-1)
	b.large.Put(buf)
}

func take(pool *sync.Pool, size int) *[]byte {
	if buf, ok := pool.Get().(*[]byte); ok {
		return buf
	}
	buf := make([]byte, size)
	return &buf
}
