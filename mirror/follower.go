package mirror

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/larder-registry/larder/internal/oci"
	"github.com/larder-registry/larder/store"
)

// worthOpening is how many bytes have to be ready to be sent from a descriptor
// of the follower's own, by sendfile.
const worthOpening = 64 << 10

// follower reads a blob while its fill brings it in. It implements oci.Blob,
// for one goroutine; only quit may be called from another.
type follower struct {
	f       *fill
	unhook  func() bool // lets go of the request's context
	release func()      // lets go of the ingest's descriptor
	file    *os.File    // a descriptor of its own, once there is much to send
	once    sync.Once

	// Guarded by f.mu.
	off  int64
	gone bool  // the request is over
	grow int64 // bytes fetched for this follower's last demand

	// After the fill spilled the follower goes on by itself, from upstream.
	tail   *passage
	onward opener
}

// join adds a follower, also before the fill is opened, so that it cannot end
// for want of one. wantsAll says that the request is for the whole blob, ranged
// that it is one for a range nevertheless. ok is
// false when the fill is ending: wait for done and start another. asked is true
// for the request that a fill was started ahead of.
func (f *fill) join(wantsAll, ranged bool) (ok, asked bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil || f.spill != nil {
		return false, false
	}
	f.followers++
	f.idleSince = time.Time{}
	f.whole = f.whole || wantsAll
	f.scattered = f.scattered || ranged
	f.m.metrics.followers.Inc()
	if f.lead == nil {
		return true, false
	}
	lead := f.lead
	f.lead = nil
	f.plan()
	f.changed.Broadcast()
	f.m.ahead.asked()
	// Ends at once; the locks held here come after the lead's.
	f.m.tasks.run(func(context.Context) { lead.asked() })
	return true, true
}

// leave removes a follower. A fill nobody follows goes on to its end if
// somebody wanted all of it, so that a retry finds it; else it stops at the end
// of the segments being fetched.
func (f *fill) leave() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.followers--
	f.m.metrics.followers.Dec()
	if f.followers > 0 || f.verified || f.ended {
		return
	}
	f.idleSince = time.Now()
	if f.whole {
		time.AfterFunc(f.m.finishTimeout, f.abandon)
	}
	f.changed.Broadcast()
}

// abandon fails the fill if nobody has followed it for the finish timeout.
func (f *fill) abandon() {
	f.mu.Lock()
	alone := !f.idleSince.IsZero() && time.Since(f.idleSince) >= f.m.finishTimeout
	f.mu.Unlock()
	if alone {
		f.fail(errAbandoned)
	}
}

// follow opens a follower of an opened fill that the caller has joined. A done
// ctx ends its waiting.
func (f *fill) follow(ctx context.Context) (*follower, error) {
	release, ok := f.ingest.Acquire()
	if !ok {
		return nil, fmt.Errorf("follow fill of %s: %w", f.dgst, store.ErrClosed)
	}
	fw := &follower{f: f, release: release, onward: f.m.opener(ctx, f.name, f.dgst)}
	fw.unhook = context.AfterFunc(ctx, func() {
		f.mu.Lock()
		fw.gone = true
		f.changed.Broadcast()
		f.mu.Unlock()
	})
	return fw, nil
}

// Descriptor is complete: a fill is opened once its size is known.
func (fw *follower) Descriptor() oci.Descriptor {
	return oci.Descriptor{Digest: fw.f.dgst, Size: fw.f.size}
}

// Seek moves to any offset, whether its bytes have arrived or not.
func (fw *follower) Seek(offset int64, whence int) (int64, error) {
	fw.f.mu.Lock()
	defer fw.f.mu.Unlock()
	pos, err := seek(fw.off, fw.f.size, offset, whence)
	if err != nil {
		return 0, err
	}
	if pos != fw.off && fw.tail != nil {
		_ = fw.tail.Close()
		fw.tail = nil
	}
	fw.off = pos
	return pos, nil
}

// Read waits until the byte it stands at has arrived.
func (fw *follower) Read(p []byte) (int, error) {
	ready, err := fw.await()
	if err != nil {
		return 0, err
	}
	if ready == 0 {
		return fw.readTail(p)
	}
	n, err := fw.f.ingest.ReadAt(p[:min(int64(len(p)), ready)], fw.off)
	fw.advance(int64(n))
	if n > 0 {
		return n, nil
	}
	if err != nil && !fw.detour(err) {
		return 0, err
	}
	return fw.readTail(p)
}

// SendTo copies n bytes to w as they arrive, from the file by sendfile where
// the system can. It fails like Read when they never will.
func (fw *follower) SendTo(w io.Writer, n int64) (int64, error) {
	var sent int64
	for sent < n {
		ready, err := fw.await()
		if err != nil {
			return sent, err
		}
		if ready == 0 {
			k, err := io.CopyN(w, readerFunc(fw.readTail), n-sent)
			return sent + k, err
		}
		k, err := fw.send(w, min(ready, n-sent))
		fw.advance(k)
		sent += k
		if err != nil && !fw.detour(err) {
			return sent, err
		}
	}
	return sent, nil
}

