// Package central is a registry that holds images of its own: it takes pushes,
// answers pulls, lists, deletes, and cleans up behind its users.
//
// It is an oci.Reader, oci.Lister, oci.Uploader and oci.Writer; who may do what
// is decided before it is asked (central/auth), and the HTTP form of it all is
// in internal/ociserver. It stands on two interfaces of its own, [Ledger] for
// what is said about content and [Content] for the bytes; package store has both
// for one data directory, and object storage could have them for many replicas.
//
// What it promises: a digest is always checked before content can be seen;
// what was acknowledged is on disk; content is seen only through a repository
// that holds it; an image manifest is taken only when everything it is made of
// is there. Every change is one record made, swapped or removed, in an order
// that a crash can cut anywhere and leave garbage, never a reference to nothing:
// keys.go has the records and the order, collect.go takes the garbage away.
//
// It refuses Docker's schema 1, image manifests over 4 MiB, content that no
// repository holds (also for callers who know its digest), and what would break
// a quota or fill the disk; pulls go on then.
//
// Where to look: pull.go and referrers.go (reading), upload.go, receive.go and
// uploadstate.go (blobs coming in), link.go (who holds what), manifest.go and
// tag.go (image manifests), delete.go, collect.go, sweep.go and retention.go (garbage), quota.go,
// backup.go.
package central

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"

	"github.com/larder-registry/larder/internal/oci"
	"github.com/larder-registry/larder/store"
)

// Ledger keeps records: small values under keys. Each change is one record, is
// made only if nobody else was first (store.ErrConflict), and is on disk when it
// returns. store.Ledger is one.
type Ledger interface {
	// Get fails with store.ErrNoRecord.
	Get(ctx context.Context, key string) (store.Record, error)
	Create(ctx context.Context, key string, value []byte) error
	Swap(ctx context.Context, key string, value []byte, old string) error
	Delete(ctx context.Context, key, old string) error
	// List returns records in the order of their keys: those that start with
	// prefix and come after the key after, at most n (n < 0: all).
	List(ctx context.Context, prefix, after string, n int) ([]store.Record, error)
	// Each calls f with every record, as they all were at one moment.
	Each(ctx context.Context, f func(store.Record) error) error
}

// Content keeps bytes: what is committed, under its digest. store.Depot is one.
type Content interface {
	// Open and Stat fail with oci.ErrBlobUnknown.
	Open(dgst digest.Digest) (oci.Blob, error)
	Stat(dgst digest.Digest) (oci.Kept, error)
	// Commit makes a draft that is closed and synced the content of dgst.
	// Content that is there already counts as committed now.
	Commit(id string, dgst digest.Digest) error
	Remove(dgst digest.Digest) error
	Each(ctx context.Context, f func(oci.Kept) error) error
}

// Drafts keeps bytes that are still coming in, under ids. store.Depot is one.
type Drafts interface {
	// Draft opens a draft; fs.ErrNotExist when there is none and create is not
	// set.
	Draft(id string, create bool) (oci.Draft, error)
	Discard(id string) error
	// Drafts gives the time of the last change of each.
	Drafts() (map[string]time.Time, error)
	// Free is how many bytes drafts may still take.
	Free() (int64, error)
}

// Config is what a Central is made of. Ledger, Content and Drafts are required.
type Config struct {
	Ledger  Ledger
	Content Content
	Drafts  Drafts
	// Immutable says which tags must not move once they are set.
	Immutable []TagRule
	// Quotas bound what repositories hold.
	Quotas []Quota
	// Retention says what goes although nobody deleted it.
	Retention []Retention
	// Grace is how long content stays that no image manifest refers to; zero
	// means 24 hours. It has to be longer than the longest push.
	Grace time.Duration
	// CollectEvery is how often garbage is collected; zero means hourly, less
	// than zero never.
	CollectEvery time.Duration
	// UploadAge is how long an upload is kept that nothing is added to; zero
	// means 24 hours.
	UploadAge time.Duration
	// SparseIndexes takes indexes some of whose image manifests are missing.
	SparseIndexes bool
	// Log receives what Central does on its own; nil discards it.
	Log *logrus.Entry
	// Registerer gets the metrics; nil keeps them unseen.
	Registerer prometheus.Registerer

	// now stands in for the clock in tests.
	now func() time.Time
}

