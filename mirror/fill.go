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
	"github.com/larder-registry/larder/internal/tracing"
	"github.com/larder-registry/larder/store"
)

// hashStep bounds how much is read back and hashed before a fill looks around
// again, hashLag how much a stream reads back to go on hashing from there, and
// saveEvery how much may arrive before the fill's state is written beside its
// data. All in bytes.
const (
	hashStep  = 4 << 20
	hashLag   = 1 << 20
	saveEvery = 4 << 20
)

// errAbandoned ends a fill that nobody has read from for the finish timeout.
var errAbandoned = errors.New("fill abandoned by its followers")

// fill brings one blob in. It is owned by the mirror, not by the request that
// started it: every request, the first included, is a follower.
//
// Its own goroutine (run) opens the upstream (opening.go), hashes what arrives in
// order, verifies and commits. Fetchers (fetch.go) are goroutines that write what an
// upstream sends into the ingest; which bytes are fetched next is decided in
// plan.go. Followers (follower.go) wait on changed and read what is held.
type fill struct {
	m     *Mirror
	name  oci.Name // the repository whose request started it
	grant grant    // on whose behalf the upstream is asked
	dgst  digest.Digest
	span  tracing.Span // followers link to it
	began time.Time

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
	had     int64         // how many those are

	mu       sync.Mutex
	changed  sync.Cond // on mu; told at every change below
	held     spans
	hashed   int64 // the first bytes, which have been hashed
	hashing  bool  // the next ones are being hashed
	unsaved  int64 // bytes that arrived since the state was saved
	verified bool
	ended    bool // run is over: nothing more will arrive
	err      error
	spill    error // the ingest failed to take bytes; followers go on upstream
	// Once ended by a spill: the hash of the first prefixLen bytes, which a
	// follower that goes on upstream from there needs to verify the rest.
	prefix    hash.Hash
	prefixLen int64

	lead *lead // started this fill ahead of any request; nil once one came

	followers int
	idleSince time.Time // when the last follower left; zero while there is one
	whole     bool      // somebody wants all of it, so it is finished even when alone
	noRange   bool      // the upstream ignores Range: one stream, from the start
	scattered bool      // somebody asked for a range, and others may for more
	yielded   int64     // what streams that had to yield may have lost, in bytes
	looking   bool      // plan will be called before long
	demands   []*follower
	fetchers  []*fetcher
	resumes   int // requests made after a stream broke
	fetching  sync.WaitGroup
	// launch starts a fetcher; nil before the fill is opened.
	launch func(*fetcher, oci.Body)
}

// newFill makes a fill that is traced below parent.
func newFill(m *Mirror, g grant, dgst digest.Digest, parent tracing.Span) *fill {
	f := &fill{m: m, name: g.name, grant: g.lasting(), dgst: dgst, began: m.now(), opened: make(chan struct{}), done: make(chan struct{})}
	f.span = startSpan(parent, "fill", g.name, dgst)
	f.changed.L = &f.mu
	return f
}

