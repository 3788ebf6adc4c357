package mirror

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/internal/oci"
	"github.com/larder-registry/larder/store"
)

// hashStep bounds how much is hashed before a fill looks around again, and
// saveEvery how much may arrive before its state is written beside its data.
// Both in bytes.
const (
	hashStep  = 4 << 20
	saveEvery = 4 << 20
)

// errAbandoned ends a fill that nobody has read from for the finish timeout.
var errAbandoned = errors.New("fill abandoned by its followers")

// fill brings one blob in. It is owned by the mirror, not by the request that
// started it: every request, the first included, is a follower.
//
// Its own goroutine (run) opens the upstream, hashes what arrives in order,
// verifies and commits. Fetchers (fetch.go) are goroutines that write what an
// upstream sends into the ingest; which bytes are fetched next is decided in
// plan.go. Followers (follower.go) wait on changed and read what is held.
type fill struct {
	m    *Mirror
	name oci.Name // the repository whose request started it
	dgst digest.Digest

	// opened is closed once size and ingest are known, or err is set; done
	// when the fill is over and forgotten.
	opened, done chan struct{}
	// cancel ends the fill's goroutines.
	cancel context.CancelFunc

	// Written before opened is closed, read-only afterwards.
	size    int64
	ingest  *store.Ingest // nil: cannot be kept, see unkept
	unkept  error         // why every request passes through instead
	resumed bool          // bytes of an earlier life are part of it

	mu       sync.Mutex
	changed  sync.Cond // on mu; told at every change below
	held     spans
	unsaved  int64 // bytes that arrived since the state was saved
	verified bool
	ended    bool // run is over: nothing more will arrive
	err      error
	spill    error // the ingest failed to take bytes; followers go on upstream
	// Once ended by a spill: the hash of the first prefixLen bytes, which a
	// follower that goes on upstream from there needs to verify the rest.
	prefix    hash.Hash
	prefixLen int64

	followers int
	idleSince time.Time // when the last follower left; zero while there is one
	whole     bool      // somebody wants all of it, so it is finished even when alone
	noRange   bool      // the upstream ignores Range: one stream, from the start
	demands   []*follower
	fetchers  []*fetcher
	resumes   int // requests made after a stream broke
	fetching  sync.WaitGroup
	// launch starts a fetcher; nil before the fill is opened.
	launch func(*fetcher, oci.Body)
}

func newFill(m *Mirror, name oci.Name, dgst digest.Digest) *fill {
	f := &fill{m: m, name: name, dgst: dgst, opened: make(chan struct{}), done: make(chan struct{})}
	f.changed.L = &f.mu
	return f
}

// run is the life of the fill. It ends when the blob is committed, when the
// fill failed or was abandoned, or when ctx is done; bytes that arrived and
// were not found wrong stay on disk, to be resumed.
func (f *fill) run(ctx context.Context, want oci.Span) {
	ctx, cancel := context.WithCancel(ctx)
	f.cancel = cancel
	defer cancel()
	wake := context.AfterFunc(ctx, f.wake)
	defer wake()

	body, err := f.open(ctx, want)
	if err != nil {
		f.fail(err)
	}
	close(f.opened)
	if err == nil && f.ingest != nil {
		f.start(ctx, body)
		f.hash(ctx)
	}
	f.finish(ctx)
}

