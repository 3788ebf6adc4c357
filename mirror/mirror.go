// Package mirror answers pulls of any registry from the node's own disk, and
// fills that disk from the upstream registries as it goes.
//
// A blob or image manifest by digest is immutable: when the store has it, it is
// served without asking anybody. A blob the store lacks is brought in by one
// fill (fill.go), whatever number of requests wait for it; each request follows
// the fill (follower.go) and reads what has arrived. A tag is confirmed with its
// upstream first, and served stale when the upstream cannot be asked
// (freshness.go).
//
// The mirror refuses to wait: what it cannot answer it says at once, because
// the client then goes to the upstream by itself. It never serves bytes it knows
// to be wrong and never ends a blob short as if it were complete.
//
// Package store keeps the content, mirror/upstream speaks to the upstreams, and
// internal/ociserver puts HTTP in front.
package mirror

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"

	"github.com/larder-registry/larder/internal/oci"
	"github.com/larder-registry/larder/store"
)

// Upstream is what the mirror needs of the registries behind it. Errors are of
// the kinds in package oci: Err…Unknown when the upstream says there is no such
// thing, ErrUnauthorized and ErrDenied when it refuses, ErrTooManyRequests and
// ErrUnavailable when it cannot be asked. ctx bounds the call, and the body that
// comes of it; it carries an oci.Approach, whose Heard is told how the registry
// let the question in: a repository nobody is told about is served to nobody.
type Upstream interface {
	// Resolve asks what ref is now (HEAD).
	Resolve(ctx context.Context, ref oci.Reference) (oci.Descriptor, error)
	// Manifest fetches the image manifest or index, bounded and verified.
	Manifest(ctx context.Context, ref oci.Reference) (oci.Manifest, error)
	// StatBlob asks for a blob's size, -1 if the upstream does not say.
	StatBlob(ctx context.Context, name oci.Name, dgst digest.Digest) (oci.Descriptor, error)
	// Blob asks for the bytes of want; an End of -1 is the blob's end. The
	// answer may start elsewhere: see oci.Body. The caller closes the body.
	Blob(ctx context.Context, name oci.Name, dgst digest.Digest, want oci.Span) (oci.Body, error)
	// Referrers lists what refers to dgst.
	Referrers(ctx context.Context, name oci.Name, dgst digest.Digest, artifactType string) (oci.Manifest, error)
}

// Config is what a Mirror is made of. Store and Upstream are required; the zero
// value of the rest works.
type Config struct {
	Store    *store.Store
	Upstream Upstream
	// Offline: never contact an upstream.
	Offline bool
	// RevalidateAfter is how long a tag is served without asking the upstream
	// again; zero asks each time.
	RevalidateAfter time.Duration
	// RevalidateTimeout is how long the request for a tag that is held waits
	// for the upstream's word before the tag is served stale; the asking goes
	// on meanwhile. 800 ms if zero.
	RevalidateTimeout time.Duration
	// StaleIfError is how long after it was last confirmed a tag is served
	// while the upstream cannot be asked. Seven days if zero; negative for never.
	StaleIfError time.Duration
	// FinishTimeout is how long a fill goes on after its last follower left.
	// Ten minutes if zero.
	FinishTimeout time.Duration
	// PrivateImages says what becomes of requests for content that its upstream
	// does not give to everybody: one of the Private… constants;
	// PrivateChallenge if empty.
	PrivateImages string
	// ProofTTL is how long a caller whose credentials the upstream let in may
	// have what the repository holds, before the upstream is asked again: ten
	// minutes if zero. ProofGrace is how long that lasts while the upstream
	// cannot be asked: 24 hours if zero, negative for never.
	ProofTTL, ProofGrace time.Duration
	// NodeAccess reports whether what the credentials configured for a
	// repository fetch is for everybody whom the listener admits. Nil: always.
	NodeAccess func(oci.Name) bool
	// FillRate bounds what is fetched of blobs from all upstreams together, in
	// bytes a second; zero for no bound.
	FillRate int64
	// BlobStreams is how many streams bring in one large blob at most; 8 if
	// zero, 1 for never more than one.
	BlobStreams int
	// PrefetchWait is how long blobs that an image manifest lists are kept
	// coming before a client that was given it asks for any; zero or less
	// starts nothing before it is asked for.
	PrefetchWait time.Duration
	// Log takes what needs looking at; nil discards it.
	Log *logrus.Entry
	// Registerer takes the metrics; nil for none.
	Registerer prometheus.Registerer
	// Label bounds the values of the registry label; nil passes all.
	Label func(registry string) string
	// Now is the clock that ages are taken from; time.Now if nil.
	Now func() time.Time
}