// run is the life of the fill. It ends when the blob is committed, when the
// fill failed or was abandoned, or when ctx is done; bytes that arrived and
// were not found wrong stay on disk, to be resumed.
func (f *fill) run(ctx context.Context, want oci.Span) {
	ctx, cancel := context.WithCancel(f.span.With(f.grant.with(ctx)))
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

// hash follows the arriving bytes in order until the blob is complete and
// verified, or the fill is over. It leaves what a stream brings in order to the
// stream, which has it at hand (keep), and reads back the rest.
func (f *fill) hash(ctx context.Context) {
	for {
		to, ok := f.awaitHashable(ctx)
		if !ok {
			return
		}
		f.saveState(false)
		if to < 0 {
			f.verify(ctx)
			return
		}
		err := f.ingest.Hash(ctx, to)
		f.mu.Lock()
		f.hashing = false
		if err == nil {
			f.hashed = to
		}
		f.mu.Unlock()
		if err != nil {
			if ctx.Err() == nil {
				f.spilled(err)
			}
			return
		}
	}
}

// awaitHashable waits until there are bytes to hash, and returns up to where; or
// until all have been, and returns -1. ok is false when the fill is over instead.
func (f *fill) awaitHashable(ctx context.Context) (to int64, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for {
		if f.err != nil || f.spill != nil || ctx.Err() != nil {
			return 0, false
		}
		if !f.hashing {
			end := f.held.run(f.hashed)
			switch {
			case f.hashed == f.size:
				return -1, true
			case end > f.hashed && !f.streamedFrom(end), f.unsaved >= f.saveEvery():
				f.hashing = true
				return min(end, f.hashed+hashStep), true
			}
		}
		if f.followers == 0 && len(f.fetchers) == 0 && !f.whole {
			// Said under the lock, so that nobody joins a fill that is ending.
			f.err = errAbandoned
			return 0, false
		}
		f.changed.Wait()
	}
}

// streamedFrom reports whether a stream is about to bring the bytes at off and
// will hash them, with the few before that are not. The caller holds mu.
func (f *fill) streamedFrom(off int64) bool {
	return off-f.hashed <= hashLag && slices.ContainsFunc(f.fetchers, func(ft *fetcher) bool { return ft.pos == off && ft.pos < ft.end })
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
			f.m.failures.remember(f.name, f.dgst.String()+f.grant.key(), err)
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
	if err := f.m.link(f.name, desc); err != nil {
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
	f.mu.Lock()
	failed, spilled, held := f.err, f.spill, f.held
	f.mu.Unlock()
	if f.ingest != nil {
		f.settle(context.WithoutCancel(ctx), failed, spilled, held)
	}
	f.mu.Lock()
	f.ended = true
	f.mu.Unlock()
	f.endSpan()
	f.m.fills.forget(f)
	f.mu.Lock()
	lead := f.lead
	f.lead = nil
	f.mu.Unlock()
	if lead != nil {
		f.m.ahead.asked()
		lead.ended()
	}
	close(f.done)
	f.wake()
}

// settle drops the bytes of a fill that went wrong and keeps those of one that
// was only cut short. Followers keep the descriptor for as long as they read.
func (f *fill) settle(ctx context.Context, failed, spilled error, held spans) {
	var err error
	switch {
	case spilled != nil:
		if f.ingest.Hash(ctx, held.run(0)) == nil {
			f.prefix, f.prefixLen = f.ingest.HashClone()
		}
		err = f.ingest.Abort()
	case errors.Is(failed, oci.ErrDigestInvalid), errors.Is(failed, oci.ErrSizeInvalid), (len(held) == 0 || f.unasked() && held.total() < f.size/20) && !f.verified:
		// A size found wrong may be the one the partial file was made with;
		// a little that nobody asked for is not worth the place of it all.
		err = f.ingest.Abort()
	case !f.verified:
		f.saveState(true)
	}
	log := f.m.log.WithFields(fields(f.name, f.dgst))
	if spilled != nil {
		log.WithError(spilled).Warn("blob is passed through, the disk failed")
	}
	if err = errors.Join(err, f.ingest.Close()); err != nil {
		log.WithError(err).Warn("close ingest")
	}
	if failed != nil && !isRefusal(failed) && !errors.Is(failed, errAbandoned) && !errors.Is(failed, errClosing) {
		log.WithError(failed).Warn("fill failed")
	}
}

// saveEvery is how many bytes may arrive before the state is written.
func (f *fill) saveEvery() int64 { return max(saveEvery, f.size/64) }

// saveState writes which bytes are held beside the data, when enough arrived
// since the last time or when now is set. Failing to is not fatal: a restart
// then fetches more than it had to.
func (f *fill) saveState(now bool) {
	f.mu.Lock()
	due := f.unsaved >= f.saveEvery() || (now && f.unsaved > 0)
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