// open asks the upstream for the wanted bytes and the store for a place to
// keep the blob, both at once when the size is known from its image manifest. A
// partial ingest of an earlier life is resumed: then only what it lacks is asked
// for, and nothing at all when it lacks nothing.
func (f *fill) open(ctx context.Context, want oci.Span) (oci.Body, error) {
	if size, ok := f.m.store.Partial(f.dgst); ok && f.reserve(ctx, size) == nil {
		if want = f.gapFor(want.Start); want.Len() == 0 {
			return oci.Body{}, nil
		}
		return f.request(ctx, want)
	}
	size := f.m.sizes.recall(f.name, f.dgst)
	if size >= 0 && f.m.store.Degraded() != nil && f.reserve(ctx, size) != nil {
		// It cannot be kept, so it is not asked for here: each request will.
		f.unkept = store.ErrNoSpace
		return oci.Body{}, nil
	}
	var reserving sync.WaitGroup
	if size >= 0 && f.ingest == nil {
		reserving.Go(func() { f.unkept = f.reserve(ctx, size) })
	}
	body, err := f.m.upstream.Blob(ctx, f.name, f.dgst, want)
	reserving.Wait()
	if err != nil {
		return oci.Body{}, err
	}
	f.noRange = body.Offset < want.Start
	switch {
	case size < 0:
		if size, err = f.m.sizeOf(ctx, f.name, f.dgst, body); err == nil {
			f.unkept = f.reserve(ctx, size)
		}
	case body.Size >= 0 && body.Size != size:
		err = oci.Errorf(oci.ErrSizeInvalid, "upstream says %s has %d bytes, the image manifest says %d", f.dgst, body.Size, size)
	}
	if err == nil && f.unkept == nil {
		return body, nil
	}
	closeBody(body)
	return oci.Body{}, err
}

// reserve makes a place for size bytes, or says why there is none.
func (f *fill) reserve(ctx context.Context, size int64) error {
	f.size = size
	ingest, err := f.m.store.Ingest(ctx, f.dgst, size)
	if err != nil {
		return err
	}
	f.ingest = ingest
	for _, s := range ingest.Held() {
		f.held = f.held.add(s)
	}
	f.resumed = len(f.held) > 0
	return nil
}

// gapFor returns the missing run of bytes to ask for first when somebody wants
// off: the one at off, else the first there is; empty when nothing is missing.
func (f *fill) gapFor(off int64) oci.Span {
	if off < 0 || off >= f.size {
		off = 0
	}
	start := f.held.run(off)
	if start == f.size {
		start = f.held.run(0)
	}
	return oci.Span{Start: start, End: f.held.next(start, f.size)}
}

// hash follows the arriving bytes in order until the blob is complete and
// verified, or the fill is over.
func (f *fill) hash(ctx context.Context) {
	var hashed int64
	for {
		to, ok := f.awaitHashable(ctx, hashed)
		if !ok {
			return
		}
		f.saveState(false)
		if hashed == f.size {
			f.verify(ctx)
			return
		}
		if err := f.ingest.Hash(ctx, to); err != nil {
			if ctx.Err() == nil {
				f.spilled(err)
			}
			return
		}
		hashed = to
	}
}

// awaitHashable waits until bytes after hashed can be hashed, or all have
// been; ok is false when the fill is over instead.
func (f *fill) awaitHashable(ctx context.Context, hashed int64) (to int64, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for {
		if f.err != nil || f.spill != nil || ctx.Err() != nil {
			return 0, false
		}
		if to = min(f.held.run(hashed), hashed+hashStep); to > hashed || hashed == f.size {
			return to, true
		}
		if f.followers == 0 && len(f.fetchers) == 0 && !f.whole {
			// Said under the lock, so that nobody joins a fill that is ending.
			f.err = errAbandoned
			return 0, false
		}
		f.changed.Wait()
	}
}

// verify releases the last byte, then commits.
func (f *fill) verify(ctx context.Context) {
	err := f.ingest.Verify(ctx)
	if err != nil && !errors.Is(err, oci.ErrDigestInvalid) {
		if ctx.Err() == nil {
			f.spilled(err)
		}
		return
	}
	if err != nil {
		f.m.metrics.mismatches.Inc()
		if !f.resumed {
			// Not the upstream's fault for certain when part of the bytes had
			// lain on this disk.
			f.m.failures.remember(f.name, f.dgst.String(), err)
		}
		f.fail(fmt.Errorf("verify blob %s: %w", f.dgst, err))
		return
	}
	f.mu.Lock()
	f.verified = true
	f.mu.Unlock()
	f.wake()
	// Followers have all they need; what fails from here on only means that
	// the blob is not kept. The commit is not bound to ctx: it is short, and a
	// stopping mirror would throw away a blob that is complete.
	desc, err := f.ingest.Commit(context.WithoutCancel(ctx))
	if err != nil {
		f.m.log.WithError(err).WithField("digest", f.dgst).Warn("blob was served but could not be kept")
		return
	}
	if err := f.m.store.Link(f.name, desc); err != nil {
		f.m.log.WithError(err).WithField("digest", f.dgst).Warn("blob was kept but not noted in the index")
	}
}