// Central is the registry. Its methods may be called from any goroutine.
type Central struct {
	cfg     Config
	ledger  Ledger
	content Content
	drafts  Drafts
	log     *logrus.Entry
	metrics *metrics
	now     func() time.Time

	// digests serialises what makes content referred to, and what removes it;
	// repositories what changes the image manifests and tags of one. The
	// latter is taken first.
	digests, repositories locks
	// collecting is held by who removes content, and by who copies all of it.
	collecting sync.Mutex

	mu     sync.Mutex
	active map[string]bool // drafts that a request is using
	pulled map[string]int64
	used   []int64 // bytes held under each quota

	buffers sync.Pool // of *[]byte, receiveChunk long
}

// New makes a Central over what is there. It reads the ledger when there are
// quotas, for which ctx governs this call.
func New(ctx context.Context, cfg Config) (*Central, error) {
	if cfg.Ledger == nil || cfg.Content == nil || cfg.Drafts == nil {
		return nil, errors.New("make central: ledger, content and drafts are required")
	}
	if cfg.Log == nil {
		silent := logrus.New()
		silent.SetOutput(io.Discard)
		cfg.Log = logrus.NewEntry(silent)
	}
	if cfg.now == nil {
		cfg.now = time.Now
	}
	setDefault(&cfg.Grace, 24*time.Hour)
	setDefault(&cfg.CollectEvery, time.Hour)
	setDefault(&cfg.UploadAge, 24*time.Hour)
	c := &Central{
		cfg: cfg, ledger: cfg.Ledger, content: cfg.Content, drafts: cfg.Drafts,
		log: cfg.Log, metrics: newMetrics(cfg.Registerer, cfg.Drafts.Free), now: cfg.now,
		digests: newLocks(), repositories: newLocks(),
		active: map[string]bool{}, pulled: map[string]int64{},
	}
	c.buffers.New = func() any { b := make([]byte, receiveChunk); return &b }
	if err := c.measure(ctx); err != nil {
		return nil, fmt.Errorf("make central: %w", err)
	}
	return c, nil
}

func setDefault(d *time.Duration, to time.Duration) {
	if *d == 0 {
		*d = to
	}
}

const (
	// flushEvery is how often it is written what was pulled when.
	flushEvery = time.Minute
	// firstCollection is when garbage is collected first, at the latest.
	firstCollection = 10 * time.Minute
)

// Run collects garbage and writes down what was pulled, until ctx ends. Then it
// writes a last time and returns.
func (c *Central) Run(ctx context.Context) {
	flush := time.NewTicker(flushEvery)
	defer flush.Stop()
	// Soon after the start, for processes that are started often.
	collect := time.NewTimer(min(c.cfg.CollectEvery, firstCollection))
	defer collect.Stop()
	if c.cfg.CollectEvery < 0 {
		collect.Stop()
	}
	for {
		select {
		case <-ctx.Done():
			// What can be written is; nothing else hangs on it.
			c.flushPulled(context.WithoutCancel(ctx))
			return
		case <-flush.C:
			c.flushPulled(ctx)
		case <-collect.C:
			if _, err := c.Collect(ctx, false); err != nil && ctx.Err() == nil {
				c.log.WithError(err).Warn("garbage was not collected")
			}
			collect.Reset(c.cfg.CollectEvery)
		}
	}
}

// Degraded returns nil, or why nothing can be pushed just now.
func (c *Central) Degraded() error {
	free, err := c.drafts.Free()
	if err == nil && free == 0 {
		err = oci.ErrInsufficientStorage
	}
	return err
}

// locks are mutexes by name, some names sharing one.
type locks struct {
	seed  maphash.Seed
	mutex *[256]sync.Mutex
}

func newLocks() locks { return locks{maphash.MakeSeed(), new([256]sync.Mutex)} }

// lock takes the mutex of a name and returns what gives it back.
func (l locks) lock(name string) (unlock func()) {
	m := &l.mutex[maphash.String(l.seed, name)%uint64(len(l.mutex))]
	m.Lock()
	return m.Unlock
}

// noRoom turns a full disk into what clients are told of it.
func noRoom(err error) error {
	if errors.Is(err, store.ErrNoSpace) {
		return fmt.Errorf("%w (%w)", oci.ErrInsufficientStorage, err)
	}
	return err
}