// send copies n bytes that are held. A little goes through memory, above all a
// blob's first bytes, for which nobody waits until a file is opened.
func (fw *follower) send(w io.Writer, n int64) (int64, error) {
	if fw.file == nil && n >= worthOpening {
		// An ingest that was aborted cannot be opened, but still be read.
		fw.file, _ = fw.f.ingest.Open()
	}
	if fw.file == nil {
		buf := fw.f.m.buffers.get(smallBuffer)
		defer fw.f.m.buffers.put(buf)
		part := (*buf)[:min(int64(len(*buf)), n)]
		k, err := fw.f.ingest.ReadAt(part, fw.off)
		if k == 0 {
			return 0, err
		}
		k, err = w.Write(part[:k])
		return int64(k), err
	}
	if _, err := fw.file.Seek(fw.off, io.SeekStart); err != nil {
		return 0, fmt.Errorf("seek in ingest: %w", err)
	}
	return io.CopyN(w, fw.file, n)
}

// detour has the follower go on from upstream after its disk failed to give
// back what was written; it reports false when err is no such failure. What it
// reads from there on was not hashed with what came before: only the client can
// verify it.
func (fw *follower) detour(err error) bool {
	if !errors.Is(err, syscall.EIO) && !errors.Is(err, io.EOF) {
		return false
	}
	fw.f.spilled(fmt.Errorf("read back: %w", err))
	fw.tail = newPassage(fw.f.dgst, fw.f.size, fw.onward)
	fw.tail.off = fw.off
	return true
}

// Close ends the follower's part in the fill.
func (fw *follower) Close() error {
	var err error
	fw.once.Do(func() {
		fw.unhook()
		if fw.tail != nil {
			err = fw.tail.Close()
		}
		if fw.file != nil {
			err = errors.Join(err, fw.file.Close())
		}
		fw.release()
		fw.f.leave()
	})
	return err
}

// await returns how many bytes can be read where the follower stands, waiting
// until it is at least one; 0 when the rest has to come by readTail. The last
// byte of the blob is there only once the digest was found right.
func (fw *follower) await() (int64, error) {
	f := fw.f
	f.mu.Lock()
	defer f.mu.Unlock()
	defer fw.undemand()
	for {
		if fw.off >= f.size {
			return 0, io.EOF
		}
		if fw.tail != nil {
			return 0, nil
		}
		end := f.held.run(fw.off)
		if !f.verified && end == f.size {
			end--
		}
		switch {
		case end > fw.off:
			return end - fw.off, nil
		case fw.gone:
			return 0, context.Canceled
		case f.ended && f.spill != nil:
			return 0, nil
		case f.ended || (f.err != nil && f.spill == nil):
			return 0, fmt.Errorf("%w: %w", io.ErrUnexpectedEOF, f.err)
		}
		fw.demand()
		f.changed.Wait()
	}
}

// demand asks the fill for the byte the follower stands at. Waiting for the
// last byte means waiting for all of them. The caller holds f.mu.
func (fw *follower) demand() {
	f := fw.f
	if fw.off == f.size-1 {
		f.whole = true
	}
	if !slices.Contains(f.demands, fw) {
		f.demands = append(f.demands, fw)
	}
	f.plan()
}

// undemand withdraws what demand asked. The caller holds f.mu.
func (fw *follower) undemand() {
	f := fw.f
	if i := slices.Index(f.demands, fw); i >= 0 {
		f.demands = slices.Delete(f.demands, i, i+1)
	}
}

// nextSegment returns how many bytes to fetch for a demand: more each time.
func (fw *follower) nextSegment() int64 {
	fw.grow = min(max(segment, 2*fw.grow), maxSegment)
	return fw.grow
}

// advance moves the follower on.
func (fw *follower) advance(n int64) {
	fw.f.mu.Lock()
	fw.off += n
	fw.f.mu.Unlock()
}

// readTail reads from upstream what the fill could not keep.
func (fw *follower) readTail(p []byte) (int, error) {
	if fw.tail == nil {
		fw.tail = fw.f.passage(fw.off, fw.onward)
	}
	n, err := fw.tail.Read(p)
	fw.advance(int64(n))
	return n, err
}

// readerFunc is a Read without the other methods, so that io.Copy does not
// find a way around it.
type readerFunc func([]byte) (int, error)

func (r readerFunc) Read(p []byte) (int, error) { return r(p) }

// seek computes what io.Seeker's Seek returns.
func seek(now, size, offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += now
	case io.SeekEnd:
		offset += size
	}
	if offset < 0 {
		return 0, errors.New("seek before the start of the blob")
	}
	return offset, nil
}