// finish stops the fetchers, settles what becomes of the bytes, and lets the
// next request for the blob start afresh.
func (f *fill) finish(ctx context.Context) {
	f.mu.Lock()
	if ctx.Err() != nil && f.err == nil && !f.verified {
		f.err = errClosing
	}
	f.mu.Unlock()
	f.cancel()
	f.fetching.Wait()
	if f.ingest != nil {
		f.settle(context.WithoutCancel(ctx))
	}
	f.mu.Lock()
	f.ended = true
	f.mu.Unlock()
	f.m.fills.forget(f)
	close(f.done)
	f.wake()
}

// settle drops the bytes of a fill that went wrong and keeps those of one that
// was only cut short. Followers hold descriptors of their own.
func (f *fill) settle(ctx context.Context) {
	var err error
	switch {
	case f.spill != nil:
		if f.ingest.Hash(ctx, f.held.run(0)) == nil {
			f.prefix, f.prefixLen = f.ingest.HashClone()
		}
		err = f.ingest.Abort()
	case errors.Is(f.err, oci.ErrDigestInvalid), len(f.held) == 0 && !f.verified:
		err = f.ingest.Abort()
	case !f.verified:
		f.saveState(true)
	}
	log := f.m.log.WithFields(fields(f.name, f.dgst))
	if f.spill != nil {
		log.WithError(f.spill).Warn("blob is passed through, the disk failed")
	}
	if err = errors.Join(err, f.ingest.Close()); err != nil {
		log.WithError(err).Warn("close ingest")
	}
	if f.err != nil && !isRefusal(f.err) && !errors.Is(f.err, errAbandoned) && !errors.Is(f.err, errClosing) {
		log.WithError(f.err).Warn("fill failed")
	}
}

// saveState writes which bytes are held beside the data, when enough arrived
// since the last time or when now is set. Failing to is not fatal: a restart
// then fetches more than it had to.
func (f *fill) saveState(now bool) {
	f.mu.Lock()
	due := f.unsaved >= saveEvery || (now && f.unsaved > 0)
	held := slices.Clone(f.held)
	if due {
		f.unsaved = 0
	}
	f.mu.Unlock()
	if !due {
		return
	}
	if err := f.ingest.SaveHeld(held); err != nil {
		f.m.log.WithError(err).WithFields(fields(f.name, f.dgst)).Debug("save state of ingest")
	}
}

// fail ends the fill with err; the first one counts.
func (f *fill) fail(err error) {
	f.mu.Lock()
	if f.err == nil && !f.verified {
		f.err = err
	}
	f.changed.Broadcast()
	f.mu.Unlock()
}

// failure is why the fill failed, if it has.
func (f *fill) failure() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

// spilled notes that the disk failed the fill: followers go on from upstream.
func (f *fill) spilled(err error) {
	f.mu.Lock()
	if f.spill == nil {
		f.spill = err
	}
	f.changed.Broadcast()
	f.mu.Unlock()
}

// wake tells everybody who waits for the fill to look again.
func (f *fill) wake() {
	f.mu.Lock()
	f.changed.Broadcast()
	f.mu.Unlock()
}

// join adds a follower, also before the fill is opened, so that it cannot end
// for want of one. wantsAll says that the request is for the whole blob. It
// reports false when the fill is ending: wait for done and start another.
func (f *fill) join(wantsAll bool) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil || f.spill != nil {
		return false
	}
	f.followers++
	f.idleSince = time.Time{}
	f.whole = f.whole || wantsAll
	f.m.metrics.followers.Inc()
	return true
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
	} else {
		f.curb()
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