// Mirror is a pull-through caching registry. It implements oci.Reader and
// oci.Lister, for any number of goroutines.
type Mirror struct {
	store    *store.Store
	upstream Upstream
	log      *logrus.Entry
	now      func() time.Time

	offline           bool
	revalidateAfter   time.Duration
	revalidateTimeout time.Duration
	staleIfError      time.Duration
	finishTimeout     time.Duration
	prefetchWait      time.Duration
	blobStreams       int

	gate      *gate
	bypassed  bypassed
	ahead     ahead
	streams   streams
	fills     fills
	checks    checks
	referrers referrers
	failures  *failures
	sizes     sizes
	manifests manifests
	buffers   buffers
	metrics   *metrics

	tasks tasks
}

// New returns a mirror that the caller closes.
func New(cfg Config) (*Mirror, error) {
	if cfg.Store == nil || cfg.Upstream == nil {
		return nil, errors.New("new mirror: a store and an upstream are required")
	}
	m := &Mirror{
		store:             cfg.Store,
		upstream:          pace(cfg.Upstream, cfg.FillRate),
		log:               cfg.Log,
		now:               cfg.Now,
		offline:           cfg.Offline,
		revalidateAfter:   cfg.RevalidateAfter,
		revalidateTimeout: orElse(cfg.RevalidateTimeout, 800*time.Millisecond),
		staleIfError:      orElse(cfg.StaleIfError, 7*24*time.Hour),
		finishTimeout:     orElse(cfg.FinishTimeout, 10*time.Minute),
		prefetchWait:      cfg.PrefetchWait,
		blobStreams:       cfg.BlobStreams,
	}
	if m.log == nil {
		quiet := logrus.New()
		quiet.SetOutput(io.Discard)
		m.log = logrus.NewEntry(quiet)
	}
	if m.now == nil {
		m.now = time.Now
	}
	if m.blobStreams == 0 {
		m.blobStreams = 8
	}
	m.streams.now = time.Now
	m.failures = newFailures(m.now)
	m.metrics = newMetrics(cfg.Registerer, cfg.Label, cfg.Store, func() map[string]int { return m.bypassed.count(m.now()) })
	var err error
	if m.gate, err = newGate(m, cfg); err != nil {
		return nil, fmt.Errorf("new mirror: %w", err)
	}
	m.tasks.start()
	return m, nil
}

// Close stops the fills, whose partial files stay resumable, and waits for them
// until ctx is done. Requests still being answered are cut.
func (m *Mirror) Close(ctx context.Context) error {
	return m.tasks.stop(ctx)
}

func orElse(d, otherwise time.Duration) time.Duration {
	if d == 0 {
		return otherwise
	}
	return d
}

// fields are what every log line about a piece of content carries.
func fields(name oci.Name, dgst digest.Digest) logrus.Fields {
	return logrus.Fields{"registry": name.Registry, "repository": name.Repository, "digest": dgst.String()}
}

// tasks are the goroutines that outlive the request that needed them.
type tasks struct {
	spawn  func(func(context.Context))
	cancel context.CancelFunc
	mu     sync.Mutex // so that nothing is spawned while stop waits
	closed bool
	group  sync.WaitGroup
}

// start makes spawn usable. Every task ends when it is done, or soon after its
// ctx is, which stop brings about.
func (t *tasks) start() {
	ctx, cancel := context.WithCancel(context.Background())
	t.cancel = cancel
	t.spawn = func(task func(context.Context)) { t.group.Go(func() { task(ctx) }) }
}

// run starts task, which must return soon after its ctx is done. It reports
// false when the mirror is closing.
func (t *tasks) run(task func(context.Context)) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.closed {
		t.spawn(task)
	}
	return !t.closed
}

// stop ends every task and waits for them until ctx is done.
func (t *tasks) stop(ctx context.Context) error {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	t.cancel()
	done := make(chan struct{})
	// Ends with the last task.
	go func() {
		t.group.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
